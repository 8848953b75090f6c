//! Conflicts: one object changed by two transactions, and how the changes are merged.
//!
//! A transaction that stores an object names the revision that it started from. If another transaction has committed a
//! newer one since, the two conflict. Three parties can merge the states, in this order:
//!
//! | where | what it merges |
//! |---|---|
//! | [`native`] | BTrees, sets and counters, in this process |
//! | [`helpers`] | everything that the Python of `conflict-resolver` can import |
//! | [`client`] | everything that the client can import, with `client-conflict-resolution` |
//!
//! [`detect`] is the part of a storage's vote that finds conflicts and decides where they are merged; [`Chain`] is the
//! server's [`Resolver`]: native merging, then helpers. A conflict that is not merged is an error of the vote, and the
//! client runs its transaction again.
//!
//! A storage that detects conflicts implements [`detect::Vote`]; nothing here names a storage. The messages to clients
//! are made elsewhere: `exceptions` has the errors, `server` the reply to a vote whose conflicts the client merges.

mod advice;
mod chain;
pub mod client;
pub mod detect;
pub mod helpers;
pub mod merge_time;
pub mod native;
mod options;

use std::sync::{Arc, OnceLock};

pub use chain::Chain;
pub use options::{HelperOptions, User};

use crate::base::cancel::Cancel;
use crate::base::ids::{Oid, Tid};

/// Python's logger of conflict resolution.
pub const LOG: &str = "ZODB.ConflictResolution";

/// An object that a transaction changed or depends on, and that another transaction has changed since it was read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Conflict {
    /// The object.
    pub oid: Oid,
    /// The serial that is committed now.
    pub committed: Tid,
    /// The serial that the transaction started from.
    pub read: Tid,
    /// The record that the transaction would have stored; empty for reads and deletions.
    pub data: Vec<u8>,
}

/// The three states of a conflict: two transactions started from `old`; one of them has committed, the other has not.
#[derive(Clone, Copy, Debug)]
pub struct ThreeStates<'a> {
    /// The object.
    pub oid: Oid,
    /// The serial of `old`.
    pub read: Tid,
    /// The serial of `committed`.
    pub committed_serial: Tid,
    /// The record that both transactions started from.
    pub old: &'a [u8],
    /// The record that is committed.
    pub committed: &'a [u8],
    /// The record that the other transaction would store.
    pub new: &'a [u8],
    /// Cancelled when the transaction of `new` is abandoned.
    pub cancel: &'a Cancel,
}

/// Merges two changes to an object, as Python's `_p_resolveConflict`.
pub trait Resolver: Send + Sync {
    /// The merged record, or why the states were not merged. May wait for another process.
    fn resolve(&self, states: &ThreeStates<'_>) -> Result<Vec<u8>, Unresolved>;
    /// The same without waiting; `None` if the merge needs another process.
    fn resolve_now(&self, states: &ThreeStates<'_>) -> Option<Result<Vec<u8>, Unresolved>> {
        Some(self.resolve(states))
    }
}

/// Three states were not merged.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unresolved {
    /// Why, for the log.
    pub reason: String,
}

/// The resolver of a storage, which is set once.
#[derive(Default)]
pub struct ResolverSlot(OnceLock<Arc<dyn Resolver>>);

impl ResolverSlot {
    /// Sets the resolver. A second one is logged and ignored.
    pub fn set(&self, resolver: Arc<dyn Resolver>) {
        if self.0.set(resolver).is_err() {
            log::error!(target: LOG, "a second conflict resolver is ignored");
        }
    }

    /// The resolver, if one was set.
    pub fn get(&self) -> Option<&dyn Resolver> {
        self.0.get().map(Arc::as_ref)
    }

    /// The merged record. May wait for another process. For undo, `committed_serial` is the object's current serial and
    /// `read` the serial of the transaction to be undone.
    pub fn merge(&self, states: &ThreeStates<'_>) -> Result<Vec<u8>, Conflict> {
        match self.get() {
            Some(resolver) => merged(states, resolver.resolve(states)),
            None => Err(states.conflict()),
        }
    }
}

impl ThreeStates<'_> {
    /// The conflict that remains if the states are not merged.
    fn conflict(&self) -> Conflict {
        Conflict { oid: self.oid, committed: self.committed_serial, read: self.read, data: self.new.to_vec() }
    }
}

/// The record from a resolver, or the conflict of the transaction.
fn merged(states: &ThreeStates<'_>, resolved: Result<Vec<u8>, Unresolved>) -> Result<Vec<u8>, Conflict> {
    match resolved {
        Ok(record) if !record.is_empty() => return Ok(record),
        Ok(_) => {}
        Err(unresolved) => {
            log::debug!(
                target: LOG,
                "Conflict resolution on object 0x{} failed: {}", states.oid, unresolved.reason
            );
        }
    }
    Err(states.conflict())
}
