//! `undoLog`: the transactions that can be undone, newest first.

use std::ops::ControlFlow;

use super::FileStorage;
use super::backwards::Backwards;
use super::undo::{FIRST_END_MIN, WAYPOINT};
use crate::storage::{Result, UndoEntry};

impl FileStorage {
    /// The transactions back to the last pack, until `each` wants no more. Goes on beside commits and takes no lock: what is
    /// published stays where it is.
    pub(super) fn undoable(&self, each: &mut dyn FnMut(UndoEntry) -> ControlFlow<()>) -> Result<()> {
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
            // Whoever undoes one of these looks it up soon.
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
}
