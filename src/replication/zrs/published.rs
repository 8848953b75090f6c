//! What has been published, for the threads of the secondaries that wait for it.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use crate::base::clock::{IoDeadline, TimeSource};
use crate::base::ids::{Oid, Tid};
use crate::base::sync::{Arc, Condvar, Mutex, rank};
use crate::net::stream::{Sink, Stream};
use crate::replication::recent::RecentGroups;
use crate::storage::{Committed, Delivery, Publisher, Secondary, Storage, StorageError, Ticket};

/// Secondaries at once. More are no copies, but a flood.
pub const SECONDARIES_MAX: usize = 100;

/// What the threads of the secondaries wait for, and who they are.
pub struct Published {
    state: Mutex<Secondaries, rank::ZrsSecondaries>,
    changed: Condvar,
    /// For the lag.
    recent: Mutex<RecentGroups, rank::ZrsRecent>,
}

struct Secondaries {
    /// The server stops: what is published is sent, and then no more.
    is_closing: bool,
    /// By the number of its connection. One that has gone is not in it.
    by_number: BTreeMap<u64, Connected>,
    /// Number of connections so far.
    count: u64,
}

struct Connected {
    stream: Arc<Stream>,
    peer: String,
    since: SystemTime,
    /// Its greeting is read and accepted: the last transaction that it has or was sent.
    sent: Option<Tid>,
}

impl Published {
    /// Of a storage whose last transaction is `last`, of `size` bytes.
    pub fn new(last: Tid, size: u64) -> Published {
        let state = Secondaries { is_closing: false, by_number: BTreeMap::new(), count: 0 };
        let recent = Mutex::new(RecentGroups::new(last, size));
        Published { state: Mutex::new(state), changed: Condvar::new(), recent }
    }

    /// Those that follow, as they are shown.
    pub fn secondaries(&self) -> Vec<Secondary> {
        let (state, recent) = (self.state.lock(), self.recent.lock());
        let shown = |one: &Connected| {
            let sent = one.sent?;
            Some(Secondary { peer: one.peer.clone(), since: one.since, sent, behind: recent.lag(sent) })
        };
        state.by_number.values().filter_map(shown).collect()
    }

    /// Waits for a transaction that is later than `sent`. False: nothing more is to be sent on this connection.
    pub fn wait_for_later(&self, storage: &dyn Storage, sent: Tid, connection: u64) -> bool {
        let mut state = self.state.lock();
        loop {
            if !state.by_number.contains_key(&connection) {
                return false;
            }
            if storage.last_transaction() > sent {
                return true;
            }
            if state.is_closing {
                return false;
            }
            state = self.changed.wait(state);
        }
    }

    /// A group is about to be published.
    fn note(&self, last: Tid, size: Option<u64>, count: usize) {
        let mut recent = self.recent.lock();
        let size = size.unwrap_or_else(|| recent.end());
        recent.add(last, size, count as u64);
    }

    /// Something was published.
    pub fn wake(&self) {
        // Under the lock, or it could come between a look at the storage and the wait.
        let _state = self.state.lock();
        self.changed.notify_all();
    }

    /// The number of a new connection. `None`: there are too many, or none is wanted any more.
    pub fn add(&self, stream: &Arc<Stream>, peer: &str) -> Option<u64> {
        let mut state = self.state.lock();
        if state.is_closing || state.by_number.len() >= SECONDARIES_MAX {
            return None;
        }
        state.count += 1;
        let connection = state.count;
        let (stream, since) = (Arc::clone(stream), TimeSource::SYSTEM.system_time());
        state.by_number.insert(connection, Connected { stream, peer: peer.into(), since, sent: None });
        Some(connection)
    }

    /// It has the transactions up to `last`, or was sent them. From the first call on a close waits until it has what
    /// is published.
    pub fn sent(&self, connection: u64, last: Tid) {
        if let Some(secondary) = self.state.lock().by_number.get_mut(&connection) {
            secondary.sent = Some(last);
        }
    }

    pub fn remove(&self, connection: u64) {
        self.state.lock().by_number.remove(&connection);
        self.changed.notify_all();
    }

    /// Waits for a change, so long.
    pub fn pause(&self, pause: Duration) {
        let state = self.state.lock();
        drop(self.changed.wait_timeout(state, pause));
    }

    /// Returns when no connection is left. Those that follow have this time to receive what is published.
    pub fn close(&self, wait_max: Duration) {
        let mut state = self.state.lock();
        state.is_closing = true;
        self.changed.notify_all();
        drop(state);
        self.end(|secondary| secondary.sent.is_none());
        let until = IoDeadline::after(wait_max);
        let mut state = self.state.lock();
        while !state.by_number.is_empty() && !until.is_over() {
            state = self.changed.wait_timeout(state, until.left());
        }
        drop(state);
        self.end(|_| true);
        let mut state = self.state.lock();
        while !state.by_number.is_empty() {
            state = self.changed.wait(state);
        }
    }

    /// Ends the streams of some. Their threads notice it.
    fn end(&self, which: impl Fn(&Connected) -> bool) {
        let streams: Vec<Arc<Stream>> = {
            let state = self.state.lock();
            state.by_number.values().filter(|one| which(one)).map(|one| Arc::clone(&one.stream)).collect()
        };
        streams.iter().for_each(|stream| stream.shutdown());
    }
}

/// Tells the server, and then the secondaries.
pub struct Announcer {
    pub server: Arc<dyn Publisher>,
    pub published: Arc<Published>,
}

impl Announcer {
    fn then_wake(&self, delivery: Delivery) -> Delivery {
        let published = Arc::clone(&self.published);
        Box::new(move || {
            published.wake();
            delivery();
        })
    }
}

impl Publisher for Announcer {
    fn publish(&self, group: Vec<Committed>, install: &mut dyn FnMut()) -> Delivery {
        if let Some(last) = group.last() {
            self.published.note(last.tid, Some(last.size), group.len());
        }
        let delivery = self.server.publish(group, install);
        self.then_wake(delivery)
    }

    fn missed(&self, last: Tid, oids: Option<Vec<Oid>>, install: &mut dyn FnMut()) -> Delivery {
        self.published.note(last, None, 1);
        let delivery = self.server.missed(last, oids, install);
        self.then_wake(delivery)
    }

    fn look_again(&self, why: &'static str) -> Delivery {
        self.server.look_again(why)
    }

    fn disconnect(&self, why: &'static str) -> Delivery {
        self.server.disconnect(why)
    }

    fn failed(&self, ticket: Ticket, error: StorageError) {
        self.server.failed(ticket, error);
    }
}
