//! A client of one database: the link to the server in use, the timeline of what arrives on it, and loads.
//!
//! [`super::prepare`] takes links into use. Commits are in [`super::commit`].

use std::time::Duration;

use super::ask::{AskError, ask, understood};
use super::blobs::{ClientBlobs, IncomingBlobs};
use super::cache::{Cache, SharedRevision};
use super::dial::DialOptions;
use super::flights::{Flight, Flights, Landed, Revision};
use super::lanes::{HeldLane, Lane, LaneOptions, Lanes, MainLink, Serialnos, Sibling};
use super::link::{Link, LinkError};
use super::options::ClientOptions;
use super::recent::Place;
use super::server_info::ServerInfo;
use super::timeline::{Filled, LinkId, Timeline};
use crate::base::clock::IoDeadline;
use crate::base::ids::{Oid, Tid};
use crate::base::sync::{Arc, AtomicU64, Condvar, Mutex, Ordering, rank};
use crate::exceptions::meaning::to_storage_error;
use crate::storage::{PublisherSlot, Remote, ResolverSlot, Result, StorageError, Ticket};
use crate::wire::answers::{Answer, AnswerError};
use crate::wire::availability::Method;
use crate::wire::calls::Call;

/// How long a transaction is waited for that a server of ZEO 5 or later has, and has not told of.
const NEWS_MAX: Duration = Duration::from_secs(5);

/// Python's logger of clients.
pub const LOG: &str = "ZEO.ClientStorage";

/// A client of one database.
pub struct Upstream {
    pub options: ClientOptions,
    pub timeline: Timeline<Cache>,
    pub lanes: Arc<Lanes>,
    pub publisher: PublisherSlot,
    pub resolver: ResolverSlot,
    /// `None`: there is no `blob-dir`.
    pub blobs: Option<ClientBlobs>,
    next_transaction: AtomicU64,
    flights: Flights,
    current: Mutex<LinkState, rank::CurrentLink>,
    changed: Condvar,
    next_link: AtomicU64,
}

