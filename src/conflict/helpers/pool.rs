//! The helper processes: started when needed, replaced after failures, ended with the server.
//!
//! One thread, the keeper, starts all helpers; it lives as long as the pool (see [`Helper::start`]). A merge takes an
//! idle helper or waits for one, until its transaction is abandoned. If helpers cannot be started, the keeper tries
//! again at growing intervals; until it succeeds, conflicts are not merged and do not wait.
//!
//! Merges that hang do not delay merges of other classes: a helper that has worked on one merge for [`SLOW`] is not
//! counted any more, so another one may be started, up to twice the normal number; and the merges of one class use at
//! most the normal number.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::process::{Helper, Process};
use crate::base::cancel::Cancel;
use crate::base::clock::TimeSource;
use crate::base::log_rate::LogRate;
use crate::base::sync::{Condvar, Mutex, MutexGuard, rank};
use crate::conflict::{HelperOptions, LOG, ThreeStates, Unresolved};
use crate::pickle::record::{ClassName, class_name};

/// Limits the log lines about helpers that ended: a client can cause such an end with every conflict.
static ENDS: LogRate = LogRate::new("ends of helpers of conflict-resolver", 60, 60);

/// Time limit of one merge. The first merge of a class includes importing the application.
const TIME_MAX: Duration = Duration::from_secs(30);
/// Time limit of a helper's start, and of the wait for an idle helper.
const START_TIME_MAX: Duration = Duration::from_secs(30);
const COUNT_MAX: usize = 4;
/// A helper that has worked on one merge for this time is slow: another helper may be started.
const SLOW: Duration = Duration::from_secs(1);
/// Upper bound on helpers, as a multiple of the normal number, if all are slow.
const SLOW_FACTOR: usize = 2;
/// Delay of the next start after a failed one; doubled after each further failure.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(300);
const STACK: usize = 256 << 10;
const GIVEN_UP: &str = "the client has given up its transaction";

/// The helper processes of one server.
pub struct Pool {
    shared: Arc<Dispatcher>,
    keeper: Mutex<Option<JoinHandle<()>>, rank::HelperKeeper>,
}

struct Dispatcher {
    settings: HelperOptions,
    /// Upper bound on helpers that are not slow, and on helpers that merge states of one class.
    count_max: usize,
    time_limit: Duration,
    clock: TimeSource,
    /// Whether an error was logged that the helpers write pickles that clients cannot read.
    is_protocol_logged: AtomicBool,
    state: Mutex<Helpers, rank::Helpers>,
    /// Notified when a helper is idle or could not be started, when a class has fewer helpers at work, when a merge was
    /// cancelled, and when the pool stops.
    idle: Condvar,
    /// Notified when the keeper should check whether another helper is wanted.
    wanted: Condvar,
}

#[derive(Default)]
struct Helpers {
    idle: Vec<Helper>,
    busy: Vec<Busy>,
    /// Processes that were interrupted; the keeper waits for their end.
    interrupted: Vec<Arc<Process>>,
    /// All helpers: idle, at work, or starting.
    running: Vec<Arc<Process>>,
    /// Merges that wait for a helper and whose class is below its limit.
    waiting: usize,
    failure: Option<FailedStart>,
    /// The versions were logged.
    introduced: bool,
    stopping: bool,
}

/// A helper at work.
struct Busy {
    process: Arc<Process>,
    class: String,
    since: Instant,
}

/// The last start failed.
struct FailedStart {
    why: String,
    retry_at: Instant,
    backoff: Duration,
}

impl Pool {
    /// Creates the pool and starts a first helper at once, to find errors of the configuration.
    pub fn start(settings: HelperOptions) -> std::io::Result<Pool> {
        let count_max = thread::available_parallelism().map_or(1, |count| count.get()).min(COUNT_MAX);
        Pool::with(settings, count_max, TIME_MAX, TimeSource::SYSTEM)
    }

    pub(super) fn with(
        settings: HelperOptions,
        count_max: usize,
        time_limit: Duration,
        clock: TimeSource,
    ) -> std::io::Result<Pool> {
        let shared = Arc::new(Dispatcher {
            settings,
            count_max,
            time_limit,
            clock,
            is_protocol_logged: AtomicBool::new(false),
            state: Mutex::default(),
            idle: Condvar::new(),
            wanted: Condvar::new(),
        });
        let keeper = Arc::clone(&shared);
        let keeper = thread::Builder::new()
            .name("zeo-resolver".into())
            .stack_size(STACK)
            .spawn(move || keeper.keep())?;
        Ok(Pool { shared, keeper: Mutex::new(Some(keeper)) })
    }

