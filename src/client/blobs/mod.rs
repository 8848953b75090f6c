//! Blobs that a client has downloaded or committed: a cache of files, which clients of several processes share, those
//! of Python too. Or the directory of the server itself ([`BlobDir`](crate::storage::BlobDir)).
//!
//! The directory has the layout `zeocache` of Python's ZEO: `<oid mod 997>/<oid div 997>.<tid>.blob`. What has such a
//! name is complete: it was renamed after its last byte was written and synced.
//!
//! - `kinds`: either of them
//! - `cache`: what is found, begun and kept
//! - `lock`: one lock for each of the 997 directories, which all processes respect
//! - `claims`: the blobs that this process is downloading, or has downloaded without putting them into the cache
//! - `download`: a blob on its way into the cache
//! - `transfer`, `incoming`: from a server and to it
//! - `size_check`: removes what was not read for the longest time, when the cache has become too large
//! - `leftovers`: removes files of processes that were killed
//!
//! Invariants: a file is created, renamed or removed in one of the directories only while the directory's lock is held;
//! two downloads never write to one file; a server waits for no other process, which may be its client; readers are
//! given an open file, so that they can read it to the end when it is removed.

#![cfg_attr(not(test), deny(clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used))]

mod cache;
mod claims;
mod download;
mod incoming;
mod kinds;
mod leftovers;
mod lock;
mod size_check;
mod transfer;

pub use cache::{Begun, BlobCache, BlobCacheOptions};
pub use incoming::IncomingBlobs;
pub use kinds::{ClientBlobs, OutgoingBlob};
pub use transfer::{BlobRecord, Fetched, fetch, send};

#[cfg(test)]
mod tests;
