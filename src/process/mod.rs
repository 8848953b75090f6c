//! The process: signals, the pid file, and returning memory to the system.

pub mod memory;
pub mod pid_file;
pub mod signals;