/// The load of a revision, and if it is a new one, what is to be sent for it.
type BegunLoad<F> = (Arc<Flight>, Option<(Call<'static>, F)>);

/// What a call ends with.
type AnswerOrEnd<'a> = std::result::Result<Answer<'a>, LinkError>;

/// The link in use, and what is known without one.
struct LinkState {
    link: Option<InUse>,
    /// While there is none, calls wait for one until then.
    patience: IoDeadline,
    remote: Remote,
    is_closed: bool,
    was_connected: bool,
    /// Of the server that was connected last.
    info: Arc<ServerInfo>,
}

impl LinkState {
    fn set_lost(&mut self, why: &str, wait_timeout: Duration) {
        self.link = None;
        self.remote.lose(why);
        self.patience = IoDeadline::after(wait_timeout);
    }
}

/// A link that is in use.
#[derive(Clone)]
pub struct InUse {
    pub id: LinkId,
    pub link: Link,
    /// Registered for reading only.
    pub is_read_only: bool,
    /// What the server said about stores before it answered vote. Before ZEO 5.
    pub serialnos: Serialnos,
    /// The blobs that the server is sending.
    pub incoming: Arc<IncomingBlobs>,
    /// `None`: transactions take turns on this link.
    pub sibling: Option<Arc<Sibling>>,
}

impl InUse {
    /// For transactions.
    pub fn main(&self) -> MainLink {
        let lane = Lane { link: self.link.clone(), serialnos: Arc::clone(&self.serialnos) };
        MainLink { id: self.id, lane, sibling: self.sibling.clone() }
    }
}

/// A load that [`Upstream::start`] has begun.
pub enum Started {
    /// It was in the cache.
    Cached(Revision),
    UnderWay(Arc<Flight>),
}

impl Upstream {
    /// A client without a link. `dial`: how to open more links to the server in use.
    pub fn new(
        options: ClientOptions,
        cache: Cache,
        blobs: Option<ClientBlobs>,
        dial: DialOptions,
    ) -> Arc<Upstream> {
        let lanes = Lanes::new(LaneOptions {
            dial,
            storage: options.storage.clone(),
            label: options.label.clone(),
            name: options.shown_name(),
            target: LOG,
        });
        let last = cache.last_tid().unwrap_or_default();
        let current = LinkState {
            link: None,
            patience: IoDeadline::after(options.wait_timeout),
            remote: Remote::unknown("never connected"),
            is_closed: false,
            was_connected: false,
            info: Arc::default(),
        };
        Arc::new(Upstream {
            options,
            timeline: Timeline::new(cache, last),
            lanes,
            publisher: PublisherSlot::default(),
            resolver: ResolverSlot::default(),
            blobs,
            next_transaction: AtomicU64::new(1),
            flights: Flights::default(),
            current: Mutex::new(current),
            changed: Condvar::new(),
            next_link: AtomicU64::new(1),
        })
    }

    /// The addresses or the configured name, for log lines.
    pub fn name(&self) -> String {
        self.options.shown_name()
    }

    // -- the link in use

    /// The number for a new link.
    pub fn next_link(&self) -> LinkId {
        self.next_link.fetch_add(1, Ordering::Relaxed)
    }

    /// A name for a transaction, for the server.
    pub fn next_transaction(&self) -> i64 {
        self.next_transaction.fetch_add(1, Ordering::Relaxed) as i64 & i64::MAX
    }

    /// Whether anything may know of objects that are not in the cache, or of another last transaction: after a first
    /// connection, and where none was waited for.
    pub fn has_readers(&self) -> bool {
        !self.options.wait || self.current.lock().was_connected
    }

    /// The link in use. Waits for one, but not longer than `wait-timeout` after the last one was lost: then all calls
    /// fail at once until there is a new one.
    pub fn in_use(&self) -> Result<InUse> {
        let mut current = self.current.lock();
        loop {
            match &current.link {
                Some(in_use) if !in_use.link.has_ended() => return Ok(in_use.clone()),
                // Its thread has not said so yet.
                Some(_) => current.set_lost("the connection broke", self.options.wait_timeout),
                None => {}
            }
            let left = current.patience.left();
            if current.is_closed {
                return Err(StorageError::Closed(format!("{} is closed", self.name())));
            }
            if left.is_zero() {
                let why = current.remote.failure.as_deref().unwrap_or_default();
                return Err(StorageError::Disconnected(format!("{}: {why}", self.name())));
            }
            current = self.changed.wait_timeout(current, left);
        }
    }

    /// The link in use, without waiting.
    pub fn in_use_now(&self) -> Option<InUse> {
        self.current.lock().link.clone()
    }

    /// Whether there is a server.
    pub fn remote(&self) -> Remote {
        self.current.lock().remote.clone()
    }

    /// From now on calls go to this link.
    pub fn take_into_use(&self, in_use: InUse, info: ServerInfo) {
        let is_read_only = in_use.is_read_only;
        self.use_link(in_use, info);
        if !is_read_only {
            self.publisher
                .look_again("its storage can be written again")
                .into_iter()
                .for_each(|deliver| deliver());
        }
    }

    fn use_link(&self, in_use: InUse, info: ServerInfo) {
        let mut current = self.current.lock();
        current.info = Arc::new(info);
        current.link = Some(in_use);
        current.remote.reach();
        current.was_connected = true;
        self.changed.notify_all();
    }

    /// The link has ended.
    pub fn lost(&self, id: LinkId, why: &str) {
        let lost = self.timeline.lose(id);
        {
            let mut current = self.current.lock();
            if current.link.as_ref().is_some_and(|in_use| in_use.id == id) {
                current.set_lost(why, self.options.wait_timeout);
            }
        }
        self.lanes.lose(id);
        self.outcomes_unknown(lost);
    }

    /// The finishes of these transactions were answered, but their place in the order is lost.
    pub fn outcomes_unknown(&self, tickets: impl IntoIterator<Item = Ticket>) {
        for ticket in tickets {
            let text =
                "the connection was lost before it told of a transaction that was finished on another one";
            let error = StorageError::OutcomeUnknown(format!("{}: {text}", self.name()));
            self.publisher.failed(ticket, error, LOG, &self.name());
        }
    }

    /// An attempt to connect has failed: the reason that calls give.
    pub fn not_connected(&self, why: &str) {
        let mut current = self.current.lock();
        if current.link.is_none() {
            current.remote.lose(why);
        }
    }

    /// No later call waits, and none succeeds.
    pub fn close(&self) {
        let link = {
            let mut current = self.current.lock();
            current.is_closed = true;
            self.changed.notify_all();
            current.link.take()
        };
        if let Some(in_use) = link {
            let lost = self.timeline.lose(in_use.id);
            in_use.link.close();
            self.lanes.lose(in_use.id);
            self.outcomes_unknown(lost);
        }
        self.lanes.wake();
    }

    /// Waits until the client is closed, at most for `timeout`. Returns whether it is.
    pub fn wait_for_close(&self, timeout: Duration) -> bool {
        let current = self.current.lock();
        self.changed.wait_timeout_while(current, timeout, |current| !current.is_closed).is_closed
    }

    pub fn is_closed(&self) -> bool {
        self.current.lock().is_closed
    }

    /// What the server that was connected last has said about its storage.
    pub fn info(&self) -> Arc<ServerInfo> {
        Arc::clone(&self.current.lock().info)
    }

    /// Changes what is known about the server's storage.
    pub fn update_info(&self, change: impl FnOnce(&mut ServerInfo)) {
        let mut current = self.current.lock();
        let mut info = ServerInfo::clone(&current.info);
        change(&mut info);
        current.info = Arc::new(info);
    }

    // -- calls

    /// Calls and waits for the answer. A call that the end of a link leaves without one is made again on the next
    /// link, so it must not change anything.
    pub fn read<T: Send + 'static>(
        &self,
        call: &Call<'_>,
        read: fn(&Answer<'_>) -> std::result::Result<T, AnswerError>,
    ) -> Result<T> {
        loop {
            let in_use = self.in_use()?;
            match ask(&in_use.link, call, None, read) {
                Err(AskError::Link(LinkError::Ended(_))) => {}
                other => return Ok(other?),
            }
        }
    }

    /// Returns when all transactions that the server had published before are known here.
    ///
    /// From the servers of ZEO 5 and 6 with uvloop an answer may come before an invalidation that was queued earlier,
    /// so the answer alone, as Python's clients take it, is not enough: the last transaction itself is waited for.
    pub fn catch_up(&self) -> Result<()> {
        let in_use = self.in_use()?;
        let (link, timeline) = (&in_use.link, &self.timeline);
        let Some(last) = ask(link, &Call::LastTransaction, None, |answer| answer.optional_tid())? else {
            return Ok(());
        };
        // Servers before ZEO 5 send in order, but nothing about a transaction that only creates objects.
        if link.wire().knows(Method::Ping) {
            if timeline.wait_for(last, NEWS_MAX) {
                return Ok(());
            }
            // The first servers of ZEO 5 send nothing about those, either. What was queued is sent before the second
            // of two answers.
            for _ in 0..2 {
                ask(link, &Call::Ping, None, |answer| answer.done())?;
            }
        }
        timeline.caught_up(in_use.id, last);
        Ok(())
    }

    // -- loads

    /// The revision of `oid` just before `before`, from the cache or from the server.
    pub fn load_before(self: &Arc<Self>, oid: Oid, before: Tid) -> Result<Option<Revision>> {
        if let Some(revision) = self.cached(oid, before) {
            return Ok(Some(revision));
        }
        self.timeline.cache().missed(oid, before);
        let in_use = self.in_use()?;
        let (flight, place) = self.join(&in_use, oid, before);
        let (flight, place) = match place {
            Some(place) => (flight, place),
            None => return self.landed(oid, before, Started::UnderWay(flight)),
        };
        // The thread that waits for its answer reads it itself, which saves handing it over.
        let lane = self.lane_for_load(&in_use);
        let link = lane.as_ref().map_or(&in_use.link, |held| &held.lane.link);
        let (upstream, id, on, sent) = (Arc::clone(self), in_use.id, link.clone(), Arc::clone(&flight));
        let called = link.call(&Call::LoadBefore { oid, before }, None, move |answer| {
            let landed = upstream.answered(&on, id, place, oid, Ok(answer));
            upstream.flights.land(oid, before, &sent, landed);
        });
        drop(lane);
        if called.is_err() {
            self.flights.land(oid, before, &flight, Landed::LinkEnded);
        }
        self.landed(oid, before, Started::UnderWay(flight))
    }

    /// A link for one load, if the one in use is busy.
    fn lane_for_load(&self, in_use: &InUse) -> Option<HeldLane> {
        let sibling = in_use.sibling.as_ref().filter(|_| in_use.link.is_busy())?;
        self.lanes.take_for_load(in_use.id, sibling)
    }

    fn cached(&self, oid: Oid, before: Tid) -> Option<Revision> {
        let SharedRevision { start, end, data } = self.timeline.cached_shared(oid, before)?;
        Some(Revision { data, serial: start, end })
    }

    /// Begins a load. Several can be under way.
    pub fn start(self: &Arc<Self>, oid: Oid, before: Tid) -> Result<Started> {
        if let Some(revision) = self.cached(oid, before) {
            return Ok(Started::Cached(revision));
        }
        self.timeline.cache().missed(oid, before);
        let in_use = self.in_use()?;
        let (flight, begun) = self.begin_load(&in_use, oid, before);
        if let Some((call, on_answer)) = begun {
            in_use.link.start(&call, on_answer);
        }
        Ok(Started::UnderWay(flight))
    }

    /// Begins many loads. Those that are not cached are asked for together.
    pub fn start_many(self: &Arc<Self>, oids: &[Oid], before: Tid) -> Vec<Result<Started>> {
        // First all that may wait: between the begin of a load and its message nothing does, for others may wait for
        // the same one.
        let cached: Vec<_> = oids.iter().map(|oid| self.cached(*oid, before)).collect();
        let is_cached = cached.iter().all(Option::is_some);
        let in_use = if is_cached { None } else { Some(self.in_use()) };
        let mut begun = Vec::new();
        let start = |(oid, cached): (&Oid, Option<Revision>)| match (cached, &in_use) {
            (Some(revision), _) => Ok(Started::Cached(revision)),
            (None, Some(Ok(in_use))) => {
                self.timeline.cache().missed(*oid, before);
                let (flight, new) = self.begin_load(in_use, *oid, before);
                begun.extend(new);
                Ok(Started::UnderWay(flight))
            }
            (None, _) => self.start(*oid, before),
        };
        let started = oids.iter().zip(cached).map(start).collect();
        if let Some(Ok(in_use)) = in_use {
            in_use.link.start_all(begun);
        }
        started
    }

    /// The result of a load that was begun. If the link is lost, it is begun again on the next.
    pub fn landed(self: &Arc<Self>, oid: Oid, before: Tid, mut started: Started) -> Result<Option<Revision>> {
        loop {
            let flight = match started {
                Started::Cached(revision) => return Ok(Some(revision)),
                Started::UnderWay(flight) => flight,
            };
            match flight.wait() {
                Landed::Found(found) => return Ok(found),
                Landed::NoSuchObject => return Err(StorageError::PosKey(oid)),
                Landed::Raised(exception) => return Err(to_storage_error(&exception)),
                Landed::LinkEnded => started = self.start(oid, before)?,
            }
        }
    }

    /// The load of a revision: one that is under way, or a new one that the caller sends, and fills in with the place.
    fn join(&self, in_use: &InUse, oid: Oid, before: Tid) -> (Arc<Flight>, Option<Place>) {
        // Read in this order: see `Flights::join` and `Timeline::fill`.
        let last = self.timeline.last_tid();
        let place = self.timeline.place();
        let (flight, is_new) = self.flights.join(in_use.id, oid, before, last);
        (flight, is_new.then_some(place))
    }

    /// The load of a revision, and if it is a new one, what is to be sent for it.
    fn begin_load(
        self: &Arc<Self>,
        in_use: &InUse,
        oid: Oid,
        before: Tid,
    ) -> BegunLoad<impl FnOnce(&Link, AnswerOrEnd<'_>) + Send + 'static + use<>> {
        let (flight, place) = self.join(in_use, oid, before);
        let begun = place.map(|place| {
            let (upstream, id, sent) = (Arc::clone(self), in_use.id, Arc::clone(&flight));
            let on_answer = move |link: &Link, answer: AnswerOrEnd<'_>| {
                let landed = upstream.answered(link, id, place, oid, answer);
                upstream.flights.land(oid, before, &sent, landed);
            };
            (Call::LoadBefore { oid, before }, on_answer)
        });
        (flight, begun)
    }

    /// The answer to a load, in the thread of the link.
    fn answered(&self, link: &Link, id: LinkId, place: Place, oid: Oid, answer: AnswerOrEnd<'_>) -> Landed {
        let Ok(answer) = answer else { return Landed::LinkEnded };
        match answer.loaded() {
            Ok(None) => Landed::Found(None),
            // So ZODB before 4 says that the object was deleted or its creation undone; every record of an object has
            // at least one byte.
            Ok(Some(loaded)) if loaded.data.is_empty() => Landed::NoSuchObject,
            Ok(Some(loaded)) => {
                match self.timeline.fill(id, place, oid, loaded.serial, loaded.end, loaded.data) {
                    Filled::End(end) => {
                        Landed::Found(Some(Revision { data: loaded.data.into(), serial: loaded.serial, end }))
                    }
                    Filled::OtherLink => Landed::LinkEnded,
                }
            }
            Err(error) => match understood(link, error) {
                AskError::Raised(exception) if *exception.name == *"POSKeyError" => Landed::NoSuchObject,
                AskError::Raised(exception) => Landed::Raised(exception.into()),
                AskError::Link(_) | AskError::Broken(_) => Landed::LinkEnded,
            },
        }
    }
}
