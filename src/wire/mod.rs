//! Bytes <-> typed messages, without sockets and storages.
//!
//! The differences between protocol generations are rows in [`protocol`]; the two encodings are in `pickle` and
//! `msgpack`. The server's side: [`decode`] turns frames into [`request::Call`]s, [`reply`] and [`push`] turn answers
//! into frames. The client's side: [`calls`] turns calls into frames, [`answers`] decodes replies and pushes. No input
//! from a peer causes a panic.

// Data from peers and files must not cause a panic.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::cast_possible_truncation))]

pub mod answers;
mod arguments;
pub mod availability;
pub mod calls;
pub mod decode;
pub mod encoder;
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
pub mod results;
mod scalars;
#[cfg(test)]
mod tests;
pub mod undo_id;
pub mod value;
