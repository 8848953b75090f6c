//! Where replies, invalidations and commits meet: everything that arrives from the server changes the cache and the
//! time of the views here, one message after the other, in the order of arrival.
//!
//! What a reader relies on:
//!
//! - All transactions up to [`Timeline::last_tid`] are in the cache, and the listeners know them. A transaction is
//!   applied in this order: the cache, the listeners, the last tid. So a view that begins at any moment finds in the
//!   cache either the right revision or none.
//! - A revision that the cache has as current is valid up to the last tid, not beyond.
//! - A reply to a load is put into the cache with the end that a transaction gave it that arrived while the load was
//!   under way. Servers before ZEO 5 send such a reply after the invalidation, servers from ZEO 5 on may send a newer
//!   one before it; on another link than the one that counts, it may come at any time.
//! - Servers of Python may answer the finish of a transaction before they send the invalidation of an earlier one, or
//!   after they have sent that of a later one. So invalidations that arrive during a finish are held until it is
//!   answered, and are published in the order of tids.
//! - Messages of a link count from [`Timeline::adopt`] on, after its cache was verified; earlier ones are kept until
//!   then. Of two links at most one counts.
//! - A transaction that this client has finished on another link is published when the link that counts tells of it:
//!   see [`awaited`](super::awaited).
//!
//! Model-checked by `tests/model/timeline.rs`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

pub use super::awaited::LinkId;
use super::awaited::{Awaited, FinishId, GiveUp, OwnFinish};
use super::cache::{Cached, SharedRevision};
use super::recent::{Change, Place, Recent};
use crate::base::ids::{Oid, Tid};
use crate::base::sync::{Arc, AtomicU64, Condvar, Mutex, Ordering, rank};
use crate::storage::{Delivery, Ticket};

/// The cache, as far as this module changes it. An implementation that cannot do something forgets revisions instead:
/// no method fails.
pub trait Revisions: Send + Sync {
    /// The revision just before `before`, as far as it is kept, appended to `out`.
    fn load_before(&self, oid: Oid, before: Tid, out: &mut Vec<u8>) -> Option<Cached>;
    /// The same, as data that is shared.
    fn load_shared(&self, oid: Oid, before: Tid) -> Option<SharedRevision> {
        let mut out = Vec::new();
        let Cached { start, end, data } = self.load_before(oid, before, &mut out)?;
        Some(SharedRevision { start, end, data: out.get(data).unwrap_or_default().into() })
    }
    /// The tid of the revision that counts as current.
    fn current_start(&self, oid: Oid) -> Option<Tid>;
    /// Keeps a revision.
    fn store(&self, oid: Oid, start: Tid, end: Option<Tid>, data: &[u8]);
    /// The current revision ends at `tid`, unless it is as new as that. `None`: it is forgotten.
    fn invalidate(&self, oid: Oid, tid: Option<Tid>);
    /// Forgets everything.
    fn clear(&self);
    /// All transactions up to `tid` are in the cache.
    fn set_last_tid(&self, tid: Tid);
}

/// What has changed, for [`Listener`]s.
#[derive(Debug)]
pub enum News<'a> {
    /// One transaction.
    Transaction {
        /// What it changed.
        change: &'a Change,
        /// As it was given to the finish, if this client has committed it.
        ticket: Option<Ticket>,
    },
    /// The objects that changed between two connections, by which transactions nobody can say.
    Missed {
        /// The last transaction.
        last: Tid,
        /// The objects.
        oids: &'a Arc<[Oid]>,
    },
    /// Anything may have changed.
    Everything {
        /// The last transaction.
        last: Tid,
    },
}

