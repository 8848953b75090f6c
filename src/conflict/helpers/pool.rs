//! The helper processes: started when they are needed, replaced when one goes wrong, ended with the server.
//!
//! One thread, the keeper, starts all of them; it lives as long as the pool (see [`Helper::start`]). A resolution takes
//! an idle helper or waits for one, until its transaction is given up. Helpers that cannot be started are tried again later
//! and later; until then conflicts stay conflicts at once.
//!
//! Merges that hang do not hold up those of other classes: a helper that has been at one merge for [`SLOW`] does not count any
//! more, so that another one may be started beside it, up to twice as many; and merges of one class have at most half of these.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::process::{Helper, Process};
use crate::base::cancel::Cancel;
use crate::base::log_rate::LogRate;
use crate::base::sync::{Condvar, Mutex, MutexGuard, rank};
use crate::conflict::{HelperOptions, LOG, ThreeStates, Unresolved};
use crate::pickle::record::{ClassName, class_name};

/// Conflicts that helpers do not survive come as often as clients like.
static ENDS: LogRate = LogRate::new("ends of helpers of conflict-resolver", 60, 60);

/// One conflict may take this long: importing a large application is part of the first one of its class.
const TIME_MAX: Duration = Duration::from_secs(30);
/// So may the start of a helper, and the wait for one.
const START_TIME_MAX: Duration = Duration::from_secs(30);
const COUNT_MAX: usize = 4;
/// After this time at one merge another helper may be started in a helper's place.
const SLOW: Duration = Duration::from_secs(1);
/// So many times as many helpers, if all of them are slow.
const SLOW_FACTOR: usize = 2;
/// After a start that failed, the next one waits this long; after each further one twice as long.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(300);
const STACK: usize = 256 << 10;
const GIVEN_UP: &str = "the client has given up its transaction";

/// See the module.
pub struct Pool {
    shared: Arc<Shared>,
    keeper: Mutex<Option<JoinHandle<()>>, rank::HelperKeeper>,
}

struct Shared {
    settings: HelperOptions,
    /// Helpers that are not slow, and helpers at work for one class.
    count_max: usize,
    time_limit: Duration,
    /// The log has been told that the helpers write pickles that clients cannot read.
    complained: AtomicBool,
    state: Mutex<State, rank::Helpers>,
    /// A helper is idle or could not be started, a class has fewer helpers at work, a merge was cancelled, or the pool stops.
    idle: Condvar,
    /// The keeper is to look whether another helper is wanted.
    wanted: Condvar,
}

#[derive(Default)]
struct State {
    idle: Vec<Helper>,
    busy: Vec<Busy>,
    /// Interrupted, to be waited for by the keeper.
    interrupted: Vec<Arc<Process>>,
    /// All that run: idle, at work, or about to be ready.
    running: Vec<Arc<Process>>,
    /// Resolutions that wait for a helper, and may have one.
    waiting: usize,
    failure: Option<Failure>,
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

/// The last start went wrong.
struct Failure {
    why: String,
    retry_at: Instant,
    backoff: Duration,
}

impl Pool {
    /// A pool whose first helper is started at once, to see that it can be.
    pub fn start(settings: HelperOptions) -> std::io::Result<Pool> {
        let count_max = thread::available_parallelism().map_or(1, |count| count.get()).min(COUNT_MAX);
        Pool::with(settings, count_max, TIME_MAX)
    }

