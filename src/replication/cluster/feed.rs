//! A replica that follows this server: what it lacks is sent, and what it acknowledges is noted.

use std::io;
use std::thread;
use std::time::Duration;

use super::link::{Outgoing, Receiving};
use super::member::MemberStorage;
use super::message::Message;
use super::progress::{Connection, ToSend, Told};
use crate::base::clock::Stopwatch;
use crate::base::ids::Tid;
use crate::base::sync::Arc;
use crate::net::stream::{Sink, Stream};
use crate::pickle::record::is_blob;
use crate::replication::feed_error::FeedError;
use crate::storage::{BlobFile, DataRecord, Storage, StorageError, TransactionIterator, TransactionRecord};

use super::pace::{LOG, NEWS_PAUSE, SILENCE_MAX};

/// Bytes of a blob in a message.
const BLOCK_LEN: usize = 128 << 10;

/// How what is sent is sent.
#[derive(Clone, Copy, Debug)]
pub struct FeedOptions {
    pub compress: bool,
    /// Whether the replica keeps blobs.
    pub has_blobs: bool,
    /// Bytes each second.
    pub max_rate: Option<u64>,
}

/// Sends what is later than `from`, as soon as it is written, until the connection ends or must end.
pub fn feed(
    member: &MemberStorage,
    stream: &Arc<Stream>,
    receiving: Receiving,
    connection: &Connection<'_>,
    from: Tid,
    options: FeedOptions,
) -> Result<(), FeedError> {
    receiving.set_silence_max(SILENCE_MAX)?;
    thread::scope(|scope| {
        let listen = || {
            let heard = listen(receiving, connection);
            // Also what is being sent, which no process may take.
            stream.shutdown();
            connection.end();
            heard
        };
        let listening = thread::Builder::new().name("replica-in".into()).spawn_scoped(scope, listen)?;
        let block = if options.has_blobs { vec![0; BLOCK_LEN] } else { Vec::new() };
        let out = Outgoing::new(Arc::clone(stream), options.compress);
        let (watch, base) = (Stopwatch::start(), &*member.base);
        let told = connection.told(from);
        let fed = Feed { member, base, out, block, connection, options, watch, told }.run();
        stream.shutdown();
        let heard = listening.join().unwrap_or(Ok(()));
        match (fed, heard) {
            // What the replica has done wrong is why nothing could be sent.
            (Ok(()) | Err(FeedError::Gone(_)), Err(error)) => Err(error),
            (fed, _) => fed,
        }
    })
}

