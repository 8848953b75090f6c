//! `undoLog`: the transactions that can be undone, newest first.

use super::FileStorage;
use super::backwards::Backwards;
use super::undo::{FIRST_END_MIN, PLACES_MAX};
use crate::storage::{Result, StorageError, UndoEntry};

/// Bytes of user, description and extension in one answer: beyond that no message could carry it.
const ANSWER_LEN_MAX: usize = 256 << 20;

impl FileStorage {
    /// Of the transactions that fit, back to the last pack, those from `first` up to but without `last`. Goes on beside
    /// commits and takes no lock: what is published stays where it is.
    pub(super) fn undoable(
        &self,
        first: usize,
        last: usize,
        fits: &dyn Fn(&UndoEntry) -> bool,
    ) -> Result<Vec<UndoEntry>> {
        self.check_open()?;
        let volume = self.core.volume.get_owned();
        let mut transactions = Backwards::new(&volume.log, volume.published_end());
        let mut entries = Vec::new();
        let (mut fitting, mut len) = (0, 0);
        while fitting < last
            && transactions.end() + 1 >= FIRST_END_MIN
            && let Some((tpos, header)) = transactions.next_txn()?
        {
            match header.status {
                b' ' => {}
                b'p' => break,
                _ => continue,
            }
            let meta = transactions.meta(&header)?;
            let entry = UndoEntry { tid: header.tid, meta, size: header.len };
            if !fits(&entry) {
                continue;
            }
            if fitting >= first {
                len += header.meta_len() + std::mem::size_of::<UndoEntry>();
                if len > ANSWER_LEN_MAX {
                    let message = "undoLog: too many transactions at once, ask for fewer";
                    return Err(StorageError::Unsupported(message.into()));
                }
                if entries.len() < PLACES_MAX {
                    volume.places.remember(entry.tid, tpos);
                }
                entries.push(entry);
            }
            fitting += 1;
        }
        Ok(entries)
    }
}
