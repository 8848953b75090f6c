//! Listening sockets and streams. Independent of the protocol.

pub mod connect;
pub mod listen;
pub mod peer_process;
pub mod proxy;
pub mod resolve;
pub mod stream;
pub mod tls;
