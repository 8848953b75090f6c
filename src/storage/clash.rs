//! What every vote does with a store that did not start from the committed revision: the three states are read and
//! handed to the [`Resolver`]; the merged record is stored instead, or the conflict is an error.
//!
//! Where the client merges for itself, conflicts are gathered and told all at once. It stores what it merged and votes
//! again; the stores that clashed are still in the transaction then, and are passed over.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use super::error::Conflict;
use super::staged::Op;
use super::{Clash, Resolver, Result, Staged, Storage, StorageError, Unresolved};
use crate::base::ids::{Oid, Tid};

/// All that a client is to merge goes to it in one message. What is beyond this is a conflict as for other clients.
const UNMERGED_LEN_MAX: usize = 256 << 20;

/// Where a storage keeps its resolver.
#[derive(Default)]
pub struct ResolverSlot(OnceLock<Arc<dyn Resolver>>);

impl ResolverSlot {
    /// For [`Storage::set_resolver`]: the first one stays.
    pub fn set(&self, resolver: Arc<dyn Resolver>) {
        if self.0.set(resolver).is_err() {
            log::error!(target: "ZODB.ConflictResolution", "a second conflict resolver is ignored");
        }
    }

    /// Merges `new` into `committed`, or says that it stays a conflict. For undo, `committed_serial` is the object's
    /// current serial and `read` that of the transaction to be undone.
    pub fn merge(&self, clash: &Clash<'_>) -> Result<Vec<u8>> {
        merged(clash, self.0.get().map(|resolver| resolver.resolve(clash)))
    }

    /// As [`ResolverSlot::merge`], for a store: the old and the committed state are read from `storage`. A state that is
    /// gone, by a pack or with its object, leaves the conflict as it is. `None` if it must be merged at once, and cannot be.
    fn merge_store(
        &self,
        storage: &dyn Storage,
        oid: Oid,
        read: Tid,
        committed: Tid,
        new: &[u8],
        staged: &Staged,
    ) -> Result<Option<Vec<u8>>> {
        let state = |serial| {
            let mut data = Vec::new();
            match storage.load_serial(oid, serial, 0, &mut data) {
                Ok(loaded) => Ok(Some(data.split_off(loaded.start))),
                Err(StorageError::PosKey(_)) => Ok(None),
                Err(error) => Err(error),
            }
        };
        let conflict = || {
            let data = new.to_vec();
            Err(StorageError::Conflict(Box::new(Conflict { oid, committed, read, data })))
        };
        let Some(resolver) = self.0.get() else { return conflict() };
        let Some(old) = state(read)? else { return conflict() };
        let Some(current) = state(committed)? else { return conflict() };
        let clash = Clash {
            oid,
            read,
            committed_serial: committed,
            old: &old,
            committed: &current,
            new,
            cancel: &staged.cancel,
        };
        let resolved =
            if staged.may_wait { Some(resolver.resolve(&clash)) } else { resolver.resolve_now(&clash) };
        resolved.map(|resolved| merged(&clash, Some(resolved))).transpose()
    }
}

/// What a resolver has said, if there is one.
fn merged(clash: &Clash<'_>, resolved: Option<std::result::Result<Vec<u8>, Unresolved>>) -> Result<Vec<u8>> {
    match resolved {
        Some(Ok(record)) if !record.is_empty() => return Ok(record),
        Some(Err(unresolved)) => {
            log::debug!(
                target: "ZODB.ConflictResolution",
                "Conflict resolution on object 0x{} failed: {}", clash.oid, unresolved.reason
            );
        }
        Some(Ok(_)) | None => {}
    }
    Err(StorageError::Conflict(Box::new(Conflict {
        oid: clash.oid,
        committed: clash.committed_serial,
        read: clash.read,
        data: clash.new.to_vec(),
    })))
}

