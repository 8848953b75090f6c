//! The one thread that locks, commits, and finds what others have committed; so these cannot overtake each other.
//!
//! Threads leave their requests at the [`desk`] and wait for the answers. The sequencer takes all that is there, and
//! sends it on one session: the votes in one message, and the commits in the next one, so that a vote is answered
//! before a commit waits for the disk:
//!
//! - *locks* of a vote: advisory locks on the objects, which clients of RelStorage and other servers take too, tried
//!   without waiting, and the serials of the objects behind them. The locks belong to the session and last until the
//!   transaction is published or aborted.
//! - *finishes*: all that wait become one group; it waits a little for those of transactions that have just been voted
//!   for ([`gather`]). One call of `runzeo_commit_1` (without history `runzeo_commit_free_1`) commits them in one
//!   database transaction, each with a tid of its own ([`group`]).
//! - *catching up*: transactions of others are looked for when a client asks for the newest state, when another server
//!   has notified, and every 100 ms.
//!
//! A transaction with blobs in a shared directory gets its tid before the call ([`place`]).
//!
//! What the call or the search returns is complete: the commit lock (advisory lock -1) is held from the choice of a tid
//! until the commit is visible, so the order of tids is that of commits. Others' transactions and ours are published
//! together in the order of their tids ([`publish`]).
//!
//! A lost session is replaced ([`recover`]): the old one is ended first, then the locks are taken again, and a group
//! whose answer was lost is looked up, never guessed.
//!
//! With a read-only storage only the search is there.

pub mod desk;
mod gather;
pub mod group;
mod locks;
mod place;
mod present;
pub mod publish;
mod recover;
mod start;
mod turn;
mod writer;

pub use desk::{Finish, Sequencer, WrittenRecord, WrittenTransaction};
pub use locks::WantedLocks;
pub use start::{RO_REPLICA_CONF, found};