    /// Merges with the application's classes.
    pub fn resolve(&self, states: &ThreeStates<'_>) -> Result<Vec<u8>, Unresolved> {
        let shared = &self.shared;
        // Escaped, because it is logged.
        let class = class_name(states.new).unwrap_or_else(ClassName::unknown).to_string();
        let mut helper = shared.take(&class, states.cancel).map_err(|reason| Unresolved { reason })?;
        let answer = {
            let process = Arc::clone(&helper.process);
            let _interrupts = states.cancel.on_cancel(move || process.interrupt());
            helper.resolve(states, shared.time_limit)
        };
        let result = match answer {
            // The cancellation may have interrupted it after its answer.
            _ if states.cancel.is_cancelled() => {
                let pid = helper.process.pid;
                shared.discard(helper);
                if ENDS.admits(None, "") {
                    log::info!(
                        target: LOG,
                        "conflict-resolver ({pid}): a client has given up its transaction while a conflict on an object of class \
                         {class} was resolved; another helper takes its place"
                    );
                }
                Err(GIVEN_UP.into())
            }
            Ok(answer) => {
                if answer.retire {
                    if ENDS.admits(None, "") {
                        log::info!(
                            target: LOG,
                            "conflict-resolver ({}) uses too much memory and is replaced", helper.process.pid
                        );
                    }
                    shared.dismiss(&helper.process);
                } else {
                    shared.give_back(helper);
                }
                answer.result
            }
            Err(why) => {
                let pid = helper.process.pid;
                shared.dismiss(&helper.process);
                let why = format!("conflict-resolver ({pid}) {why}");
                if !shared.lock().stopping && ENDS.admits(None, "") {
                    log::error!(
                        target: LOG,
                        "{why} while it resolved a conflict on an object of class {class}; another helper takes its place"
                    );
                }
                Err(why)
            }
        };
        let record = result.map_err(|reason| Unresolved { reason })?;
        if protocol(&record) > protocol(states.new).max(2) {
            let reason = format!(
                "the Python of conflict-resolver writes pickles of protocol {}, which the clients that store objects of \
                 class {class} cannot read; conflict-resolver must name a Python of the version that the clients run",
                protocol(&record)
            );
            // Logged once: it holds for every conflict.
            if !shared.is_protocol_logged.swap(true, Ordering::Relaxed) {
                log::error!(target: LOG, "{reason}");
            }
            return Err(Unresolved { reason });
        }
        Ok(record)
    }

    /// Whether a helper is at work.
    #[cfg(test)]
    pub(super) fn is_busy(&self) -> bool {
        !self.shared.lock().busy.is_empty()
    }

