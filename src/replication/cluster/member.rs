//! One storage of a server in a cluster, as its threads share it.

use std::time::Duration;

use super::finishes::{Counted, Finishes};
use super::lease::Lease;
use super::message::News;
use super::options::{ClusterOptions, Role};
use super::progress::{GroupProgress, Mode};
use super::report::{FollowingReport, StorageReplication};
use super::state::Id;
use crate::base::cancel::Cancel;
use crate::base::clock::{IoDeadline, Stopwatch};
use crate::base::ids::Tid;
use crate::base::sync::{Arc, AtomicBool, AtomicU64, Condvar, Mutex, Ordering, rank};
use crate::storage::{
    Delivery, Lag, Publisher, PublisherSlot, Replicable, Result, Storage, StorageError, Ticket,
};

use super::pace::LOG;

/// How often the end of the last commits is looked for.
const DRAIN_PAUSE: Duration = Duration::from_millis(20);

/// A storage, how far it has come, and what it knows of the server that it follows.
pub struct MemberStorage {
    pub name: String,
    pub base: Arc<dyn Storage>,
    pub progress: Arc<GroupProgress>,
    publisher: PublisherSlot,
    /// Clients may store, or some still do.
    finishes: Arc<Finishes>,
    /// Too far behind to serve clients.
    is_stale: AtomicBool,
    /// Transactions that are later are about to be taken back.
    common: AtomicU64,
    followed: Mutex<Followed, rank::ClusterFollowed>,
    idle: Condvar,
}

/// What is known of the server that is followed.
struct Followed {
    /// Ends the present attempt.
    cancel: Cancel,
    /// An attempt is under way.
    is_busy: bool,
    failure: Option<String>,
    /// The timeline of the server that was followed last.
    timeline: Option<Id>,
    /// What the server said last, and when.
    news: News,
    heard: Option<Stopwatch>,
    /// It is the primary no more, by its own word.
    has_stepped_down: bool,
}

impl MemberStorage {
    /// Errors: `Unsupported` if `base` cannot be replicated.
    pub fn new(
        name: &str,
        base: Arc<dyn Storage>,
        options: &ClusterOptions,
        role: Role,
        lease: &Arc<Lease>,
    ) -> Result<MemberStorage> {
        let Some(replicable) = base.replicable() else {
            return Err(StorageError::Unsupported(format!("{} cannot be replicated", base.name())));
        };
        let mode = match role {
            Role::Primary => Mode::Primary,
            Role::Replica => Mode::Replica,
        };
        let progress = GroupProgress::new(name, options, mode, replicable.last_written(), base.size());
        let progress = Arc::new(progress.with_lease(lease));
        replicable.set_gate(Arc::clone(&progress) as _);
        let followed = Followed {
            cancel: Cancel::default(),
            is_busy: false,
            failure: Some("the primary was not found yet".into()),
            timeline: None,
            news: News::default(),
            heard: None,
            has_stepped_down: false,
        };
        Ok(MemberStorage {
            name: name.into(),
            base,
            progress,
            publisher: PublisherSlot::default(),
            finishes: Arc::new(Finishes::new(role == Role::Primary && lease.is_valid())),
            is_stale: AtomicBool::new(false),
            common: AtomicU64::new(Tid::MAX.0),
            followed: Mutex::new(followed),
            idle: Condvar::new(),
        })
    }

    pub fn replicable(&self) -> Result<&dyn Replicable> {
        let none = || StorageError::Unsupported(format!("{} cannot be replicated", self.base.name()));
        self.base.replicable().ok_or_else(none)
    }

    pub fn set_publisher(&self, publisher: Arc<dyn Publisher>) {
        self.publisher.set(publisher, LOG, &self.name);
    }

    // -- storing

    pub fn is_writable(&self) -> bool {
        self.finishes.are_permitted()
    }

    /// Clients can store from now on.
    pub fn allow_writing(&self) {
        self.finishes.permit();
        self.deliver(self.publisher.look_again("its storage can be written again"));
    }

    /// Refuses every vote and finish from now on.
    pub fn forbid_writing(&self) {
        self.finishes.forbid();
    }

    /// Waits until the finishes that have begun have an outcome. False: some have none yet.
    pub fn drain(&self, wait_max: Duration) -> bool {
        let until = IoDeadline::after(wait_max);
        while !self.finishes.have_ended() {
            if until.is_over() {
                return false;
            }
            self.progress.pause(DRAIN_PAUSE);
        }
        true
    }

    /// Ends the connections of all clients. They come back.
    pub fn disconnect_clients(&self, why: &'static str) {
        self.deliver(self.publisher.disconnect(why));
    }

    /// A finish must not begin.
    pub fn fail(&self, ticket: Ticket, error: StorageError) {
        self.publisher.failed(ticket, error, LOG, &self.name);
    }

    fn deliver(&self, delivery: Option<Delivery>) {
        if let Some(delivery) = delivery {
            delivery();
        }
    }

