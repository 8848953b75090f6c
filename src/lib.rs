//! The ZEO storage server for ZODB: the programs `runzeo`, `zeobackup`, `zeocache`, `zeoctl`,
//! `zeofs`, `zeopack`, `zeopasswd` and `zeoup`, and what others may build on.
//!
//! Public are [`client`], [`storage`], [`auth`], [`commands`] and [`ids`], for four purposes. Everything else may
//! change with any version.
//!
//! # A client of a ZEO server
//!
//! [`client::Client`] connects to servers of any generation, Python's and this one; views, commits, a cache on disk.
//! `examples/zeo_client.rs` prints what a database has. [`client::records`] reads and changes the objects of Python
//! programs; `examples/zeo_objects.rs` does.
//!
//! # A storage of your own
//!
//! Implement [`storage::Storage`] and its supertraits, register a [`storage::StorageKind`] in
//! [`commands::Extensions`], and call [`commands::runzeo::run_with`]: the configuration file then has a section for the
//! storage. `examples/own_storage.rs` is a complete one; `docs/adding.md` goes through the methods.
//!
//! # Passwords checked your own way
//!
//! Implement [`auth::Protocol`] and [`auth::Exchange`], register an [`auth::Kind`] in [`commands::Extensions`], and
//! call [`commands::runzeo::run_with`]: `authentication-protocol` in the configuration then can have its name.
//! `examples/password_server.rs` is a complete one.
//!
//! # A `Data.fs`, read without a server
//!
//! [`storage::file::FileStorage::open`] opens it, read-only if the options say so; [`storage::Iterate`],
//! [`storage::Load`] and [`storage::History`] read it. `examples/read_data_fs.rs` prints its transactions, or one
//! object.
//!
//! # Inside
//!
//! A module imports only from steps below its own; neighbours on one step do not import each other:
//!
//! ```text
//! bin > commands > config > server, client, replication, backup, inspect > exceptions > storage, logging, auth,
//!   process > postgres > wire, conflict, net > pickle > base
//! ```
//!
//! The path of a load from socket to socket is one thread and one call deep at each stage:
//! `server::session::run` reads a frame, `wire` decodes it to a `wire::request::Request`,
//! `server::session::load` asks the storage, which makes one positioned read behind the reply's
//! header, and `server::publish` queues the reply if nothing was published meanwhile that touches it.

#![deny(missing_docs)]

pub mod auth;
mod base;
pub mod client;
pub mod commands;
mod config;
mod conflict;
mod exceptions;
#[allow(missing_docs)]
mod inspect;
#[doc(hidden)]
pub mod internal;
mod net;
mod pickle;
mod process;
#[allow(missing_docs)]
mod replication;
pub mod storage;

// No other program can name what is in these. `internal` makes it reachable, so that without `allow` each variant of a
// request and each field of a log record would need a comment, also those whose name says all.
#[allow(missing_docs)]
mod backup;
#[allow(missing_docs)]
mod logging;
#[allow(missing_docs)]
mod postgres;
#[allow(missing_docs)]
mod server;
#[allow(missing_docs)]
mod wire;

pub use base::ids;
/// For the macro `log_at`.
#[doc(hidden)]
pub use base::level::carrier;
