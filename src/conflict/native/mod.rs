//! Conflict resolution without Python: three records of one object in, the merged record out.
//!
//! Two transactions have changed the same object, starting from the same revision (`old`); one of them is `committed`,
//! the other (`new`) wants to be. A class may say how to merge the two changes (`_p_resolveConflict`). This module
//! knows those classes whose method needs nothing but the states themselves: the BTrees package and a few counters
//! ([`class`]). It follows the C code of BTrees 4 to 6 and ZODB's handling of states, error for error.
//!
//! Records are scanned once ([`scan`]) into flat tables ([`shape`]), what they begin with once for all three, and compared in place
//! ([`compare`]); what is taken over is copied as the bytes that a client wrote ([`emit`]), so strings stay what they were
//! in either Python. Time and memory are proportional to the records.
//!
//! What only the application's code could decide is [`Merge::Unknown`], never guessed.

// What comes from a file or a client must not be able to panic. Tests may.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::cast_possible_truncation))]

mod bucket;
mod class;
mod compare;
mod counter;
mod emit;
mod scan;
mod scan_fast;
mod shape;

use std::fmt;

use class::Known;
use scan::Common;
use shape::Workspace;

use crate::base::untrusted::Untrusted;

/// What became of three states.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Merge {
    /// The merged record
    Resolved(Vec<u8>),
    /// Python refuses too.
    Refused(Refusal),
    /// This class's code would have to decide, and it is not known here.
    Unknown(String),
}

/// Why a conflict cannot be resolved.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// `BTreesConflictError(p1, p2, p3, reason)`: the positions (from 1; -1: none) in the old, the committed and
    /// the new state, and the number of the reason, as BTrees counts them.
    BTrees { positions: [i32; 3], reason: u8 },
    /// Python raises another exception.
    Error(&'static str),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::BTrees { positions: [p1, p2, p3], reason } => {
                write!(f, "BTrees conflict at {p1}/{p2}/{p3}: {} (reason {reason})", reason_text(*reason))
            }
            Refusal::Error(what) => f.write_str(what),
        }
    }
}

fn reason_text(reason: u8) -> &'static str {
    match reason {
        0 => "the next bucket changed",
        1 => "both changed the same value",
        2 => "new deleted a key whose value committed changed",
        3 => "committed deleted a key whose value new changed",
        4 => "both inserted the same key, or deleted others beside it",
        5 => "both deleted the same key",
        6 => "both inserted the same key at the end",
        7 => "new deleted keys at the end that committed deleted or changed",
        8 => "committed deleted keys at the end that new deleted or changed",
        9 => "both deleted the same keys at the end",
        10 => "the merged bucket would be empty",
        11 => "a tree of more than one bucket changed its shape",
        12 => "one of them emptied the bucket",
        13 => "one of them deleted the first key",
        _ => "not known",
    }
}

/// Why a merge ends without a result.
enum Stop {
    Refused(Refusal),
    /// The class whose code would be needed, or what else is not certain.
    Unsure(String),
}

impl Stop {
    fn error<T>(what: &'static str) -> Result<T, Stop> {
        Err(Stop::Refused(Refusal::Error(what)))
    }

    fn unsure<T>(why: impl Into<String>) -> Result<T, Stop> {
        Err(Stop::Unsure(why.into()))
    }
}

/// Merge the changes that lead from `old` to `committed` and to `new`.
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
    let Some(known) = class::known(module, class) else { return Merge::Unknown(joined(module, class)) };
    let states = match (common.go_on(old, old_tables), common.go_on(committed, committed_tables)) {
        (Ok(old), Ok(committed)) => [old, committed, shape],
        (Err(why), _) | (_, Err(why)) => return unreadable(new, Some(why)),
    };
    let merged = match known {
        Known::Counter(counter) => counter::merge(counter, &states),
        Known::BTree(family, form) => bucket::merge(family, form, &states),
    };
    match merged {
        Ok(record) => Merge::Resolved(record),
        Err(Stop::Refused(refusal)) => Merge::Refused(refusal),
        Err(Stop::Unsure(why)) => Merge::Unknown(format!("{} ({why})", joined(module, class))),
    }
}

/// Whether the class (`module.name`) is one of those that are merged here: their conflicts need nobody else, but for records
/// whose values have classes of their own.
pub fn is_built_in(class: &str) -> bool {
    let parts = class.rsplit_once('.');
    parts.is_some_and(|(module, name)| class::known(module.as_bytes(), name.as_bytes()).is_some())
}

/// A record that is not merged, whatever its class: `why` if the scanner does not take it.
fn unreadable(record: &[u8], why: Option<scan::NotScanned>) -> Merge {
    let name = crate::pickle::record::class_name(record);
    let Some(name) = name else { return Merge::Unknown("(a record without a class)".into()) };
    Merge::Unknown(match why {
        Some(why) if is_built_in(name.as_str()) => format!("{name} ({why})"),
        _ => name.to_string(),
    })
}

/// For a reason, which is logged.
fn joined(module: &[u8], class: &[u8]) -> String {
    let name = format!("{}.{}", String::from_utf8_lossy(module), String::from_utf8_lossy(class));
    Untrusted(&name).to_string()
}

#[cfg(test)]
mod tests;
