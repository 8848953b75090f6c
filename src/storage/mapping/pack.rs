//! Pack: removes revisions that were not current at the pack time or later, and objects without references.
//!
//! As in Python, every object that a kept revision refers to stays, whatever the time of that revision. Commits wait
//! during the search; reads wait only while objects are removed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use super::{Contents, MappingStorage, OBJECT_SIZE, revision_size};
use crate::base::ids::{Oid, Tid};
use crate::storage::{Pack, PackRequest, Refusal, Result, StorageError};

impl Pack for MappingStorage {
    fn pack(&self, request: &PackRequest<'_>) -> Result<()> {
        let stop = Tid::from_unix(request.time);
        let _committing = self.commits.hold();
        let alive = {
            let state = self.read()?;
            if state.objects.is_empty() {
                return Ok(());
            }
            match state.last_pack {
                Some(last) if last == stop => return Ok(()),
                Some(last) if last > stop => {
                    return Err(StorageError::Refused {
                        what: Refusal::PackedLater,
                        message: "Already packed to a later time".into(),
                    });
                }
                _ => {}
            }
            request.progress.total.store(state.objects.len() as u64, Ordering::Relaxed);
            let gc = request.gc.unwrap_or(true);
            // Without a root nothing is reachable. As in Python: a KeyError, and nothing is removed.
            if gc && !state.objects.contains_key(&Oid::ZERO) {
                return Err(StorageError::Missing(Oid::ZERO));
            }
            if gc { Some(reachable(&state, stop, request)?) } else { None }
        };
        let mut state = self.write()?;
        state.last_pack = Some(stop);
        let dropped = state.forget(stop, alive.as_ref());
        drop(state);
        if let Some(blobs) = &self.blobs {
            dropped.into_iter().for_each(|(tid, oid)| blobs.remove(oid, tid));
        }
        Ok(())
    }
}

/// The index of the revision that was current at `stop`; 0 if all are later.
fn first_kept(revisions: &super::Revisions, stop: Tid) -> usize {
    revisions.partition_point(|(tid, _)| *tid <= stop).saturating_sub(1)
}

/// The objects that are reachable from the root through revisions that are kept.
fn reachable(state: &Contents, stop: Tid, request: &PackRequest<'_>) -> Result<BTreeSet<Oid>> {
    let mut alive = BTreeSet::new();
    let mut todo = vec![Oid::ZERO];
    let mut found = Vec::new();
    while let Some(oid) = todo.pop() {
        if alive.contains(&oid) {
            continue;
        }
        // A reference to a missing object is ignored.
        let Some(revisions) = state.objects.get(&oid) else { continue };
        alive.insert(oid);
        request.progress.done.fetch_add(1, Ordering::Relaxed);
        for (tid, data) in revisions.get(first_kept(revisions, stop)..).unwrap_or_default() {
            let Some(data) = data else { continue };
            (request.references)(data, &mut found).map_err(|reason| StorageError::Refused {
                what: Refusal::Pack,
                message: format!("pack: the record of object 0x{oid} at {tid}: {reason}"),
            })?;
            todo.append(&mut found);
        }
    }
    Ok(alive)
}

impl Contents {
    /// Removes the revisions before the one that was current at `stop`, and all revisions of objects that are not in
    /// `alive`. Returns them.
    fn forget(&mut self, stop: Tid, alive: Option<&BTreeSet<Oid>>) -> Vec<(Tid, Oid)> {
        let Contents { objects, transactions, size, .. } = self;
        let mut dropped: Vec<(Tid, Oid)> = Vec::new();
        objects.retain(|&oid, revisions| {
            let is_alive = alive.is_none_or(|alive| alive.contains(&oid));
            let count = if is_alive { first_kept(revisions, stop) } else { revisions.len() };
            for (tid, data) in revisions.drain(..count) {
                dropped.push((tid, oid));
                *size -= revision_size(&data);
            }
            if !is_alive {
                *size -= OBJECT_SIZE;
            }
            is_alive
        });
        let mut by_transaction: BTreeMap<Tid, BTreeSet<Oid>> = BTreeMap::new();
        for &(tid, oid) in &dropped {
            by_transaction.entry(tid).or_default().insert(oid);
        }
        for (tid, oids) in by_transaction {
            let Some(txn) = transactions.get_mut(&tid) else { continue };
            txn.status = b'p';
            txn.records.retain(|(known, _)| !oids.contains(known));
            if txn.records.is_empty() {
                transactions.remove(&tid);
            }
        }
        dropped
    }
}
