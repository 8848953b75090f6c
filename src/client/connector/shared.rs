//! What the users of a connector and its thread share.

use arc_swap::ArcSwapOption;

use super::addresses::{Phase, Target};
use super::options::ConnectorOptions;
use super::prepare::{Connected, Prepare};
use crate::base::address::Address;
use crate::base::cancel::Cancel;
use crate::base::sync::{Arc, Condvar, Mutex, rank};
use crate::client::dial::{DialError, Dialled};
use crate::client::link::{EndCause, Link, Receiver};
use crate::wire::answers::ServerPush;

/// Of one connector.
pub(super) struct Shared<P: Prepare> {
    pub options: ConnectorOptions,
    pub prepare: Arc<P>,
    /// Changed by the thread only; a close empties it.
    pub current: ArcSwapOption<Connected<P>>,
    pub state: Mutex<State, rank::Connector>,
    /// Something has happened that the thread, or one who waits for a connection, has to look at.
    pub changed: Condvar,
}

/// What has happened, and what is to be done.
pub(super) struct State {
    pub targets: Vec<Target>,
    /// The result of each attempt, with the id of its target.
    pub dialled: Vec<(u64, Result<Dialled, DialError>)>,
    /// The link that is being prepared.
    pub preparing: Option<Link>,
    pub next_id: u64,
    pub has_closed: bool,
}

impl State {
    pub fn target(&mut self, id: u64) -> Option<&mut Target> {
        self.targets.iter_mut().find(|target| target.id == id)
    }

    /// The handles of all attempts.
    pub fn attempts(&self) -> Vec<Cancel> {
        let cancel = |target: &Target| match &target.phase {
            Phase::Dialling(cancel) => Some(cancel.clone()),
            _ => None,
        };
        self.targets.iter().filter_map(cancel).collect()
    }

    /// New targets in place of the old ones, to be tried at once.
    pub fn replace(&mut self, addresses: &[Address], now: std::time::Instant) {
        self.targets.clear();
        for address in addresses {
            self.targets.push(Target::new(self.next_id, address.clone(), now));
            self.next_id += 1;
        }
    }

    /// Why there is no connection, for one who waits.
    pub fn failure(&self) -> Option<String> {
        let failures: Vec<String> = self
            .targets
            .iter()
            .filter_map(|target| Some(format!("{}: {}", target.address, target.failure.as_ref()?)))
            .collect();
        (!failures.is_empty()).then(|| failures.join("; "))
    }

    /// Whether no address is to be tried again.
    pub fn all_refused(&self) -> bool {
        self.targets.iter().all(|target| matches!(target.phase, Phase::Refused))
    }
}

impl<P: Prepare> Shared<P> {
    /// The link to use, if there is one that has not ended.
    pub fn usable(&self) -> Option<Arc<Connected<P>>> {
        self.current.load_full().filter(|connected| !connected.link.has_ended())
    }
}

/// Passes on what a link receives, and tells the thread of its end.
pub(super) struct Forward<P: Prepare> {
    pub receiver: Arc<P::Receiver>,
    pub shared: Arc<Shared<P>>,
}

impl<P: Prepare> Receiver for Forward<P> {
    fn push(&self, link: &Link, push: ServerPush<'_>) {
        self.receiver.push(link, push);
    }

    fn ended(&self, link: &Link, cause: &EndCause) {
        self.receiver.ended(link, cause);
        // The lock, so that the thread is not between looking and waiting.
        drop(self.shared.state.lock());
        self.shared.changed.notify_all();
    }
}
