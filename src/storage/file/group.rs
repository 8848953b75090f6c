//! Finish: tids, one write, one sync for all that are waiting, then publishing in order.
//!
//! A committer that finds no leader becomes the *leader* and commits the queued transactions in its own thread: a
//! single committer does one write and one sync and waits for no other thread. Transactions that are queued during this
//! are the next group. A committer thread of the storage leads it, so a session leads one group at most before it
//! returns to its client (`lead.rs`). The lead is passed on before a group's replies are sent, so the next sync does
//! not wait for the network.
//!
//! Invariant: only the leader writes to the log, and nothing is published that is not durable (but for `sync_later`).

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use log::error;

use super::Core;
use super::blobs::Prepared;
use super::bulk::{CopyTicket, Links};
use super::format::TxnHeader;
use super::lead::Joined;
use super::log::TARGET;
use super::media::MediaFile;
use super::note_file::FileNo;
use super::tail_note::BLOCK;
use super::volume::Volume;
use super::voted::{GROUP_LEN_MAX, Job, VotedTxn};
use super::writer::Writer;
use crate::base::clock::Stopwatch;
use crate::base::ids::Tid;
use crate::storage::blob::Placement;
use crate::storage::error::copy_of_io;
use crate::storage::{Committed, Delivery, GroupTimes, StorageError, Ticket};

/// Up to this many bytes are gathered in one buffer and written at once.
const GATHER_MAX: usize = 1 << 20;

/// The work that is left after the lead was passed on.
#[derive(Default)]
struct After {
    delivery: Option<Delivery>,
    /// For the tail note. It may be written late: the older note is true as well.
    synced: Option<(FileNo, u64, Tid)>,
    failed: Vec<(Ticket, StorageError)>,
    /// Transactions that were taken back although they may be elsewhere: their clients get no answer.
    lost: Vec<Job>,
}

impl Core {
    /// Queues a transaction, and commits the queue if no thread leads.
    pub fn finish(&self, job: Job) {
        match self.group.join(job) {
            Joined::Queued => {}
            Joined::Leads => self.lead(),
            Joined::Refused(job) => self.tell_failed(job.ticket, self.closed()),
        }
    }

    /// Queues transactions that are committed in one group if their length allows it, and nothing else is queued.
    pub fn finish_all(&self, jobs: Vec<Job>) {
        match self.group.join_all(jobs) {
            Joined::Queued => {}
            Joined::Leads => self.lead(),
            Joined::Refused(jobs) => {
                for job in jobs {
                    self.tell_failed(job.ticket, self.closed());
                }
            }
        }
    }

    /// Runs `work` while no group is committed. It waits for the current group only; other groups come later. For one
    /// thread at a time. `None`: the storage closes.
    pub fn lead_alone<R>(&self, work: impl FnOnce() -> R) -> Option<R> {
        if !self.group.alone() {
            return None;
        }
        let result = catch_unwind(AssertUnwindSafe(work));
        if result.is_err() {
            self.set_broken("a panic interrupted a task that commits wait for".into());
        }
        self.group.pass_on();
        result.map_or_else(|panic| resume_unwind(panic), Some)
    }

    /// The main loop of a committer thread.
    pub fn committer(&self) {
        while self.group.next_turn() {
            self.lead();
        }
    }

    /// Commits one group, passes the lead on, and then answers the clients.
    fn lead(&self) {
        let jobs = self.group.take(group_count);
        let after = catch_unwind(AssertUnwindSafe(|| self.commit(jobs))).unwrap_or_else(|_| {
            // The clients of this group get no answer: the outcome is unknown.
            self.set_broken("a panic interrupted a commit".into());
            After::default()
        });
        self.group.pass_on();
        for (ticket, error) in after.failed {
            self.tell_failed(ticket, error);
        }
        drop(after.lost);
        if let Some(delivery) = after.delivery {
            delivery();
        }
        if let (Some(note), Some((file, end, tid))) = (&self.note, after.synced)
            && let Err(error) = note.set_synced(file, end, tid)
        {
            log::warn!(target: TARGET, "{}.tmp cannot be written: {error}", self.path.display());
        }
    }

    fn tell_failed(&self, ticket: Ticket, error: StorageError) {
        if let Some(copy) = ticket.downcast_ref::<CopyTicket>() {
            return copy.failed(error);
        }
        self.publisher.failed(ticket, error, TARGET, &self.path.display().to_string());
    }

