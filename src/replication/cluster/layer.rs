//! A storage of a cluster as the server sees it: of a replica it can only be read.

use std::ops::ControlFlow;

use super::member::{Finish, MemberStorage};
use crate::base::ids::{Oid, Tid};
use crate::base::sync::Arc;
use crate::storage::{
    Commit, Committed, Delivery, History, Load, Pack, PackPlan, PackRequest, Publisher, Replication, Result,
    Staged, Storage, StorageError, Ticket, TidAt, Undo, UndoEntry, VoteResult, Voted, forward,
};

/// The storage of a member of a cluster.
pub struct Replicated {
    base: Arc<dyn Storage>,
    member: Arc<MemberStorage>,
}

impl Replicated {
    pub fn new(member: Arc<MemberStorage>) -> Replicated {
        Replicated { base: Arc::clone(&member.base), member }
    }

    fn check_writable(&self) -> Result<()> {
        if self.member.is_writable() { Ok(()) } else { Err(StorageError::ReadOnly) }
    }
}

impl Storage for Replicated {
    forward!(
        base: name, object_count, size, interfaces, last_transaction, iteration, blobs, extension_methods,
        cache_counts, sync_counts, remote, failure, pulse, save_index
    );

    fn is_read_only(&self) -> bool {
        !self.member.is_writable() || self.base.is_read_only()
    }

    fn new_oids(&self, count: usize) -> Result<Vec<Oid>> {
        self.check_writable()?;
        self.base.new_oids(count)
    }

    fn undo(&self) -> Option<&dyn Undo> {
        self.base.undo().map(|_| self as &dyn Undo)
    }

    fn packing(&self) -> Option<&dyn Pack> {
        self.base.packing().map(|_| self as &dyn Pack)
    }

    /// A replica that is too far behind lets no client in.
    fn catch_up(&self) -> Result<()> {
        if self.member.is_stale() {
            let what = "this replica is too far behind the primary ('max-staleness')";
            return Err(StorageError::Disconnected(what.into()));
        }
        self.base.catch_up()
    }

    fn replication(&self) -> Option<Replication> {
        let is_standby = !self.member.is_writable();
        let behind =
            if is_standby { self.member.behind().map(|lag| lag.time) } else { Some(Default::default()) };
        Some(Replication { is_standby, is_connected: self.member.is_following(), behind })
    }

    fn close(&self) -> Result<()> {
        // A group that waits for other servers would be waited for.
        self.member.progress.close();
        self.base.close()
    }
}

impl Load for Replicated {
    forward!(base: load_before, load_before_now, load_serial, expect_read, get_tid);
}

impl History for Replicated {
    forward!(base: revisions, record_iternext, last_invalidations);
}

impl Commit for Replicated {
    forward!(base: tids_after, abort, set_resolver);

    fn vote(&self, staged: Staged, tid_at: TidAt) -> VoteResult {
        self.check_writable()?;
        self.base.vote(staged, tid_at)
    }

    fn finish(&self, voted: Box<dyn Voted>, ticket: Ticket) {
        match self.member.begin_finish(ticket) {
            Ok(ticket) => self.base.finish(voted, ticket),
            Err(ticket) => {
                self.base.abort(voted);
                self.member.fail(ticket, StorageError::ReadOnly);
            }
        }
    }

    fn set_publisher(&self, publisher: Arc<dyn Publisher>) {
        self.member.set_publisher(Arc::clone(&publisher));
        let member = Arc::clone(&self.member);
        self.base.set_publisher(Arc::new(Announcer { server: publisher, member }));
    }
}

impl Undo for Replicated {
    fn undo_log(&self, each: &mut dyn FnMut(UndoEntry) -> ControlFlow<()>) -> Result<()> {
        self.base.require_undo()?.undo_log(each)
    }

    fn undo_oids(&self, tid: Tid) -> Result<Vec<Oid>> {
        self.check_writable()?;
        self.base.require_undo()?.undo_oids(tid)
    }

    fn undo_now(&self, staged: &mut Staged) -> Result<(Tid, Vec<Oid>)> {
        self.check_writable()?;
        self.base.require_undo()?.undo_now(staged)
    }
}

impl Pack for Replicated {
    /// The replicas are told when it is done.
    fn pack(&self, request: &PackRequest<'_>) -> Result<()> {
        self.base.require_packing()?.pack(request)?;
        self.member.progress.packed(request.time);
        Ok(())
    }

    fn plan(&self, request: &PackRequest<'_>) -> Result<PackPlan> {
        self.base.require_packing()?.plan(request)
    }
}

/// Tells the server, and then the threads of the replicas.
struct Announcer {
    server: Arc<dyn Publisher>,
    member: Arc<MemberStorage>,
}

impl Publisher for Announcer {
    fn publish(&self, mut group: Vec<Committed>, install: &mut dyn FnMut()) -> Delivery {
        let last = group.last().map(|committed| committed.tid);
        for committed in &mut group {
            let ticket = std::mem::replace(&mut committed.ticket, Box::new(()));
            committed.ticket = Finish::unwrap(ticket);
        }
        let delivery = self.server.publish(group, install);
        last.into_iter().for_each(|last| self.member.progress.published(last));
        delivery
    }

    fn missed(&self, last: Tid, oids: Option<Vec<Oid>>, install: &mut dyn FnMut()) -> Delivery {
        self.server.missed(last, oids, install)
    }

    fn look_again(&self, why: &'static str) -> Delivery {
        self.server.look_again(why)
    }

    fn disconnect(&self, why: &'static str) -> Delivery {
        self.server.disconnect(why)
    }

    fn failed(&self, ticket: Ticket, error: StorageError) {
        self.server.failed(Finish::unwrap(ticket), error);
    }
}
