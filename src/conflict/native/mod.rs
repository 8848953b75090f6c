//! Conflict resolution without Python: three records of one object in, the merged record out.
//!
//! Two transactions have changed the same object, starting from the same revision (`old`); one is committed
//! (`committed`), the other is being voted on (`new`). A class may say how to merge the two changes
//! (`_p_resolveConflict`). This module has those classes whose method needs only the states: the BTrees package and a
//! few counters ([`class`]). It follows the C code of BTrees 4 to 6 and ZODB's handling of states, with the same
//! errors.
//!
//! Records are scanned once ([`scan`]) into flat tables ([`shape`]), their common beginning once for all three. Values
//! are compared in place ([`compare`]) and copied as bytes ([`emit`]), so strings keep the type that the client's
//! Python wrote. Time and memory are proportional to the records.
//!
//! A conflict that only the application's code could decide is [`Merge::Unknown`], never guessed.

// Data from files and clients must not cause a panic.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::cast_possible_truncation))]

mod bucket;
mod bucket_merge;
pub mod class;
mod compare;
mod counter;
mod emit;
mod items;
mod refusal;
mod scan;
mod scan_fast;
mod shape;

use class::{Mergeable, joined};
use refusal::Stop;
use scan::Common;
use shape::Workspace;

pub use refusal::Refusal;

/// The result of a merge.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Merge {
    /// The merged record.
    Resolved(Vec<u8>),
    /// Python refuses to merge the states too.
    Refused(Refusal),
    /// The class's own code would have to decide.
    Unknown(String),
}

/// Merges the changes from `old` to `committed` and from `old` to `new`.
pub fn merge(old: &[u8], committed: &[u8], new: &[u8]) -> Merge {
    let mut workspace = Workspace::take();
    let [common, old_tables, committed_tables, new_tables] = workspace.tables();
    let common = match Common::of([old, committed, new], common) {
        Ok(common) => common,
        Err(why) => return unreadable(new, Some(why)),
    };
    let shape = match common.go_on(new, new_tables) {
        Ok(shape) => shape,
        Err(why) => return unreadable(new, Some(why)),
    };
    let Some((module, class)) = shape.class() else { return unreadable(new, None) };
    let Some(known) = class::mergeable(module, class) else { return Merge::Unknown(joined(module, class)) };
    let states = match (common.go_on(old, old_tables), common.go_on(committed, committed_tables)) {
        (Ok(old), Ok(committed)) => [old, committed, shape],
        (Err(why), _) | (_, Err(why)) => return unreadable(new, Some(why)),
    };
    let merged = match known {
        Mergeable::Counter(counter) => counter::merge(counter, &states),
        Mergeable::BTree(family, form) => bucket_merge::merge(family, form, &states),
    };
    match merged {
        Ok(record) => Merge::Resolved(record),
        Err(Stop::Refused(refusal)) => Merge::Refused(refusal),
        Err(Stop::Unsure(why)) => Merge::Unknown(format!("{} ({why})", joined(module, class))),
    }
}

/// Whether the class (`module.name`) is one of those that are merged here. Their conflicts need no Python, except for
/// records whose values have classes of their own.
pub fn is_built_in(class: &str) -> bool {
    let parts = class.rsplit_once('.');
    parts.is_some_and(|(module, name)| class::mergeable(module.as_bytes(), name.as_bytes()).is_some())
}

/// A record that is not merged, whatever its class; `why`: the scanner's error, if any.
fn unreadable(record: &[u8], why: Option<scan::NotScanned>) -> Merge {
    let name = crate::pickle::record::class_name(record);
    let Some(name) = name else { return Merge::Unknown("(a record without a class)".into()) };
    Merge::Unknown(match why {
        Some(why) if is_built_in(name.as_str()) => format!("{name} ({why})"),
        _ => name.to_string(),
    })
}

#[cfg(test)]
mod tests;
