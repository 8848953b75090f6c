//! Calls whose answer the caller waits for, with one error for all that can go wrong.

use std::fmt;
use std::time::Duration;

use super::link::{Link, LinkError};
use crate::exceptions::meaning::to_storage_error;
use crate::storage::StorageError;
use crate::wire::answers::{Answer, AnswerError};
use crate::wire::calls::Call;
use crate::wire::exception::PyException;

/// Why a call has no result.
#[derive(Debug)]
pub enum AskError {
    Link(LinkError),
    /// The server raised an exception.
    Raised(Box<PyException>),
    /// The answer made no sense. The link is closed because of it.
    Broken(String),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AskError::Link(error) => error.fmt(f),
            AskError::Raised(exception) => write!(f, "the server raised {exception}"),
            AskError::Broken(what) => f.write_str(what),
        }
    }
}

impl From<AskError> for StorageError {
    fn from(error: AskError) -> StorageError {
        match error {
            AskError::Raised(exception) => to_storage_error(&exception),
            other => StorageError::Disconnected(other.to_string()),
        }
    }
}

/// Calls and waits for the answer, which `read` takes from the message in the thread of the link. `time_max`: `None`
/// waits as long as the link lives.
pub fn ask<T: Send + 'static>(
    link: &Link,
    call: &Call<'_>,
    time_max: Option<Duration>,
    read: impl FnOnce(&Answer<'_>) -> Result<T, AnswerError> + Send + 'static,
) -> Result<T, AskError> {
    let answer = link.call(call, time_max, move |answer| read(&answer)).map_err(AskError::Link)?;
    answer.map_err(|error| understood(link, error))
}

/// An answer that makes no sense ends the link.
pub fn understood(link: &Link, error: AnswerError) -> AskError {
    match error {
        AnswerError::Raised(exception) => AskError::Raised(exception),
        AnswerError::Broken(what) => {
            link.fail(&what.to_string());
            AskError::Broken(what.to_string())
        }
    }
}
