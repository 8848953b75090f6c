//! The helper processes: started when they are needed, replaced when one goes wrong, ended with the server.
//!
//! One thread, the keeper, starts all of them; it lives as long as the pool (see [`Helper::start`]). A resolution takes
//! an idle helper or waits for one. Helpers that cannot be started are tried again later and later; meanwhile
//! conflicts stay conflicts at once.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::LOG;
use super::helper::{Helper, Process};
use crate::config::ConflictResolver;
use crate::pickle::record::class_name;
use crate::storage::{Clash, Unresolved};

/// One conflict may take this long: importing a large application is part of the first one of its class.
const PATIENCE: Duration = Duration::from_secs(30);
/// So may the start of a helper, and the wait for one.
const START_PATIENCE: Duration = Duration::from_secs(30);
const COUNT_MAX: usize = 4;
/// After a start that failed, the next one waits this long; after each further one twice as long.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(300);
const STACK: usize = 256 << 10;

/// See the module.
pub struct Pool {
    shared: Arc<Shared>,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    settings: ConflictResolver,
    count_max: usize,
    patience: Duration,
    /// The log has been told that the helpers write pickles that clients cannot read.
    complained: AtomicBool,
    state: Mutex<State>,
    /// A helper is idle or could not be started, or the pool stops.
    idle: Condvar,
    /// The keeper is to look whether another helper is wanted.
    wanted: Condvar,
}

#[derive(Default)]
struct State {
    idle: Vec<Helper>,
    /// All that run: idle, at work, or about to be ready.
    running: Vec<Arc<Process>>,
    /// Resolutions that wait for a helper.
    waiting: usize,
    failure: Option<Failure>,
    /// The versions were logged.
    introduced: bool,
    stopping: bool,
}

/// The last start went wrong.
struct Failure {
    why: String,
    retry_at: Instant,
    backoff: Duration,
}

impl Pool {
    /// A pool whose first helper is started at once, to see that it can be.
    pub fn start(settings: ConflictResolver) -> std::io::Result<Pool> {
        let count_max = thread::available_parallelism().map_or(1, |count| count.get()).min(COUNT_MAX);
        Pool::with(settings, count_max, PATIENCE)
    }

    pub(super) fn with(
        settings: ConflictResolver,
        count_max: usize,
        patience: Duration,
    ) -> std::io::Result<Pool> {
        let shared = Arc::new(Shared {
            settings,
            count_max,
            patience,
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
    pub fn resolve(&self, clash: &Clash<'_>) -> Result<Vec<u8>, Unresolved> {
        let shared = &self.shared;
        let mut helper = shared.take().map_err(|reason| Unresolved { reason })?;
        let answer = helper.resolve(clash, shared.patience);
        let class = || class_name(clash.new).unwrap_or_else(|| "unknown".into());
        let result = match answer {
            Ok(answer) => {
                if answer.retire {
                    log::info!(
                        target: LOG,
                        "conflict-resolver ({}) has taken much memory and is replaced", helper.process.pid
                    );
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
                if !shared.lock().stopping {
                    log::error!(
                        target: LOG,
                        "{why} while it resolved a conflict on an object of class {}; another one takes its place",
                        class()
                    );
                }
                Err(why)
            }
        };
        let record = result.map_err(|reason| Unresolved { reason })?;
        if protocol(&record) > protocol(clash.new).max(2) {
            let reason = format!(
                "the Python of conflict-resolver writes pickles of protocol {}, the clients' that stored an object of \
                 class {} cannot read them; conflict-resolver must name a Python like theirs",
                protocol(&record),
                class()
            );
            // Each conflict would say the same.
            if !shared.complained.swap(true, Ordering::Relaxed) {
                log::error!(target: LOG, "{reason}");
            }
            return Err(Unresolved { reason });
        }
        Ok(record)
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
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
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
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An idle helper, as soon as there is one.
    fn take(&self) -> Result<Helper, String> {
        let deadline = Instant::now() + START_PATIENCE;
        let mut state = self.lock();
        state.waiting += 1;
        let taken = loop {
            if state.stopping {
                break Err("the server stops".into());
            }
            if let Some(helper) = state.idle.pop() {
                if !helper.has_ended() {
                    break Ok(helper);
                }
                state.running.retain(|process| !Arc::ptr_eq(process, &helper.process));
                let fate = helper.process.kill();
                log::warn!(
                    target: LOG,
                    "conflict-resolver ({}) has ended ({fate}); another one takes its place", helper.process.pid
                );
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
            state = self.idle.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        };
        state.waiting -= 1;
        taken
    }

    fn give_back(&self, helper: Helper) {
        let mut state = self.lock();
        if !state.stopping {
            state.idle.push(helper);
        }
        drop(state);
        self.idle.notify_one();
    }

    fn dismiss(&self, process: &Arc<Process>) {
        process.kill();
        self.lock().running.retain(|other| !Arc::ptr_eq(other, process));
        self.wanted.notify_one();
    }

    /// The keeper's life.
    fn keep(&self) {
        // As if one were waited for, so that what is wrong shows at the start of the server.
        let mut wanted = true;
        loop {
            {
                let mut state = self.lock();
                while !wanted && !state.stopping {
                    state = self.wanted.wait(state).unwrap_or_else(PoisonError::into_inner);
                    wanted = self.wants_another(&state);
                }
                if state.stopping {
                    return;
                }
            }
            let started = Helper::start(&self.settings, START_PATIENCE, |process| {
                let mut state = self.lock();
                // `stop` ends what is on the list; what comes too late for it is ended here.
                if state.stopping {
                    process.kill();
                } else {
                    state.running.push(Arc::clone(process));
                }
            });
            let mut state = self.lock();
            match started {
                Ok(helper) => {
                    if !state.introduced {
                        log::info!(
                            target: LOG,
                            "conflict-resolver {}: {}", self.settings.interpreter.display(), helper.versions
                        );
                    }
                    state.introduced = true;
                    state.failure = None;
                    if !state.stopping {
                        state.idle.push(helper);
                    }
                }
                Err(why) => self.failed(&mut state, &why),
            }
            wanted = self.wants_another(&state);
            drop(state);
            self.idle.notify_all();
        }
    }

    fn wants_another(&self, state: &State) -> bool {
        let may = state.failure.as_ref().is_none_or(|failure| Instant::now() >= failure.retry_at);
        may && state.waiting > state.idle.len() && state.running.len() < self.count_max
    }

    fn failed(&self, state: &mut State, why: &str) {
        // Whatever was started has ended.
        state.running.retain(|process| process.is_running());
        if state.stopping {
            return;
        }
        let backoff = state.failure.as_ref().map_or(BACKOFF_MIN, |last| (2 * last.backoff).min(BACKOFF_MAX));
        let interpreter = self.settings.interpreter.display();
        let advice = advice(&self.settings.interpreter);
        log::error!(
            target: LOG,
            "conflict-resolver {interpreter}: {why}. Conflicts on application classes are left to the clients to \
             retry; {advice}. It is tried again in {} s if it is needed", backoff.as_secs()
        );
        let why = format!("conflict-resolver {interpreter}: {why}");
        state.failure = Some(Failure { why, retry_at: Instant::now() + backoff, backoff });
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
