//! A method of the trait that has a default is lost if a layer neither hands it on nor answers it itself.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The files of layers, and the methods whose defaults are right for them.
const LAYERS: &[(&str, &[&str])] = &[
    (
        "before.rs",
        &[
            "extension_method",
            "extension_methods",
            "supports_undo",
            "tids_after",
            "undo_log",
            "undo_now",
            "undo_oids",
        ],
    ),
    ("demo/mod.rs", &["extension_method", "extension_methods"]),
    ("load_delayed.rs", &[]),
    ("transform/mod.rs", &[]),
];

fn source(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/storage").join(file)).unwrap()
}

/// The names behind `fn ` in the block that begins with `head`.
fn methods(text: &str, head: &str) -> BTreeSet<String> {
    let block = text.split_once(head).unwrap_or_else(|| panic!("{head}")).1;
    let block = &block[..block.find("\n}").unwrap()];
    let name = |rest: &str| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    block.lines().filter_map(|line| line.strip_prefix("    fn ")).map(name).collect()
}

/// The names in `forward!(base: ...)`.
fn forwarded(text: &str) -> BTreeSet<String> {
    let Some((_, rest)) = text.split_once("forward!(") else { return BTreeSet::new() };
    let list = rest.split_once(')').unwrap().0.split_once(':').unwrap().1;
    list.split(',').map(|name| name.trim().to_string()).filter(|name| !name.is_empty()).collect()
}

#[test]
fn layers_answer_or_hand_on_every_method() {
    let mut all = methods(&source("mod.rs"), "pub trait Storage");
    // Made of `revisions`.
    all.remove("history");
    assert!(all.contains("load_before") && all.contains("close"), "{all:?}");
    for (layer, by_default) in LAYERS {
        let text = source(layer);
        let type_name = text.split_once("impl Storage for ").unwrap().1.split_once(' ').unwrap().0;
        let own = methods(&text, &format!("impl Storage for {type_name}"));
        let forwarded = forwarded(&text);
        let is_lost = |name: &&String| !forwarded.contains(*name) && !by_default.contains(&name.as_str());
        let lost: Vec<_> = all.difference(&own).filter(is_lost).collect();
        assert!(lost.is_empty(), "src/storage/{layer}: add to forward!(...), or write: {lost:?}");
    }
}
