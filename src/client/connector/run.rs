//! The thread of a connector: starts attempts, prepares links one at a time, and installs the best.
//!
//! It sleeps until an attempt has ended, a link has ended, an address is due, or its users want something else. All its
//! waits for a server are in [`Prepare::prepare`]; attempts are made by threads of their own.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Instant;

use super::addresses::{Next, Phase, Target};
use super::prepare::{Connected, Prepare, PrepareError};
use super::retry::Backoff;
use super::shared::{Forward, Shared, State};
use crate::base::address::Address;
use crate::base::cancel::Cancel;
use crate::base::sync::Arc;
use crate::client::dial::{DialError, Dialled, dial};
use crate::client::link::{self, Link};

/// The loggers of Python's client.
const LOG: &str = "ZEO.asyncio.client";
const STORAGE_LOG: &str = "ZEO.ClientStorage";

/// What only the thread has.
struct Run<P: Prepare> {
    shared: Arc<Shared<P>>,
    /// Links to servers that only read, in case that no other server is found. The oldest first.
    fallbacks: Vec<Candidate<P>>,
    /// When the first of `fallbacks` was found.
    fallback_since: Option<Instant>,
    /// Number of connections so far.
    count: u64,
}

/// A link that is not prepared yet.
struct Candidate<P: Prepare> {
    target: u64,
    address: Address,
    link: Link,
    receiver: Arc<P::Receiver>,
}

/// The body of the thread. Returns after the close.
pub(super) fn run<P: Prepare>(shared: Arc<Shared<P>>) {
    let mut run = Run { shared, fallbacks: Vec::new(), fallback_since: None, count: 0 };
    while run.step() {}
    for candidate in &run.fallbacks {
        candidate.link.close();
    }
    if let Some(connected) = run.shared.current.swap(None) {
        connected.link.close();
    }
}

impl<P: Prepare> Run<P> {
    /// One round: what has happened, then a sleep. False: closed.
    fn step(&mut self) -> bool {
        self.notice_the_end();
        let mut state = self.shared.state.lock();
        if state.has_closed {
            return false;
        }
        let dialled = mem::take(&mut state.dialled);
        if dialled.is_empty() {
            let needed = self.needs_a_link();
            if needed {
                start_attempts(&self.shared, &mut state);
            }
            if !self.is_fallback_due(&state) {
                self.sleep(state, needed);
                return true;
            }
        }
        drop(state);
        for (target, result) in dialled {
            self.attempt_ended(target, result);
        }
        if self.is_fallback_due(&self.shared.state.lock()) {
            self.fall_back();
        }
        true
    }

    fn now(&self) -> Instant {
        self.shared.options.time.now()
    }

    /// Whether there is something better to find than the current link.
    fn needs_a_link(&self) -> bool {
        let options = &self.shared.options;
        match &*self.shared.current.load() {
            Some(connected) => connected.read_only && options.read_only_fallback,
            None => true,
        }
    }

    fn sleep(&self, state: crate::base::sync::MutexGuard<'_, State>, needs_a_link: bool) {
        let time = &self.shared.options.time;
        let due = state.targets.iter().filter_map(|target| match target.phase {
            Phase::Waiting(at) if needs_a_link => Some(at),
            _ => None,
        });
        let fallback = self.fallback_since.map(|since| since + self.shared.options.fallback_after);
        // An end that comes later takes the lock before it wakes this thread.
        let links = self.shared.current.load();
        let mut links =
            links.iter().map(|connected| &connected.link).chain(self.fallbacks.iter().map(|c| &c.link));
        if links.any(Link::has_ended) {
            return;
        }
        match due.chain(fallback).min() {
            Some(until) => drop(time.wait_until(&self.shared.changed, state, until)),
            None => drop(self.shared.changed.wait(state)),
        }
    }

