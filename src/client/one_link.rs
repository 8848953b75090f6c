//! One connection of a client, for calls that belong together: all are answered by the same server in the same run, or
//! fail. No cache takes part, and a transaction that has not been published here yet is seen, too.

use super::ask::ask;
use super::iterate::iterate_on;
use super::link::Link;
use super::results;
use super::server_info::ServerInfo;
use crate::base::ids::Tid;
use crate::base::sync::Arc;
use crate::storage::{Result, TransactionIterator};
use crate::wire::availability::Method;
use crate::wire::calls::Call;
use crate::wire::protocol::Generation;

/// A connection that was in use at one moment.
pub struct OneLink {
    link: Link,
    info: Arc<ServerInfo>,
}

impl OneLink {
    pub(super) fn new(link: Link, info: Arc<ServerInfo>) -> OneLink {
        OneLink { link, info }
    }

    /// Whether it has ended: then all calls fail.
    pub fn has_ended(&self) -> bool {
        self.link.has_ended()
    }

    /// The protocol that both sides speak.
    pub fn generation(&self) -> Generation {
        self.link.wire().generation
    }

    /// Bytes of the storage, as the server has said when the connection was made or later.
    pub fn size(&self) -> u64 {
        self.info.size
    }

    /// Whether the server lists the transactions of this storage.
    pub fn can_iterate(&self) -> bool {
        self.info.provides("IStorageIteration") && self.link.wire().knows(Method::IteratorStart)
    }

    /// The server's last transaction; zero: it has none.
    pub fn last_transaction(&self) -> Result<Tid> {
        let last = ask(&self.link, &Call::LastTransaction, None, |answer| answer.optional_tid())?;
        Ok(last.unwrap_or_default())
    }

    /// The transactions from `start` to `stop`, both inclusive.
    pub fn iterate(&self, start: Tid, stop: Tid) -> Result<Box<dyn TransactionIterator>> {
        let start = Some(start).filter(|start| *start != Tid::ZERO);
        Ok(Box::new(iterate_on(&self.link, start, Some(stop))?))
    }

    /// The oldest of the `count` transactions that were committed last and can be undone. `None`: the server has named
    /// fewer.
    pub fn undoable(&self, count: u32) -> Result<Option<Tid>> {
        if !self.info.supports_undo || !self.link.wire().knows(Method::UndoLog) {
            return Ok(None);
        }
        let call = Call::UndoLog { first: 0, last: i64::from(count) };
        let entries = ask(&self.link, &call, None, |answer| answer.undo_log())?;
        if (entries.len() as u64) < u64::from(count) {
            return Ok(None);
        }
        Ok(entries.into_iter().filter_map(results::undoable).map(|entry| entry.tid).min())
    }
}
