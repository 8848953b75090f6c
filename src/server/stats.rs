//! Counters of one storage, in the words of `server_status` and `ruok`, which monitoring tools read.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::base::sync::{Arc, AtomicU64, Condvar, Mutex, Ordering, rank};
use crate::base::timestamp::Civil;
use crate::server::request_counts::RequestCounts;
use crate::storage::PackProgress;
use crate::wire::value::Value;

/// Counters since the server started, at the time that [`Stats::new`] is given. Loads are counted per connection, see
/// [`Stats::departed_loads`].
#[derive(Debug)]
pub struct Stats {
    /// Loads of connections that have ended.
    pub departed_loads: AtomicU64,
    /// Requests of connections that have ended.
    pub departed_requests: RequestCounts,
    /// Bytes of messages from and to connections that have ended.
    pub departed_received: AtomicU64,
    pub departed_sent: AtomicU64,
    pub stores: AtomicU64,
    /// Bytes of the records of all stores.
    pub stored_bytes: AtomicU64,
    pub commits: AtomicU64,
    /// Commits that undo others, counted among the commits.
    pub undos: AtomicU64,
    pub aborts: AtomicU64,
    /// Connections that `transaction-timeout` has closed.
    pub transaction_timeouts: AtomicU64,
    /// Counted by [`TransactionId`](crate::server::transaction::state::TransactionId).
    pub active_txns: Arc<AtomicU64>,
    pub conflicts: AtomicU64,
    pub conflicts_resolved: AtomicU64,
    pub verifying_clients: AtomicU64,
    /// Answers to `getInvalidations`: with what has changed; none, because it is too long ago; none, because there is
    /// no such transaction.
    pub verifications: [AtomicU64; 3],
    /// Connections that were closed because their clients did not read (`max-unsent`).
    pub unread: AtomicU64,
    /// Registrations and calls that the rules of `<access>` did not permit.
    pub denied: AtomicU64,
    /// Waits of sessions whose addresses were ahead of their rates.
    pub throttled: AtomicU64,
    started: SystemTime,
}

impl Stats {
    pub fn new(started: SystemTime) -> Stats {
        Stats {
            departed_loads: AtomicU64::new(0),
            departed_requests: RequestCounts::default(),
            departed_received: AtomicU64::new(0),
            departed_sent: AtomicU64::new(0),
            stores: AtomicU64::new(0),
            stored_bytes: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            undos: AtomicU64::new(0),
            aborts: AtomicU64::new(0),
            transaction_timeouts: AtomicU64::new(0),
            active_txns: Arc::new(AtomicU64::new(0)),
            conflicts: AtomicU64::new(0),
            conflicts_resolved: AtomicU64::new(0),
            verifying_clients: AtomicU64::new(0),
            verifications: Default::default(),
            unread: AtomicU64::new(0),
            denied: AtomicU64::new(0),
            throttled: AtomicU64::new(0),
            started,
        }
    }

    /// A client has returned.
    pub fn count_verification(&self, how: Verification) {
        self.verifications.get(how as usize).into_iter().for_each(count);
    }

    /// The time of the start.
    pub fn started_at(&self) -> SystemTime {
        self.started
    }

    /// The time of the start as C's `ctime` writes it, without the line end. Python's server gives local time;
    /// ours is UTC.
    pub fn started(&self) -> String {
        ctime_of(self.started)
    }
}

/// How a client that has returned learns what has changed; the index of its counter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verification {
    /// With a list of what has changed.
    Quick,
    /// It verifies its whole cache, or drops it: it was away for too long.
    TooOld,
    /// The same, for its last transaction is not in the storage.
    Unknown,
}

/// The pack of a storage that is running, and the last one, for `server_status`.
#[derive(Debug, Default)]
pub struct PackStatus {
    state: Mutex<PackState, rank::LastPack>,
    ended: Condvar,
    /// Unix time of the next pack by schedule, in seconds. 0: there is none.
    next: AtomicU64,
}

#[derive(Debug, Default)]
struct PackState {
    running: Option<Arc<RunningPack>>,
    last: Option<LastPack>,
    /// When the last pack that has succeeded ended.
    last_success: Option<SystemTime>,
    successes: u64,
    failures: u64,
}

/// How packs have ended since the server started.
#[derive(Clone, Debug, Default)]
pub struct PackResults {
    pub last: Option<LastPack>,
    /// When the last one that has succeeded ended.
    pub last_success: Option<SystemTime>,
    pub successes: u64,
    /// Packs that failed or were cancelled.
    pub failures: u64,
}

/// One pack, or the dry run of one.
#[derive(Debug, Default)]
pub struct RunningPack {
    /// The number of the connection that it is for; `None`: it does not end with one.
    owner: Option<u64>,
    progress: PackProgress,
    /// Whether it was cancelled; set when it has ended.
    is_cancelled: OnceLock<bool>,
}

/// How a pack ended.
#[derive(Clone, Debug)]
pub struct LastPack {
    pub began: SystemTime,
    pub took: Duration,
    /// Size of the storage before and after it, in bytes.
    pub sizes: [u64; 2],
    /// `None`: it succeeded.
    pub error: Option<String>,
    /// It failed because it was cancelled.
    pub is_cancelled: bool,
}

/// The status is shown, and the pack can be cancelled, as long as this lives.
pub struct PackShown<'a> {
    status: &'a PackStatus,
    pack: Arc<RunningPack>,
}

