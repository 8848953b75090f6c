//! Finish: tids, one write, one sync for all that are waiting, then publishing in order.
//!
//! Whoever finds nobody at it becomes the *leader* and commits what is queued, in its own thread: a lone committer makes
//! one write and one sync and waits for nobody. What is queued meanwhile is the next group; a committer thread of the
//! storage leads that, so no session is kept at it. Leadership passes on before a group's replies are sent, so the
//! next sync does not wait for the network.
//!
//! Invariant: only the leader writes to the log, and nothing is published that is not durable.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use log::error;

use super::Core;
use super::format::{FileFormat, TxnHeader};
use super::log::TARGET;
use super::media::MediaFile;
use super::stage::VotedTxn;
use super::tail_note::BLOCK;
use crate::base::ids::Tid;
use crate::storage::{Committed, Delivery, StorageError, Ticket};

/// Bytes of transactions in one group, beyond its first transaction.
const GROUP_LEN_MAX: u64 = 16 << 20;
/// What is shorter is gathered in one buffer and written at once.
const GATHER_MAX: usize = 1 << 20;

/// A transaction that waits for its sync.
pub struct Job {
    pub txn: VotedTxn,
    pub ticket: Ticket,
}

/// See the module.
#[derive(Default)]
pub struct Group {
    queue: Mutex<Queue>,
    /// There is a group that a committer thread is to lead, or the storage closes.
    work: Condvar,
    /// Nobody leads.
    idle: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: Vec<Job>,
    leading: bool,
    /// Leadership waits for a committer thread.
    handed_over: bool,
    stopping: bool,
}

impl Group {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets no more in and waits until all that are in are through.
    pub fn stop(&self) {
        let mut queue = self.lock();
        queue.stopping = true;
        self.work.notify_all();
        while queue.leading {
            queue = self.idle.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        self.work.notify_all();
    }
}

/// Where the next group goes. Locked by the leader only.
pub struct Writer {
    pub end: u64,
    pub format: FileFormat,
    /// The file has no transaction yet: the first one decides its format.
    pub undecided: bool,
    pub buf: Vec<u8>,
}

/// What is left to do when leadership was passed on.
#[derive(Default)]
struct After {
    delivery: Option<Delivery>,
    /// What the tail note is to say. It may be late: until then it says less.
    synced: Option<u64>,
    failed: Vec<(Ticket, StorageError)>,
}

impl Core {
    /// Queues a transaction, and commits what is queued unless somebody is at it.
    pub fn finish(&self, job: Job) {
        let refused = {
            let mut queue = self.group.lock();
            if queue.stopping {
                Some(job)
            } else {
                queue.jobs.push(job);
                if queue.leading {
                    return;
                }
                queue.leading = true;
                None
            }
        };
        match refused {
            Some(job) => self.tell_failed(job.ticket, self.closed()),
            None => self.lead(),
        }
    }

