//! The client half of ZEO: connections to servers of any generation, this program's or Python's.

pub mod blobs;
pub mod cache;
pub mod connector;
pub mod dial;
pub mod link;
pub mod options;
