//! Undo, by FileStorage's rules: an object that a later transaction has changed is merged, if it can be. RelStorage's
//! clients refuse these undos; what is written is the same.
//!
//! An undo writes a copy of the state before the undone transaction.

use std::ops::ControlFlow;

use super::PostgresStorage;
use super::read::meta;
use super::sequencer::WantedLocks;
use super::shared::{number, oid, tid};
use super::sql::{PAGE, UndoStatements};
use super::vote::{BegunEarly, Steps, touched};
use crate::base::ids::{Oid, Tid};
use crate::base::memory;
use crate::conflict::{Conflict, ThreeStates};
use crate::storage::{Result, Staged, StorageError, Undo, UndoEntry};

/// Why an object cannot get its earlier state back, or an error of the medium.
enum UndoFailure {
    Undo(&'static str),
    Storage(StorageError),
}

impl From<StorageError> for UndoFailure {
    fn from(error: StorageError) -> UndoFailure {
        UndoFailure::Storage(error)
    }
}

impl Undo for PostgresStorage {
    fn undo_log(&self, each: &mut dyn FnMut(UndoEntry) -> ControlFlow<()>) -> Result<()> {
        self.check_open()?;
        let mut before = self.shared.last().0.saturating_add(1) as i64;
        loop {
            let rows = self.shared.ask(&self.undo_sql()?.list, &[before])?;
            for row in rows.iter() {
                let tid = tid(&row, 0)?;
                before = tid.0 as i64;
                let size = row.required_int8(4)? as u64;
                if each(UndoEntry { tid, meta: meta(&row, 1)?, size }).is_break() {
                    return Ok(());
                }
            }
            if rows.len() < PAGE {
                return Ok(());
            }
        }
    }

    fn undo_oids(&self, tid: Tid) -> Result<Vec<Oid>> {
        self.check_open()?;
        self.undoable_objects(tid)
    }

    /// The vote repeats all of this. For a store that the vote may merge, this uses the state that the client sent.
    fn undo_now(&self, staged: &mut Staged) -> Result<(Tid, Vec<Oid>)> {
        self.check_writable()?;
        let mut wanted = WantedLocks { new: touched(self, staged)?.0, ..WantedLocks::default() };
        let begun = staged.begun.take().and_then(|begun| begun.downcast::<BegunEarly>().ok());
        if begun.is_none() {
            wanted.tid = Some(staged.tid);
        }
        let granted = self.sequencer.lock(&wanted, self.options.lock_timeout, &staged.cancel)?;
        let mut locks = self.locks(granted.id);
        let tid = match (granted.tid, begun) {
            (_, Some(begun)) => {
                locks.take(begun.locks);
                begun.tid
            }
            (Some(tid), None) => tid,
            (None, None) => return Err(StorageError::Transaction("no transaction id".into())),
        };
        staged.tid = Some(tid);
        let mut steps = Steps::new(self, &granted.serials);
        let mut last = 0;
        for index in 0..staged.ops().len() {
            let Some(op) = staged.ops().get(index).copied() else { break };
            last = steps.undone.len();
            steps.add_as_it_is(staged, op)?;
        }
        let oids = steps.undone.iter().skip(last).map(|undone| undone.oid).collect();
        staged.begun = Some(Box::new(BegunEarly { locks, tid }));
        Ok((tid, oids))
    }
}

impl PostgresStorage {
    /// Errors: the database keeps no history.
    fn undo_sql(&self) -> Result<&'static UndoStatements> {
        let sql = self.shared.sql.undo.as_ref();
        sql.ok_or_else(|| StorageError::Unsupported(format!("{} cannot undo", self.shared.name)))
    }