/// Gets the news before views that begin can see them, on the thread that receives messages: it must not wait for
/// a call to the server.
pub trait Listener: Send + Sync {
    /// Called once for each, in order. `install` makes them visible to views that begin; if it is not called, that
    /// happens after the return. The result is run later, outside of every lock.
    fn hear(&self, news: News<'_>, install: &mut dyn FnMut()) -> Option<Delivery>;
}

/// What the verification of the cache has found.
#[derive(Debug)]
pub enum Found {
    /// Nothing was missed.
    Nothing,
    /// The missed transactions, each with its objects, oldest first.
    Transactions(Vec<Change>),
    /// The objects that changed, without their transactions.
    Objects(Vec<Oid>),
    /// These cached objects are stale; objects that are not in the cache may be, too.
    Stale(Vec<Oid>),
    /// Nobody can say what changed, or the cache is of another database.
    Unknown,
}

/// The order of what arrives. `C`: the cache.
pub struct Timeline<C> {
    /// Outermost lock. Its holder applies one message.
    arrivals: Mutex<Arrivals, rank::Arrivals>,
    recent: Mutex<Recent, rank::RecentChanges>,
    /// Changed under `recent` only.
    last_tid: AtomicU64,
    /// Changes when the server in use may not have the transactions that views have seen: what they have read and what
    /// they would read may be of two databases then.
    era: AtomicU64,
    /// The last tid has changed, or the link.
    advanced: Condvar,
    /// Nothing is held any more.
    released: Condvar,
    /// The client's transactions that other links finish.
    awaited: Awaited,
    cache: C,
}

#[derive(Default)]
struct Arrivals {
    link: Option<LinkId>,
    /// All transactions up to this one were known when `link` was adopted: its server may send some of them again.
    adopted: Tid,
    /// What `link` has told since [`Timeline::hold`].
    held: Option<Vec<Change>>,
    /// Transactions that arrived on links whose cache is not verified yet.
    early: HashMap<LinkId, Vec<Change>>,
    listener: Option<Arc<dyn Listener>>,
}

/// What is given to a view that begins.
#[derive(Debug)]
pub struct Begun {
    /// The view sees all transactions before this tid.
    pub start: Tid,
    /// For the next begin.
    pub place: Place,
    /// What is read for the view counts only while this is [`Timeline::era`].
    pub era: u64,
    /// The objects that changed since the place that was given; `None`: anything may have changed.
    pub changed: Option<Vec<Oid>>,
}

/// What a load reply became.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Filled {
    /// The revision's end, as known now; `None`: it is current.
    End(Option<Tid>),
    /// The link does not count any more.
    OtherLink,
}

impl<C: Revisions> Timeline<C> {
    /// A timeline that begins where the cache has ended.
    pub fn new(cache: C, last_tid: Tid) -> Timeline<C> {
        Timeline {
            arrivals: Mutex::default(),
            recent: Mutex::default(),
            last_tid: AtomicU64::new(last_tid.0),
            era: AtomicU64::new(0),
            advanced: Condvar::new(),
            released: Condvar::new(),
            awaited: Awaited::default(),
            cache,
        }
    }

    /// The cache, for reading.
    pub fn cache(&self) -> &C {
        &self.cache
    }

    /// Sets what gets the news, before the first link.
    pub fn set_listener(&self, listener: Arc<dyn Listener>) {
        self.arrivals.lock().listener = Some(listener);
    }

    /// Runs `act` with the last tid while nothing arrives.
    pub fn between_arrivals<T>(&self, act: impl FnOnce(Tid) -> T) -> T {
        let _arrivals = self.arrivals.lock();
        act(self.last_tid())
    }

    // -- readers

    /// The last transaction that views see.
    pub fn last_tid(&self) -> Tid {
        Tid(self.last_tid.load(Ordering::Acquire))
    }

    /// The revision of the cache that is right for a view that sees what is before `before`.
    pub fn cached(&self, oid: Oid, before: Tid, out: &mut Vec<u8>) -> Option<Cached> {
        // Read first: all up to this transaction is in the cache then.
        let last = self.last_tid();
        let len = out.len();
        let found = self.cache.load_before(oid, before, out)?;
        let is_right = found.end.is_some() || before <= Tid(last.0 + 1);
        if !is_right {
            out.truncate(len);
        }
        is_right.then_some(found)
    }

    /// The same, as data that is shared.
    pub fn cached_shared(&self, oid: Oid, before: Tid) -> Option<SharedRevision> {
        // As in `cached`.
        let last = self.last_tid();
        let found = self.cache.load_shared(oid, before)?;
        (found.end.is_some() || before <= Tid(last.0 + 1)).then_some(found)
    }

    /// Begins a view, or begins it again: `since` is the place of its last begin.
    pub fn begin(&self, since: Option<Place>) -> Begun {
        let recent = self.recent.lock();
        let changed = since.and_then(|since| {
            let oids = recent.since(since)?.flat_map(|change| change.oids.iter().copied());
            Some(oids.collect())
        });
        Begun { start: Tid(self.last_tid().0 + 1), place: recent.end(), era: self.era(), changed }
    }

    /// To be read after what it is about.
    pub fn era(&self) -> u64 {
        self.era.load(Ordering::Acquire)
    }

