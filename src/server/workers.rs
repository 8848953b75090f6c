//! Pools of threads for work that must not run in a session's thread: votes that waited for a lock, calls that take
//! long.
//!
//! Each pool has one permanent thread, started with the server, so that jobs are run even if no further thread can be
//! started. More threads are started while jobs wait; they end after [`IDLE_MAX`] without work.
//!
//! A thread has the priority of the one that starts it. So one that stands back (`priority low` of `<listen>`) starts
//! none: the threads of the pool do it when jobs are left for which there is no thread.
//!
//! *Invariant: a job never runs in the thread that hands it over.* That thread may hold locks that the job needs; and
//! a vote that fails hands over the next one, which would run deeper and deeper in the same stack.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

use crate::base::clock::TimeSource;
use crate::base::level::ERROR;
use crate::base::sync::{Arc, Condvar, Mutex, MutexGuard, rank};
use crate::process::priority::stands_back;
use crate::server::client_log::{NO_THREAD, log_without_peer};
use crate::server::record_memory::RecordMemory;

/// Threads of a pool. Further jobs wait in its queue.
const THREADS_MAX: usize = 64;
/// Threads for votes that wait for a helper: each holds locks, and must notice at once when its client aborts.
const MERGES_MAX: usize = 1024;
/// A thread that is not permanent ends after this time without work.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// Pause after a thread could not be started, before another one is tried.
const SPAWN_PAUSE: Duration = Duration::from_secs(1);
/// Conflict checks and log walks; the storage allocates on the heap.
const STACK: usize = 512 << 10;

/// A job for a pool.
pub type Job = Box<dyn FnOnce() + Send>;

/// The pools of a server, one for each kind of work, so that work with locks on oids never waits behind work that
/// takes long.
#[derive(Clone)]
pub struct Pools {
    /// Votes that had to wait for locks.
    pub votes: Workers,
    /// Votes that wait for a helper to merge conflicts, with their locks.
    pub merges: Workers,
    /// Looking up the objects of undos, before their locks are requested.
    pub undos: Workers,
    /// Loads that wait for the disk.
    pub reads: Workers,
    /// Packs; a storage refuses a second one.
    pub packs: Workers,
    /// Background jobs that hold no locks: undo logs.
    pub background: Workers,
    /// Loads of large records that wait for their share of `record_memory`.
    pub large: Workers,
    pub record_memory: RecordMemory,
}

/// A pool of threads, which ends when the last clone of this is dropped.
#[derive(Clone)]
pub struct Workers(Arc<Ends>);

/// Ends the pool's threads when it is dropped; jobs that are queued are still done.
struct Ends(Arc<Pool>);

struct Pool {
    threads_max: usize,
    clock: TimeSource,
    state: Mutex<JobQueue, rank::Workers>,
    work: Condvar,
}

#[derive(Default)]
struct JobQueue {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    /// Time of the last failure to start a thread.
    failed_at: Option<Instant>,
    /// Jobs that are queued are still done.
    is_ended: bool,
}

impl Pools {
    /// Starts the permanent threads.
    pub fn start(record_memory: RecordMemory, clock: &TimeSource) -> io::Result<Pools> {
        let start = || Workers::start(THREADS_MAX, clock.clone());
        Ok(Pools {
            votes: start()?,
            merges: Workers::start(MERGES_MAX, clock.clone())?,
            undos: start()?,
            reads: start()?,
            packs: start()?,
            background: start()?,
            large: start()?,
            record_memory,
        })
    }
}

impl Workers {
    fn start(threads_max: usize, clock: TimeSource) -> io::Result<Workers> {
        let state = JobQueue { threads: 1, ..JobQueue::default() };
        let pool = Arc::new(Pool { threads_max, clock, state: Mutex::new(state), work: Condvar::new() });
        Pool::spawn(&pool, true)?;
        Ok(Workers(Arc::new(Ends(pool))))
    }

    /// Runs `job` in another thread, as soon as there is one. A panic in it costs this job only.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        self.run_job(Box::new(job));
    }

    /// The same for a job in a box.
    pub fn run_job(&self, job: Job) {
        let pool = &self.0.0;
        let mut state = pool.state.lock();
        state.jobs.push_back(job);
        if state.idle >= state.jobs.len() {
            drop(state);
            pool.work.notify_one();
        } else if !stands_back() {
            Pool::grow(pool, state);
        }
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.state.lock().is_ended = true;
        self.0.work.notify_all();
    }
}

impl Pool {
    /// Starts one more thread, if there may be one.
    fn grow(pool: &Arc<Pool>, mut state: MutexGuard<'_, JobQueue>) {
        let may_try = state.failed_at.is_none_or(|at| pool.clock.elapsed(at) >= SPAWN_PAUSE);
        if state.threads >= pool.threads_max || !may_try {
            return;
        }
        state.threads += 1;
        drop(state);
        if let Err(error) = Pool::spawn(pool, false) {
            pool.could_not_spawn(&error);
        }
    }

