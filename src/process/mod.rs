//! The process among others: signals and the pid file.

pub mod pid_file;
pub mod signals;