impl PackShown<'_> {
    pub fn progress(&self) -> &PackProgress {
        &self.pack.progress
    }

    /// The pack has ended.
    pub fn end(self, last: LastPack) {
        let _ = self.pack.is_cancelled.set(last.is_cancelled);
        let mut state = self.status.state.lock();
        if last.error.is_none() {
            state.successes += 1;
            state.last_success = Some(last.began + last.took);
        } else {
            state.failures += 1;
        }
        state.last = Some(last);
    }

    /// The dry run has ended, of which nothing is kept.
    pub fn end_plan(self) {
        let _ = self.pack.is_cancelled.set(self.pack.progress.is_cancelled());
    }
}

impl Drop for PackShown<'_> {
    fn drop(&mut self) {
        self.status.state.lock().running = None;
        self.status.ended.notify_all();
    }
}

impl PackStatus {
    /// `None`: another one is under way.
    pub fn begin(&self) -> Option<PackShown<'_>> {
        self.begin_for(None)
    }

    /// The same for a connection, by its number.
    pub fn begin_for(&self, owner: Option<u64>) -> Option<PackShown<'_>> {
        let mut state = self.state.lock();
        if state.running.is_some() {
            return None;
        }
        let pack = Arc::new(RunningPack { owner, ..RunningPack::default() });
        state.running = Some(Arc::clone(&pack));
        Some(PackShown { status: self, pack })
    }

    /// Whether one is under way.
    pub fn is_running(&self) -> bool {
        self.state.lock().running.is_some()
    }

    /// Cancels the pack that is running. `None`: there is none.
    pub fn cancel(&self) -> Option<Arc<RunningPack>> {
        let pack = self.state.lock().running.clone()?;
        pack.progress.cancel();
        Some(pack)
    }

    /// Cancels what is running for a connection that has gone.
    pub fn cancel_of(&self, owner: u64) {
        let running = self.state.lock().running.clone();
        if let Some(pack) = running.filter(|pack| pack.owner == Some(owner)) {
            pack.progress.cancel();
        }
    }

    /// Waits until the pack has ended. Returns whether it was cancelled.
    pub fn wait(&self, pack: &Arc<RunningPack>) -> bool {
        let mut state = self.state.lock();
        while state.running.as_ref().is_some_and(|running| Arc::ptr_eq(running, pack)) {
            state = self.ended.wait(state);
        }
        pack.is_cancelled.get().copied().unwrap_or(false)
    }

    /// How packs have ended.
    pub fn results(&self) -> PackResults {
        let state = self.state.lock();
        let PackState { last, last_success, successes, failures, .. } = &*state;
        let (last, last_success) = (last.clone(), *last_success);
        PackResults { last, last_success, successes: *successes, failures: *failures }
    }

    /// How the last one ended, since the server started: times in seconds, sizes in bytes.
    pub fn last(&self) -> Option<Value> {
        let LastPack { began, took, sizes, error, .. } = self.results().last?;
        let began = began.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64();
        let [before, after] = sizes.map(|size| Value::Int(i64::try_from(size).unwrap_or(i64::MAX)));
        Some(Value::dict([
            ("began", Value::Float(began)),
            ("seconds", Value::Float(took.as_secs_f64())),
            ("size-before", before),
            ("size-after", after),
            ("error", error.map_or(Value::None, Value::text)),
        ]))
    }

    /// When the next pack by schedule is due.
    pub fn set_next(&self, at: SystemTime) {
        let seconds = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        self.next.store(seconds, Ordering::Relaxed);
    }

    /// Unix time of the next pack by schedule, in seconds.
    pub fn next(&self) -> Option<u64> {
        let next = self.next.load(Ordering::Relaxed);
        (next > 0).then_some(next)
    }

    /// Bytes that are done, and all, while one is under way.
    pub fn progress(&self) -> Option<(u64, u64)> {
        let pack = self.state.lock().running.clone()?;
        let done = pack.progress.done.load(Ordering::Relaxed);
        let total = pack.progress.total.load(Ordering::Relaxed);
        Some((done.min(total), total))
    }

    /// `{'done': bytes, 'total': bytes}` while one is under way.
    pub fn value(&self) -> Option<Value> {
        let (done, total) = self.progress()?;
        let int = |n: u64| Value::Int(i64::try_from(n).unwrap_or(i64::MAX));
        Some(Value::dict([("done", int(done)), ("total", int(total))]))
    }
}

/// One more, or one less: counters need no order among each other.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Adds a number.
pub fn count_many(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}

pub fn uncount(counter: &AtomicU64) {
    counter.fetch_sub(1, Ordering::Relaxed);
}

pub fn get(counter: &AtomicU64) -> i64 {
    i64::try_from(counter.load(Ordering::Relaxed)).unwrap_or(i64::MAX)
}

/// `Sun Nov 22 10:02:14 2026`, in UTC.
pub fn ctime_of(at: SystemTime) -> String {
    ctime(at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs())
}

fn ctime(unix: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let at = Civil::from_unix(unix as f64);
    let day = DAYS[(unix / 86400 % 7) as usize];
    let month = MONTHS[at.month as usize - 1];
    format!("{day} {month} {:2} {:02}:{:02}:{:02} {}", at.day, at.hour, at.minute, at.second as u32, at.year)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_looks_as_from_c() {
        assert_eq!(ctime(0), "Thu Jan  1 00:00:00 1970");
        assert_eq!(ctime(1_795_341_734), "Sun Nov 22 10:02:14 2026");
    }
}