    fn spawn(pool: &Arc<Pool>, is_permanent: bool) -> io::Result<()> {
        let pool = Arc::clone(pool);
        let run = move || Pool::work(&pool, is_permanent);
        thread::Builder::new().name("zeo-worker".into()).stack_size(STACK).spawn(run)?;
        Ok(())
    }

    /// Notes and logs that a thread could not be started. The job is done by one of the others.
    fn could_not_spawn(&self, error: &io::Error) {
        let mut state = self.state.lock();
        state.threads -= 1;
        state.failed_at = Some(self.clock.now());
        let threads = state.threads;
        drop(state);
        let what = format_args!(
            "Can't start a thread: {error}. {threads} do the work, which takes longer; a limit of threads is too low (ulimit -u, \
             TasksMax, pids.max)"
        );
        log_without_peer(&NO_THREAD, ERROR, what);
    }

    fn work(pool: &Arc<Pool>, is_permanent: bool) {
        let mut until = pool.clock.now() + IDLE_MAX;
        let mut state = pool.state.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                if state.idle < state.jobs.len() {
                    Pool::grow(pool, state);
                } else {
                    drop(state);
                }
                // The panic hook has logged it.
                let _ = catch_unwind(AssertUnwindSafe(job));
                until = pool.clock.now() + IDLE_MAX;
                state = pool.state.lock();
                continue;
            }
            if state.is_ended || (!is_permanent && pool.clock.now() >= until) {
                state.threads -= 1;
                return;
            }
            state.idle += 1;
            state = if is_permanent {
                pool.work.wait(state)
            } else {
                pool.clock.wait_until(&pool.work, state, until)
            };
            state.idle -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::process::priority::stand_back;

    #[test]
    fn jobs_run_side_by_side() {
        let workers = Workers::start(THREADS_MAX, TimeSource::default()).unwrap();
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

    /// Without a further thread a job ran in the thread that handed it over: within the locks of that thread, or,
    /// each job handing over the next one, deeper and deeper in its stack.
    #[test]
    fn the_only_thread_does_what_its_jobs_hand_over() {
        fn next(workers: &Workers, left: usize, done: mpsc::Sender<usize>) {
            let again = workers.clone();
            workers.run(move || {
                let deep = [0u8; 4096];
                std::hint::black_box(&deep);
                match left {
                    0 => done.send(deep.len()).unwrap(),
                    _ => next(&again, left - 1, done),
                }
            });
        }
        let workers = Workers::start(1, TimeSource::default()).unwrap();
        let (done, finished) = mpsc::channel();
        next(&workers, 10_000, done);
        assert_eq!(finished.recv(), Ok(4096));
    }

    /// A thread that stands back starts none, which would stand back for others; jobs of others start those that are
    /// needed.
    #[test]
    fn threads_of_the_pool_do_not_stand_back() {
        let workers = Workers::start(THREADS_MAX, TimeSource::default()).unwrap();
        let (release, held) = mpsc::channel::<()>();
        let (done, finished) = mpsc::channel();
        let own = || rustix::process::getpriority_process(Some(rustix::thread::gettid())).unwrap();
        let normal = own();
        thread::scope(|scope| {
            let (workers, done) = (workers.clone(), done.clone());
            scope.spawn(move || {
                stand_back();
                assert!(stands_back());
                workers.run(move || held.recv().unwrap());
                for _ in 0..3 {
                    let done = done.clone();
                    workers.run(move || done.send(own()).unwrap());
                }
            });
        });
        workers.run(move || done.send(own()).unwrap());
        assert_eq!(finished.iter().take(4).collect::<Vec<_>>(), [normal; 4]);
        release.send(()).unwrap();
    }

    #[test]
    fn a_panic_costs_its_job_only() {
        let workers = Workers::start(1, TimeSource::default()).unwrap();
        let (done, finished) = mpsc::channel();
        for n in 0..3 {
            let done = done.clone();
            workers.run(move || {
                assert!(n != 1, "expected");
                done.send(n).unwrap();
            });
        }
        drop(done);
        assert_eq!(finished.iter().collect::<Vec<_>>(), [0, 2]);
    }

    #[test]
    fn what_is_queued_is_done_though_the_pool_ends() {
        let workers = Workers::start(1, TimeSource::default()).unwrap();
        let (done, finished) = mpsc::channel();
        for n in 0..100 {
            let done = done.clone();
            workers.run(move || done.send(n).unwrap());
        }
        drop((workers, done));
        assert_eq!(finished.iter().count(), 100);
    }
}
