//! The basis of all other modules: identifiers, time, bytes, files, locks, levels of log lines. Does not depend on ZEO.

pub mod address;
pub mod base64;
pub mod bytes;
pub mod cancel;
pub mod checksum;
pub mod clock;
pub mod fs;
pub mod histogram;
pub mod ids;
pub mod level;
pub mod local_time;
pub mod log_rate;
pub mod memory;
pub mod network;
pub mod numbers;
pub mod schedule;
pub mod shared_dir;
pub mod supervisor;
pub mod sync;
pub mod timestamp;
pub mod untrusted;
pub mod write_back;
