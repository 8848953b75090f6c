//! Publishing what was committed: transactions of others and of this server, in the order of tids.

use super::super::session::LOG;
use super::super::shared::DatabaseState;
use super::desk::{Finish, WrittenRecord, WrittenTransaction};
use super::group::{Foreign, Group};
use crate::base::ids::{Oid, Tid};
use crate::base::sync::Ordering;
use crate::storage::{Committed, Delivery, GroupTimes, StorageError};

/// A committed transaction of this server.
struct Own {
    tid: Tid,
    written: WrittenTransaction,
}

/// Publishes `foreign` and then the group of `finishes`, whose first transaction has the tid `first`. Returns what is
/// to be done when no lock is held, and the ids of the finished transactions.
pub fn publish(
    shared: &DatabaseState,
    foreign: Vec<Foreign>,
    first: Tid,
    finishes: Vec<Finish>,
    times: GroupTimes,
) -> (Option<Delivery>, Vec<u64>) {
    let (mut entries, mut own, mut ids) = (Vec::new(), Vec::new(), Vec::new());
    let size = shared.size.load(Ordering::Relaxed);
    let mut changed: Vec<Oid> = Vec::new();
    for Foreign { tid, oids } in foreign {
        changed.extend(&oids);
        let object_count = shared.object_count.load(Ordering::Relaxed);
        // One that no client of this server waits for.
        let ticket = Box::new(());
        entries.push(Committed { tid, oids, object_count, size, ticket, times: GroupTimes::default() });
    }
    for (position, Finish { locks, mut written, ticket, .. }) in finishes.into_iter().enumerate() {
        let tid = Group::tid(first, position);
        written.blobs.committed(tid);
        let new = written.records.iter().filter(|record| record.serial == Tid::ZERO).count() as u64;
        let object_count = shared.object_count.fetch_add(new, Ordering::Relaxed) + new;
        // An estimate, until the size is looked up the next time.
        let len =
            written.records.iter().filter_map(|record| Some(record.data.as_ref()?.len() as u64)).sum::<u64>();
        let size = shared.size.fetch_add(len, Ordering::Relaxed) + len;
        let mut oids: Vec<Oid> = written.records.iter().map(|record| record.oid).collect();
        oids.sort_unstable();
        entries.push(Committed { tid, oids, object_count, size, ticket, times });
        own.push(Own { tid, written });
        ids.extend(locks);
    }
    let Some(last) = entries.last().map(|entry| entry.tid) else { return (None, ids) };
    // When others have replaced a record is not known for sure.
    let known = Tid(shared.last().0.saturating_add(1));
    let mut install = || {
        shared.set_last(last);
        for oid in &changed {
            shared.former.keep(*oid, shared.records.replace(*oid, None), known);
        }
        for Own { tid, written } in &own {
            for WrittenRecord { oid, serial, data } in &written.records {
                let replaced = shared.records.replace(*oid, data.as_deref().map(|data| (*tid, data)));
                let is_last = replaced.as_ref().is_some_and(|replaced| replaced.serial == *serial);
                shared.former.keep(*oid, replaced, if is_last { *tid } else { known });
            }
        }
    };
    (shared.publisher.publish(entries, &mut install), ids)
}

/// Tells a client that its transaction is not committed. Returns the ids of its locks.
pub fn fail(shared: &DatabaseState, finish: Finish, error: StorageError) -> Vec<u64> {
    shared.publisher.failed(finish.ticket, error, LOG, &shared.name);
    finish.locks
}
