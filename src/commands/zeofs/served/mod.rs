//! Storages of running servers in the place of a file: what a client can see of them.
//!
//! - `address`: `zeo://HOST:PORT?storage=NAME`; `names`: that, a section of a configuration, or a file
//! - `connection`: a connected storage and its transactions
//! - `fetch`: all transactions in a temporary file, which the commands read as any other
//!
//! Always true: what a server sends is compared with what was asked for (tids ascend, and are in the interval), and
//! goes to the output or to the temporary file record by record, so that the memory does not depend on the number of
//! transactions or records.

pub(super) mod address;
pub(super) mod connection;
pub(super) mod fetch;
pub(super) mod names;
