//! Options of the helper processes.

use std::path::PathBuf;

/// `conflict-resolver` and the keys that belong to it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HelperOptions {
    /// The application's Python.
    pub interpreter: PathBuf,
    /// The user that helpers run as. `None`: the server's.
    pub user: Option<User>,
    /// Further names that records may contain, besides the application's classes and common data types: `module.name`,
    /// ASCII identifiers of Python.
    pub allowed: Vec<String>,
}

/// A user of this machine.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct User {
    /// The name in the configuration.
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}