    /// The current link may have ended: then all addresses are tried again, soon.
    fn notice_the_end(&mut self) {
        let current = self.shared.current.load_full();
        if let Some(lost) = current.filter(|connected| connected.link.has_ended()) {
            self.shared.current.store(None);
            let at = self.now() + Backoff::after_loss();
            self.shared.state.lock().targets.iter_mut().for_each(|target| target.start_over(at, true));
            let name = &self.shared.options.name;
            log::info!(target: STORAGE_LOG, "{name} Disconnected from storage: \"{}\"", lost.link.peer());
        }
        let ended = |candidate: &Candidate<P>| candidate.link.has_ended();
        let lost: Vec<u64> = self.fallbacks.iter().filter(|c| ended(c)).map(|c| c.target).collect();
        self.fallbacks.retain(|candidate| !ended(candidate));
        for target in lost {
            self.failed(target, "the server closed the connection", Next::Usual);
        }
        if self.fallbacks.is_empty() {
            self.fallback_since = None;
        }
    }

    fn attempt_ended(&mut self, target: u64, result: Result<Dialled, DialError>) {
        let needs_a_link = self.needs_a_link();
        let address = {
            let mut state = self.shared.state.lock();
            // Former addresses do not matter any more.
            let Some(target) = state.target(target) else { return };
            if !needs_a_link {
                let again = self.now() + self.shared.options.retry.min;
                return target.start_over(again, false);
            }
            target.phase = Phase::Candidate;
            target.address.clone()
        };
        let dialled = match result {
            Ok(dialled) => dialled,
            Err(error) => return self.failed(target, &error.to_string(), Next::Usual),
        };
        let receiver = Arc::new(self.shared.prepare.receiver(&address));
        let forward = Arc::new(Forward { receiver: Arc::clone(&receiver), shared: Arc::clone(&self.shared) });
        match link::start(dialled, forward, self.shared.options.link.clone()) {
            Ok(link) => {
                let options = &self.shared.options;
                let read_only = options.read_only && !options.read_only_fallback;
                self.consider(Candidate { target, address, link, receiver }, read_only);
            }
            Err(error) => self.failed(target, &error.to_string(), Next::Usual),
        }
    }

    /// Prepares a link, and installs it if that succeeds.
    fn consider(&mut self, candidate: Candidate<P>, read_only: bool) {
        {
            let mut state = self.shared.state.lock();
            if state.has_closed {
                drop(state);
                return candidate.link.close();
            }
            state.preparing = Some(candidate.link.clone());
        }
        // A panic is a bug in the preparation. The thread has to go on.
        let prepare = || self.shared.prepare.prepare(&candidate.link, &candidate.receiver, read_only);
        let result = catch_unwind(AssertUnwindSafe(prepare)).unwrap_or_else(|_| {
            Err(PrepareError::Retry { why: "a panic in the client".into(), after: None })
        });
        self.shared.state.lock().preparing = None;
        let error = match result {
            Ok(prepared) => return self.install(candidate, prepared, read_only),
            Err(error) => error,
        };
        let has_current = self.shared.current.load().is_some();
        let may_fall_back = self.shared.options.read_only_fallback && !read_only && !has_current;
        if error == PrepareError::ReadOnly && may_fall_back {
            self.fallback_since.get_or_insert(self.shared.options.time.now());
            self.fallbacks.push(candidate);
            return;
        }
        candidate.link.close();
        if error == PrepareError::NeedsPassword {
            let now = self.now();
            if let Some(target) = self.shared.state.lock().target(candidate.target) {
                target.needs_password(now);
            }
            return;
        }
        let next = match error {
            PrepareError::Retry { after: Some(after), .. } => Next::After(after),
            PrepareError::Refused(_) => Next::Never,
            _ => Next::Usual,
        };
        self.failed(candidate.target, &error.to_string(), next);
    }

