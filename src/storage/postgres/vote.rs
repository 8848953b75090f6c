//! Vote and finish.
//!
//! A vote locks its objects in the database and reads their serials, in one round trip; then conflicts are found and
//! merged as in every storage. Nothing is written before the finish: the records stay in memory, or in the
//! transaction's temporary file, until then.

use std::collections::{HashMap, HashSet};

use super::PostgresStorage;
use super::sequencer::{Finish, Sequencer, WantedLocks, WrittenRecord, WrittenTransaction};
use super::session::LOG;
use crate::base::ids::{Oid, Tid};
use crate::base::sync::Arc;
use crate::conflict::Resolver;
use crate::storage::staged::{Op, OpKind};
use crate::storage::vote::{VoteSteps, check_delete, check_serial, walk};
use crate::storage::{
    Commit, Merging, NotVoted, Publisher, Refusal, Result, Staged, StorageError, Ticket, TidAt, Undone,
    VoteResult, Voted,
};

/// Bytes of records of one transaction at most: they go to the database in one message.
const LEN_MAX: u64 = 900 << 20;

/// Locks of a transaction, given back when this is dropped.
pub struct Locks {
    sequencer: Arc<Sequencer>,
    ids: Vec<u64>,
}

impl Locks {
    /// Adds those of `other`.
    pub fn take(&mut self, mut other: Locks) {
        self.ids.append(&mut other.ids);
    }
}

impl Drop for Locks {
    fn drop(&mut self) {
        for id in self.ids.drain(..) {
            self.sequencer.release(id);
        }
    }
}

/// A transaction that got its tid before its vote, because an undo had to be answered.
pub struct BegunEarly {
    pub locks: Locks,
    pub tid: Tid,
}

/// A transaction that has passed its vote.
struct VotedTxn {
    written: WrittenTransaction,
    locks: Locks,
    resolved: Vec<Oid>,
    undone: Vec<Undone>,
}

impl Voted for VotedTxn {
    fn tid(&self) -> Option<Tid> {
        self.written.tid
    }

    fn resolved(&self) -> &[Oid] {
        &self.resolved
    }

    fn undone(&self) -> &[Undone] {
        &self.undone
    }
}

impl PostgresStorage {
    pub(super) fn locks(&self, id: u64) -> Locks {
        Locks { sequencer: Arc::clone(&self.sequencer), ids: vec![id] }
    }

    fn vote_now(&self, mut staged: Staged, tid_at: TidAt) -> VoteResult {
        if staged.payload_len() > LEN_MAX {
            let message = format!(
                "a transaction of more than {LEN_MAX} bytes does not fit into a message to PostgreSQL"
            );
            return Err(StorageError::Refused { what: Refusal::TransactionTooLarge, message }.into());
        }
        let early = staged.begun.take().and_then(|begun| begun.downcast::<BegunEarly>().ok());
        let (exclusive, shared) = touched(self, &staged)?;
        if let Some(largest) = exclusive.iter().max() {
            self.oids.pass(&self.shared, *largest)?;
        }
        let new = new_objects(&staged);
        // Before the locks, for which others wait.
        let uploaded = self.upload(&staged)?;
        let (new, exclusive) = exclusive.into_iter().partition(|oid| new.contains(oid));
        let tid = (tid_at == TidAt::Vote && early.is_none()).then_some(staged.tid);
        let wanted = WantedLocks { exclusive, shared, new, tid };
        let granted = self.sequencer.lock(&wanted, self.options.lock_timeout, &staged.cancel)?;
        let mut locks = self.locks(granted.id);
        let tid = match early {
            Some(early) => {
                locks.take(early.locks);
                Some(early.tid)
            }
            None => granted.tid,
        };
        let mut steps = Steps::new(self, &granted.serials);
        let (mut staged, resolved) = walk(self, &self.resolver, staged, &mut steps)?;
        let Steps { records, undone, at, restored, .. } = steps;
        let (meta, is_packed) = (std::mem::take(&mut staged.meta), staged.status == b'p');
        let blobs = self.voted_blobs(staged, uploaded, restored, &|oid| at.contains_key(&oid))?;
        let written = WrittenTransaction { meta, is_packed, tid, records, blobs };
        Ok(Box::new(VotedTxn { written, locks, resolved, undone }))
    }
}

impl Commit for PostgresStorage {
    fn set_publisher(&self, publisher: std::sync::Arc<dyn Publisher>) {
        self.shared.publisher.set(publisher, LOG, &self.shared.name);
    }

    fn set_resolver(&self, resolver: std::sync::Arc<dyn Resolver>) {
        self.resolver.set(resolver);
    }

    /// Waits for the database, which a session thread must not.
    fn vote(&self, staged: Staged, tid_at: TidAt) -> VoteResult {
        self.check_writable()?;
        if staged.merging() == Merging::AtOnce {
            return Err(NotVoted::Postponed(Box::new(staged)));
        }
        self.vote_now(staged, tid_at)
    }

    fn finish(&self, voted: Box<dyn Voted>, ticket: Ticket) {
        let VotedTxn { written, mut locks, .. } = voted.into_own();
        // From here on they are the sequencer's to give back.
        let locks = std::mem::take(&mut locks.ids);
        if let Err(back) = self.sequencer.finish(Finish::new(locks, written, ticket)) {
            let (finish, error) = *back;
            self.shared.publisher.failed(finish.ticket, error, LOG, &self.shared.name);
        }
    }
}

