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
    /// By the number of its connection. One that has gone is not in it.
    by_number: HashMap<u64, Secondary>,
    /// Number of connections so far.
    count: u64,
}

struct Secondary {
    stream: Arc<Stream>,
    /// Its greeting is read and accepted.
    follows: bool,
}

impl Published {
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

    /// Something was published.
    pub fn wake(&self) {
        // Under the lock, or it could come between a look at the storage and the wait.
        let _state = self.state.lock();
        self.changed.notify_all();
    }

    /// The number of a new connection. `None`: there are too many, or none is wanted any more.
    pub fn add(&self, stream: &Arc<Stream>) -> Option<u64> {
        let mut state = self.state.lock();
        if state.is_closing || state.by_number.len() >= SECONDARIES_MAX {
            return None;
        }
        state.count += 1;
        let connection = state.count;
        state.by_number.insert(connection, Secondary { stream: Arc::clone(stream), follows: false });
        Some(connection)
    }

    /// From now on a close waits until it has what is published.
    pub fn follows(&self, connection: u64) {
        if let Some(secondary) = self.state.lock().by_number.get_mut(&connection) {
            secondary.follows = true;
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
        self.end(|secondary| !secondary.follows);
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
    fn end(&self, which: impl Fn(&Secondary) -> bool) {
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
        let delivery = self.server.publish(group, install);
        self.then_wake(delivery)
    }

    fn missed(&self, last: Tid, oids: Option<Vec<Oid>>, install: &mut dyn FnMut()) -> Delivery {
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
