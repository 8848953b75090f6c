//! `transaction-timeout`: a client that holds its locks for too long loses its connection, and thereby them.
//!
//! The time runs from the moment when the locks are granted until they are released, as in Python's server.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use crate::base::clock::TimeSource;
use crate::base::sync::{Arc, Condvar, Mutex, rank};

/// Called when a transaction's time is up.
type Expire = Box<dyn FnOnce() + Send>;
/// Deadline and owner of the locks.
type Key = (Instant, u64);

/// The deadlines of one storage. Without a timeout there are none.
#[derive(Clone, Default)]
pub struct Timeouts(Option<Arc<Deadlines>>);

struct Deadlines {
    timeout: Duration,
    clock: TimeSource,
    state: Mutex<Expiries, rank::Timeouts>,
    earlier: Condvar,
}

#[derive(Default)]
struct Expiries {
    /// What to do at each of them.
    actions: BTreeMap<Key, Expire>,
    stopped: bool,
}

/// The time until which a transaction may hold its locks. It ends when this is dropped.
pub struct Deadline(Option<(Arc<Deadlines>, Key)>);

impl Timeouts {
    /// Starts the clock's thread if there is a timeout.
    pub fn start(timeout: Option<Duration>, storage: &str, clock: TimeSource) -> std::io::Result<Timeouts> {
        let Some(timeout) = timeout else { return Ok(Timeouts(None)) };
        let deadlines =
            Arc::new(Deadlines { timeout, clock, state: Mutex::default(), earlier: Condvar::new() });
        let watched = Arc::clone(&deadlines);
        thread::Builder::new().name(format!("TimeoutThread for {storage}")).spawn(move || watched.run())?;
        Ok(Timeouts(Some(deadlines)))
    }

    /// Is there a timeout?
    pub fn is_active(&self) -> bool {
        self.0.is_some()
    }

    /// The locks of `owner` were granted. `expire` is called, with the timeout, unless the deadline ends before.
    pub fn begin(&self, owner: u64, expire: impl FnOnce(Duration) + Send + 'static) -> Deadline {
        let Some(deadlines) = &self.0 else { return Deadline(None) };
        let timeout = deadlines.timeout;
        let key = (deadlines.clock.now() + timeout, owner);
        let mut state = deadlines.state.lock();
        let is_first = state.actions.is_empty();
        state.actions.insert(key, Box::new(move || expire(timeout)));
        drop(state);
        if is_first {
            deadlines.earlier.notify_one();
        }
        Deadline(Some((Arc::clone(deadlines), key)))
    }

    /// Ends the thread.
    pub fn stop(&self) {
        if let Some(deadlines) = &self.0 {
            deadlines.state.lock().stopped = true;
            deadlines.earlier.notify_one();
        }
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        if let Some((deadlines, key)) = &self.0 {
            let action = deadlines.state.lock().actions.remove(key);
            // Outside of the lock.
            drop(action);
        }
    }
}

impl Deadlines {
    fn run(&self) {
        let mut state = self.state.lock();
        while !state.stopped {
            let Some((&key, _)) = state.actions.first_key_value() else {
                state = self.earlier.wait(state);
                continue;
            };
            if key.0 > self.clock.now() {
                state = self.clock.wait_until(&self.earlier, state, key.0);
                continue;
            }
            if let Some(expire) = state.actions.remove(&key) {
                drop(state);
                expire();
                state = self.state.lock();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// The time is moved instead of waited for.
    #[test]
    fn a_deadline_expires_unless_it_has_ended() {
        let clock = TimeSource::manual();
        let timeouts = Timeouts::start(Some(HOUR), "1", clock.clone()).expect("a thread");
        let (expired, owners) = mpsc::channel();
        let begin = |owner: u64| {
            let expired = expired.clone();
            timeouts.begin(owner, move |timeout| expired.send((owner, timeout)).expect("a receiver"))
        };
        let first = begin(1);
        let ended = begin(2);
        clock.advance(HOUR / 2);
        let later = begin(3);
        drop(ended);
        assert!(owners.recv_timeout(Duration::from_millis(50)).is_err(), "too early");
        clock.advance(HOUR / 2);
        assert_eq!(owners.recv_timeout(HOUR), Ok((1, HOUR)));
        clock.advance(HOUR);
        assert_eq!(owners.recv_timeout(HOUR), Ok((3, HOUR)));
        assert!(owners.try_recv().is_err());
        drop((first, later));
        timeouts.stop();
    }
}