    /// Objects that the last transaction has changed, as far as they are known: at most `max`.
    pub fn last_changed(&self, max: usize) -> (Tid, Vec<Oid>) {
        let recent = self.recent.lock();
        let oids = recent.last().map_or(&[][..], |change| &change.oids);
        (self.last_tid(), oids.iter().copied().take(max).collect())
    }

    /// Waits until views see the transaction `tid`. Returns whether they do; false after `timeout`.
    pub fn wait_for(&self, tid: Tid, timeout: Duration) -> bool {
        let recent = self.recent.lock();
        drop(self.advanced.wait_timeout_while(recent, timeout, |_| self.last_tid() < tid));
        self.last_tid() >= tid
    }

    /// To be called before a load is sent; its reply is filled in with this place.
    pub fn place(&self) -> Place {
        self.recent.lock().end()
    }

    // -- links

    /// A link is being prepared: transactions that arrive on it are kept until it is adopted.
    pub fn prepare(&self, link: LinkId) {
        self.arrivals.lock().early.insert(link, Vec::new());
    }

    /// The cache was verified with the server of `link`, whose last transaction was `last`: from now on its messages
    /// count. Another link may have been in use until now, and may have brought later transactions than that.
    /// `has_our_past`: the server has all that views have seen. Returns the tickets of transactions that another link
    /// was finishing, whose outcome nobody can tell now.
    #[must_use]
    pub fn adopt(&self, link: LinkId, last: Tid, found: Found, has_our_past: bool) -> Vec<Ticket> {
        let mut arrivals = self.arrivals.lock();
        let end_era = || {
            if !has_our_past {
                self.era.fetch_add(1, Ordering::AcqRel);
            }
        };
        // Views that begin before the last tid is changed are of no use: they end with the second call.
        end_era();
        let early = arrivals.early.remove(&link).unwrap_or_default();
        arrivals.link = Some(link);
        self.forget_held(&mut arrivals);
        let known = self.last_tid();
        let last = if matches!(found, Found::Unknown) { last } else { last.max(known) };
        arrivals.adopted = last;
        let mut deliveries = Vec::new();
        match found {
            Found::Nothing => self.advance(&mut self.recent.lock(), last),
            Found::Transactions(changes) => {
                let missed = changes.into_iter().filter(|change| change.tid > known);
                deliveries.extend(missed.filter_map(|change| self.apply(&arrivals, change)));
                self.advance(&mut self.recent.lock(), last);
            }
            Found::Objects(oids) => {
                oids.iter().for_each(|oid| self.cache.invalidate(*oid, None));
                let oids: Arc<[Oid]> = oids.into();
                deliveries.extend(self.tell(&arrivals, News::Missed { last, oids: &oids }, &mut || {
                    let mut recent = self.recent.lock();
                    recent.push(last, Arc::clone(&oids));
                    self.advance(&mut recent, last);
                }));
            }
            Found::Stale(oids) => {
                oids.iter().for_each(|oid| self.cache.invalidate(*oid, None));
                deliveries.extend(self.restart(&arrivals, last));
            }
            Found::Unknown => {
                self.cache.clear();
                deliveries.extend(self.restart(&arrivals, last));
            }
        }
        end_era();
        self.cache.set_last_tid(last);
        // What is not later is in the cache, or among `found`: tids only grow.
        let later = early.into_iter().filter(|change| change.tid > last);
        deliveries.extend(later.filter_map(|change| self.apply(&arrivals, change)));
        let lost = self.awaited.follow(link, self.last_tid());
        drop(arrivals);
        deliveries.into_iter().for_each(|deliver| deliver());
        lost
    }

    /// The link has ended, or is given up. Returns the tickets of transactions that another link was finishing, whose
    /// outcome nobody can tell now.
    #[must_use]
    pub fn lose(&self, link: LinkId) -> Vec<Ticket> {
        let mut arrivals = self.arrivals.lock();
        arrivals.early.remove(&link);
        if arrivals.link == Some(link) {
            arrivals.link = None;
            self.forget_held(&mut arrivals);
        }
        drop(arrivals);
        self.awaited.lose(link)
    }

    // -- messages, from the thread of their link

