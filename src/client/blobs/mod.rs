//! Blobs of a client: a cache of files ([`crate::storage::blob::cache`]), which clients of several processes share,
//! those of Python too. Or the directory of the server itself ([`BlobDir`](crate::storage::BlobDir)).
//!
//! - `kinds`: either of them
//! - `transfer`, `incoming`: from a server and to it

#![cfg_attr(not(test), deny(clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used))]

mod incoming;
mod kinds;
mod transfer;

pub use incoming::IncomingBlobs;
pub use kinds::{ClientBlobs, OutgoingBlob};
pub use transfer::{BlobRecord, Fetched, fetch, send};

pub use crate::storage::blob::cache::{Begun, BlobCache, BlobCacheOptions};
