//! Bytes <-> typed messages. No sockets and no storages here.
//!
//! What differs between protocol generations is a row in [`protocol`]; codecs turn frames into
//! [`request::Call`]s and replies into frames. Nothing here panics on what a peer sends.

// What comes from a peer or a file must not be able to panic. Tests may.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::cast_possible_truncation))]

pub mod call;
pub mod codec;
mod decode;
mod encode;
pub mod exception;
pub mod frame;
pub mod mac;
mod msgpack;
pub mod protocol;
pub mod push;
pub mod request;
mod scan;
#[cfg(test)]
mod tests;
mod unpack;
pub mod value;
