//! Object and transaction ids. Bytes become [`Oid`] and [`Tid`] once, where they enter the program; other code does not
//! check lengths.

use std::fmt;

/// An object id: 8 bytes big endian on the wire and on disk. The root object is 0.
#[derive(Clone, Copy, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Oid(pub u64);

/// A transaction id, also called serial: a time stamp as Python's `TimeStamp`
/// makes it, 8 bytes big endian: minutes since 1900 in months of 31 days, then the fraction of the minute in 1/2^32.
#[derive(Clone, Copy, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Tid(pub u64);

macro_rules! eight_bytes {
    ($name:ident) => {
        impl $name {
            /// The id zero: the root oid, or the serial of an object that does not exist yet.
            pub const ZERO: $name = $name(0);
            /// The greatest id that ZODB can compare with: `7fffffffffffffff`.
            pub const MAX: $name = $name(0x7fff_ffff_ffff_ffff);

            /// From 8 bytes, as on the wire and in files.
            pub const fn from_bytes(bytes: [u8; 8]) -> $name {
                $name(u64::from_be_bytes(bytes))
            }

            /// From a slice, if it is 8 bytes long.
            pub fn from_slice(bytes: &[u8]) -> Option<$name> {
                Some($name::from_bytes(bytes.try_into().ok()?))
            }

            /// 8 bytes, as on the wire and in files.
            pub const fn to_bytes(self) -> [u8; 8] {
                self.0.to_be_bytes()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:016x})"), self.0)
            }
        }

        /// 16 hex digits, as Python's log lines show ids.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }
    };
}

eight_bytes!(Oid);
eight_bytes!(Tid);
