//! A client of PostgreSQL: blocking, pipelining, without a runtime. Nothing of ZODB is in here.
//!
//! `dsn` reads connection strings; `connect` opens a [`Connection`] as they say. [`Batch`] is what is sent in one
//! write, [`Rows`] what comes back. Messages are made and parsed by the crate `postgres-protocol`; rows, which are most
//! of what comes, by `rows.rs`.
//!
//! *Invariants:* memory grows with what a server has sent and within limits, never with what it claims to send
//! (`inbox.rs`, `collect.rs`, `session.rs`); no message shows a password; nothing waits without a deadline if one is
//! set.

mod authenticate;
pub mod batch;
mod binary_rows;
pub mod cancel;
pub mod collect;
pub mod connect;
pub mod connection;
mod copy;
pub mod dsn;
mod encrypt;
pub mod error;
pub mod inbox;
pub mod login;
pub mod peer;
pub mod rows;
pub mod session;
pub mod silence;
mod stream;
pub mod transport;
pub mod value;
pub mod wake;

pub use self::batch::{Batch, Statement, TooLarge};
pub use self::binary_rows::BinaryRows;
pub use self::collect::Answer;
pub use self::connection::Connection;
pub use self::error::{Lost, Malformed, ServerError};
pub use self::login::Login;
pub use self::rows::{Row, Rows};
pub use self::silence::{ProcessState, SilenceCheck};
pub use self::value::{Type, Value};
pub use self::wake::Wake;