    fn commit(&self, jobs: Vec<Job>) -> After {
        if let Some(why) = self.broken() {
            let why = format!("the storage is read-only: {why}");
            return all_failed(jobs, || StorageError::Closed(why.clone()));
        }
        // Only the leader may replace the volume, so it stays the current one here.
        let volume = self.volume.get_owned();
        if let Err(why) = self.check_handle(&volume) {
            self.set_exchanged(&volume, &why);
            return all_failed(jobs, || StorageError::Closed(format!("the storage is read-only: {why}")));
        }
        self.will_write();
        let (jobs, failed) = relocated(jobs, &volume);
        let Prepared { mut jobs, tids, blobs, failed } = self.prepare(jobs, failed);
        if jobs.is_empty() {
            return After { failed, ..After::default() };
        }
        let mut writer = self.writer.lock();
        let watch = Stopwatch::start();
        let begin = writer.end;
        let format = writer.format;
        let Written { placed, zeros_listed } = match self.write(&volume, &mut writer, &mut jobs, &tids) {
            Ok(written) => written,
            Err(error) => {
                let (path, count) = (self.path.display(), jobs.len());
                error!(target: TARGET, "{path}: writing at {begin} failed, {count} transactions are refused: {error}");
                self.take_back(&volume, begin, blobs, &mut jobs);
                writer.format = format;
                drop(writer);
                let doing = format!("{}: writing at {begin}", self.path.display());
                return refused(failed, jobs, doing, &error);
            }
        };
        let (end, tid) = placed.last().map_or((begin, volume.end_tid()), |placed| (placed.end, placed.tid));
        let write = watch.passed();
        self.gate.written(&volume, tid, end, jobs.len());
        let watch = Stopwatch::start();
        let unsynced = writer.unsynced + end.saturating_sub(begin);
        let waits = zeros_listed && blobs.is_none() && self.may_sync_later(unsynced);
        let synced = if waits { Ok(()) } else { self.sync_group(&volume, zeros_listed, end, tid) };
        let times = GroupTimes { write, sync: watch.passed() };
        if !waits {
            self.syncs.count(jobs.len(), times.sync);
        }
        if let Err(error) = synced {
            self.set_broken(format!("a sync failed at {begin}: {error}"));
            self.doubt();
            // The content of the disk is unknown. No client got a success, so it is better that the next start does not
            // find the group.
            self.take_back(&volume, begin, blobs, &mut jobs);
            drop(writer);
            return refused(failed, jobs, format!("{}: syncing at {begin}", self.path.display()), &error);
        }
        if let Some(gate) = self.gate.get() {
            drop(writer);
            if gate.durable(tid).is_err() {
                return After {
                    failed,
                    lost: self.withdraw(&volume, begin, blobs, jobs),
                    ..After::default()
                };
            }
            writer = self.writer.lock();
        }
        if let Some(blobs) = blobs {
            blobs.keep();
        }
        writer.end = end;
        writer.undecided = false;
        writer.unsynced = if waits { unsynced } else { 0 };
        drop(writer);
        self.space.appended(end);
        volume.appended(end, tid);
        let synced = self.note.as_ref().filter(|_| !waits).map(|note| (note.file_no(), end, tid));
        let delivery = self.publish(&volume, jobs, &placed, times);
        self.gate.published();
        After { delivery, synced, failed, ..After::default() }
    }

    fn sync_group(&self, volume: &Volume, zeros_listed: bool, end: u64, tid: Tid) -> io::Result<()> {
        volume.log.file().sync()?;
        match &self.note {
            Some(note) if !zeros_listed => note.set_durable(note.file_no(), end, tid),
            _ => Ok(()),
        }
    }

    /// Makes a durable group visible.
    fn publish(
        &self,
        volume: &Volume,
        jobs: Vec<Job>,
        placed: &[Placed],
        times: GroupTimes,
    ) -> Option<Delivery> {
        let mut object_count = volume.index.len();
        let mut group = Vec::with_capacity(jobs.len());
        let mut txns = Vec::with_capacity(jobs.len());
        for (Job { txn, ticket }, placed) in jobs.into_iter().zip(placed) {
            object_count += txn.objects.iter().filter(|object| object.is_new).count() as u64;
            let oids = txn.objects.iter().map(|object| object.oid).collect();
            group.push(Committed { tid: placed.tid, oids, object_count, size: placed.end, ticket, times });
            txns.push(txn);
        }
        let mut install = || {
            for (txn, placed) in txns.iter().zip(placed) {
                let first = placed.pos + txn.head_len();
                for object in &txn.objects {
                    volume.index.insert(object.oid, first + object.file_at, object.data_len);
                }
            }
            if let Some(last) = placed.last() {
                self.last_tid.store(last.tid.0, Ordering::Release);
                volume.set_published_end(last.end);
            }
        };
        let delivery = self.publisher.publish(group, &mut install);
        self.after_commit();
        delivery
    }

