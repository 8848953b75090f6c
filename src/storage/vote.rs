//! The part of a vote that is the same in all storages: the operations of a transaction are gone through in their
//! order, conflicts are detected, and merged if they can be.
//!
//! A storage says in [`VoteSteps`] what it writes for an operation. `conflict::detect`
//! decides about conflicts: the transaction is a [`Staged`] one, and states are read with
//! [`Load::load_serial`](super::Load::load_serial).

use super::staged::{Op, OpKind};
use super::{Merging, NotVoted, Result, Staged, Storage, StorageError};
use crate::base::cancel::Cancel;
use crate::base::ids::{Oid, Tid};
use crate::conflict::detect::{self, Outcome, Settled, Stored, Vote};
use crate::conflict::{Conflict, ResolverSlot};

/// What a storage does for the operations of a transaction.
pub trait VoteSteps {
    /// The object's current serial, if it has ever been stored. Called for a store before it is added or left out.
    fn committed(&mut self, oid: Oid) -> Result<Option<Tid>>;

    /// The serial of an object that the transaction depends on. Errors: `PosKey` if it does not exist, or has no data.
    fn checked(&mut self, storage: &dyn Storage, oid: Oid) -> Result<Tid> {
        storage.get_tid(oid)
    }

    /// Adds operation `index` to what finish writes. All kinds but `CheckCurrent` come here, a store after its conflict
    /// was merged.
    fn add(&mut self, staged: &mut Staged, index: usize, op: Op) -> Result<()>;

    /// Operation `index` needs no record: it was a check, or a store that the client merges.
    fn leave_out(&mut self, _index: usize, _op: &Op) {}
}

/// Goes through the operations of a transaction. Returns it with merged records, and the merged objects.
///
/// Errors: [`NotVoted::Unmerged`] if the client has to merge, [`NotVoted::Postponed`] if a thread that may wait has to
/// repeat the vote; the transaction in them is as it was. `Failed` is the first error of an operation.
pub fn walk(
    storage: &dyn Storage,
    resolver: &ResolverSlot,
    mut staged: Staged,
    steps: &mut impl VoteSteps,
) -> std::result::Result<(Staged, Vec<Oid>), NotVoted> {
    let mut conflicts = detect::Conflicts::default();
    for index in 0..staged.ops().len() {
        let Some(op) = staged.ops().get(index).copied() else { break };
        match op.kind {
            OpKind::Store { serial: read } => {
                let stored =
                    Stored { index, store: op, oid: op.oid, read, committed: steps.committed(op.oid)? };
                let mut vote = StorageVote { storage, staged: &mut staged };
                match conflicts.settle(&mut vote, resolver, stored)? {
                    Settled::Write(settled) => steps.add(&mut staged, index, settled)?,
                    Settled::Skip => steps.leave_out(index, &op),
                    Settled::Postponed => break,
                }
            }
            OpKind::CheckCurrent { serial } => {
                check_serial(op.oid, serial, steps.checked(storage, op.oid)?)?;
                steps.leave_out(index, &op);
            }
            OpKind::Delete { .. } | OpKind::Restore { .. } | OpKind::Undo { .. } => {
                steps.add(&mut staged, index, op)?;
            }
        }
    }
    match conflicts.finish() {
        Outcome::Done { resolved } => Ok((staged, resolved)),
        Outcome::ForClient(conflicts) => Err(NotVoted::Unmerged { conflicts, staged: Box::new(staged) }),
        Outcome::Postponed { replaced } => {
            replaced.into_iter().for_each(|(index, op)| staged.put_back(index, op));
            Err(NotVoted::Postponed(Box::new(staged)))
        }
    }
}

/// `deleteObject`: an object is deleted only by a transaction that has seen its current serial. Such a conflict cannot
/// be merged.
pub fn check_delete(oid: Oid, read: Tid, committed: Option<Tid>) -> Result<()> {
    let committed = committed.ok_or(StorageError::PosKey(oid))?;
    if committed == read {
        return Ok(());
    }
    Err(Conflict { oid, committed, read, data: Vec::new() }.into())
}

/// `checkCurrentSerialInTransaction`: an object that a transaction depends on must still have the serial that was read.
pub fn check_current(storage: &dyn Storage, oid: Oid, read: Tid) -> Result<()> {
    check_serial(oid, read, storage.get_tid(oid)?)
}

/// The same, of an object whose current serial is known.
pub(crate) fn check_serial(oid: Oid, read: Tid, current: Tid) -> Result<()> {
    detect::check_current(oid, read, current)
        .map_err(|conflict| StorageError::ReadConflict(Box::new(conflict)))
}

struct StorageVote<'a> {
    storage: &'a dyn Storage,
    staged: &'a mut Staged,
}

impl Vote for StorageVote<'_> {
    type Store = Op;
    type Error = StorageError;

    fn client_resolves(&self) -> bool {
        self.staged.merging() == Merging::ByClient
    }

    fn may_wait(&self) -> bool {
        self.staged.merging() != Merging::AtOnce
    }

    fn cancel(&self) -> &Cancel {
        &self.staged.cancel
    }

    fn record(&self, store: &Op) -> Result<Vec<u8>> {
        self.staged.payload(store)
    }

    fn revision(&self, oid: Oid, serial: Tid) -> Result<Option<Vec<u8>>> {
        let mut data = Vec::new();
        match self.storage.load_serial(oid, serial, 0, &mut data) {
            Ok(loaded) => Ok(Some(data.split_off(loaded.start))),
            Err(StorageError::PosKey(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn replace(&mut self, index: usize, merged: &[u8]) -> Result<Op> {
        let writing = "buffering a merged record in the temporary directory";
        self.staged.replace(index, merged).map_err(StorageError::io(writing))
    }
}

impl From<Conflict> for StorageError {
    /// A conflict that is not merged: `ConflictError`.
    fn from(conflict: Conflict) -> StorageError {
        StorageError::Conflict(Box::new(conflict))
    }
}
