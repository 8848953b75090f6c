//! Backups of a `Data.fs`, and their way back.
//!
//! - `copier`: copies bytes, with their MD5 sum
//! - `pieces`: compresses with several cores, to `gzip` or `zstd`
//! - `boundaries`: whether bytes are whole transactions, while they pass by
//! - `replace`: puts a complete, durable file in the place of a `Data.fs`
//! - `lock`: the lock file of a repository
//! - `repository`: repositories of `zeobackup`, with blobs
//! - `repozo`: repositories of Python's repozo
//!
//! A backup reads a [`Snapshot`](crate::storage::file::snapshot::Snapshot), so it needs neither a server nor a lock.
//! All access to files is through a `Media`, so that tests can stop the power at each step.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used))]

pub mod boundaries;
pub mod copier;
pub mod gzip;
pub mod lock;
mod pieces;
pub mod replace;
pub mod repository;
pub mod repozo;
pub mod zstd;
