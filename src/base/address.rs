//! Where a server listens or a log line goes: a TCP host and port, or the path of a Unix socket.
//!
//! The text forms are ZConfig's: `PORT`, `HOST`, `HOST:PORT`, `:PORT`, `[IPV6]:PORT`, and a path, which
//! is anything with a slash in it. No name is looked up here.

use std::fmt;
use std::path::PathBuf;

/// An address as configured.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Address {
    Tcp {
        /// `None`: every interface (when binding).
        host: Option<String>,
        /// `None`: whatever the use of the address takes for it; a server takes any free port.
        port: Option<u16>,
    },
    Unix(PathBuf),
}
