//! What can go wrong with records.

use std::fmt;

use crate::base::ids::Oid;
use crate::pickle::read::PickleError;
use crate::storage::StorageError;

/// Why a record, or a value in it, cannot be read, written or used.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum RecordError {
    /// It is no record: not two pickles, or pickles that Python would not read either.
    Unreadable {
        /// Offset in the record.
        pos: usize,
        /// What is wrong there.
        what: String,
    },
    /// There are more values in it than [are read](super), or one is longer than 2 GB.
    TooLarge,
    /// Values are nested too deeply.
    TooDeep,
    /// A value contains itself.
    Cyclic,
    /// The object is of another class, or its state is not as its class writes it.
    Unexpected {
        /// What should be there.
        wanted: &'static str,
        /// What is there.
        found: String,
    },
    /// A key or a value is not of the type of the BTree, or out of its range.
    WrongType {
        /// What the BTree takes.
        wanted: &'static str,
        /// What was given.
        found: String,
    },
    /// Two keys that only Python can compare, or that it cannot compare either.
    Incomparable {
        /// The types of both.
        what: String,
    },
    /// A BTree contradicts itself.
    Damaged(String),
    /// Something that is not supported here, although Python does it.
    Unsupported(String),
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecordError::Unreadable { pos, what } => write!(f, "not a record: at {pos}: {what}"),
            RecordError::TooLarge => f.write_str("too many values, or a value that is too long"),
            RecordError::TooDeep => f.write_str("values are nested too deeply"),
            RecordError::Cyclic => f.write_str("a value contains itself"),
            RecordError::Unexpected { wanted, found } => write!(f, "{wanted} is expected, not {found}"),
            RecordError::WrongType { wanted, found } => write!(f, "the BTree takes {wanted}, not {found}"),
            RecordError::Incomparable { what } => write!(f, "these keys cannot be compared: {what}"),
            RecordError::Damaged(what) => write!(f, "the BTree is damaged: {what}"),
            RecordError::Unsupported(what) => write!(f, "not supported: {what}"),
        }
    }
}

impl std::error::Error for RecordError {}

impl From<PickleError> for RecordError {
    fn from(error: PickleError) -> RecordError {
        RecordError::Unreadable { pos: error.pos, what: error.what }
    }
}

/// Why an operation on [`Objects`](super::Objects) has failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum ObjectsError {
    /// The object cannot be loaded, or the transaction cannot be committed.
    Storage(StorageError),
    /// The object's record cannot be used.
    Record {
        /// The object.
        oid: Oid,
        /// Why not.
        error: RecordError,
    },
    /// The object was created after the snapshot, or what the snapshot would see was packed away: begin again.
    NotInView(Oid),
}

impl ObjectsError {
    /// Whether another transaction was faster, or the database was restored: begin again from the present.
    pub fn is_conflict(&self) -> bool {
        matches!(
            self,
            ObjectsError::Storage(
                StorageError::Conflict(_) | StorageError::ReadConflict(_) | StorageError::Outdated(_)
            ) | ObjectsError::NotInView(_)
        )
    }
}

impl fmt::Display for ObjectsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ObjectsError::Storage(error) => error.fmt(f),
            ObjectsError::Record { oid, error } => write!(f, "object {oid}: {error}"),
            ObjectsError::NotInView(oid) => write!(f, "object {oid} is not in this view"),
        }
    }
}

impl std::error::Error for ObjectsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ObjectsError::Storage(error) => Some(error),
            ObjectsError::Record { error, .. } => Some(error),
            ObjectsError::NotInView(_) => None,
        }
    }
}

impl From<StorageError> for ObjectsError {
    fn from(error: StorageError) -> ObjectsError {
        ObjectsError::Storage(error)
    }
}

/// Names the object of an error.
pub(super) fn of(oid: Oid) -> impl Fn(RecordError) -> ObjectsError {
    move |error| ObjectsError::Record { oid, error }
}
