//! Finding transactions that can be undone.

#![cfg_attr(not(test), deny(clippy::cast_possible_truncation))]

use super::backwards::Backwards;
use super::format::TxnHeader;
use super::volume::Volume;
use crate::base::ids::Tid;
use crate::storage::{Result, StorageError};

/// A transaction that ends before this is not found, as in Python, which takes the file for empty. Only the first can
/// end there, and only if it has no record.
pub const FIRST_END_MIN: u64 = 40;

/// A search remembers the place of one in this many transactions.
pub const WAYPOINT: usize = 64;

/// Position and header of transaction `tid`. It must be published and later than the last pack.
pub fn find_undoable(volume: &Volume, tid: Tid) -> Result<(u64, TxnHeader)> {
    let (tpos, header) = match volume.places.get(tid) {
        Some(tpos) => (tpos, volume.log.read_txn_header(tpos)?),
        None => search(volume, tid)?,
    };
    volume.places.remember(tid, tpos);
    if header.status != b' ' {
        return Err(StorageError::Undo { reason: "non-undoable transaction".into(), oid: None });
    }
    Ok((tpos, header))
}

fn search(volume: &Volume, tid: Tid) -> Result<(u64, TxnHeader)> {
    if let Some(near) = volume.places.after(tid)
        && let Some(found) = search_before(volume, tid, near, true)?
    {
        return Ok(found);
    }
    // Also for files whose tids do not ascend, and if no place is known.
    let found = search_before(volume, tid, volume.published_end(), false)?;
    found.ok_or(StorageError::Undo { reason: "Invalid transaction id".into(), oid: None })
}

/// Searches among the transactions that end at `end` or before. `ascending`: stops at the first earlier tid.
fn search_before(volume: &Volume, tid: Tid, end: u64, ascending: bool) -> Result<Option<(u64, TxnHeader)>> {
    let mut transactions = Backwards::new(&volume.log, end);
    let mut passed = 0;
    while transactions.end() >= FIRST_END_MIN
        && let Some((tpos, header)) = transactions.next_txn()?
    {
        if header.tid == tid {
            return Ok(Some((tpos, header)));
        }
        if header.status == b'p' || ascending && header.tid < tid {
            break;
        }
        passed += 1;
        if passed % WAYPOINT == 0 {
            volume.places.remember(header.tid, tpos);
        }
    }
    Ok(None)
}