    /// `invalidateTransaction`: another client's transaction, or one that another link finishes; waits until it is
    /// known which of both. Returns the ticket of one whose outcome nobody can tell, because the link does not count
    /// any more.
    #[must_use]
    pub fn invalidated(&self, link: LinkId, change: Change) -> Option<Ticket> {
        let own = self.awaited.claim(link, change.tid, &change.oids);
        let mut arrivals = self.arrivals.lock();
        if arrivals.link == Some(link) {
            if change.tid <= arrivals.adopted && own.is_none() {
                return None;
            }
            if own.is_none()
                && let Some(held) = &mut arrivals.held
            {
                held.push(change);
                return None;
            }
            let delivery = match own {
                Some(own) => {
                    let stored = own.stored.iter().map(|(oid, data)| (*oid, Cow::Borrowed(data.as_slice())));
                    self.apply_own(&arrivals, change, stored, own.ticket)
                }
                None => self.apply(&arrivals, change),
            };
            drop(arrivals);
            delivery.into_iter().for_each(|deliver| deliver());
            return None;
        }
        if let Some(early) = arrivals.early.get_mut(&link) {
            early.push(change);
        }
        own.map(|own| own.ticket)
    }

    /// The server of `link` has answered, to a call on it, that `tid` is its last transaction: so all that it sends
    /// about transactions up to this one has arrived. Servers before ZEO 5 send nothing about a transaction that only
    /// creates objects. It changes nothing that is cached, and views may go on behind it.
    pub fn caught_up(&self, link: LinkId, tid: Tid) {
        let mut arrivals = self.arrivals.lock();
        // It may be what is held, or the transaction that is being finished.
        while arrivals.held.is_some() {
            arrivals = self.released.wait(arrivals);
        }
        if arrivals.link != Some(link) || tid <= self.last_tid() {
            return;
        }
        let delivery = self.apply(&arrivals, Change { tid, oids: Arc::from([]) });
        drop(arrivals);
        delivery.into_iter().for_each(|deliver| deliver());
    }

    /// The reply to `tpc_finish`. `stored`: the new revisions whose data is known, objects that the server merged,
    /// undid or deleted are not among them. If the link does not count any more, the ticket comes back: the
    /// transaction is among those that the new link's verification found, or will come as one of another client.
    pub fn finished<'d>(
        &self,
        link: LinkId,
        change: Change,
        stored: impl Iterator<Item = (Oid, Cow<'d, [u8]>)>,
        ticket: Ticket,
    ) -> Result<(), Ticket> {
        let mut arrivals = self.arrivals.lock();
        if arrivals.link != Some(link) {
            return Err(ticket);
        }
        let held = self.forget_held(&mut arrivals);
        let (earlier, later): (Vec<_>, Vec<_>) = held.into_iter().partition(|held| held.tid < change.tid);
        let mut deliveries: Vec<_> =
            earlier.into_iter().filter_map(|change| self.apply(&arrivals, change)).collect();
        deliveries.extend(self.apply_own(&arrivals, change, stored, ticket));
        deliveries.extend(later.into_iter().filter_map(|change| self.apply(&arrivals, change)));
        drop(arrivals);
        deliveries.into_iter().for_each(|deliver| deliver());
        Ok(())
    }

    /// A finish is about to be sent on `link`, whose server may tell of transactions in another order than it answers:
    /// what it tells is kept until [`Timeline::finished`] or [`Timeline::release`].
    pub fn hold(&self, link: LinkId) {
        let mut arrivals = self.arrivals.lock();
        if arrivals.link == Some(link) {
            arrivals.held.get_or_insert_default();
        }
    }

    /// The finish has failed.
    pub fn release(&self, link: LinkId) {
        let mut arrivals = self.arrivals.lock();
        if arrivals.link == Some(link) {
            let held = self.forget_held(&mut arrivals);
            let deliveries: Vec<_> =
                held.into_iter().filter_map(|change| self.apply(&arrivals, change)).collect();
            drop(arrivals);
            deliveries.into_iter().for_each(|deliver| deliver());
        }
    }

    /// A transaction that changes `oids`, ascending, is about to be finished on another link than `link`, which will
    /// tell of it. `give_up` ends that link, should it not answer. `None`: `link` does not count any more, and the
    /// transaction must not be finished.
    pub fn finishing_elsewhere(&self, link: LinkId, oids: Arc<[Oid]>, give_up: GiveUp) -> Option<FinishId> {
        self.awaited.begin(link, oids, give_up)
    }

    /// Another link has answered the finish. The transaction is published when the link tells of it that counts.
    /// `Err`: nobody can tell its place in the order.
    pub fn finished_elsewhere(&self, id: FinishId, tid: Tid, own: OwnFinish) -> Result<(), OwnFinish> {
        self.awaited.answered(id, tid, own)
    }

    /// The finish on another link has failed, or nobody can tell.
    pub fn not_finished_elsewhere(&self, id: FinishId) {
        self.awaited.failed(id);
    }

