//! Transactions of other storages, by COPY.
//!
//! What a copy brings goes through two threads: the caller's makes rows of it ([`segment`]), and one with a session of
//! its own sends them ([`session`]). Rows go in segments of a few megabytes, so memory is bounded also for a large
//! transaction. A database transaction is a batch: it has one segment, or as many as a large transaction needs, and
//! ends where a transaction ends. It holds the locks of RelStorage's commits and copies, so transactions are still
//! committed in the order of their tids. Batches are committed in order, too: after a failure the database has the
//! first transactions of the copy, without a gap.
//!
//! `current_object` is right in each batch, so the database can be served while the copy goes on, and after it was
//! interrupted. The sequencer finds and publishes what is committed, like the transactions of other servers.

mod segment;
mod session;

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use self::segment::Segment;
use self::session::CopySession;
use super::PostgresStorage;
use super::vote::touched;
use crate::base::ids::{Oid, Tid};
use crate::storage::staged::OpKind;
use crate::storage::{Bulk, BulkWriter, Result, Staged, StorageError};

/// Segments that wait to be sent.
const AHEAD: usize = 1;

/// What comes to the thread that sends.
enum Message {
    Segment(Box<Segment>),
    /// Everything was sent.
    Complete,
}

/// A copy that goes on.
struct Copy<'a> {
    storage: &'a PostgresStorage,
    segment: Box<Segment>,
    /// A part of a transaction was sent.
    is_cut: bool,
    /// The last transaction that was added.
    last: Tid,
    /// The greatest oid of those that were added.
    greatest: Oid,
    /// `None`: the thread has ended.
    to: Option<SyncSender<Message>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Bulk for PostgresStorage {
    fn begin(&self) -> Result<Box<dyn BulkWriter + '_>> {
        self.check_writable()?;
        self.sequencer.catch_up()?;
        let last = self.shared.last();
        let session = CopySession::open(&self.shared, self.blobs.clone(), last)?;
        let (to, messages) = sync_channel(AHEAD);
        let thread = std::thread::Builder::new().name("zeo-copy".into());
        let thread = thread.spawn(move || send(session, &messages));
        let thread = thread.map_err(StorageError::io("starting the thread that copies"))?;
        let segment = Box::default();
        Ok(Box::new(Copy {
            storage: self,
            segment,
            is_cut: false,
            last,
            greatest: Oid::ZERO,
            to: Some(to),
            thread: Some(thread),
        }))
    }
}

/// The thread that sends.
fn send(mut session: CopySession, messages: &Receiver<Message>) -> Result<()> {
    for message in messages {
        match message {
            Message::Segment(segment) => session.send(*segment)?,
            Message::Complete => return session.complete(),
        }
    }
    // The copy was given up. What is not committed ends with the session.
    Ok(())
}

impl BulkWriter for Copy<'_> {
    fn add(&mut self, mut staged: Staged) -> Result<()> {
        let Some(tid) = staged.tid.filter(|tid| *tid > self.last) else {
            let last = self.last;
            return Err(StorageError::Transaction(format!("a copied transaction is not later than {last}")));
        };
        let (changed, _) = touched(self.storage, &staged)?;
        self.greatest = changed.into_iter().max().unwrap_or_default().max(self.greatest);
        self.segment.add_transaction(tid, staged.status == b'p', &staged.meta);
        // Of several records of an object the last one counts.
        let lasts: HashMap<Oid, usize> =
            staged.ops().iter().enumerate().map(|(at, op)| (op.oid, at)).collect();
        for (at, op) in staged.ops().iter().enumerate() {
            let OpKind::Restore { has_data, .. } = op.kind else {
                return Err(StorageError::Unsupported("a copy has nothing but copied records".into()));
            };
            if lasts.get(&op.oid) == Some(&at) {
                let data = has_data.then(|| staged.payload(op)).transpose()?;
                self.segment.add_state(op.oid, tid, data.as_deref())?;
                self.send_if_full()?;
            }
        }
        for (oid, blob) in staged.take_blobs() {
            if lasts.contains_key(&oid) {
                self.segment.add_blob(oid, tid, blob)?;
                self.send_if_full()?;
            }
        }
        self.last = tid;
        self.segment.ends_at = Some(tid);
        // What is sent waits for its commit, and others for the locks.
        if self.is_cut { self.send_segment() } else { self.send_if_full() }
    }

    fn complete(mut self: Box<Self>) -> Result<()> {
        if self.segment.ends_at.is_some() {
            self.send_segment()?;
        }
        self.tell(Message::Complete)?;
        self.to = None;
        self.ended()?;
        self.storage.sequencer.catch_up()
    }
}

impl Copy<'_> {
    fn send_if_full(&mut self) -> Result<()> {
        if self.segment.is_full() { self.send_segment() } else { Ok(()) }
    }

    fn send_segment(&mut self) -> Result<()> {
        // None of these is given out any more when they are there.
        self.storage.oids.pass(&self.storage.shared, self.greatest)?;
        let segment = std::mem::take(&mut self.segment);
        self.is_cut = segment.ends_at.is_none();
        self.tell(Message::Segment(segment))
    }

    fn tell(&mut self, message: Message) -> Result<()> {
        let is_told = self.to.as_ref().is_some_and(|to| to.send(message).is_ok());
        if is_told {
            return Ok(());
        }
        self.to = None;
        self.ended()?;
        Err(StorageError::Closed("the copy has ended".into()))
    }

    /// What the thread has ended with.
    fn ended(&mut self) -> Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let failed = |_| Err(StorageError::Closed("the thread that copies has failed".into()));
        thread.join().unwrap_or_else(failed)
    }
}

impl Drop for Copy<'_> {
    fn drop(&mut self) {
        self.to = None;
        if let Err(error) = self.ended() {
            log::error!(target: super::LOG, "{}: a copy has ended: {error}", self.storage.shared.name);
        }
    }
}