/// `checkCurrentSerialInTransaction`: an object that a transaction depends on must be what it was when it was read.
pub fn check_current(storage: &dyn Storage, oid: Oid, read: Tid) -> Result<()> {
    let committed = storage.get_tid(oid)?;
    if committed == read {
        return Ok(());
    }
    Err(StorageError::ReadConflict(Box::new(Conflict { oid, committed, read, data: Vec::new() })))
}

/// The conflicts of one vote, and what became of them.
#[derive(Debug, Default)]
pub struct Clashes {
    resolved: Vec<Oid>,
    /// By the number of the operation.
    unmerged: BTreeMap<usize, Conflict>,
    /// The operation whose conflict is in `unmerged`, by object.
    unmerged_by_oid: HashMap<Oid, usize>,
    /// Bytes of the records in `unmerged`.
    unmerged_len: usize,
    /// What was merged, as it was before.
    replaced: Vec<(usize, Op)>,
    /// One cannot be merged at once.
    postponed: bool,
}

/// What is to be done with a store.
#[derive(Debug, Eq, PartialEq)]
pub enum Settled {
    /// The operation as it is now, to be written.
    Write(Op),
    /// The client is told, and will store something else.
    Skip,
    /// It cannot be merged at once, so the vote is postponed. What comes behind it must not be looked at: if this stays a
    /// conflict, it is the first one, and the one to be told.
    Postponed,
}

impl Clashes {
    /// Settles the store that is operation `index` of `staged`, where `committed` is the object's current serial, if it
    /// ever had one.
    pub fn settle(
        &mut self,
        storage: &dyn Storage,
        slot: &ResolverSlot,
        staged: &mut Staged,
        index: usize,
        read: Tid,
        committed: Option<Tid>,
    ) -> Result<Settled> {
        let op = staged.ops()[index];
        let oid = op.oid;
        let Some(committed) = committed.filter(|committed| *committed != read) else {
            self.forget_unmerged(oid);
            return Ok(Settled::Write(op));
        };
        let reading = "reading back a transaction's temporary file";
        let new = staged.payload(&op).map_err(StorageError::io(reading))?;
        if staged.client_resolves {
            self.forget_unmerged(oid);
            self.unmerged_len += new.len();
            if self.unmerged_len > UNMERGED_LEN_MAX {
                return Err(StorageError::Conflict(Box::new(Conflict { oid, committed, read, data: new })));
            }
            self.unmerged.insert(index, Conflict { oid, committed, read, data: new });
            self.unmerged_by_oid.insert(oid, index);
            return Ok(Settled::Skip);
        }
        let Some(merged) = slot.merge_store(storage, oid, read, committed, &new, staged)? else {
            self.postponed = true;
            return Ok(Settled::Postponed);
        };
        self.resolved.push(oid);
        self.replaced.push((index, op));
        let writing = "buffering a merged record in the temporary directory";
        Ok(Settled::Write(staged.replace(index, &merged).map_err(StorageError::io(writing))?))
    }

    /// The object was stored again, so an earlier conflict of it is none any more.
    fn forget_unmerged(&mut self, oid: Oid) {
        if let Some(index) = self.unmerged_by_oid.remove(&oid) {
            let forgotten = self.unmerged.remove(&index);
            self.unmerged_len -= forgotten.map_or(0, |conflict| conflict.data.len());
        }
    }

    /// The objects that were merged, once all operations are settled; or what the client has to merge.
    pub fn finish(self, mut staged: Staged) -> Result<(Staged, Vec<Oid>)> {
        if self.postponed {
            self.replaced.into_iter().for_each(|(index, op)| staged.put_back(index, op));
            Err(StorageError::Postponed(Box::new(staged)))
        } else if self.unmerged.is_empty() {
            Ok((staged, self.resolved))
        } else {
            let conflicts = self.unmerged.into_values().collect();
            Err(StorageError::Unmerged { conflicts, staged: Box::new(staged) })
        }
    }
}