    /// The reply to a load that was sent after [`Timeline::place`] returned `place`.
    pub fn fill(
        &self,
        link: LinkId,
        place: Place,
        oid: Oid,
        start: Tid,
        end: Option<Tid>,
        data: &[u8],
    ) -> Filled {
        let arrivals = self.arrivals.lock();
        if arrivals.link != Some(link) {
            return Filled::OtherLink;
        }
        let end = match end {
            Some(end) => Some(end),
            None => match self.recent.lock().first_change(oid, start, place) {
                Ok(end) => end,
                // It is right for the caller, who asked for it then, but may be outdated.
                Err(_) => return Filled::End(None),
            },
        };
        self.keep(oid, start, end, data);
        Filled::End(end)
    }

    /// The server has refused a transaction because of `oid`, or the cache is wrong about it for another reason.
    pub fn forget(&self, oid: Oid) {
        let _arrivals = self.arrivals.lock();
        self.cache.invalidate(oid, None);
    }

    /// Empties the cache.
    pub fn forget_all(&self) {
        let _arrivals = self.arrivals.lock();
        self.cache.clear();
    }

    /// The current revision of an object is forgotten, unless these changes will end it.
    pub fn forget_unless(&self, oid: Oid, changes: &[Change]) {
        if !changes.iter().any(|change| change.oids.contains(&oid)) {
            self.forget(oid);
        }
    }

    // -- helpers, under `arrivals`

    /// Holds nothing more. Returns what was held.
    fn forget_held(&self, arrivals: &mut Arrivals) -> Vec<Change> {
        let held = arrivals.held.take();
        if held.is_some() {
            self.released.notify_all();
        }
        held.unwrap_or_default()
    }

    fn apply(&self, arrivals: &Arrivals, change: Change) -> Option<Delivery> {
        change.oids.iter().for_each(|oid| self.cache.invalidate(*oid, Some(change.tid)));
        self.publish(arrivals, change, None)
    }

    fn apply_own<'d>(
        &self,
        arrivals: &Arrivals,
        change: Change,
        stored: impl Iterator<Item = (Oid, Cow<'d, [u8]>)>,
        ticket: Ticket,
    ) -> Option<Delivery> {
        let tid = change.tid;
        change.oids.iter().for_each(|oid| self.cache.invalidate(*oid, Some(tid)));
        for (oid, data) in stored {
            self.keep(oid, tid, None, &data);
        }
        self.publish(arrivals, change, Some(ticket))
    }

    fn publish(&self, arrivals: &Arrivals, change: Change, ticket: Option<Ticket>) -> Option<Delivery> {
        let delivery = self.tell(arrivals, News::Transaction { change: &change, ticket }, &mut || {
            let mut recent = self.recent.lock();
            recent.push(change.tid, Arc::clone(&change.oids));
            let last = change.tid.max(self.last_tid());
            self.advance(&mut recent, last);
        });
        self.cache.set_last_tid(self.last_tid());
        delivery
    }

    fn restart(&self, arrivals: &Arrivals, last: Tid) -> Option<Delivery> {
        self.tell(arrivals, News::Everything { last }, &mut || {
            let mut recent = self.recent.lock();
            recent.forget();
            self.advance(&mut recent, last);
        })
    }

    /// Tells the listener and calls `install` once.
    fn tell(&self, arrivals: &Arrivals, news: News<'_>, install: &mut dyn FnMut()) -> Option<Delivery> {
        let mut is_installed = false;
        let mut once = || {
            if !std::mem::replace(&mut is_installed, true) {
                install();
            }
        };
        let delivery = arrivals.listener.as_ref().and_then(|listener| listener.hear(news, &mut once));
        once();
        delivery
    }

    /// In one step with the change of `recent`: a view must not be given one without the other.
    fn advance(&self, _recent: &mut Recent, last: Tid) {
        self.last_tid.store(last.0, Ordering::Release);
        self.advanced.notify_all();
    }

    /// Puts a revision into the cache, which may have another one as current.
    fn keep(&self, oid: Oid, start: Tid, end: Option<Tid>, data: &[u8]) {
        match (self.cache.current_start(oid), end) {
            (Some(current), None) if current > start => return,
            // Its end is a transaction between the two that has not arrived yet.
            (Some(current), None) if current < start => self.cache.invalidate(oid, None),
            (Some(current), Some(end)) if current == start => return self.cache.invalidate(oid, Some(end)),
            _ => {}
        }
        self.cache.store(oid, start, end, data);
    }
}

#[cfg(test)]
mod tests;