/// Notes what the replica acknowledges.
fn listen(mut receiving: Receiving, connection: &Connection<'_>) -> Result<(), FeedError> {
    loop {
        match receiving.next_short() {
            Ok(Some(Message::Ack(ack))) => connection.acknowledge(ack),
            Ok(Some(_)) => return Err(FeedError::Refused("it has sent what it must not send now".into())),
            Ok(None) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(FeedError::Refused(error.to_string()));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

struct Feed<'a> {
    member: &'a MemberStorage,
    base: &'a dyn Storage,
    out: Outgoing,
    block: Vec<u8>,
    connection: &'a Connection<'a>,
    options: FeedOptions,
    /// Since the connection was made.
    watch: Stopwatch,
    told: Told,
}

impl Feed<'_> {
    fn run(mut self) -> Result<(), FeedError> {
        while let Some(ToSend { written, .. }) = self.connection.wait(&self.told, NEWS_PAUSE) {
            if written > self.told.sent {
                self.send_later()?;
            }
            // What was published during this.
            if !self.tell()? {
                break;
            }
            self.out.flush()?;
            self.connection.gather();
        }
        Ok(())
    }

    /// Says what is published, and whether the storage was packed. False: nothing more is to be sent.
    fn tell(&mut self) -> Result<bool, FeedError> {
        let Some(ToSend { news, packs, packed_to, .. }) = self.connection.news() else { return Ok(false) };
        self.out.put(&Message::News(news))?;
        if packs > self.told.packs {
            self.out.put(&Message::Pack { time: packed_to })?;
        }
        (self.told.published, self.told.packs) = (news.published, packs);
        Ok(true)
    }

    /// Sends the transactions that are later than the last one that was sent.
    fn send_later(&mut self) -> Result<(), FeedError> {
        let (member, sent) = (self.member, self.told.sent);
        // Without a start it is quicker than with the first possible one.
        let from = (sent != Tid::ZERO).then(|| Tid(sent.0.saturating_add(1)));
        let mut transactions = member.replicable()?.iterate_written(from)?;
        let mut watch = Stopwatch::start();
        while let Some(transaction) = transactions.next_transaction()? {
            let tid = transaction.tid;
            // The replica stores at once what it knows to be published, and keeps the rest until it has a whole group.
            let is_unknown = tid > self.told.published;
            // On a long way the replica must hear from time to time how far it is, and that this side is there.
            let is_due = watch.passed() >= NEWS_PAUSE;
            if is_due || is_unknown && self.connection.news().is_none_or(|now| now.news.published >= tid) {
                watch = Stopwatch::start();
                if !self.tell()? {
                    break;
                }
            }
            self.send_transaction(transaction, &*transactions)?;
            self.told.sent = tid;
            self.slow_down()?;
        }
        Ok(())
    }

    /// Waits as long as more was sent than the rate allows.
    fn slow_down(&mut self) -> Result<(), FeedError> {
        let Some(max_rate) = self.options.max_rate else { return Ok(()) };
        let due = Duration::from_secs_f64(self.out.sent() as f64 / max_rate.max(1) as f64);
        let mut early = due.saturating_sub(self.watch.passed());
        while !early.is_zero() && !self.member.progress.is_closing() {
            self.member.progress.pause(early.min(NEWS_PAUSE));
            early = due.saturating_sub(self.watch.passed());
        }
        Ok(())
    }

    fn send_transaction(
        &mut self,
        transaction: TransactionRecord,
        transactions: &dyn TransactionIterator,
    ) -> Result<(), FeedError> {
        let TransactionRecord { tid, status, meta } = transaction;
        self.out.put(&Message::Transaction { tid, after: self.told.sent, status, meta })?;
        let mut records = transactions.records()?;
        while let Some(record) = records.next_record()? {
            self.send_record(&record)?;
        }
        Ok(self.out.put_end()?)
    }

    fn send_record(&mut self, record: &DataRecord) -> Result<(), FeedError> {
        let DataRecord { oid, tid, data, data_txn } = record;
        let blob = match data {
            Some(data) if self.options.has_blobs && is_blob(data) => self.blob(record)?,
            _ => None,
        };
        let data = data.as_deref();
        self.out.put(&Message::Record { oid: *oid, tid: *tid, data_txn: *data_txn, data })?;
        match blob {
            Some(blob) => self.send_blob(*oid, &blob),
            None => Ok(()),
        }
    }

    /// The blob of a record; `None` if its file is lost.
    fn blob(&self, record: &DataRecord) -> Result<Option<BlobFile>, FeedError> {
        let Some(blobs) = self.base.blobs() else { return Ok(None) };
        match blobs.load_blob(record.oid, record.tid) {
            Ok(blob) => Ok(Some(blob)),
            Err(StorageError::NoBlob { .. } | StorageError::PosKey(_)) => {
                log::error!(
                    target: LOG,
                    "storage '{}': object 0x{} has no file of its blob of transaction {}: it is sent without",
                    self.member.name,
                    record.oid,
                    record.tid
                );
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn send_blob(&mut self, oid: crate::base::ids::Oid, blob: &BlobFile) -> Result<(), FeedError> {
        self.out.put(&Message::Blob { oid, len: blob.len })?;
        let mut pos = 0;
        while pos < blob.len {
            let len = (blob.len - pos).min(BLOCK_LEN as u64) as usize;
            let block = self.block.get_mut(..len).unwrap_or_default();
            let doing = || StorageError::io(format!("reading {}", blob.path.display()));
            if blob.read_at(block, pos).map_err(doing())? < len {
                return Err(doing()(io::ErrorKind::UnexpectedEof.into()).into());
            }
            self.out.put(&Message::BlobBytes(block))?;
            pos += len as u64;
            self.slow_down()?;
        }
        Ok(())
    }
}
