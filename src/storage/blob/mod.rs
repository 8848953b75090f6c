//! Blobs: the files beside a storage, one for each revision of an object of class `ZODB.blob.Blob`.
//!
//! - `layout` where a revision's file is, as Python has it
//! - `dir` one blob directory: opening it, finding files, cleaning up after a crash
//! - `home` the directory of an object, which a blob that is staged keeps open
//! - `descriptors` for finish, whatever else is open
//! - `staged` from a client's bytes or file to a blob that waits for its transaction
//! - `sweep` what a pack takes out
//! - `place` from there to its final name, atomic with the transaction
//!
//! A storage that keeps blobs opens a [`BlobDir`], hands it out ([`Storage::blob_dir`](super::Storage::blob_dir)), and
//! at finish, before anything of the transaction is durable, calls [`BlobDir::place`]; once the transaction is,
//! [`Placement::keep`]. Dropping a [`Placement`] or a [`StagedBlob`] removes its files: vote's errors and aborts need
//! no more.

mod descriptors;
mod dir;
mod home;
mod layout;
mod place;
mod staged;
mod sweep;

pub use dir::{BlobDir, BlobFile};
pub use layout::Layout;
pub use place::Placement;
pub use staged::{StagedBlob, Upload};
pub use sweep::Sweep;
