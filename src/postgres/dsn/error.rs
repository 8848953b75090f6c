//! What is wrong with a connection string, and passwords, which nothing shows.

use std::fmt;

/// A connection string that cannot be used. Never shows a value that may be a password.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DsnError(pub String);

impl fmt::Display for DsnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DsnError {}

/// A password, which no message shows.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}
