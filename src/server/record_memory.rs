//! Memory for large records on their way to clients: a limit for all clients together, of which each record waits for
//! its share.
//!
//! A record of up to a megabyte needs no share. A larger one is read only when its share is there, and the share is
//! given back when the record was sent. Shares are given in the order of the requests. A thread that waits for a
//! share has no other and holds no lock, so a wait is endless only behind a client that does not read: such a client
//! is closed if others wait.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::base::clock::TimeSource;
use crate::base::sync::{Arc, Condvar, Mutex, rank};
use crate::net::stream::{Sink, Stream};
use crate::server::outbox::Outbox;

/// Time that a client may take for a record while others wait behind it, and a second more for each megabyte.
const TIME_MAX: Duration = Duration::from_secs(30);
const BYTES_PER_SECOND: u64 = 1 << 20;
/// Interval at which a wait checks whether its client is gone, or one that holds a share is late.
const PAUSE: Duration = Duration::from_millis(100);
const TOO_SLOW: &str = "the client reads a large record too slowly, and others wait for the memory";

/// The memory for large records. Clones share it.
pub struct RecordMemory<S: Sink = Stream>(Arc<Room<S>>);

struct Room<S: Sink> {
    len_max: usize,
    time_max: Duration,
    clock: TimeSource,
    state: Mutex<Reservations<S>, rank::Room>,
    changed: Condvar,
}

struct Reservations<S: Sink> {
    used: usize,
    /// Numbers of requests, the first of which is the next to be served.
    waiting: VecDeque<u64>,
    held: BTreeMap<u64, Held<S>>,
    number: u64,
}

struct Held<S: Sink> {
    until: Instant,
    outbox: Arc<Outbox<S>>,
}

/// A share of `len` bytes, until this is dropped.
pub struct MemoryShare<S: Sink = Stream> {
    memory: RecordMemory<S>,
    number: u64,
    pub len: usize,
}

impl<S: Sink> RecordMemory<S> {
    /// `len_max` bytes in all.
    pub fn new(len_max: usize, clock: TimeSource) -> RecordMemory<S> {
        RecordMemory::with_time(len_max, TIME_MAX, clock)
    }

    fn with_time(len_max: usize, time_max: Duration, clock: TimeSource) -> RecordMemory<S> {
        let state = Reservations { used: 0, waiting: VecDeque::new(), held: BTreeMap::new(), number: 0 };
        let (state, changed) = (Mutex::new(state), Condvar::new());
        RecordMemory(Arc::new(Room { len_max, time_max, clock, state, changed }))
    }

    /// Waits for a share of `len` bytes. A share larger than the total is given when no other is held. `None`: the
    /// client is gone.
    pub fn take(&self, len: usize, outbox: &Arc<Outbox<S>>) -> Option<MemoryShare<S>> {
        let mut state = self.0.state.lock();
        state.number += 1;
        let number = state.number;
        state.waiting.push_back(number);
        loop {
            if outbox.is_closed() {
                state.waiting.retain(|other| *other != number);
                drop(state);
                self.0.changed.notify_all();
                return None;
            }
            let fits = state.used == 0 || state.used.saturating_add(len) <= self.0.len_max;
            if fits && state.waiting.front() == Some(&number) {
                state.waiting.pop_front();
                state.used += len;
                let time = self.0.time_max + Duration::from_secs(len as u64 / BYTES_PER_SECOND);
                state
                    .held
                    .insert(number, Held { until: self.0.clock.now() + time, outbox: Arc::clone(outbox) });
                drop(state);
                // The next one may fit, too.
                self.0.changed.notify_all();
                return Some(MemoryShare { memory: self.clone(), number, len });
            }
            let now = self.0.clock.now();
            let late: Vec<Arc<Outbox<S>>> = state
                .held
                .values()
                .filter(|held| held.until <= now && !held.outbox.is_closed())
                .map(|held| Arc::clone(&held.outbox))
                .collect();
            if late.is_empty() {
                state = self.0.changed.wait_timeout(state, PAUSE);
                continue;
            }
            drop(state);
            late.iter().for_each(|outbox| outbox.close(TOO_SLOW));
            state = self.0.state.lock();
        }
    }
}

