//! Takes back the last transactions of the file, while it is served.
//!
//! 1. `kept` copies them to a database of their own, durably. Transactions without records, as markers are, need none.
//! 2. A new index: each of their objects is at its record of before again, or gone.
//! 3. With commits held: the note says that the file is one of two, as during the switch of a pack; then the new
//!    volume, over the same file, is installed. The connections of all clients are closed before that, so no reply that
//!    was computed from the state of before leaves after it. Iterators and votes of before end with an error.
//! 4. The file is cut off and synced. The note and the saved index are made anew. The blobs of the transactions are
//!    removed. What `kept` has copied gets its name.
//!
//! A crash leaves the file as it was, or cut off; in both cases it is whole. If the file is cut off and the note still
//! says that it is one of two, the next start adds its marker (`familiar`). After a rewind that has ended it does not:
//! the note says that clients have seen nothing later than the last transaction of the file.
//!
//! Until the cut, readers of the old volume read what was there. Later they may read beyond the end, or what new
//! transactions have written. So nothing of that may be used: replies are not sent, and iterators, backups and scrubs
//! check after they have read.
//!
//! A rewind is refused while a pack runs: to wait for it may take hours, and to cancel it is the caller's decision.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use log::warn;

use super::backwards::Backwards;
use super::format::{MAGIC_LEN, TXN_HEADER_LEN};
use super::index::Index;
use super::kept::Kept;
use super::log::{Log, TARGET};
use super::volume::Volume;
use super::{Core, FileStorage, sums};
use crate::base::ids::{Oid, Tid};
use crate::storage::{Cut, Delivery, Result, StorageError};

/// Objects of one page of the index.
const PAGE_BITS: u32 = 12;

/// The transactions that are taken back.
struct Lost {
    /// Where the first of them begins.
    cut: u64,
    /// Where the last of them ends.
    end: u64,
    first: Tid,
    last: Tid,
    count: u64,
    /// Without any, as markers are, there is nothing to keep.
    have_records: bool,
}

/// See [`Replicable::rewind`](crate::storage::Replicable::rewind).
pub fn rewind(storage: &FileStorage, to: Tid) -> Result<Option<Cut>> {
    storage.check_writable()?;
    let core = &storage.core;
    let _packing = core.packing.begin()?;
    let old = core.volume.get_owned();
    // A pack may have dropped the last transactions, which had no records.
    if to == core.last_tid() {
        return Ok(None);
    }
    let Some(lost) = Lost::find(&old, to)? else { return Ok(None) };
    if core.note.is_none() {
        let path = core.path.display();
        let what = format!(
            "{path}.tmp, which has to tell about it, could not be written at the start: restart the server"
        );
        return Err(StorageError::Transaction(what));
    }
    let kept = lost.have_records.then(|| Kept::make(storage, lost.first)).transpose()?;
    let where_kept = kept
        .as_ref()
        .map_or("They had no records".into(), |kept| format!("They are kept in {}", kept.path.display()));
    let (path, count) = (core.path.display(), lost.count);
    // Before the cut: after a crash nothing else tells about them.
    warn!(target: TARGET, "{path}: {count} transactions after {to} are taken back. {where_kept}");
    let done = index_before(&old, lost.cut).and_then(|index| cut_off(core, &old, &lost, to, index));
    if let Err(error) = done {
        // Otherwise it is unknown what the next start finds.
        if let Some(kept) = kept.filter(|_| core.broken().is_none()) {
            kept.remove(storage);
        }
        return Err(error);
    }
    let kept = kept.map(|kept| {
        if let Some(blobs) = &core.blobs {
            kept.blobs.iter().for_each(|(oid, tid)| blobs.remove(*oid, *tid));
        }
        kept.settle(storage)
    });
    let Lost { first, last, .. } = lost;
    Ok(Some(Cut { kept, transactions: count, first, last }))
}

impl Lost {
    /// The transactions after `to`; `None` if there are none.
    fn find(volume: &Volume, to: Tid) -> Result<Option<Lost>> {
        let end = volume.published_end();
        let mut found: Option<Lost> = None;
        let mut transactions = Backwards::new(&volume.log, end);
        while let Some((pos, header)) = transactions.next_txn()? {
            if header.tid == to {
                return Ok(found);
            }
            if header.tid < to {
                return Err(not_there(volume, to));
            }
            let later = found.unwrap_or(Lost {
                cut: end,
                end,
                first: header.tid,
                last: header.tid,
                count: 0,
                have_records: false,
            });
            let has_records = header.len > (TXN_HEADER_LEN + header.meta_len()) as u64;
            found = Some(Lost {
                cut: pos,
                first: header.tid,
                count: later.count + 1,
                have_records: later.have_records || has_records,
                ..later
            });
        }
        if to == Tid::ZERO { Ok(found) } else { Err(not_there(volume, to)) }
    }
}