    /// Appends the whole group. After an error any part of it may have been written.
    fn write(
        &self,
        volume: &Volume,
        writer: &mut Writer,
        jobs: &mut [Job],
        tids: &[Tid],
    ) -> io::Result<Written> {
        let file = volume.log.file();
        if writer.undecided
            && let Some(first) = jobs.first()
        {
            let format = self.new_file_format.of_first(first.txn.staged.is_python2());
            if format != writer.format {
                file.write_at(&format.magic(), 0)?;
                writer.format = format;
            }
        }
        let mut out = Appender { file, pos: writer.end, buf: &mut writer.buf, zeros: Vec::new() };
        out.buf.clear();
        let mut placed = Vec::with_capacity(jobs.len());
        let mut links = Links::default();
        for (job, &tid) in jobs.iter_mut().zip(tids) {
            let pos = out.end();
            links.set(volume, &mut job.txn, pos);
            write_txn(&mut out, &mut job.txn, pos, tid)?;
            placed.push(Placed { tid, pos, end: out.end() });
        }
        out.flush()?;
        let zeros = out.zeros;
        if writer.buf.capacity() > 2 * GATHER_MAX {
            writer.buf = Vec::new();
        }
        // Recovery must know that these zeros are data before the transactions count as committed. No disk space was
        // reserved for the list: if it cannot be written, the note must say first that they are durable.
        let mut zeros_listed = true;
        if !zeros.is_empty()
            && let Some(note) = &self.note
            && let Err(error) = note.add_zeros(&zeros)
        {
            log::warn!(
                target: TARGET,
                "{}.tmp cannot be written, so this commit needs a second sync: {error}",
                self.path.display()
            );
            zeros_listed = false;
        }
        Ok(Written { placed, zeros_listed })
    }

    /// Cuts off what was written of a group that is not to be published, and removes its blobs.
    pub(super) fn take_back(&self, volume: &Volume, begin: u64, blobs: Option<Placement>, jobs: &mut [Job]) {
        let was_written = self.gate.begin_take_back();
        self.cut_group(volume, begin, blobs, jobs);
        let last = volume.end_tid();
        // A replica gets the same transaction again, and a new primary may have given an earlier tid.
        self.tids.taken_back(last.max(self.last_tid()));
        if was_written && let Some(gate) = self.gate.get() {
            gate.taken_back(last);
        }
    }

    fn cut_group(&self, volume: &Volume, begin: u64, blobs: Option<Placement>, jobs: &mut [Job]) {
        let cut = match self.check_ours(volume) {
            Ok(()) => volume.log.file().set_len(begin),
            Err(why) => return self.set_exchanged(volume, &why),
        };
        match cut {
            Ok(()) => self.space.cut(begin),
            Err(error) if self.broken().is_none() => {
                self.set_broken(format!("what was written at {begin} cannot be cut off: {error}"));
            }
            Err(_) => {}
        }
        if let Some(blobs) = blobs
            && self.broken().is_some()
        {
            // The next start finds out whether the disk has the transactions.
            blobs.leave(jobs.iter_mut().flat_map(|job| job.txn.staged.blobs_mut()));
        }
    }
}

/// A group that is written, but not durable yet.
struct Written {
    placed: Vec<Placed>,
    /// Its blocks of zeros are in the note.
    zeros_listed: bool,
}

/// The position of a transaction in the file.
struct Placed {
    tid: Tid,
    pos: u64,
    end: u64,
}

fn write_txn(out: &mut Appender<'_>, txn: &mut VotedTxn, tloc: u64, tid: Tid) -> io::Result<()> {
    let len = txn.head_len() + txn.records_len;
    let too_long = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let meta = &txn.staged.meta;
    let header = TxnHeader {
        tid,
        len,
        status: txn.staged.status,
        user_len: meta.user.len().try_into().map_err(too_long)?,
        description_len: meta.description.len().try_into().map_err(too_long)?,
        extension_len: meta.extension.len().try_into().map_err(too_long)?,
    };
    out.push(&header.encode())?;
    for part in [&meta.user, &meta.description, &meta.extension] {
        out.push(part)?;
    }
    let rearranged = txn.rearranged;
    match txn.staged.payload_in_memory() {
        Some(area) if !rearranged => {
            for record in &txn.records {
                let at = record.staged_at as usize;
                let header = record.header(tid, tloc).encode();
                let headroom = area.get_mut(at..at + header.len()).ok_or(io::ErrorKind::InvalidInput)?;
                headroom.copy_from_slice(&header);
            }
            out.push(area)?;
        }
        _ => write_records(out, txn, tloc, tid)?,
    }
    out.push(&len.to_be_bytes())
}

