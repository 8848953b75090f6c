//! Helper processes: merging with the application's own classes, in the Python that `conflict-resolver` names.
//!
//! [`pool`] starts the processes, hands conflicts to them and replaces those that fail; [`process`] is one of them as seen from
//! here, [`message`] what both sides say; `helper.py` is what it runs, `unpickler.py` how it reads records, and `names.py` what a
//! record may name.

mod message;
mod pool;
mod process;
#[cfg(test)]
mod tests;

pub use pool::Pool;
