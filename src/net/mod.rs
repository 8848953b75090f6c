//! Sockets: listening and streams. Knows nothing of what is sent.

pub mod listen;
pub mod stream;
pub mod tls;
