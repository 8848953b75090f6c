//! The public face of the library: the modules that `src/lib.rs` makes public, and what `src/internal.rs` lists for the
//! project's own tests.

use std::collections::BTreeSet;
use std::fs;

use crate::files::{root, with_extension};

/// What others may build on, and the hidden module for tests. `docs/architecture.md` says why these.
const PUBLIC: &[&str] = &["auth", "client", "commands", "internal", "storage"];

#[test]
fn these_modules_are_public() {
    let text = fs::read_to_string(root().join("src/lib.rs")).expect("readable");
    let public = text.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    assert_eq!(
        public.collect::<Vec<_>>(),
        PUBLIC,
        "keep modules private; tests reach them through `internal`"
    );
}

/// The last names in the paths of all `pub use` declarations.
fn listed(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for declaration in text.split("pub use ").skip(1) {
        let path = declaration.split(';').next().unwrap_or_default();
        let last = path.rsplit("::").next().unwrap_or_default();
        let items = path.split_once('{').map_or(last, |(_, items)| items.trim_end_matches('}'));
        let named = |item: &str| item.rsplit(" as ").next().unwrap_or_default().trim().to_string();
        names.extend(items.split(',').map(named).filter(|name| !name.is_empty()));
    }
    names
}

/// An item that no test needs any more may be private, and then the compiler sees whether anything needs it.
#[test]
fn tests_need_what_internal_lists() {
    let text = fs::read_to_string(root().join("src/internal.rs")).expect("readable");
    let users = with_extension(&["tests", "benches", "fuzz", "compat-tests", "src/wire"], "rs");
    let users: Vec<&str> = users
        .iter()
        .map(|(_, text)| text.as_str())
        .filter(|text| text.contains("runzeo::internal") || text.contains("runzeo::{"))
        .collect();
    let is_named = |name: &str| {
        users.iter().any(|text| {
            text.match_indices(name).any(|(at, _)| {
                let part_of_name = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
                !part_of_name(text[..at].chars().next_back())
                    && !part_of_name(text[at + name.len()..].chars().next())
            })
        })
    };
    let names = listed(&text);
    assert!(names.len() > 80, "{names:?}");
    let idle: Vec<_> = names.iter().filter(|name| !is_named(name)).collect();
    assert!(idle.is_empty(), "remove these from src/internal.rs: {idle:?}");
}

#[test]
fn declarations_are_read() {
    let names = listed("pub use crate::a::B;\n pub use crate::c::{\n  D, e as f,\n };");
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["B", "D", "f"]);
}
