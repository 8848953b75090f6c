//! A name belongs to few types: how many types of the crate have the same name.

use std::collections::BTreeMap;

use crate::exceptions::SHARED_NAMES;
use crate::files::{check_with_exceptions, with_extension};

const TYPES_MAX: usize = 3;

#[test]
fn a_name_is_used_by_few_types() {
    let mut types: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (path, text) in with_extension(&["src"], "rs") {
        for line in text.lines() {
            let mut words = line.split_whitespace().skip_while(|word| word.starts_with("pub"));
            if !words.next().is_some_and(|word| ["struct", "enum", "trait", "union", "type"].contains(&word))
            {
                continue;
            }
            let name: String = words
                .next()
                .unwrap_or_default()
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            types.entry(name).or_default().push(path.clone());
        }
    }
    // A module's own `Result`, and the types that a trait requires, have the usual names.
    let customary = ["Result", "Error", "Item", "Target", "Output", "Err", "Transactions", "VotedTxn"];
    let shared = types
        .into_iter()
        .filter(|(name, places)| places.len() > TYPES_MAX && !customary.contains(&name.as_str()))
        .map(|(name, places)| (name.clone(), format!("{name}: {places:?}")));
    check_with_exceptions("find a second word for some of these types", &shared.collect(), SHARED_NAMES);
}
