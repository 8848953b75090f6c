//! Copies of a storage at other servers.
//!
//! [`zrs`] speaks with the primaries and secondaries of zc.zrs, [`cluster`] with other servers of this kind.

pub(crate) mod cluster;
mod feed_error;
mod frames;
mod python2;
mod recent;
pub(crate) mod zrs;
