//! The client side of the ZEO wire format.
//!
//! Deliberately independent of the library's own codec: a benchmark with the same code would not notice errors in it.
//! Encoding and the path of a load reply allocate nothing per message.

mod encode;
mod frames;
mod message;
mod msgpack;
mod pickle;
mod value;

pub use encode::Encoder;
pub use frames::Frames;
pub use message::{Message, MessageId, ServerError};
pub use value::Value;

/// An object id or a transaction id.
pub type Id8 = [u8; 8];

/// Asks `loadBefore` for the current revision.
pub const MAX_TID: Id8 = *b"\x7f\xff\xff\xff\xff\xff\xff\xff";

/// The protocol, codec and Python of one connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Dialect {
    /// Protocol Z4 with a Python 2 server: pickle protocol 1, byte strings as `str`.
    Z4Python2,
    /// Protocol Z4 with a Python 3 server: pickle protocol 3, byte strings as `bytes`.
    Z4Python3,
    /// Protocol Z5: pickle protocol 3.
    Z5,
    /// Protocol 5 in msgpack.
    M5,
}

impl Dialect {
    /// Protocol 4 and older: `loadEx` instead of `loadBefore`, integer message ids, `serialnos`.
    pub fn is_legacy(self) -> bool {
        matches!(self, Dialect::Z4Python2 | Dialect::Z4Python3)
    }

    pub fn is_python2(self) -> bool {
        self == Dialect::Z4Python2
    }
}