    /// A committer thread's life.
    pub fn committer(&self) {
        loop {
            let mut queue = self.group.lock();
            while !queue.handed_over {
                if queue.stopping && !queue.leading {
                    return;
                }
                queue = self.group.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            queue.handed_over = false;
            drop(queue);
            self.lead();
        }
    }

    /// Commits one group, passes leadership on, and then answers.
    fn lead(&self) {
        let jobs = {
            let mut queue = self.group.lock();
            let count = group_count(&queue.jobs);
            let rest = queue.jobs.split_off(count);
            std::mem::replace(&mut queue.jobs, rest)
        };
        let after = catch_unwind(AssertUnwindSafe(|| self.commit(jobs))).unwrap_or_else(|_| {
            // Who waited for this group is not told: what became of it is unknown.
            self.log.set_broken("a bug interrupted a commit".into());
            After::default()
        });
        {
            let mut queue = self.group.lock();
            if queue.jobs.is_empty() {
                queue.leading = false;
                // A notice to nobody would be a system call in every lone commit.
                if queue.stopping {
                    self.group.idle.notify_all();
                }
            } else {
                queue.handed_over = true;
                self.group.work.notify_one();
            }
        }
        for (ticket, error) in after.failed {
            self.tell_failed(ticket, error);
        }
        if let Some(delivery) = after.delivery {
            delivery();
        }
        if let (Some(note), Some(end)) = (&self.note, after.synced)
            && let Err(error) = note.set_synced(end)
        {
            log::warn!(target: TARGET, "{}.tmp cannot be written: {error}", self.log.path().display());
        }
    }

    fn tell_failed(&self, ticket: Ticket, error: StorageError) {
        match self.publisher.get() {
            Some(publisher) => publisher.failed(ticket, error),
            None => error!(target: TARGET, "{}: a commit failed: {error}", self.log.path().display()),
        }
    }

    fn commit(&self, mut jobs: Vec<Job>) -> After {
        if let Some(why) = self.log.broken() {
            let why = format!("the storage is read-only: {why}");
            return all_failed(jobs, || StorageError::Closed(why.clone()));
        }
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = writer.end;
        let format = writer.format;
        let placed = match self.write(&mut writer, &mut jobs) {
            Ok(placed) => placed,
            Err(error) => {
                error!(
                    target: TARGET,
                    "{}: writing at {begin} failed, {} transactions are refused: {error}",
                    self.log.path().display(),
                    jobs.len()
                );
                self.take_back(begin);
                writer.format = format;
                let doing = format!("{}: writing at {begin}", self.log.path().display());
                return all_failed(jobs, || StorageError::Io { doing: doing.clone(), error: copy(&error) });
            }
        };
        if let Err(error) = self.log.file().sync() {
            self.log.set_broken(format!("a sync failed at {begin}: {error}"));
            // What the disk has now is unknown; nobody was told of it, so better it is gone at the next start.
            self.take_back(begin);
            let doing = format!("{}: syncing at {begin}", self.log.path().display());
            return all_failed(jobs, || StorageError::Io { doing: doing.clone(), error: copy(&error) });
        }
        let end = placed.last().map_or(begin, |placed| placed.end);
        writer.end = end;
        writer.undecided = false;
        drop(writer);
        self.space.appended(end);
        self.log.set_end(end);
        After { synced: Some(end), ..self.publish(jobs, &placed) }
    }

    fn publish(&self, jobs: Vec<Job>, placed: &[Placed]) -> After {
        let mut object_count = self.index.len();
        let mut group = Vec::with_capacity(jobs.len());
        let mut txns = Vec::with_capacity(jobs.len());
        for (Job { txn, ticket }, placed) in jobs.into_iter().zip(placed) {
            object_count += txn.objects.iter().filter(|object| object.is_new).count() as u64;
            let oids = txn.objects.iter().map(|object| object.oid).collect();
            group.push(Committed { tid: placed.tid, oids, object_count, size: placed.end, ticket });
            txns.push(txn);
        }
        let mut install = || {
            for (txn, placed) in txns.iter().zip(placed) {
                let first = placed.pos + txn.head_len();
                for object in &txn.objects {
                    self.index.insert(object.oid, first + object.file_at, object.data_len);
                }
            }
            if let Some(last) = placed.last() {
                self.set_published(last.tid, last.end);
            }
        };
        let delivery = match self.publisher.get() {
            Some(publisher) => Some(publisher.publish(group, &mut install)),
            None => {
                install();
                None
            }
        };
        self.after_commit();
        After { delivery, ..After::default() }
    }

    /// Appends all of the group. On an error any part of it may have been written.
    fn write(&self, writer: &mut Writer, jobs: &mut [Job]) -> io::Result<Vec<Placed>> {
        let file = self.log.file();
        if writer.undecided
            && let Some(first) = jobs.first()
        {
            let format = self.new_file_format.of_first(first.txn.staged.python2);
            if format != writer.format {
                file.write_at(&format.magic(), 0)?;
                writer.format = format;
            }
        }
        let mut out = Appender { file, pos: writer.end, buf: &mut writer.buf, zeros: Vec::new() };
        out.buf.clear();
        let mut placed = Vec::with_capacity(jobs.len());
        for job in jobs {
            let pos = out.end();
            let tid = self.tids.at_finish(job.txn.tid);
            write_txn(&mut out, &mut job.txn, pos, tid)?;
            placed.push(Placed { tid, pos, end: out.end() });
        }
        out.flush()?;
        let zeros = out.zeros;
        if writer.buf.capacity() > 2 * GATHER_MAX {
            writer.buf = Vec::new();
        }
        if !zeros.is_empty()
            && let Some(note) = &self.note
        {
            // Before the transactions count as committed, recovery must know that these zeros are meant.
            note.add_zeros(&zeros)?;
        }
        Ok(placed)
    }

    /// Cuts off what was written of a group that failed.
    fn take_back(&self, begin: u64) {
        match self.log.file().set_len(begin) {
            Ok(()) => self.space.cut(begin),
            Err(error) if self.log.broken().is_none() => {
                self.log.set_broken(format!("what was written at {begin} cannot be cut off: {error}"));
            }
            Err(_) => {}
        }
    }
}

/// Where a transaction stands in the file.
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
                area[at..at + header.len()].copy_from_slice(&header);
            }
            out.push(area)?;
        }
        _ => write_records(out, txn, tloc, tid)?,
    }
    out.push(&len.to_be_bytes())
}

/// Record by record: the transaction was spilled to a file, or some data became a back-pointer.
fn write_records(out: &mut Appender<'_>, txn: &VotedTxn, tloc: u64, tid: Tid) -> io::Result<()> {
    let mut chunk = Vec::new();
    for record in &txn.records {
        let header = record.header(tid, tloc).encode();
        out.push(&header)?;
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

/// Gathers what is short, writes what is long, and keeps an eye on blocks of zeros.
struct Appender<'a> {
    file: &'a dyn MediaFile,
    /// Where `buf` goes.
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

/// Finds the blocks of the file of which `bytes`, written at `pos`, are zeros only. Where a block is written in two
/// parts, either counts: a block too many on the list does no harm.
fn note_zeros(pos: u64, bytes: &[u8], zeros: &mut Vec<u64>) {
    let mut at = 0;
    while at < bytes.len() {
        let block = (pos + at as u64) / BLOCK * BLOCK;
        let next = ((block + BLOCK - pos) as usize).min(bytes.len());
        if bytes[at] == 0 && bytes[at..next].iter().all(|&byte| byte == 0) {
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
    After { failed: jobs.into_iter().map(|job| (job.ticket, error())).collect(), ..After::default() }
}

/// One error for each of several clients.
fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}