    /// Ends all helpers and waits for their end.
    pub fn stop(&self) {
        let running = {
            let mut state = self.shared.lock();
            state.stopping = true;
            state.idle.clear();
            std::mem::take(&mut state.running)
        };
        self.shared.idle.notify_all();
        self.shared.wanted.notify_all();
        running.iter().for_each(|process| drop(process.kill()));
        let keeper = self.keeper.lock().take();
        if let Some(keeper) = keeper
            && keeper.join().is_err()
        {
            log::error!(target: LOG, "the thread that starts the helpers of conflict-resolver has panicked");
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Dispatcher {
    fn lock(&self) -> MutexGuard<'_, Helpers> {
        self.state.lock()
    }

    /// Waits for an idle helper for a merge of `class`.
    fn take(self: &Arc<Self>, class: &str, cancel: &Cancel) -> Result<Helper, String> {
        let shared = Arc::clone(self);
        let _wakes = cancel.on_cancel(move || {
            // After this lock a waiter is either before its check of `cancel`, or in its wait.
            drop(shared.lock());
            shared.idle.notify_all();
        });
        let deadline = self.clock.now() + START_TIME_MAX;
        let mut state = self.lock();
        let mut is_counted = false;
        let taken = loop {
            if state.stopping {
                break Err("the server stops".into());
            }
            if cancel.is_cancelled() {
                break Err(GIVEN_UP.into());
            }
            let may = state.busy.iter().filter(|busy| busy.class == class).count() < self.count_max;
            if may != is_counted {
                state.waiting = if may { state.waiting + 1 } else { state.waiting - 1 };
                is_counted = may;
            }
            if may && let Some(helper) = state.idle.pop() {
                if !helper.has_ended() {
                    let process = Arc::clone(&helper.process);
                    state.busy.push(Busy { process, class: class.into(), since: self.clock.now() });
                    break Ok(helper);
                }
                state.running.retain(|process| !Arc::ptr_eq(process, &helper.process));
                drop(state);
                let ending = helper.process.kill();
                if ENDS.admits(None, "") {
                    log::warn!(
                        target: LOG,
                        "conflict-resolver ({}) has ended ({ending}); another helper takes its place", helper.process.pid
                    );
                }
                state = self.lock();
                continue;
            }
            if let Some(failure) = &state.failure
                && state.running.is_empty()
                && self.clock.now() < failure.retry_at
            {
                break Err(failure.why.clone());
            }
            if self.clock.now() >= deadline {
                break Err("all helpers are busy".into());
            }
            self.wanted.notify_one();
            let until = state.slow_at(&self.clock).map_or(deadline, |slow_at| slow_at.min(deadline));
            state = self.clock.wait_until(&self.idle, state, until);
        };
        state.waiting -= usize::from(is_counted);
        taken
    }

    fn give_back(&self, helper: Helper) {
        let mut state = self.lock();
        state.busy.retain(|busy| !Arc::ptr_eq(&busy.process, &helper.process));
        // Another one was started while this one was slow.
        if state.running.len() > self.count_max + state.slow(&self.clock) {
            drop(state);
            return self.discard(helper);
        }
        if !state.stopping {
            state.idle.push(helper);
        }
        drop(state);
        self.idle.notify_all();
    }

    /// Ends a helper and waits for its end.
    fn dismiss(&self, process: &Arc<Process>) {
        process.kill();
        self.forget(&mut self.lock(), process);
    }

    /// Ends a helper without waiting, because the caller holds locks.
    fn discard(&self, helper: Helper) {
        helper.process.interrupt();
        let mut state = self.lock();
        self.forget(&mut state, &helper.process);
        state.interrupted.push(helper.process);
    }

    fn forget(&self, state: &mut Helpers, process: &Arc<Process>) {
        state.running.retain(|other| !Arc::ptr_eq(other, process));
        state.busy.retain(|busy| !Arc::ptr_eq(&busy.process, process));
        self.idle.notify_all();
        self.wanted.notify_one();
    }

    /// The main loop of the keeper.
    fn keep(&self) {
        // Starts one helper without a request, so that errors show at the start of the server.
        let mut wanted = true;
        loop {
            let mut state = self.lock();
            wanted = wanted || self.wants_another(&state);
            while !wanted && !state.stopping && state.interrupted.is_empty() {
                state = self.wanted.wait(state);
                wanted = self.wants_another(&state);
            }
            let stopping = state.stopping;
            let interrupted = std::mem::take(&mut state.interrupted);
            drop(state);
            interrupted.iter().for_each(|process| drop(process.kill()));
            if stopping {
                return;
            }
            if !wanted {
                continue;
            }
            let started = Helper::start(&self.settings, START_TIME_MAX, &self.clock, |process| {
                let mut state = self.lock();
                // `stop` ends the helpers in the list; this one is not in it yet.
                if state.stopping {
                    drop(state);
                    process.kill();
                } else {
                    state.running.push(Arc::clone(process));
                }
            });
            match started {
                Ok(helper) => self.started(helper),
                Err(why) => self.failed(&why),
            }
            wanted = false;
            self.idle.notify_all();
        }
    }

    fn wants_another(&self, state: &Helpers) -> bool {
        let may = state.failure.as_ref().is_none_or(|failure| self.clock.now() >= failure.retry_at);
        let count_max = (self.count_max + state.slow(&self.clock)).min(SLOW_FACTOR * self.count_max);
        may && state.waiting > state.idle.len() && state.running.len() < count_max
    }

    fn started(&self, helper: Helper) {
        let versions = helper.versions.clone();
        let mut state = self.lock();
        let was_introduced = std::mem::replace(&mut state.introduced, true);
        state.failure = None;
        if !state.stopping {
            state.idle.push(helper);
        }
        drop(state);
        if !was_introduced {
            let interpreter = self.settings.interpreter.display();
            log::info!(target: LOG, "conflict-resolver {interpreter}: {versions}");
        }
    }

    fn failed(&self, why: &str) {
        let mut state = self.lock();
        // The process of the failed start has ended.
        state.running.retain(|process| process.is_running());
        if state.stopping {
            return;
        }
        let backoff = state.failure.as_ref().map_or(BACKOFF_MIN, |last| (2 * last.backoff).min(BACKOFF_MAX));
        let interpreter = self.settings.interpreter.display();
        let reason = format!("conflict-resolver {interpreter}: {why}");
        state.failure = Some(FailedStart { why: reason, retry_at: self.clock.now() + backoff, backoff });
        drop(state);
        let advice = advice(&self.settings.interpreter);
        log::error!(
            target: LOG,
            "conflict-resolver {interpreter}: {why}. Conflicts on application classes are left to the clients to \
             retry; {advice}. It is tried again in {} s if it is needed", backoff.as_secs()
        );
    }
}

impl Helpers {
    /// The number of helpers that are slow.
    fn slow(&self, clock: &TimeSource) -> usize {
        self.busy.iter().filter(|busy| clock.elapsed(busy.since) >= SLOW).count()
    }

    /// The time at which one more helper is slow.
    fn slow_at(&self, clock: &TimeSource) -> Option<Instant> {
        let now = clock.now();
        self.busy.iter().map(|busy| busy.since + SLOW).filter(|slow_at| *slow_at > now).min()
    }
}

/// Advice for the operator if a helper does not start.
fn advice(interpreter: &Path) -> String {
    format!(
        "the key must name the Python that the clients run, with their packages: the one of their virtualenv, or \
         bin/zopepy of their buildout. To see what is wrong, run: {} -c 'import ZODB.ConflictResolution'",
        interpreter.display()
    )
}

/// The protocol of the record's first pickle.
fn protocol(record: &[u8]) -> u8 {
    match record {
        [crate::pickle::opcode::PROTO, protocol, ..] => *protocol,
        _ => 1,
    }
}
