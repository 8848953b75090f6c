//! A view: a client's snapshot of the database.

use super::flights::Revision;
use super::recent::Place;
use super::upstream::{Started, Upstream};
use crate::base::ids::{Oid, Tid};
use crate::base::sync::Arc;
use crate::storage::{Result, StorageError};

/// Objects that are prefetched in one step.
const AT_ONCE: usize = 256;

/// A snapshot: all that was committed before one moment, and nothing later, until it is refreshed.
///
/// Many views can exist side by side, in many threads; they share the client's cache and its connection. A view holds
/// nothing: it needs not be ended.
#[derive(Clone)]
pub struct View {
    upstream: Arc<Upstream>,
    start: Tid,
    place: Place,
    era: u64,
}

/// What has changed between two snapshots of a view.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Changes {
    /// These objects, and no others. An object may be listed twice.
    Objects(Vec<Oid>),
    /// Anything may have changed: transactions were missed while there was no connection, or more
    /// were committed since the last refresh than the client remembers.
    Unknown,
}

impl View {
    pub(super) fn new(upstream: &Arc<Upstream>) -> View {
        let begun = upstream.timeline.begin(None);
        View { upstream: Arc::clone(upstream), start: begun.start, place: begun.place, era: begun.era }
    }

    /// The view sees all transactions before this tid.
    pub fn start(&self) -> Tid {
        self.start
    }

    /// Moves the view to the present, as far as the client knows it: all own commits are in it, and what the server has
    /// sent. Returns what has changed, so that copies of other objects can be kept. Waits for nothing.
    ///
    /// While there is [no connection](super::Client::is_connected) this is the last state that was known. Servers
    /// before ZEO 5 send nothing about transactions of others that only create objects: such a transaction is seen
    /// after a later one, or with [`View::refresh_from_server`].
    ///
    /// With [`ClientOptions::server_sync`](super::ClientOptions::server_sync) it asks the server first, if that can be
    /// reached.
    pub fn refresh(&mut self) -> Changes {
        if self.upstream.options.server_sync && self.upstream.in_use_now().is_some() {
            // What is known is right without an answer, only older.
            let _ = self.upstream.catch_up();
        }
        self.begin_again()
    }

    fn begin_again(&mut self) -> Changes {
        let begun = self.upstream.timeline.begin(Some(self.place));
        (self.start, self.place, self.era) = (begun.start, begun.place, begun.era);
        begun.changed.map_or(Changes::Unknown, Changes::Objects)
    }

    /// As [`View::refresh`], and sees all that was committed anywhere before the call, with servers of every
    /// generation. Costs a round trip to the server.
    ///
    /// Errors: `Disconnected`.
    pub fn refresh_from_server(&mut self) -> Result<Changes> {
        self.upstream.catch_up()?;
        Ok(self.begin_again())
    }

    /// The object as it is in this view. `None`: it was created later, or what the view would see was packed away;
    /// refresh the view and try again.
    ///
    /// Errors: `PosKey` if there is no such object; `Disconnected` if it is not in the cache and the server cannot be
    /// reached; `Outdated` after the database was restored, or replaced by another one, while there was no connection:
    /// refresh the view, and read everything again.
    pub fn load(&self, oid: Oid) -> Result<Option<Revision>> {
        let loaded = self.upstream.load_before(oid, self.start);
        self.check_era().and(loaded)
    }

    /// Whether what was read until now is of the database of which the view was begun. Errors: `Outdated`.
    pub(super) fn check_era(&self) -> Result<()> {
        if self.upstream.timeline.era() == self.era {
            return Ok(());
        }
        let text = "the connection was lost, and the database that was found then does not have, or cannot show that \
                    it has, what this view has seen: refresh it, and read everything again";
        Err(StorageError::Outdated(format!("{}: {text}", self.upstream.name())))
    }

    /// Many objects, with one wait instead of one for each. The results are in the order of `oids`.
    ///
    /// ```no_run
    /// # use runzeo::client::{Client, records::ObjectRecord};
    /// # use runzeo::ids::Oid;
    /// # fn children(client: &Client, parent: Oid) -> Result<(), Box<dyn std::error::Error>> {
    /// let view = client.view();
    /// let parent = view.load(parent)?.ok_or("it is gone")?;
    /// let children = ObjectRecord::references_of(&parent.data)?;
    /// for (oid, child) in children.iter().zip(view.load_many(&children)) {
    ///     println!("{oid}: {} bytes", child?.map_or(0, |child| child.data.len()));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn load_many(&self, oids: &[Oid]) -> Vec<Result<Option<Revision>>> {
        let started = self.upstream.start_many(oids, self.start);
        // Answers come in the order of the requests. So this thread is woken once, not for each.
        let last = started.iter().rev().flatten().find_map(|started| match started {
            Started::UnderWay(flight) => Some(flight),
            Started::Cached(_) => None,
        });
        if let Some(last) = last {
            last.wait();
        }
        let landed = |(oid, started): (&Oid, Result<_>)| {
            started.and_then(|started| self.upstream.landed(*oid, self.start, started))
        };
        let landed: Vec<_> = oids.iter().zip(started).map(landed).collect();
        landed.into_iter().map(|landed| self.check_era().and(landed)).collect()
    }

    /// Asks for objects that will be loaded soon, and does not wait for them. They arrive in the cache; a load that
    /// comes earlier waits for the answer that is under way.
    ///
    /// Errors: `Disconnected`.
    pub fn prefetch(&self, oids: &[Oid]) -> Result<()> {
        let mut started = oids.chunks(AT_ONCE).flat_map(|oids| self.upstream.start_many(oids, self.start));
        started.try_for_each(|started| started.map(drop))
    }
}
