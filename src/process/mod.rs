//! The process among others: signals, the pid file, and memory that it gives back.

pub mod memory;
pub mod pid_file;
pub mod signals;
