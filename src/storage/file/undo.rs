//! What can be undone, and which objects an undo changes. `undo_records` makes the records that an undo writes.

use std::ops::ControlFlow;

use super::FileStorage;
use super::backwards::Backwards;
use super::draft::Draft;
use super::log::Records;
use super::stage::check_op;
use super::undo_find::{FIRST_END_MIN, WAYPOINT, find_undoable};
use crate::base::ids::{Oid, Tid};
use crate::storage::staged::{OpKind, Staged};
use crate::storage::vote::check_current;
use crate::storage::{Result, Undo, UndoEntry};

impl Undo for FileStorage {
    /// Runs beside commits without a lock: published transactions are not moved or changed.
    fn undo_log(&self, each: &mut dyn FnMut(UndoEntry) -> ControlFlow<()>) -> Result<()> {
        self.check_open()?;
        let volume = self.core.volume.get_owned();
        let mut transactions = Backwards::new(&volume.log, volume.published_end());
        let mut passed = 0;
        while transactions.end() + 1 >= FIRST_END_MIN
            && let Some((tpos, header)) = transactions.next_txn()?
        {
            match header.status {
                b' ' => {}
                b'p' => break,
                _ => continue,
            }
            // Remembered for the undo of one of these transactions, which often follows.
            if passed % WAYPOINT == 0 {
                volume.places.remember(header.tid, tpos);
            }
            passed += 1;
            let meta = transactions.meta(&header)?;
            if each(UndoEntry { tid: header.tid, meta, size: header.len }).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn undo_oids(&self, tid: Tid) -> Result<Vec<Oid>> {
        self.check_open()?;
        let volume = self.core.volume.get_owned();
        let (tpos, header) = find_undoable(&volume, tid)?;
        let mut oids = Vec::new();
        let mut records = Records::new(&volume.log, tpos, &header);
        while let Some((_, record)) = records.next_record()? {
            oids.push(record.header.oid);
        }
        Ok(oids)
    }

    /// The vote repeats all of this. For a store that the vote may merge, this uses the state that the client sent.
    fn undo_now(&self, staged: &mut Staged) -> Result<(Tid, Vec<Oid>)> {
        self.check_writable()?;
        let tid = self.core.tids.at_vote(staged.tid)?;
        staged.tid = Some(tid);
        let volume = self.core.volume.get_owned();
        let mut draft = Draft::new(staged.ops().len());
        let mut op_begin = 0;
        for index in 0..staged.ops().len() {
            let Some(op) = staged.ops().get(index).copied() else { break };
            op_begin = draft.undone.len();
            match op.kind {
                OpKind::Undo { tid } => self.undo_transaction(&volume, staged, tid, &mut draft)?,
                OpKind::CheckCurrent { serial } => check_current(self, op.oid, serial)?,
                _ => check_op(&volume, staged, &op, draft.len)?
                    .into_iter()
                    .for_each(|record| draft.push(record)),
            }
        }
        Ok((tid, draft.undone.iter().skip(op_begin).map(|undone| undone.oid).collect()))
    }
}