/// The objects that a transaction changes, and those that it depends on.
pub fn touched(storage: &PostgresStorage, staged: &Staged) -> Result<(Vec<Oid>, Vec<Oid>)> {
    let (mut changed, mut read) = (Vec::new(), Vec::new());
    for op in staged.ops() {
        match op.kind {
            OpKind::Undo { tid } => {
                changed.extend(storage.undoable_objects(tid)?);
                continue;
            }
            OpKind::CheckCurrent { .. } => read.push(op.oid),
            OpKind::Store { .. } | OpKind::Delete { .. } | OpKind::Restore { .. } => changed.push(op.oid),
        }
        if op.oid.0 > i64::MAX as u64 {
            let message =
                format!("an object id with the highest bit, 0x{}, cannot be stored in PostgreSQL", op.oid);
            return Err(StorageError::Refused { what: Refusal::Record, message });
        }
    }
    Ok((changed, read))
}

/// The objects that a transaction only creates. They need no lock.
fn new_objects(staged: &Staged) -> HashSet<Oid> {
    let mut new = HashSet::new();
    for op in staged.ops() {
        if op.kind == (OpKind::Store { serial: Tid::ZERO }) {
            new.insert(op.oid);
        }
    }
    for op in staged.ops() {
        if !matches!(op.kind, OpKind::Store { serial: Tid::ZERO } | OpKind::Undo { .. }) {
            new.remove(&op.oid);
        }
    }
    new
}

/// The steps of one vote.
pub struct Steps<'a> {
    pub storage: &'a PostgresStorage,
    /// The current revisions in the database.
    pub serials: &'a HashMap<Oid, (Tid, bool)>,
    records: Vec<WrittenRecord>,
    /// Where an object's record is.
    at: HashMap<Oid, usize>,
    pub undone: Vec<Undone>,
    /// Objects whose last change is an undo, and the revision that each gets back.
    restored: HashMap<Oid, Option<Tid>>,
}

impl<'a> Steps<'a> {
    pub fn new(storage: &'a PostgresStorage, serials: &'a HashMap<Oid, (Tid, bool)>) -> Steps<'a> {
        Steps {
            storage,
            serials,
            records: Vec::new(),
            at: HashMap::new(),
            undone: Vec::new(),
            restored: HashMap::new(),
        }
    }

    /// The state that the transaction itself has given to an object.
    pub fn own(&self, oid: Oid) -> Option<Option<&[u8]>> {
        let record = self.at.get(&oid).and_then(|at| self.records.get(*at))?;
        Some(record.data.as_deref())
    }

    /// Adds a record. The last one of an object counts.
    pub fn push(&mut self, oid: Oid, data: Option<Vec<u8>>) {
        self.restored.remove(&oid);
        let serial = self.serials.get(&oid).map_or(Tid::ZERO, |(serial, _)| *serial);
        let at = *self.at.entry(oid).or_insert(self.records.len());
        match self.records.get_mut(at) {
            Some(record) => record.data = data,
            None => self.records.push(WrittenRecord { oid, serial, data }),
        }
    }

    /// Adds the record of an undo. `restored`: the revision that it is from, unless it is merged.
    pub fn push_back(&mut self, oid: Oid, data: Option<Vec<u8>>, restored: Option<Tid>) {
        self.push(oid, data);
        self.restored.insert(oid, restored);
        self.undone.push(Undone { oid, restored });
    }

    /// Adds an operation without looking for conflicts of stores.
    pub fn add_as_it_is(&mut self, staged: &Staged, op: Op) -> Result<()> {
        match op.kind {
            OpKind::Store { .. } => self.push(op.oid, Some(staged.payload(&op)?)),
            OpKind::Delete { serial } => {
                check_delete(op.oid, serial, self.serials.get(&op.oid).map(|(serial, _)| *serial))?;
                self.push(op.oid, None);
            }
            OpKind::Restore { has_data, .. } => {
                let data = has_data.then(|| staged.payload(&op)).transpose()?;
                self.push(op.oid, data);
            }
            OpKind::CheckCurrent { serial } => check_serial(op.oid, serial, self.current(op.oid)?)?,
            OpKind::Undo { tid } => self.undo(staged, tid)?,
        }
        Ok(())
    }

    fn current(&self, oid: Oid) -> Result<Tid> {
        match self.serials.get(&oid) {
            Some((serial, false)) => Ok(*serial),
            _ => Err(StorageError::PosKey(oid)),
        }
    }
}

impl VoteSteps for Steps<'_> {
    fn committed(&mut self, oid: Oid) -> Result<Option<Tid>> {
        Ok(self.serials.get(&oid).map(|(serial, _)| *serial))
    }

    fn checked(&mut self, _: &dyn crate::storage::Storage, oid: Oid) -> Result<Tid> {
        self.current(oid)
    }

    fn add(&mut self, staged: &mut Staged, _index: usize, op: Op) -> Result<()> {
        self.add_as_it_is(staged, op)
    }
}
