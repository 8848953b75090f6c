//! Bytes <-> typed messages, without sockets and storages.
//!
//! The differences between protocol generations are rows in [`protocol`]; the two encodings are in `pickle` and
//! `msgpack`. [`decode`] turns frames into [`request::Call`]s, [`reply`] and [`push`] turn answers into frames. No
//! input from a peer causes a panic.

// Data from peers and files must not cause a panic.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::cast_possible_truncation))]

mod arguments;
pub mod call;
pub mod decode;
mod encoder;
pub mod exception;
pub mod frame;
pub mod mac;
mod methods;
mod msgpack;
mod pickle;
pub mod protocol;
pub mod push;
pub mod reply;
pub mod request;
mod scalars;
#[cfg(test)]
mod tests;
pub mod value;
