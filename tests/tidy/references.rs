//! Comments and documents name only files that exist.

use std::collections::BTreeMap;
use std::path::Path;

use crate::exceptions::DEAD_REFERENCES;
use crate::files::{RUST, check_with_exceptions, root, texts, with_extension};

/// The words of a text that look like paths of Rust files.
fn rust_paths(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_alphanumeric() || "_/.-".contains(c)))
        .map(|word| word.trim_end_matches('.').trim_start_matches("../").trim_start_matches("./"))
        // NAME stands for any name.
        .filter(|word| word.ends_with(".rs") && word.len() > 3 && !word.contains("NAME"))
}

/// Targets of Markdown links that are files.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .map(|target| target.split('#').next().unwrap_or_default())
        .filter(|target| !target.is_empty() && !target.contains(':') && !target.contains(' '))
}

#[test]
fn files_that_are_named_exist() {
    let all: Vec<String> = RUST
        .iter()
        .chain(&["compat-tests", "python-fixtures"])
        .flat_map(|dir| texts(dir))
        .map(|(path, _)| path)
        .collect();
    let exists = |named: &str| all.iter().any(|path| path == named || path.ends_with(&format!("/{named}")));
    let mut dead = BTreeMap::new();
    let mut note = |path: &str, named: &str| {
        dead.insert(format!("{path}: {named}"), format!("{path} names {named}, which is not there"));
    };
    for (path, text) in with_extension(&RUST, "rs") {
        let comments = text.lines().filter_map(|line| line.split_once("//").map(|(_, comment)| comment));
        for comment in comments {
            rust_paths(comment).filter(|named| !exists(named)).for_each(|named| note(&path, named));
        }
    }
    let mut documents = with_extension(&["docs", "tests", "compat-tests", "python-fixtures", "fuzz"], "md");
    for name in ["README.md", "SECURITY.md", "CHANGELOG.md", "CONTRIBUTING.md"] {
        if let Ok(text) = std::fs::read_to_string(root().join(name)) {
            documents.push((name.to_string(), text));
        }
    }
    for (path, text) in documents {
        rust_paths(&text).filter(|named| !exists(named)).for_each(|named| note(&path, named));
        let dir = root().join(Path::new(&path).parent().expect("a directory"));
        links(&text).filter(|target| !dir.join(target).exists()).for_each(|target| note(&path, target));
    }
    check_with_exceptions("name the file that there is", &dead, DEAD_REFERENCES);
}
