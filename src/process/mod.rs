//! The process: signals, the pid file, priorities, and returning memory to the system.

pub mod memory;
pub mod pid_file;
pub mod priority;
pub mod signals;
