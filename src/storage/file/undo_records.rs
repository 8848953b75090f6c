//! The records of an undo: a transaction that takes back an earlier one.
//!
//! For each record of the undone transaction the new one gets a record that points back to the record before it, so
//! nothing is copied. For an object that the undone transaction created, the back-pointer is 0. If a later transaction
//! gave the object other data than the undone one, the states are merged, or the undo fails.
//!
//! Only the objects themselves need locks: everything else that is read here is in the past. Python locks the whole
//! storage.

#![cfg_attr(not(test), deny(clippy::cast_possible_truncation))]

use std::collections::HashMap;

use super::FileStorage;
use super::draft::{Draft, StagedRecord};
use super::log::{Record, Records};
use super::undo_find::find_undoable;
use super::volume::Volume;
use crate::base::ids::{Oid, Tid};
use crate::conflict::ThreeStates;
use crate::storage::staged::Staged;
use crate::storage::{Result, StorageError, Undone};

/// The record that an undo writes for one object.
enum Instead {
    /// The data of the record at this position; 0: none.
    Back(u64),
    Merged(Vec<u8>),
}

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

impl FileStorage {
    /// Adds the records that take back transaction `tid`. Earlier operations of the same transaction, including other
    /// undos, are taken into account.
    pub(super) fn undo_transaction(
        &self,
        volume: &Volume,
        staged: &mut Staged,
        tid: Tid,
        draft: &mut Draft,
    ) -> Result<()> {
        let (tpos, header) = find_undoable(volume, tid)?;
        draft.settle();
        // A failed object may still succeed with a later record of the same object.
        let mut failures: HashMap<Oid, (u64, &'static str)> = HashMap::new();
        let mut undone: HashMap<Oid, usize> = HashMap::new();
        let mut records = Records::new(&volume.log, tpos, &header);
        while let Some((pos, record)) = records.next_record()? {
            let oid = record.header.oid;
            failures.remove(&oid);
            match self.undo_record(volume, staged, pos, &record, draft) {
                Ok(instead) => {
                    let restored = add_undo_record(volume, staged, oid, instead, draft)?;
                    let at = *undone.entry(oid).or_insert(draft.undone.len());
                    match draft.undone.get_mut(at) {
                        Some(earlier) => earlier.restored = restored,
                        None => draft.undone.push(Undone { oid, restored }),
                    }
                }
                Err(UndoFailure::Undo(reason)) => {
                    failures.insert(oid, (pos, reason));
                }
                Err(UndoFailure::Storage(error)) => return Err(error),
            }
        }
        if failures.is_empty() {
            return Ok(());
        }
        let mut failures: Vec<_> = failures.into_iter().collect();
        failures.sort_unstable_by_key(|(_, (pos, _))| *pos);
        let failures = failures.into_iter().map(|(oid, (_, reason))| (oid, reason.into())).collect();
        Err(StorageError::MultipleUndo(failures))
    }

    /// Decides about the record of the undone transaction at `pos`.
    fn undo_record(
        &self,
        volume: &Volume,
        staged: &Staged,
        pos: u64,
        undone: &Record,
        draft: &Draft,
    ) -> std::result::Result<Instead, UndoFailure> {
        const NO_DATA: UndoFailure = UndoFailure::Undo("_loadBack() failed");
        let log = &volume.log;
        let oid = undone.header.oid;
        let pre = undone.header.prev;
        let current = match draft.latest(oid) {
            Some(record) => Current::Draft(record),
            None => match volume.index.pos(oid) {
                0 => return Err(UndoFailure::Undo("Invalid undo transaction id")),
                at if at == pos => return Ok(Instead::Back(pre)),
                at => Current::Committed(at, log.read_record(at, Some(oid))?),
            },
        };
        // A back-pointer to the undone record is the same data, so it counts as current.
        if current.back() == Some(pos) {
            return Ok(Instead::Back(pre));
        }
        let data_of = |back: u64| -> std::result::Result<Vec<u8>, UndoFailure> {
            let (at, header) = log.follow(oid, back)?.ok_or(NO_DATA)?;
            let mut data = Vec::new();
            log.read_data(at, &header, &mut data)?;
            Ok(data)
        };
        let undone_data = data_of(pos)?;
        let current_data = match current {
            _ if current.back().is_some() => data_of(current.back().unwrap_or(0))?,
            Current::Committed(at, _) => data_of(at)?,
            Current::Draft(record) => staged.payload_at(record.staged_at, record.data_len)?,
        };
        if undone_data == current_data {
            return Ok(Instead::Back(pre));
        }
        if pre == 0 {
            return Err(UndoFailure::Undo(
                "Can't undo an add transaction followed by conflicting transactions.",
            ));
        }
        // Python says only "_loadBack() failed for %s".
        let pre_data = data_of(pre).map_err(|failure| match failure {
            UndoFailure::Undo(_) => UndoFailure::Undo("_loadBack() failed for %s"),
            storage => storage,
        })?;
        // If there are several records of the object, `loadSerial` finds only the last.
        let old = match volume.revision(oid, undone.header.tid)? {
            0 => undone_data,
            at => data_of(at)?,
        };
        let states = ThreeStates {
            oid,
            read: undone.header.tid,
            committed_serial: current.serial(staged),
            old: &old,
            committed: &current_data,
            new: &pre_data,
            cancel: &staged.cancel,
        };
        match self.resolver.merge(&states) {
            Ok(data) => Ok(Instead::Merged(data)),
            Err(_conflict) => Err(UndoFailure::Undo("Some data were modified by a later transaction")),
        }
    }
}

/// Adds the record; returns the transaction whose data it stands for.
fn add_undo_record(
    volume: &Volume,
    staged: &mut Staged,
    oid: Oid,
    instead: Instead,
    draft: &mut Draft,
) -> Result<Option<Tid>> {
    let prev = volume.index.pos(oid);
    let mut record =
        StagedRecord { oid, tid: None, prev, data_len: 0, back: 0, staged_at: 0, file_at: draft.len };
    let mut restored = None;
    match instead {
        Instead::Back(back) => {
            record.back = back;
            restored = volume.log.follow(oid, back)?.map(|(_, header)| header.tid);
        }
        Instead::Merged(data) => {
            record.data_len = data.len() as u64;
            record.staged_at = staged
                .add_payload(&data)
                .map_err(StorageError::io("buffering a transaction in the temporary directory"))?;
        }
    }
    draft.push(record);
    Ok(restored)
}

/// The state of an object at the time of the undo.
#[derive(Clone, Copy)]
enum Current {
    Draft(StagedRecord),
    Committed(u64, Record),
}

impl Current {
    /// The back-pointer that the state has instead of data; may be 0.
    fn back(&self) -> Option<u64> {
        match self {
            Current::Draft(record) => (record.data_len == 0).then_some(record.back),
            Current::Committed(_, record) => (record.header.data_len == 0).then_some(record.back),
        }
    }

    /// The serial. A record of this transaction may not have a tid yet: then a tid that no other record has.
    fn serial(&self, staged: &Staged) -> Tid {
        match self {
            Current::Draft(record) => record.tid.or(staged.tid).unwrap_or(Tid::MAX),
            Current::Committed(_, record) => record.header.tid,
        }
    }
}
