//! `transaction-timeout`: a client that holds its locks for too long loses its connection, and thereby them.
//!
//! The clock runs from the moment when the locks are granted until they are released, as in Python's server.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use crate::base::sync::{Arc, Condvar, Mutex, rank};

/// What to do when a transaction's time is up.
type Expire = Box<dyn FnOnce() + Send>;

/// The clock of one storage. Without a timeout it does nothing.
#[derive(Clone, Default)]
pub struct Timeouts(Option<Arc<Clock>>);

struct Clock {
    timeout: Duration,
    state: Mutex<State, rank::Timeouts>,
    earlier: Condvar,
}

#[derive(Default)]
struct State {
    /// (deadline, owner) -> what to do then
    deadlines: BTreeMap<(Instant, u64), Expire>,
    stopped: bool,
}

/// Handed out by [`Timeouts::begin`]; needed to stop the clock.
#[derive(Clone, Copy, Debug)]
pub struct Running(Option<Instant>);

impl Timeouts {
    /// Starts the clock's thread if there is a timeout.
    pub fn start(timeout: Option<Duration>, storage: &str) -> std::io::Result<Timeouts> {
        let Some(timeout) = timeout else { return Ok(Timeouts(None)) };
        let clock = Arc::new(Clock { timeout, state: Mutex::default(), earlier: Condvar::new() });
        let ticking = Arc::clone(&clock);
        thread::Builder::new().name(format!("TimeoutThread for {storage}")).spawn(move || ticking.run())?;
        Ok(Timeouts(Some(clock)))
    }

    /// Is there a timeout?
    pub fn is_active(&self) -> bool {
        self.0.is_some()
    }

    /// The locks of `owner` were granted.
    pub fn begin(&self, owner: u64, expire: impl FnOnce(Duration) + Send + 'static) -> Running {
        let Some(clock) = &self.0 else { return Running(None) };
        let timeout = clock.timeout;
        let deadline = Instant::now() + timeout;
        let mut state = clock.state.lock();
        let is_first = state.deadlines.is_empty();
        state.deadlines.insert((deadline, owner), Box::new(move || expire(timeout)));
        drop(state);
        if is_first {
            clock.earlier.notify_one();
        }
        Running(Some(deadline))
    }

    /// They were released.
    pub fn end(&self, owner: u64, running: Running) {
        if let (Some(clock), Some(deadline)) = (&self.0, running.0) {
            clock.state.lock().deadlines.remove(&(deadline, owner));
        }
    }

    /// End the thread.
    pub fn stop(&self) {
        if let Some(clock) = &self.0 {
            clock.state.lock().stopped = true;
            clock.earlier.notify_one();
        }
    }
}

impl Clock {
    fn run(&self) {
        let mut state = self.state.lock();
        while !state.stopped {
            let Some((&key, _)) = state.deadlines.first_key_value() else {
                state = self.earlier.wait(state);
                continue;
            };
            let left = key.0.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                state = self.earlier.wait_timeout(state, left);
                continue;
            }
            if let Some(expire) = state.deadlines.remove(&key) {
                drop(state);
                expire();
                state = self.state.lock();
            }
        }
    }
}
