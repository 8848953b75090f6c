//! Copies of a storage at other servers.
//!
//! [`zrs`] speaks with the primaries and secondaries of zc.zrs.

pub(crate) mod zrs;
