//! What is known of each address, and what is to be done with it next.

use std::time::Instant;

use super::retry::{Backoff, RetryLimits};
use crate::base::address::Address;
use crate::base::cancel::Cancel;
use crate::client::dial::WITH_PASSWORDS;
use crate::wire::protocol::Generation;

/// One of the addresses of the server.
pub(super) struct Target {
    /// A number that no other target has, or has had.
    pub id: u64,
    pub address: Address,
    /// The newest protocol to speak with it; `None`: all that this client knows.
    pub generation: Option<Generation>,
    pub phase: Phase,
    backoff: Backoff,
    /// Why the last attempt failed.
    pub failure: Option<String>,
}

/// What is being done with an address.
pub(super) enum Phase {
    /// To be tried at this time.
    Waiting(Instant),
    Dialling(Cancel),
    /// A link to it is being prepared, or is held for the case that no other server takes transactions.
    Candidate,
    /// The current link leads there.
    InUse,
    /// Not to be tried again.
    Refused,
}

impl Target {
    pub fn new(id: u64, address: Address, now: Instant) -> Target {
        let phase = Phase::Waiting(now);
        Target { id, address, generation: None, phase, backoff: Backoff::default(), failure: None }
    }

    /// An attempt has failed. Whether for another reason than the one before, so that it is worth a line in the log.
    pub fn failed(&mut self, why: &str, next: Next, limits: RetryLimits, now: Instant) -> bool {
        let pause = self.backoff.next(limits);
        self.phase = match next {
            Next::Usual => Phase::Waiting(now + pause),
            Next::After(time) => Phase::Waiting(now + time),
            Next::Never => Phase::Refused,
        };
        let is_news = self.failure.as_deref() != Some(why);
        self.failure = Some(why.to_string());
        is_news
    }

    /// The server demands a password: from now on a protocol is spoken with it that has calls for it, at once.
    pub fn needs_password(&mut self, now: Instant) {
        self.generation = Some(WITH_PASSWORDS);
        self.phase = Phase::Waiting(now);
    }

    /// Forgets earlier failures: there is a link to it.
    pub fn in_use(&mut self) {
        self.phase = Phase::InUse;
        self.failure = None;
        self.backoff = Backoff::default();
    }

    /// There is a link to another address, or there was until now: to be tried at `at`. `in_haste`: soon again if that
    /// fails.
    pub fn start_over(&mut self, at: Instant, in_haste: bool) {
        if !matches!(self.phase, Phase::Refused) {
            self.phase = Phase::Waiting(at);
            self.backoff = if in_haste { Backoff::default() } else { Backoff::without_haste() };
        }
    }

    /// In words, for reports.
    pub fn describe(&self) -> String {
        let state = match self.phase {
            Phase::Waiting(_) => "waiting",
            Phase::Dialling(_) => "connecting",
            Phase::Candidate => "preparing",
            Phase::InUse => "connected",
            Phase::Refused => "refused",
        };
        match &self.failure {
            Some(why) => format!("{state}: {why}"),
            None => state.to_string(),
        }
    }
}

/// When to try again after a failure.
pub(super) enum Next {
    Usual,
    After(std::time::Duration),
    Never,
}
