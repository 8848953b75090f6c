//! The client half of ZEO: connections to servers of any generation, this program's or Python's.

mod ask;
pub mod blobs;
pub mod cache;
mod commit;
pub mod connector;
pub mod dial;
mod flights;
mod iterate;
pub mod library;
pub mod link;
pub mod options;
mod prepare;
pub mod recent;
mod results;
mod revisions;
mod server_info;
pub mod storage;
pub mod timeline;
mod turns;
mod upstream;
mod verify;
pub mod view;
