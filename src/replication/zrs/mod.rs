//! The protocol of zc.zrs 3.1: a *primary* sends its transactions to *secondaries*, which have the same and serve them
//! read-only. Both are layers over a storage with transactions; one around the other is a link of a chain.
//!
//! A secondary connects and says its protocol and its last transaction, each in a frame ([`frames`](super::frames)).
//! From then on the primary sends every later transaction ([`message`]) as soon as it is published, and the secondary
//! nothing but empty frames, now and then, if it is asked to. There is no answer, no acknowledgement and no end. A
//! running checksum, which begins with the secondary's last transaction, tells the secondary that it has received what
//! was sent.
//!
//! A primary cannot tell from one transaction id whether a secondary has its history. It refuses one that is ahead, and
//! one whose last transaction it would have to have ([`feed`]); zc.zrs accepts the latter, and merges two histories.

mod feed;
mod follow;
mod following;
pub mod message;
mod outgoing;
pub mod primary;
mod published;
pub mod receive;
pub mod secondary;

use std::time::Duration;

use crate::base::ids::Tid;

/// Targets of the lines in the log, as in zc.zrs.
const PRIMARY_LOG: &str = "zc.zrs.primary";
const SECONDARY_LOG: &str = "zc.zrs.secondary";

/// The protocol of secondaries that know blobs.
const WITH_BLOBS: &[u8] = b"zrs2.1";
/// The protocol of those that do not.
const WITHOUT_BLOBS: &[u8] = b"zrs2.0";

/// A peer that the network does not reach any more is noticed within this time.
const DEAD_PEER_TIMEOUT: Duration = Duration::from_secs(60);

/// Where a secondary with this last transaction begins, for the log.
fn from(last: Tid) -> String {
    match last {
        Tid::ZERO => "from the beginning".into(),
        last => format!("behind transaction {last} of {}", last.to_iso()),
    }
}
