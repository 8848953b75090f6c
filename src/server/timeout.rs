//! `transaction-timeout`: a client that holds its locks for too long loses its connection, and thereby them.
//!
//! The time runs from the moment when the locks are granted until they are released, as in Python's server.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

use crate::base::clock::TimeSource;
use crate::base::sync::{Arc, Condvar, Mutex, rank};

/// Called when a transaction's time is up.
type Expire = Box<dyn FnOnce() + Send>;
/// Deadline and owner of the locks.
type Key = (Instant, u64);

/// The deadlines of one storage. Without a timeout there are none.
#[derive(Clone)]
pub struct Timeouts(Arc<Deadlines>);

struct Deadlines {
    /// The name of the storage.
    storage: String,
    clock: TimeSource,
    /// A reload replaces it.
    timeout: ArcSwapOption<Duration>,
    state: Mutex<Expiries, rank::Timeouts>,
    earlier: Condvar,
}

#[derive(Default)]
struct Expiries {
    /// What to do at each of them.
    actions: BTreeMap<Key, Expire>,
    /// Whether the thread was started.
    started: bool,
    stopped: bool,
}

/// The time until which a transaction may hold its locks. It ends when this is dropped.
pub struct Deadline(Option<(Arc<Deadlines>, Key)>);

impl Timeouts {
    /// Starts the clock's thread if there is a timeout.
    pub fn start(timeout: Option<Duration>, storage: &str, clock: TimeSource) -> std::io::Result<Timeouts> {
        let timeouts = Timeouts(Arc::new(Deadlines {
            storage: storage.into(),
            clock,
            timeout: ArcSwapOption::empty(),
            state: Mutex::default(),
            earlier: Condvar::new(),
        }));
        timeouts.set(timeout)?;
        Ok(timeouts)
    }

    /// Sets another timeout. Deadlines that have begun stay as they are. If the thread that the first timeout needs
    /// cannot be started, nothing is changed.
    pub fn set(&self, timeout: Option<Duration>) -> std::io::Result<()> {
        let Timeouts(deadlines) = self;
        if timeout.is_some() && !std::mem::replace(&mut deadlines.state.lock().started, true) {
            let watched = Arc::clone(deadlines);
            let name = format!("TimeoutThread for {}", deadlines.storage);
            if let Err(error) = thread::Builder::new().name(name).spawn(move || watched.run()) {
                deadlines.state.lock().started = false;
                return Err(error);
            }
        }
        deadlines.timeout.store(timeout.map(Arc::new));
        Ok(())
    }

    /// Is there a timeout?
    pub fn is_active(&self) -> bool {
        self.0.timeout.load().is_some()
    }

    /// The locks of `owner` were granted. `expire` is called, with the timeout, unless the deadline ends before.
    pub fn begin(&self, owner: u64, expire: impl FnOnce(Duration) + Send + 'static) -> Deadline {
        let Timeouts(deadlines) = self;
        let Some(timeout) = deadlines.timeout.load().as_deref().copied() else { return Deadline(None) };
        let key = (deadlines.clock.now() + timeout, owner);
        let mut state = deadlines.state.lock();
        let is_first = state.actions.first_key_value().is_none_or(|(first, _)| key < *first);
        state.actions.insert(key, Box::new(move || expire(timeout)));
        drop(state);
        if is_first {
            deadlines.earlier.notify_one();
        }
        Deadline(Some((Arc::clone(deadlines), key)))
    }

    /// Ends the thread.
    pub fn stop(&self) {
        self.0.state.lock().stopped = true;
        self.0.earlier.notify_one();
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

    /// A timeout that comes later, one that is shorter than before, and none.
    #[test]
    fn another_timeout_is_for_later_deadlines() {
        let clock = TimeSource::manual();
        let timeouts = Timeouts::start(None, "1", clock.clone()).expect("no thread is needed");
        let (expired, owners) = mpsc::channel();
        let begin = |owner: u64| {
            let expired = expired.clone();
            timeouts.begin(owner, move |timeout| expired.send((owner, timeout)).expect("a receiver"))
        };
        let without = begin(1);
        timeouts.set(Some(4 * HOUR)).expect("a thread");
        let long = begin(2);
        timeouts.set(Some(HOUR)).expect("the same thread");
        let short = begin(3);
        timeouts.set(None).expect("no thread is needed");
        assert!(!timeouts.is_active());
        let never = begin(4);
        clock.advance(HOUR);
        assert_eq!(owners.recv_timeout(HOUR), Ok((3, HOUR)));
        clock.advance(3 * HOUR);
        assert_eq!(owners.recv_timeout(HOUR), Ok((2, 4 * HOUR)));
        clock.advance(100 * HOUR);
        assert!(owners.recv_timeout(Duration::from_millis(50)).is_err());
        drop((without, long, short, never));
        timeouts.stop();
    }
}