    /// The ticket of a finish that begins. `Err`: it must not, see [`MemberStorage::forbid_writing`].
    pub fn begin_finish(&self, ticket: Ticket) -> std::result::Result<Ticket, Ticket> {
        match self.finishes.begin() {
            Some(counted) => Ok(Box::new(Finish { ticket, _counted: counted })),
            None => Err(ticket),
        }
    }

    // -- following

    /// Begins an attempt to follow. It ends when the result is cancelled.
    pub fn begin_following(&self) -> Cancel {
        let mut followed = self.followed.lock();
        followed.is_busy = true;
        followed.cancel = Cancel::default();
        followed.cancel.clone()
    }

    /// The attempt has ended. True: for another reason than the one before.
    pub fn end_following(&self, why: &str) -> bool {
        let mut followed = self.followed.lock();
        let is_new = followed.failure.as_deref() != Some(why);
        followed.failure = Some(why.into());
        followed.is_busy = false;
        self.idle.notify_all();
        is_new
    }

    /// Ends an attempt that is under way.
    pub fn stop_following(&self) {
        let cancel = self.followed.lock().cancel.clone();
        cancel.cancel();
    }

    /// Waits until no attempt is under way.
    pub fn wait_for_idle(&self) {
        let mut followed = self.followed.lock();
        while followed.is_busy {
            followed = self.idle.wait(followed);
        }
    }

    /// The server, which writes this timeline, has accepted this one.
    pub fn follows(&self, timeline: Option<Id>) {
        let mut followed = self.followed.lock();
        (followed.failure, followed.has_stepped_down) = (None, false);
        followed.heard = Some(Stopwatch::start());
        let is_new = followed.timeline != timeline;
        followed.timeline = timeline;
        drop(followed);
        if is_new {
            // Python's clients ask each server once. They would read here for as long as this server lets them.
            self.deliver(self.publisher.look_again("another server can be written now"));
        }
    }

    /// The transactions that are later than `common` are taken back soon, and are not shown any more. `Tid::MAX`: none.
    pub fn will_take_back(&self, common: Tid) {
        self.common.store(common.0, Ordering::SeqCst);
    }

    pub fn hear(&self, news: News) {
        let mut followed = self.followed.lock();
        (followed.news, followed.heard) = (news, Some(Stopwatch::start()));
    }

    /// Whether it is connected to the server that it follows.
    pub fn is_following(&self) -> bool {
        self.followed.lock().failure.is_none()
    }

    /// Since when nothing was heard of that server. `None`: it was not followed, or is no primary any more.
    pub fn silence(&self) -> Option<Duration> {
        let followed = self.followed.lock();
        followed.heard.filter(|_| !followed.has_stepped_down).map(Stopwatch::passed)
    }

    /// The server that was followed says that it is no primary.
    pub fn note_stepped_down(&self) {
        self.followed.lock().has_stepped_down = true;
    }

    /// How far behind that server, and for how long nothing was heard.
    pub fn behind(&self) -> Option<Lag> {
        let followed = self.followed.lock();
        let silence = followed.heard?.passed();
        let News { written, bytes, transactions, time, .. } = followed.news;
        let time = Duration::from_millis(time);
        let is_fresh = followed.failure.is_none() && silence < SILENCE_SHOWN;
        if is_fresh && self.base.last_transaction() >= written {
            return Some(Lag::default());
        }
        Some(Lag { bytes, transactions, time: if is_fresh { time } else { time.saturating_add(silence) } })
    }

    /// Whether the replica is too far behind for its clients.
    pub fn set_stale(&self, is_stale: bool) -> bool {
        self.is_stale.swap(is_stale, Ordering::SeqCst) != is_stale
    }

    pub fn is_stale(&self) -> bool {
        self.is_stale.load(Ordering::SeqCst)
    }

    pub fn report(&self, role: Role) -> StorageReplication {
        let (degraded_since, degradations) = self.progress.degradation();
        let following = || {
            let (is_following, behind) = (self.is_following(), self.behind());
            let followed = self.followed.lock();
            FollowingReport {
                failure: followed.failure.clone(),
                primary_last: followed.news.written,
                behind: behind.filter(|_| is_following),
                staleness: behind.map(|lag| lag.time),
            }
        };
        StorageReplication {
            storage: self.name.clone(),
            last: self.base.last_transaction().min(Tid(self.common.load(Ordering::SeqCst))),
            following: (role == Role::Replica).then(following),
            replicas: self.progress.replicas(),
            degraded_since,
            degradations,
        }
    }
}

/// News come each second. Without any for this time the lag grows.
const SILENCE_SHOWN: Duration = Duration::from_secs(3);

/// A finish of a client that is counted until it has an outcome.
pub struct Finish {
    ticket: Ticket,
    _counted: Counted,
}

impl Finish {
    /// The client's own ticket of one that may be counted.
    pub fn unwrap(ticket: Ticket) -> Ticket {
        match ticket.downcast::<Finish>() {
            Ok(finish) => finish.ticket,
            Err(other) => other,
        }
    }
}
