//! The process: signals, the pid file, priorities, descriptors, returning memory to the system, and the service
//! manager.

pub mod activation;
pub mod descriptors;
pub mod memory;
pub mod notify;
pub mod pid_file;
pub mod priority;
pub mod signals;
