//! Why states are not merged.

use std::fmt;

/// A conflict that Python's classes do not resolve either.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// `BTreesConflictError(p1, p2, p3, reason)`: the positions of the items in the old, the committed and the new
    /// state, from 1; -1 after the last item, and for a reason that concerns the whole bucket.
    BTrees {
        /// p1, p2 and p3.
        positions: [i32; 3],
        /// The cause.
        reason: Reason,
    },
    /// Python raises another exception.
    Error(&'static str),
}

/// The reasons of `BTreesConflictError`, in the order of their numbers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Reason {
    /// 0: one transaction split the bucket, or the next bucket is another one.
    BucketSplit,
    /// 1: both changed the value of a key.
    BothChanged,
    /// 2: committed changed the value of a key that new deleted.
    CommittedChangedNewDeleted,
    /// 3: new changed the value of a key that committed deleted.
    NewChangedCommittedDeleted,
    /// 4: both inserted the same key, or both deleted the key in front of it.
    BothInsertedOrDeleted,
    /// 5: both deleted the same key.
    BothDeleted,
    /// 6: both inserted the same key behind the last one of old.
    BothInserted,
    /// 7: new deleted keys at the end, one of which committed deleted or changed.
    NewDeletedEnd,
    /// 8: committed deleted keys at the end, one of which new deleted or changed.
    CommittedDeletedEnd,
    /// 9: both deleted the same keys at the end.
    BothDeletedEnd,
    /// 10: the merged bucket would be empty.
    MergedIsEmpty,
    /// 11: a tree has, or had, more than one bucket.
    InnerNodeChanged,
    /// 12: one transaction emptied the bucket.
    BucketEmptied,
    /// 13: one transaction deleted the first key.
    FirstKeyDeleted,
}

impl Reason {
    /// The number of the reason in `BTreesConflictError`.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The text of the reason in `BTreesConflictError`.
    pub fn text(self) -> &'static str {
        match self {
            Reason::BucketSplit => "Conflicting bucket split",
            Reason::BothChanged => "Conflicting changes",
            Reason::CommittedChangedNewDeleted | Reason::NewChangedCommittedDeleted => {
                "Conflicting delete and change"
            }
            Reason::BothInsertedOrDeleted => "Conflicting inserts or deletes",
            Reason::BothDeleted | Reason::BothDeletedEnd => "Conflicting deletes",
            Reason::BothInserted => "Conflicting inserts",
            Reason::NewDeletedEnd | Reason::CommittedDeletedEnd => {
                "Conflicting deletes, or delete and change"
            }
            Reason::MergedIsEmpty => "Empty bucket from deleting all keys",
            Reason::InnerNodeChanged => "Conflicting changes in an internal BTree node",
            Reason::BucketEmptied => "Empty bucket in a transaction",
            Reason::FirstKeyDeleted => "Delete of first key",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::BTrees { positions: [p1, p2, p3], reason } => write!(
                f,
                "BTrees conflict error at {p1}/{p2}/{p3}: {} (reason {})",
                reason.text(),
                reason.number()
            ),
            Refusal::Error(what) => f.write_str(what),
        }
    }
}

/// Why a merge ends without a result.
#[derive(Debug)]
pub enum Stop {
    Refused(Refusal),
    /// Only the application's classes, or another Python, could decide.
    Unsure(String),
}

impl Stop {
    pub fn error<T>(what: &'static str) -> Result<T, Stop> {
        Err(Stop::Refused(Refusal::Error(what)))
    }

    pub fn unsure<T>(why: impl Into<String>) -> Result<T, Stop> {
        Err(Stop::Unsure(why.into()))
    }

    /// Ends a merge for a reason that concerns the whole bucket.
    pub fn conflict<T>(reason: Reason) -> Result<T, Stop> {
        Err(Stop::Refused(Refusal::BTrees { positions: [-1; 3], reason }))
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Stop {
        Stop::Refused(refusal)
    }
}
