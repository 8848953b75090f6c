//! A layer must pass on or implement each method of a trait that has a default; otherwise the method is lost.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The traits that every storage implements, and the files that declare them.
const TRAITS: [(&str, &str); 4] =
    [("Storage", "mod.rs"), ("Load", "read.rs"), ("History", "read.rs"), ("Commit", "commit.rs")];

/// Layers with blobs of their own; the others return those of the storage below.
const WITH_BLOBS: [&str; 2] = ["before.rs", "demo"];

/// The files or directories of layers, and the methods whose defaults are correct for them.
const LAYERS: [(&str, &[&str]); 3] = [
    ("before.rs", &["abort", "bulk", "extension_methods", "replicable", "sync_later", "tids_after", "undo"]),
    ("demo", &["bulk", "extension_methods", "replicable", "sync_later"]),
    ("transform", &["bulk", "replicable"]),
];

fn place(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/storage").join(name)
}

/// The text of a file, or of all files of a directory.
fn source(name: &str) -> String {
    let path = place(name);
    if path.is_file() {
        return fs::read_to_string(path).unwrap();
    }
    let files = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    files.map(|file| fs::read_to_string(file).unwrap()).collect()
}

/// The block that begins with `head`, up to its closing brace.
fn block<'a>(text: &'a str, head: &str) -> &'a str {
    let block = text.split_once(head).unwrap_or_else(|| panic!("{head}")).1;
    &block[..block.find("\n}").unwrap()]
}

/// The names after `fn `.
fn methods(block: &str) -> BTreeSet<&str> {
    let name = |rest: &str| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').count();
    let lines = block.lines().filter_map(|line| line.strip_prefix("    fn "));
    lines.map(|rest| &rest[..name(rest)]).collect()
}

/// The names in `forward!(base: ...)`.
fn forwarded(block: &str) -> BTreeSet<&str> {
    let Some((_, rest)) = block.split_once("forward!(") else { return BTreeSet::new() };
    let list = rest.split_once(')').unwrap().0.split_once(':').unwrap().1;
    list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect()
}

#[test]
fn layers_answer_or_pass_on_every_method() {
    let mut seen = 0;
    for (name, file) in TRAITS {
        let declared = source(file);
        let mut all = methods(block(&declared, &format!("pub trait {name}:")));
        // It calls `revisions`.
        all.remove("history");
        seen += all.len();
        for (layer, by_default) in LAYERS {
            let text = source(layer);
            let own = block(&text, &format!("impl {name} for "));
            let (written, forwarded) = (methods(own), forwarded(own));
            let lost: Vec<_> = all
                .iter()
                .filter(|method| !written.contains(*method) && !forwarded.contains(*method))
                .filter(|method| !by_default.contains(method))
                .collect();
            assert!(
                lost.is_empty(),
                "src/storage/{layer}: add to forward!(...) or write: {lost:?} of {name}"
            );
        }
    }
    assert!(seen > 25, "{seen}");
    let declared = source("abilities.rs");
    for layer in WITH_BLOBS {
        let text = source(layer);
        let written = methods(block(&text, "impl Blobs for "));
        assert_eq!(written, methods(block(&declared, "pub trait Blobs {")), "{layer}");
    }
}
