//! Requests that took long (`slow-request-time`): a line in the log, and the last ones in reports, with what the time
//! went into and whose locks they waited for.
//!
//! A call that may wait has its times with it ([`CallTimes`]); what it was about is put together only if it was slow,
//! and noted after its reply is queued.

mod call;
mod note;

use std::collections::VecDeque;
use std::fmt::Write;
use std::time::{Duration, SystemTime};

pub use call::{CallTimes, Step};

use crate::base::ids::{Oid, Tid};
use crate::base::sync::{AtomicU64, Mutex, Ordering, rank};
use crate::server::stats::count;

/// Requests that are kept.
const COUNT_MAX: usize = 100;

/// A request that took long.
#[derive(Clone, Debug)]
pub struct SlowRequest {
    /// When it ended.
    pub at: SystemTime,
    pub method: &'static str,
    /// Number and label of the client.
    pub client: u64,
    pub label: String,
    pub took: Duration,
    /// The steps that took any time worth showing.
    pub steps: Vec<(Step, Duration)>,
    pub behind: Option<WaitedFor>,
    /// The object that it was for, if it was for one.
    pub oid: Option<Oid>,
    /// The transaction that it has committed.
    pub tid: Option<Tid>,
    /// User and description of its transaction, escaped.
    pub transaction: Option<[String; 2]>,
}

/// Whose locks a request had to wait for.
#[derive(Clone, Debug)]
pub struct WaitedFor {
    /// Number of the client.
    pub client: u64,
    /// `None`: it has gone since.
    pub label: Option<String>,
    /// The object; `None`: the whole storage.
    pub oid: Option<Oid>,
}

/// The slow requests of a storage.
#[derive(Debug)]
pub struct SlowRequests {
    /// From here on a request is slow, in milliseconds; `u64::MAX`: none is.
    threshold: AtomicU64,
    /// Since the start.
    total: AtomicU64,
    newest_last: Mutex<VecDeque<SlowRequest>, rank::SlowRequests>,
}

impl Default for SlowRequests {
    fn default() -> SlowRequests {
        SlowRequests {
            threshold: AtomicU64::new(u64::MAX),
            total: AtomicU64::new(0),
            newest_last: Mutex::default(),
        }
    }
}

impl SlowRequests {
    /// From here on a request is slow. `None`: none is.
    pub fn set_threshold(&self, threshold: Option<Duration>) {
        let millis = threshold.and_then(|least| u64::try_from(least.as_millis()).ok());
        self.threshold.store(millis.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How many there were.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// The last ones, the newest first.
    pub fn list(&self) -> Vec<SlowRequest> {
        self.newest_last.lock().iter().rev().cloned().collect()
    }

    fn is_slow(&self, took: Duration) -> bool {
        took.as_millis() >= u128::from(self.threshold.load(Ordering::Relaxed))
    }

    fn push(&self, request: SlowRequest) {
        count(&self.total);
        let mut requests = self.newest_last.lock();
        if requests.len() >= COUNT_MAX {
            requests.pop_front();
        }
        requests.push_back(request);
    }
}

impl SlowRequest {
    /// It was for this object.
    pub fn of_object(mut self, oid: Oid) -> SlowRequest {
        self.oid = Some(oid);
        self
    }
}

/// The line of the log:
/// `slow vote: 2.310 s (locks 2.290 s, check 0.020 s), behind client 12 (10.0.0.4:5012) for object 0x1f, ...`
fn line(request: &SlowRequest) -> String {
    let mut line = format!("slow {}: {:.3} s", request.method, request.took.as_secs_f64());
    let steps: Vec<String> = request
        .steps
        .iter()
        .map(|(step, took)| format!("{} {:.3} s", step.name(), took.as_secs_f64()))
        .collect();
    if !steps.is_empty() {
        let _ = write!(line, " ({})", steps.join(", "));
    }
    if let Some(WaitedFor { client, label, oid }) = &request.behind {
        let _ = write!(line, ", behind client {client} ({})", label.as_deref().unwrap_or("gone"));
        let _ = match oid {
            Some(oid) => write!(line, " for object 0x{oid}"),
            None => write!(line, " for the whole storage"),
        };
    }
    if let Some(oid) = request.oid {
        let _ = write!(line, ", object 0x{oid}");
    }
    if let Some(tid) = request.tid {
        let _ = write!(line, ", transaction 0x{tid}");
    }
    if let Some([user, description]) = &request.transaction {
        let _ = write!(line, ", user '{user}', description '{description}'");
    }
    line
}