fn not_there(volume: &Volume, to: Tid) -> StorageError {
    StorageError::Transaction(format!("{}: there is no transaction {to}", volume.log.path().display()))
}

/// The index of the moment when the file ended at `cut`.
fn index_before(volume: &Volume, cut: u64) -> Result<Index> {
    let index = Index::new();
    let (mut page, mut slots) = (0, Vec::new());
    let fill = |page: u64, slots: &mut Vec<(u16, u64)>| {
        if !slots.is_empty() {
            index.fill(Oid(page << PAGE_BITS), slots.drain(..));
        }
    };
    volume.index.for_each(|oid, mut pos| {
        while pos >= cut {
            pos = volume.log.read_record(pos, Some(oid))?.header.prev;
        }
        let (of, slot) = (oid.0 >> PAGE_BITS, (oid.0 & ((1 << PAGE_BITS) - 1)) as u16);
        if of != page {
            fill(page, &mut slots);
            page = of;
        }
        if pos != 0 {
            slots.push((slot, pos));
        }
        Ok::<(), StorageError>(())
    })?;
    fill(page, &mut slots);
    Ok(index)
}

/// Steps 3 and 4.
fn cut_off(core: &Core, old: &Arc<Volume>, lost: &Lost, to: Tid, index: Index) -> Result<()> {
    // From here on no other thread saves an index of the old state.
    let saving = core.hold_saver();
    let mut delivery = None;
    let done = core.remove_index().and_then(|()| {
        let held = core.lead_alone(|| replace(core, old, lost, to, index, &mut delivery));
        held.unwrap_or_else(|| Err(core.closed()))
    });
    // Without it the next start reads the whole file. It is also right if nothing was taken back.
    if core.broken().is_none() && !core.closed.load(Ordering::Acquire) {
        let volume = core.volume.get_owned();
        let _ = core.save_index_of(&saving, &volume, volume.published_end());
    }
    drop(saving);
    // Without a lock: it ends connections.
    if let Some(delivery) = delivery {
        delivery();
    }
    done
}

/// While commits are held.
fn replace(
    core: &Core,
    old: &Arc<Volume>,
    lost: &Lost,
    to: Tid,
    index: Index,
    delivery: &mut Option<Delivery>,
) -> Result<()> {
    if let Some(why) = core.broken() {
        return Err(StorageError::Closed(format!("the storage is read-only: {why}")));
    }
    if !Arc::ptr_eq(old, &core.volume.get()) || old.log.end() != lost.end {
        let path = core.path.display();
        let what =
            format!("{path}: transactions were committed while others were to be taken back: try again");
        return Err(StorageError::Transaction(what));
    }
    if let Err(why) = core.check_ours(old) {
        core.set_exchanged(old, &why);
        return Err(StorageError::Closed(format!("{}: {why}", core.path.display())));
    }
    core.sync_written(old)?;
    core.will_write();
    core.keep_oids(old)?;
    if let Some(note) = &core.note {
        let doing = || StorageError::io(format!("writing {}.tmp", core.path.display()));
        note.will_cut().map_err(doing())?;
        note.suspend(core.last_tid()).map_err(doing())?;
    }
    // Before the cut, for a start after a crash, and below for those that were just being made.
    sums::drop_journal(&*core.media, &core.path);
    let log = Log::new(core.path.clone(), old.log.file_shared(), lost.cut);
    let volume = Arc::new(Volume::new(log, index, to, old.rewinds + 1));
    let mut install = || {
        core.volume.rewind(Arc::clone(&volume));
        core.last_tid.store(to.0, Ordering::Release);
    };
    *delivery = core.publisher.missed(to, None, &mut install);
    let file = volume.log.file();
    if let Err(error) = file.set_len(lost.cut).and_then(|()| file.sync()) {
        core.set_broken(format!("transactions after {to} cannot be cut off at {}: {error}", lost.cut));
        return Err(StorageError::io(format!("cutting {} off", core.path.display()))(error));
    }
    core.space.cut(lost.cut);
    let mut writer = core.writer.lock();
    (writer.end, writer.unsynced, writer.undecided) = (lost.cut, 0, lost.cut <= MAGIC_LEN);
    drop(writer);
    core.tids.taken_back(to);
    sums::drop_journal(&*core.media, &core.path);
    if let Some(what) = core.tell_note_of_cut(&volume) {
        warn!(target: TARGET, "{what}");
    }
    Ok(())
}
