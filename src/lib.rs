//! The ZEO storage server for ZODB.
//!
//! A module imports only from steps below its own; neighbours on one step do not import each other:
//!
//! ```text
//! bin > commands > config > server, client > exceptions > storage, logging, net, auth, process > wire, conflict
//!   > pickle > base
//! ```
//!
//! The path of a load from socket to socket is one thread and one call deep at each stage:
//! `server::session::run` reads a frame, `wire` decodes it to a [`wire::request::Request`],
//! `server::session::load` asks the storage, which makes one positioned read behind the reply's
//! header, and `server::publish` queues the reply if nothing was published meanwhile that touches it.

pub mod auth;
mod base;
mod client;
pub mod commands;
mod config;
mod conflict;
mod exceptions;
#[doc(hidden)]
pub mod internal;
mod logging;
mod net;
mod pickle;
mod process;
mod server;
pub mod storage;
mod wire;

pub use base::ids;
/// For the macro `log_at`.
#[doc(hidden)]
pub use logging::level::carrier;