/// Writes record by record: the transaction was spilled to a file, or some data became a back-pointer.
fn write_records(out: &mut Appender<'_>, txn: &VotedTxn, tloc: u64, tid: Tid) -> io::Result<()> {
    let mut chunk = Vec::new();
    for (no, record) in txn.records.iter().enumerate() {
        let header = record.header(tid, tloc).encode();
        out.push(&header)?;
        if let Some(data) = txn.fetched.get(&no) {
            out.push(data)?;
            continue;
        }
        if record.data_len == 0 {
            out.push(&record.back.to_be_bytes())?;
            continue;
        }
        let mut done = 0;
        while done < record.data_len {
            let len = (record.data_len - done).min(GATHER_MAX as u64) as usize;
            chunk.resize(len, 0);
            txn.staged.read_at(&mut chunk, record.staged_at + header.len() as u64 + done)?;
            out.push(&chunk)?;
            done += len as u64;
        }
    }
    Ok(())
}

/// Gathers short pieces, writes long ones directly, and notes blocks of zeros.
struct Appender<'a> {
    file: &'a dyn MediaFile,
    /// The position in the file of `buf`.
    pos: u64,
    buf: &'a mut Vec<u8>,
    zeros: Vec<u64>,
}

impl Appender<'_> {
    fn end(&self) -> u64 {
        self.pos + self.buf.len() as u64
    }

    fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.buf.len() + bytes.len() > GATHER_MAX {
            self.flush()?;
            if bytes.len() > GATHER_MAX / 2 {
                return self.write(bytes);
            }
        }
        self.buf.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut buf = std::mem::take(self.buf);
        let written = self.write(&buf);
        buf.clear();
        *self.buf = buf;
        written
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        note_zeros(self.pos, bytes, &mut self.zeros);
        self.file.write_at(bytes, self.pos)?;
        self.pos += bytes.len() as u64;
        Ok(())
    }
}

/// Finds the blocks of the file that consist of zeros only, in `bytes` written at `pos`. If a block is written in two
/// parts, one part of zeros is enough: a superfluous block on the list does no harm.
fn note_zeros(pos: u64, bytes: &[u8], zeros: &mut Vec<u64>) {
    let mut at = 0;
    while at < bytes.len() {
        let block = (pos + at as u64) / BLOCK * BLOCK;
        let next = ((block + BLOCK - pos) as usize).min(bytes.len());
        if bytes.get(at..next).is_some_and(|part| part.iter().all(|&byte| byte == 0)) {
            zeros.push(block);
        }
        at = next;
    }
}

fn group_count(jobs: &[Job]) -> usize {
    let mut len = 0;
    for (count, job) in jobs.iter().enumerate() {
        len += job.txn.len();
        if count > 0 && len > GROUP_LEN_MAX {
            return count;
        }
    }
    jobs.len()
}

fn all_failed(jobs: Vec<Job>, error: impl Fn() -> StorageError) -> After {
    After { failed: tickets(jobs, error).collect(), ..After::default() }
}

/// The result for a group that was not written, and for jobs that had failed before.
fn refused(failed: Vec<(Ticket, StorageError)>, jobs: Vec<Job>, doing: String, error: &io::Error) -> After {
    let error = || StorageError::Io { doing: doing.clone(), error: copy_of_io(error) };
    After { failed: failed.into_iter().chain(tickets(jobs, error)).collect(), ..After::default() }
}

fn tickets(jobs: Vec<Job>, error: impl Fn() -> StorageError) -> impl Iterator<Item = (Ticket, StorageError)> {
    jobs.into_iter().map(move |job| (job.ticket, error()))
}

/// Gives transactions that were voted before a pack their positions in the new file. Also returns the failures: jobs
/// for which the old file could not be read.
fn relocated(jobs: Vec<Job>, volume: &Arc<Volume>) -> (Vec<Job>, Vec<(Ticket, StorageError)>) {
    let mut failed = Vec::new();
    if jobs.iter().all(|job| Arc::ptr_eq(&job.txn.volume, volume)) {
        return (jobs, failed);
    }
    let mut good = Vec::with_capacity(jobs.len());
    for mut job in jobs {
        let moved = match job.txn.links_late && !failed.is_empty() {
            _ if job.txn.volume.rewinds != volume.rewinds => Err(StorageError::Transaction(
                "transactions that it may build on were taken back after its vote".into(),
            )),
            true => Err(StorageError::Transaction("one that was copied before it has failed".into())),
            false => job.txn.relocate(volume),
        };
        match moved {
            Ok(()) => good.push(job),
            Err(error) => failed.push((job.ticket, error)),
        }
    }
    (good, failed)
}
