//! Threads for what must not run in a session's own: votes that waited for a lock, calls that take long.
//!
//! A thread is started when none is free, and ends after a while without work.

use std::collections::VecDeque;
use std::thread;
use std::time::{Duration, Instant};

use crate::base::sync::{Arc, Condvar, Mutex};
use crate::server::room::Room;

/// More jobs than this at a time wait in a queue.
const THREADS_MAX: usize = 64;
const IDLE_MAX: Duration = Duration::from_secs(10);
/// Conflict checks and log walks; the storage allocates on the heap.
const STACK: usize = 512 << 10;

type Job = Box<dyn FnOnce() + Send>;

/// The pools of a server, and what those who use them share: nobody with locks waits behind an errand, and no other vote behind a helper.
#[derive(Clone, Default)]
pub struct Pools {
    /// Votes that had to wait for locks.
    pub votes: Workers,
    /// Votes that wait for a helper to merge conflicts, with their locks.
    pub merges: Workers,
    /// Loads that wait for the disk.
    pub reads: Workers,
    /// What takes long and holds no locks.
    pub errands: Workers,
    /// Loads of large records that wait for their share of `room`.
    pub large: Workers,
    pub room: Room,
}

/// A pool of threads.
#[derive(Clone, Default)]
pub struct Workers(Arc<Pool>);

#[derive(Default)]
struct Pool {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

impl Workers {
    /// Run `job` soon, in another thread.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        let mut state = self.0.state.lock();
        state.jobs.push_back(Box::new(job));
        if state.idle >= state.jobs.len() {
            drop(state);
            self.0.work.notify_one();
        } else if state.threads < THREADS_MAX {
            state.threads += 1;
            drop(state);
            let pool = Arc::clone(&self.0);
            let spawned =
                thread::Builder::new().name("zeo-worker".into()).stack_size(STACK).spawn(move || pool.work());
            if let Err(error) = spawned {
                self.0.state.lock().threads -= 1;
                log::error!(target: "ZEO.StorageServer", "Can't start a thread: {error}");
                // Rather late in this thread than never.
                self.0.run_queued();
            }
        }
    }
}

impl Pool {
    fn run_queued(&self) {
        loop {
            let Some(job) = self.state.lock().jobs.pop_front() else { return };
            job();
        }
    }

    fn work(&self) {
        loop {
            self.run_queued();
            let until = Instant::now() + IDLE_MAX;
            let mut state = self.state.lock();
            state.idle += 1;
            while state.jobs.is_empty() {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    state.idle -= 1;
                    state.threads -= 1;
                    return;
                }
                state = self.work.wait_timeout(state, left);
            }
            state.idle -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn jobs_run_side_by_side() {
        let workers = Workers::default();
        let (to_first, first) = mpsc::channel::<()>();
        let (done, finished) = mpsc::channel::<u8>();
        let (a, b) = (done.clone(), done);
        workers.run(move || {
            first.recv().unwrap();
            a.send(1).unwrap();
        });
        workers.run(move || {
            b.send(2).unwrap();
            to_first.send(()).unwrap();
        });
        assert_eq!(finished.iter().take(2).collect::<Vec<_>>(), [2, 1]);
    }
}
