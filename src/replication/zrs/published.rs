//! What has been published, for the threads of the secondaries that wait for it.

use std::collections::HashMap;
use std::time::Duration;

use crate::base::clock::IoDeadline;
use crate::base::ids::{Oid, Tid};
use crate::base::sync::{Arc, Condvar, Mutex, rank};
use crate::net::stream::{Sink, Stream};
use crate::storage::{Committed, Delivery, Publisher, Storage, StorageError, Ticket};

/// Secondaries at once. More are no copies, but a flood.
pub const SECONDARIES_MAX: usize = 100;

/// What the threads of the secondaries wait for, and who they are.
#[derive(Default)]
pub struct Published {
    state: Mutex<Secondaries, rank::ZrsSecondaries>,
    changed: Condvar,
}

#[derive(Default)]
struct Secondaries {
    /// The server stops: what is published is sent, and then no more.
    is_closing: bool,
    /// The streams by connection. One that has gone is not in it.
    streams: HashMap<u64, Arc<Stream>>,
    connections: u64,
}

impl Published {
    /// Waits for a transaction that is later than `sent`. False: nothing more is to be sent on this connection.
    pub fn wait_for_later(&self, storage: &dyn Storage, sent: Tid, connection: u64) -> bool {
        let mut state = self.state.lock();
        loop {
            if !state.streams.contains_key(&connection) {
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

    /// Something was published.
    pub fn wake(&self) {
        // Under the lock, or it could come between a look at the storage and the wait.
        let _state = self.state.lock();
        self.changed.notify_all();
    }

    /// The number of a new connection. `None`: there are too many, or none is wanted any more.
    pub fn add(&self, stream: &Arc<Stream>) -> Option<u64> {
        let mut state = self.state.lock();
        if state.is_closing || state.streams.len() >= SECONDARIES_MAX {
            return None;
        }
        state.connections += 1;
        let connection = state.connections;
        state.streams.insert(connection, Arc::clone(stream));
        Some(connection)
    }

    pub fn remove(&self, connection: u64) {
        self.state.lock().streams.remove(&connection);
        self.changed.notify_all();
    }

    /// Waits for a change, so long.
    pub fn pause(&self, pause: Duration) {
        let state = self.state.lock();
        drop(self.changed.wait_timeout(state, pause));
    }

    /// Returns when no connection is left. After this time the connections are ended.
    pub fn close(&self, wait_max: Duration) {
        let mut state = self.state.lock();
        state.is_closing = true;
        self.changed.notify_all();
        let until = IoDeadline::after(wait_max);
        while !state.streams.is_empty() && !until.is_over() {
            state = self.changed.wait_timeout(state, until.left());
        }
        let left: Vec<Arc<Stream>> = state.streams.values().cloned().collect();
        drop(state);
        left.iter().for_each(|stream| stream.shutdown());
        let mut state = self.state.lock();
        while !state.streams.is_empty() {
            state = self.changed.wait(state);
        }
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
        let delivery = self.server.publish(group, install);
        self.then_wake(delivery)
    }

    fn missed(&self, last: Tid, oids: Option<Vec<Oid>>, install: &mut dyn FnMut()) -> Delivery {
        let delivery = self.server.missed(last, oids, install);
        self.then_wake(delivery)
    }

    fn became_writable(&self) -> Delivery {
        self.server.became_writable()
    }

    fn failed(&self, ticket: Ticket, error: StorageError) {
        self.server.failed(ticket, error);
    }
}