    /// The objects of a transaction that can be undone.
    pub(super) fn undoable_objects(&self, undone: Tid) -> Result<Vec<Oid>> {
        let refusal = |reason: &'static str| StorageError::Undo { reason: reason.into(), oid: None };
        let tid = i64::try_from(undone.0).unwrap_or(0);
        let sql = self.undo_sql()?;
        let rows = self.shared.ask(&sql.is_packed, &[tid])?;
        let is_published = undone != Tid::ZERO && undone <= self.shared.last();
        let row = rows.first().filter(|_| is_published).ok_or_else(|| refusal("Invalid transaction id"))?;
        if row.required_bool(0)? {
            return Err(refusal("non-undoable transaction"));
        }
        let rows = self.shared.ask(&sql.changed, &[tid])?;
        rows.iter().map(|row| oid(&row, 0)).collect()
    }

    /// The revision of an object before a transaction: its tid, and its state unless it is a deletion.
    fn revision_before(&self, oid: Oid, tid: Tid) -> Result<Option<(Tid, Option<Vec<u8>>)>> {
        let before = tid.0 as i64;
        let rows = self.shared.ask(&self.shared.sql.load.one, &[number(oid)?, before, before])?;
        let Some(row) = rows.first() else { return Ok(None) };
        let data = row.bytes(1)?.map(memory::copy).transpose();
        let data = data.map_err(StorageError::io("reading an object"))?;
        Ok(Some((super::shared::tid(&row, 0)?, data)))
    }
}

impl Steps<'_> {
    /// Adds the records that take back a transaction. Earlier operations, including other undos, are taken into
    /// account.
    pub(super) fn undo(&mut self, staged: &Staged, tid: Tid) -> Result<()> {
        let mut failures = Vec::new();
        for oid in self.storage.undoable_objects(tid)? {
            match self.undo_object(staged, oid, tid) {
                Ok((data, restored)) => {
                    self.push_back(oid, data, restored);
                }
                Err(UndoFailure::Undo(reason)) => failures.push((oid, reason.into())),
                Err(UndoFailure::Storage(error)) => return Err(error),
            }
        }
        if failures.is_empty() { Ok(()) } else { Err(StorageError::MultipleUndo(failures)) }
    }

    /// The state that an object gets, and the transaction that it is from unless it is merged.
    fn undo_object(
        &self,
        staged: &Staged,
        oid: Oid,
        undone: Tid,
    ) -> std::result::Result<(Option<Vec<u8>>, Option<Tid>), UndoFailure> {
        const NO_DATA: UndoFailure = UndoFailure::Undo("_loadBack() failed");
        let storage = self.storage;
        let before = storage.revision_before(oid, undone)?;
        let back = |before: Option<(Tid, Option<Vec<u8>>)>| match before {
            Some((tid, Some(data))) => (Some(data), Some(tid)),
            _ => (None, None),
        };
        let (serial, current) = match (self.own(oid), self.serials.get(&oid)) {
            (Some(own), _) => (staged.tid.unwrap_or(Tid::MAX), own.map(<[u8]>::to_vec)),
            (None, None) => return Err(UndoFailure::Undo("Invalid undo transaction id")),
            (None, Some((serial, _))) if *serial == undone => return Ok(back(before)),
            (None, Some((_, true))) => return Err(NO_DATA),
            (None, Some((serial, false))) => (*serial, Some(storage.shared.revision(oid, *serial)?)),
        };
        let undone_data = match storage.shared.revision(oid, undone) {
            Err(StorageError::PosKey(_)) => return Err(NO_DATA),
            read => read?,
        };
        let current = current.ok_or(NO_DATA)?;
        if undone_data == current {
            return Ok(back(before));
        }
        let Some((_, before)) = before else {
            return Err(UndoFailure::Undo(
                "Can't undo an add transaction followed by conflicting transactions.",
            ));
        };
        let before = before.ok_or(UndoFailure::Undo("_loadBack() failed for %s"))?;
        let states = ThreeStates {
            oid,
            read: undone,
            committed_serial: serial,
            old: &undone_data,
            committed: &current,
            new: &before,
            cancel: &staged.cancel,
        };
        match storage.resolver.merge(&states) {
            Ok(data) => Ok((Some(data), None)),
            Err(Conflict { .. }) => Err(UndoFailure::Undo("Some data were modified by a later transaction")),
        }
    }
}
