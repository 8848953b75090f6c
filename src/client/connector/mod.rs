//! Keeps one link to the best of several addresses of one server: to one that takes transactions if there is one,
//! otherwise, if that is wanted, to one that only reads until another is found.
//!
//! - All addresses are tried at once; names are looked up at each try. After failures the pauses grow, see [`retry`].
//! - Links are prepared ([`Prepare`]) one at a time. A link is replaced by another one only when that is ready.
//! - Each address has one line in the log when the reason changes why there is no connection to it.

mod addresses;
mod options;
mod prepare;
mod retry;
mod run;
mod shared;

use std::fmt;
use std::io;
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwapOption;

use crate::base::address::Address;
use crate::base::cancel::Cancel;
use crate::base::sync::{Arc, Condvar, Mutex};
pub use options::ConnectorOptions;
pub use prepare::{Connected, Prepare, PrepareError};
pub use retry::RetryLimits;
use shared::{Shared, State};

/// Keeps a link. Closed when it is dropped.
pub struct Connector<P: Prepare>(Arc<Shared<P>>);

/// Why there is no link.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NotConnected {
    /// Not within the time. The text says why, if an address has failed.
    TimedOut(Option<String>),
    /// No address will be tried again.
    Refused(String),
    /// [`Connector::close`]
    Closed,
}

impl fmt::Display for NotConnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotConnected::TimedOut(None) => f.write_str("timed out waiting for connection"),
            NotConnected::TimedOut(Some(why)) => write!(f, "timed out waiting for connection ({why})"),
            NotConnected::Refused(why) => f.write_str(why),
            NotConnected::Closed => f.write_str("closed"),
        }
    }
}

impl std::error::Error for NotConnected {}

impl<P: Prepare> Connector<P> {
    /// Starts to connect. Does not wait.
    pub fn start(
        addresses: &[Address],
        prepare: Arc<P>,
        options: ConnectorOptions,
    ) -> io::Result<Connector<P>> {
        let now = options.time.now();
        let mut state = State {
            targets: Vec::new(),
            dialled: Vec::new(),
            preparing: None,
            next_id: 0,
            has_closed: false,
        };
        state.replace(addresses, now);
        let shared = Arc::new(Shared {
            options,
            prepare,
            current: ArcSwapOption::empty(),
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let for_thread = Arc::clone(&shared);
        thread::Builder::new().name("zeo-connector".into()).spawn(move || run::run(for_thread))?;
        Ok(Connector(shared))
    }

    /// The link to use, if there is one.
    pub fn current(&self) -> Option<Arc<Connected<P>>> {
        self.0.usable()
    }

    /// The link to use; waits until there is one, at most for `time_max`.
    pub fn wait(&self, time_max: Duration) -> Result<Arc<Connected<P>>, NotConnected> {
        let time = &self.0.options.time;
        let until = time.now() + time_max;
        let mut state = self.0.state.lock();
        loop {
            if state.has_closed {
                return Err(NotConnected::Closed);
            }
            if let Some(connected) = self.0.usable() {
                return Ok(connected);
            }
            if state.all_refused() {
                return Err(NotConnected::Refused(state.failure().unwrap_or_default()));
            }
            if time.now() >= until {
                return Err(NotConnected::TimedOut(state.failure()));
            }
            state = time.wait_until(&self.0.changed, state, until);
        }
    }

    /// Each address and what is being done with it, for reports.
    pub fn addresses(&self) -> Vec<(Address, String)> {
        let state = self.0.state.lock();
        state.targets.iter().map(|target| (target.address.clone(), target.describe())).collect()
    }

    /// Replaces the addresses: from now on while there is no link, otherwise when the current link has ended.
    pub fn set_addresses(&self, addresses: &[Address]) {
        let attempts = {
            let mut state = self.0.state.lock();
            let attempts = state.attempts();
            state.replace(addresses, self.0.options.time.now());
            attempts
        };
        attempts.iter().for_each(Cancel::cancel);
        self.0.changed.notify_all();
    }

    /// Ends the link and all attempts. Does not wait for the end of their threads.
    pub fn close(&self) {
        let (attempts, preparing) = {
            let mut state = self.0.state.lock();
            state.has_closed = true;
            (state.attempts(), state.preparing.take())
        };
        attempts.iter().for_each(Cancel::cancel);
        if let Some(link) = preparing {
            link.close();
        }
        if let Some(connected) = self.0.current.swap(None) {
            connected.link.close();
        }
        self.0.changed.notify_all();
    }
}

impl<P: Prepare> Drop for Connector<P> {
    fn drop(&mut self) {
        self.close();
    }
}
