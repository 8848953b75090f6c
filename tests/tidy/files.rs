//! The files of the repository, and lists of exceptions.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a directory of the repository, as (path from its root, text), sorted; without build output and
/// binary files.
pub fn texts(dir: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    collect(&root().join(dir), &mut found);
    found.sort();
    found
}

fn collect(dir: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(dir).expect("readable") {
        let path = entry.expect("readable").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if path.is_dir() {
            if !name.starts_with('.') && !["target", "corpus", "artifacts", "__pycache__"].contains(&&*name) {
                collect(&path, found);
            }
        } else if let Ok(text) = fs::read_to_string(&path) {
            let relative = path.strip_prefix(root()).expect("below the root");
            found.push((relative.to_string_lossy().into_owned(), text));
        }
    }
}

/// The files of these directories with this extension.
pub fn with_extension(dirs: &[&str], extension: &str) -> Vec<(String, String)> {
    let dot = format!(".{extension}");
    dirs.iter().flat_map(|dir| texts(dir)).filter(|(path, _)| path.ends_with(&dot)).collect()
}

/// The directories with Rust code.
pub const RUST: [&str; 5] = ["src", "tests", "benches", "examples", "fuzz"];

/// Fails with violations of a rule that are no exceptions, and with exceptions that are not needed any more: lists of
/// exceptions only shrink. `found` maps the name of an exception to a line for the reader; `rule` says what to do.
pub fn check_with_exceptions(rule: &str, found: &BTreeMap<String, String>, exceptions: &[&str]) {
    let wrong: Vec<_> =
        found.iter().filter(|(key, _)| !exceptions.contains(&key.as_str())).map(|(_, line)| line).collect();
    assert!(wrong.is_empty(), "{rule}:\n{wrong:#?}");
    let idle: Vec<_> = exceptions.iter().filter(|key| !found.contains_key(**key)).collect();
    assert!(idle.is_empty(), "well done; remove these from the list of exceptions in tests/tidy:\n{idle:#?}");
}