    /// Whether a server that only reads must do: there is one, and no other is about to answer.
    fn is_fallback_due(&self, state: &State) -> bool {
        let Some(since) = self.fallback_since else { return false };
        let is_dialling = state.targets.iter().any(|target| matches!(target.phase, Phase::Dialling(_)));
        !self.fallbacks.is_empty()
            && state.dialled.is_empty()
            && (!is_dialling || self.now() >= since + self.shared.options.fallback_after)
    }

    fn fall_back(&mut self) {
        let candidate = self.fallbacks.remove(0);
        if candidate.link.has_ended() {
            return self.failed(candidate.target, "the server closed the connection", Next::Usual);
        }
        self.consider(candidate, true);
    }

    fn install(&mut self, candidate: Candidate<P>, prepared: P::Ready, read_only: bool) {
        self.count += 1;
        let Candidate { target, address, link, receiver } = candidate;
        let peer = link.peer().to_string();
        let connected =
            Arc::new(Connected { link, receiver, ready: prepared, read_only, address, number: self.count });
        // First: a thread that waits for the link finds this done.
        self.shared.prepare.installed(&connected);
        let former = self.shared.current.swap(Some(Arc::clone(&connected)));
        for fallback in self.fallbacks.drain(..) {
            fallback.link.close();
        }
        self.fallback_since = None;
        let attempts = {
            let mut state = self.shared.state.lock();
            let attempts = state.attempts();
            // A fallback goes on looking, without haste.
            let again = self.now() + self.shared.options.retry.min;
            for other in &mut state.targets {
                if other.id == target { other.in_use() } else { other.start_over(again, false) }
            }
            if state.has_closed {
                // A close that came in between has not seen this link.
                connected.link.close();
            }
            attempts
        };
        attempts.iter().for_each(Cancel::cancel);
        let what = if former.is_some() || self.count > 1 { "Reconnected" } else { "Connected" };
        let name = &self.shared.options.name;
        let note = if read_only && self.shared.options.read_only_fallback { ", read-only" } else { "" };
        log::info!(target: STORAGE_LOG, "{name} {what} to storage: {peer}{note}");
        if let Some(former) = former {
            former.link.close();
        }
        self.shared.changed.notify_all();
    }

    fn failed(&self, id: u64, why: &str, next: Next) {
        let now = self.now();
        let (address, is_news) = {
            let mut state = self.shared.state.lock();
            let Some(target) = state.target(id) else { return };
            let is_news = target.failed(why, next, self.shared.options.retry, now);
            (target.address.python_repr(), is_news)
        };
        self.shared.changed.notify_all();
        if is_news {
            log::warn!(target: LOG, "Connection to {address} failed, {why}");
        }
    }
}

/// Starts an attempt for each address that is due.
fn start_attempts<P: Prepare>(shared: &Arc<Shared<P>>, state: &mut State) {
    let now = shared.options.time.now();
    let mut failed = Vec::new();
    for target in &mut state.targets {
        if !matches!(target.phase, Phase::Waiting(at) if at <= now) {
            continue;
        }
        let cancel = Cancel::default();
        if let Err(error) = start_attempt(shared, target, &cancel) {
            failed.push((target.id, Err(DialError::Unreachable(error))));
        }
        target.phase = Phase::Dialling(cancel);
    }
    state.dialled.extend(failed);
}

fn start_attempt<P: Prepare>(
    shared: &Arc<Shared<P>>,
    target: &Target,
    cancel: &Cancel,
) -> std::io::Result<()> {
    let (shared, cancel) = (Arc::clone(shared), cancel.clone());
    let (id, address) = (target.id, target.address.clone());
    let mut options = shared.options.dial.clone();
    options.generation = target.generation.or(options.generation);
    let attempt = move || {
        let result = dial(&address, &options, &cancel);
        if !cancel.is_cancelled() {
            shared.state.lock().dialled.push((id, result));
            shared.changed.notify_all();
        }
    };
    thread::Builder::new().name("zeo-dial".into()).spawn(attempt).map(drop)
}