impl<S: Sink> Drop for MemoryShare<S> {
    fn drop(&mut self) {
        let mut state = self.memory.0.state.lock();
        state.used = state.used.saturating_sub(self.len);
        state.held.remove(&self.number);
        drop(state);
        self.memory.0.changed.notify_all();
    }
}

impl Default for RecordMemory {
    fn default() -> RecordMemory {
        RecordMemory::new(512 << 20, TimeSource::default())
    }
}

impl<S: Sink> Clone for RecordMemory<S> {
    fn clone(&self) -> RecordMemory<S> {
        RecordMemory(Arc::clone(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, IoSlice};
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;

    /// A sink that takes nothing.
    struct Deaf;

    impl Sink for Deaf {
        fn try_send(&self, _: &[IoSlice<'_>]) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
        }

        fn send(&self, _: &[IoSlice<'_>]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn shutdown(&self) {}
    }

    fn outbox() -> Arc<Outbox<Deaf>> {
        Arc::new(Outbox::new(Deaf, 1 << 20))
    }

    const FOREVER: Duration = Duration::from_secs(3600);

    /// A small request that would fit does not overtake a large one that came first; otherwise the large one could wait
    /// for ever.
    #[test]
    fn shares_are_had_in_the_order_of_the_requests() {
        let memory: RecordMemory<Deaf> = RecordMemory::with_time(100, FOREVER, TimeSource::default());
        let first = memory.take(60, &outbox()).expect("memory");
        let (to, from) = channel();
        let mut waiting = Vec::new();
        for len in [90, 10, 1000, 5] {
            let (memory, to) = (memory.clone(), to.clone());
            let before = waiting.len();
            waiting.push(thread::spawn({
                let memory = memory.clone();
                move || {
                    let share = memory.take(len, &outbox()).expect("memory");
                    to.send(len).expect("a receiver");
                    drop(share);
                }
            }));
            while memory.0.state.lock().waiting.len() <= before {
                thread::yield_now();
            }
        }
        assert!(from.try_recv().is_err());
        drop(first);
        let mut order: Vec<usize> = from.iter().take(4).collect();
        // Two that fit together may report in either order.
        order[..2].sort_unstable();
        assert_eq!(order, [10, 90, 1000, 5]);
        waiting.into_iter().for_each(|thread| thread.join().expect("no panic"));
        assert_eq!(memory.0.state.lock().used, 0);
    }

    #[test]
    fn a_client_that_does_not_read_is_ended_when_others_wait() {
        let memory: RecordMemory<Deaf> = RecordMemory::with_time(100, Duration::ZERO, TimeSource::default());
        let deaf = outbox();
        let share = memory.take(80, &deaf).expect("memory");
        // No other request waits for this one.
        let beside = memory.take(20, &outbox()).expect("memory");
        assert!(!deaf.is_closed());
        drop(beside);
        let holder = thread::spawn({
            let deaf = Arc::clone(&deaf);
            move || {
                while !deaf.is_closed() {
                    thread::yield_now();
                }
                drop(share);
            }
        });
        let late = memory.take(80, &outbox());
        assert!(late.is_some() && deaf.close_reason() == Some(TOO_SLOW));
        holder.join().expect("no panic");
    }

    #[test]
    fn who_has_gone_does_not_wait() {
        let memory: RecordMemory<Deaf> = RecordMemory::with_time(100, FOREVER, TimeSource::default());
        let share = memory.take(80, &outbox()).expect("memory");
        let gone = outbox();
        gone.close("gone");
        assert!(memory.take(80, &gone).is_none());
        drop(share);
        assert!(memory.take(80, &outbox()).is_some());
    }
}
