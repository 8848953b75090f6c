//! Helper processes: merging with the application's own classes, in the Python that `conflict-resolver` names.
//!
//! [`pool`] starts the processes, hands conflicts to them and replaces those that fail; [`process`] is one of them as seen from
//! here; `helper.py` is what it runs, and `unpickler.py` how it reads records.

mod pool;
mod process;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use pool::Pool;

/// How helpers are run: `conflict-resolver` and the keys that belong to it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HelperOptions {
    /// The application's Python.
    pub interpreter: PathBuf,
    /// The user that helpers run as; `None`: the server's.
    pub user: Option<User>,
    /// Functions and classes that records may call beside the application's classes and common data types: `module.name`, in
    /// Python's alphabet.
    pub allowed: Vec<String>,
}

/// A user of this machine.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct User {
    /// As the configuration has it.
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}
