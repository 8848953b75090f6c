//! Connects a storage to [`conflict::detect`](crate::conflict::detect): the transaction is a [`Staged`] one, and states
//! are read with [`Load::load_serial`](super::Load::load_serial).

use super::staged::Op;
use super::{NotVoted, Result, Staged, Storage, StorageError};
use crate::base::cancel::Cancel;
use crate::base::ids::{Oid, Tid};
use crate::conflict::detect::{self, Outcome, Stored, Vote};
use crate::conflict::{Conflict, ResolverSlot};

/// The outcome for one store of a staged transaction.
pub type Settled = detect::Settled<Op>;

/// The conflicts of one vote.
#[derive(Debug, Default)]
pub struct Conflicts(detect::Conflicts<Op>);

impl Conflicts {
    /// Settles the store that is operation `index` of `staged`. `read`: the serial that the client started from;
    /// `committed`: the object's current serial, if it has ever been stored.
    pub fn settle(
        &mut self,
        storage: &dyn Storage,
        resolver: &ResolverSlot,
        staged: &mut Staged,
        index: usize,
        read: Tid,
        committed: Option<Tid>,
    ) -> Result<Settled> {
        let store = staged.ops()[index];
        let stored = Stored { index, store, oid: store.oid, read, committed };
        self.0.settle(&mut StorageVote { storage, staged }, resolver, stored)
    }

    /// Returns the transaction with merged records, and the merged objects. Errors: [`NotVoted::Unmerged`] if the
    /// client has to merge, [`NotVoted::Postponed`] if a thread that may wait has to repeat the vote.
    pub fn finish(self, mut staged: Staged) -> std::result::Result<(Staged, Vec<Oid>), NotVoted> {
        match self.0.finish() {
            Outcome::Done { resolved } => Ok((staged, resolved)),
            Outcome::ForClient(conflicts) => Err(NotVoted::Unmerged { conflicts, staged: Box::new(staged) }),
            Outcome::Postponed { replaced } => {
                replaced.into_iter().for_each(|(index, op)| staged.put_back(index, op));
                Err(NotVoted::Postponed(Box::new(staged)))
            }
        }
    }
}

/// `checkCurrentSerialInTransaction`: an object that a transaction depends on must still have the serial that was read.
pub fn check_current(storage: &dyn Storage, oid: Oid, read: Tid) -> Result<()> {
    detect::check_current(oid, read, storage.get_tid(oid)?)
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
        self.staged.client_resolves
    }

    fn may_wait(&self) -> bool {
        self.staged.may_wait
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
