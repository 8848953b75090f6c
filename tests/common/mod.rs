//! A server process and a raw client that sees the byte stream, for tests of the whole program.
//!
//! The client shares no code with the server: it has its own pickles, and it never interprets more than its test
//! asks for. `RUNZEO_TEST_BINARY` names another server to test (any command that takes `-a` and `-f`).

#![allow(dead_code)] // each test uses its own part

pub mod client;
pub mod faults;
pub mod msgpack;
pub mod pickle;
pub mod process;
