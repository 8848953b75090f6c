//! Bytes <-> typed messages. No sockets and no storages here.
//!
//! What differs between protocol generations is a row in [`protocol`]; how the two encodings differ is in
//! `pickle` and `msgpack`. [`decode`] turns frames into [`request::Call`]s, [`reply`] and [`push`] turn
//! answers into frames. Nothing here panics on what a peer sends.

// What comes from a peer or a file must not be able to panic. Tests may.
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
