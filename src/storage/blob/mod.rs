//! Blobs: the files beside a storage, one for each revision of an object of class `ZODB.blob.Blob`.
//!
//! - `layout`: the path of a revision's file, as in Python
//! - `marker`: the file that names the layout of a directory
//! - `names`: what all of these do with names in open directories
//! - `dir`: one blob directory: opening it, finding files, cleaning up after a crash
//! - `home`: the directory of one object, which a staged blob keeps open
//! - `descriptors`: ensures that a finish has file descriptors
//! - `staged`: from a client's bytes or file to a blob that waits for its transaction
//! - `place`: from there to its final name, atomic with the transaction
//! - `put`: brings files of a backup back
//! - `client`: what a client of another server does with them; `cache`: copies of blobs that are elsewhere
//! - `relayout`: changes the layout of a directory
//! - `sweep`: removes what a pack leaves out; `pin`: not while a backup needs it
//!
//! A storage that keeps blobs opens a [`BlobDir`] and returns it from [`Storage::blobs`](super::Storage::blobs). At
//! finish, before anything of the transaction is durable, it calls [`BlobDir::place`]; once the transaction is durable,
//! [`Placement::keep`]. Dropping a [`Placement`] or a [`StagedBlob`] removes its files, so errors of the vote and
//! aborts need no more.

pub mod cache;
mod client;
mod descriptors;
mod dir;
mod home;
mod layout;
mod marker;
mod names;
mod pin;
mod place;
mod put;
pub(crate) mod relayout;
mod staged;
mod sweep;

pub use dir::{BlobDir, BlobFile};
pub(crate) use layout::CACHE_DIRS;
pub use layout::Layout;
pub use pin::BlobPin;
pub use place::Placement;
pub use staged::{StagedBlob, Upload};
pub(crate) use sweep::Sweep;
