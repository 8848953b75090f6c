//! Why a server that follows this one gets nothing more.

use std::io;

use crate::storage::StorageError;

/// See the module.
#[derive(Debug)]
pub enum FeedError {
    /// It has gone, or cannot be reached.
    Gone(io::Error),
    /// It must not follow, or does not speak the protocol.
    Refused(String),
    /// The storage cannot be read.
    Storage(StorageError),
}

impl From<io::Error> for FeedError {
    fn from(error: io::Error) -> FeedError {
        FeedError::Gone(error)
    }
}

impl From<StorageError> for FeedError {
    fn from(error: StorageError) -> FeedError {
        FeedError::Storage(error)
    }
}