    pub(super) fn with(
        settings: HelperOptions,
        count_max: usize,
        time_limit: Duration,
    ) -> std::io::Result<Pool> {
        let shared = Arc::new(Shared {
            settings,
            count_max,
            time_limit,
            complained: AtomicBool::new(false),
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
        // Escaped: it stands in the log.
        let class = class_name(states.new).unwrap_or_else(ClassName::unknown).to_string();
        let mut helper = shared.take(&class, states.cancel).map_err(|reason| Unresolved { reason })?;
        let answer = {
            let process = Arc::clone(&helper.process);
            let _interrupts = states.cancel.on_cancel(move || process.interrupt());
            helper.resolve(states, shared.time_limit)
        };
        let result = match answer {
            // It may have been interrupted when the answer was there.
            _ if states.cancel.is_cancelled() => {
                let pid = helper.process.pid;
                shared.discard(helper);
                if ENDS.admits(None, "") {
                    log::info!(
                        target: LOG,
                        "conflict-resolver ({pid}): a client has given up its transaction while a conflict on an object of class \
                         {class} was resolved; another one takes its place"
                    );
                }
                Err(GIVEN_UP.into())
            }
            Ok(answer) => {
                if answer.retire {
                    if ENDS.admits(None, "") {
                        log::info!(
                            target: LOG,
                            "conflict-resolver ({}) has taken much memory and is replaced", helper.process.pid
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
                        "{why} while it resolved a conflict on an object of class {class}; another one takes its place"
                    );
                }
                Err(why)
            }
        };
        let record = result.map_err(|reason| Unresolved { reason })?;
        if protocol(&record) > protocol(states.new).max(2) {
            let reason = format!(
                "the Python of conflict-resolver writes pickles of protocol {}, the clients' that stored an object of \
                 class {class} cannot read them; conflict-resolver must name a Python like theirs",
                protocol(&record)
            );
            // Each conflict would say the same.
            if !shared.complained.swap(true, Ordering::Relaxed) {
                log::error!(target: LOG, "{reason}");
            }
            return Err(Unresolved { reason });
        }
        Ok(record)
    }

    /// A helper is at work.
    #[cfg(test)]
    pub(super) fn is_busy(&self) -> bool {
        !self.shared.lock().busy.is_empty()
    }

    /// Ends all helpers, and waits until they have ended.
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
            log::error!(target: LOG, "the thread that starts helpers ended by a bug");
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// An idle helper for a merge of `class`, as soon as there is one.
    fn take(self: &Arc<Self>, class: &str, cancel: &Cancel) -> Result<Helper, String> {
        let shared = Arc::clone(self);
        let _wakes = cancel.on_cancel(move || {
            // Whoever has the lock has not begun to wait, or waits.
            drop(shared.lock());
            shared.idle.notify_all();
        });
        let deadline = Instant::now() + START_TIME_MAX;
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
                    state.busy.push(Busy { process, class: class.into(), since: Instant::now() });
                    break Ok(helper);
                }
                state.running.retain(|process| !Arc::ptr_eq(process, &helper.process));
                drop(state);
                let ending = helper.process.kill();
                if ENDS.admits(None, "") {
                    log::warn!(
                        target: LOG,
                        "conflict-resolver ({}) has ended ({ending}); another one takes its place", helper.process.pid
                    );
                }
                state = self.lock();
                continue;
            }
            if let Some(failure) = &state.failure
                && state.running.is_empty()
                && Instant::now() < failure.retry_at
            {
                break Err(failure.why.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break Err("all helpers are busy".into());
            }
            self.wanted.notify_one();
            let left = left.min(state.until_slow().unwrap_or(left));
            state = self.idle.wait_timeout(state, left);
        };
        state.waiting -= usize::from(is_counted);
        taken
    }

    fn give_back(&self, helper: Helper) {
        let mut state = self.lock();
        state.busy.retain(|busy| !Arc::ptr_eq(&busy.process, &helper.process));
        // One was started in its place while it was slow.
        if state.running.len() > self.count_max + state.slow() {
            drop(state);
            return self.discard(helper);
        }
        if !state.stopping {
            state.idle.push(helper);
        }
        drop(state);
        self.idle.notify_all();
    }

    /// Ends it, and waits for that.
    fn dismiss(&self, process: &Arc<Process>) {
        process.kill();
        self.forget(&mut self.lock(), process);
    }

    /// Ends it without waiting: whoever calls has locks.
    fn discard(&self, helper: Helper) {
        helper.process.interrupt();
        let mut state = self.lock();
        self.forget(&mut state, &helper.process);
        state.interrupted.push(helper.process);
    }

    fn forget(&self, state: &mut State, process: &Arc<Process>) {
        state.running.retain(|other| !Arc::ptr_eq(other, process));
        state.busy.retain(|busy| !Arc::ptr_eq(&busy.process, process));
        self.idle.notify_all();
        self.wanted.notify_one();
    }

    /// The keeper's life.
    fn keep(&self) {
        // As if one were waited for, so that what is wrong shows at the start of the server.
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
            let started = Helper::start(&self.settings, START_TIME_MAX, |process| {
                let mut state = self.lock();
                // `stop` ends what is on the list; what comes too late for it is ended here.
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

    fn wants_another(&self, state: &State) -> bool {
        let may = state.failure.as_ref().is_none_or(|failure| Instant::now() >= failure.retry_at);
        let count_max = (self.count_max + state.slow()).min(SLOW_FACTOR * self.count_max);
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
        // Whatever was started has ended.
        state.running.retain(|process| process.is_running());
        if state.stopping {
            return;
        }
        let backoff = state.failure.as_ref().map_or(BACKOFF_MIN, |last| (2 * last.backoff).min(BACKOFF_MAX));
        let interpreter = self.settings.interpreter.display();
        let reason = format!("conflict-resolver {interpreter}: {why}");
        state.failure = Some(Failure { why: reason, retry_at: Instant::now() + backoff, backoff });
        drop(state);
        let advice = advice(&self.settings.interpreter);
        log::error!(
            target: LOG,
            "conflict-resolver {interpreter}: {why}. Conflicts on application classes are left to the clients to \
             retry; {advice}. It is tried again in {} s if it is needed", backoff.as_secs()
        );
    }
}

impl State {
    /// Helpers that have been at one merge for long.
    fn slow(&self) -> usize {
        self.busy.iter().filter(|busy| busy.since.elapsed() >= SLOW).count()
    }

    /// When there will be one more of them.
    fn until_slow(&self) -> Option<Duration> {
        self.busy
            .iter()
            .filter_map(|busy| SLOW.checked_sub(busy.since.elapsed()))
            .filter(|left| !left.is_zero())
            .min()
    }
}

/// What the operator can do about a helper that does not start.
fn advice(interpreter: &Path) -> String {
    format!(
        "the key must name the Python that the clients run, with their packages: the one of their virtualenv, or \
         bin/zopepy of their buildout. To see what is wrong, run: {} -c 'import ZODB.ConflictResolution'",
        interpreter.display()
    )
}

/// The protocol of a record's first pickle.
fn protocol(record: &[u8]) -> u8 {
    match record {
        [crate::pickle::opcode::PROTO, protocol, ..] => *protocol,
        _ => 1,
    }
}
