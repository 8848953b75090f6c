//! Helper processes: merging with the application's own classes, in the Python that `conflict-resolver` names.
//!
//! [`pool`] starts the processes, gives conflicts to them and replaces those that fail; [`process`] is the server's
//! handle of one process, [`message`] the protocol between both. `helper.py` is the program of the process,
//! `unpickler.py` reads records in it, and `names.py` lists the names that a record may contain.

mod message;
mod pool;
mod process;
#[cfg(test)]
mod tests;

pub use pool::Pool;
