//! One secondary of a primary: its greeting, whether it may follow, and the transactions that it lacks.

use std::io;

use super::message::{BLOCK_LEN, RecordHead, Transaction, put_commit};
use super::outgoing::Outgoing;
use super::published::Published;
use super::{PRIMARY_LOG, WITH_BLOBS, WITHOUT_BLOBS};
use crate::base::clock::IoDeadline;
use crate::base::ids::Tid;
use crate::base::sync::Arc;
use crate::base::untrusted::UntrustedBytes;
use crate::net::stream::Stream;
use crate::pickle::record::is_blob;
use crate::replication::feed_error::FeedError;
use crate::replication::frames::Incoming;
use crate::storage::{BlobFile, DataRecord, Storage, StorageError, TransactionIterator, TransactionRecord};

/// Longest frame of a secondary: a transaction id.
const FRAME_LEN_MAX: usize = 8;

/// What a secondary says first.
#[derive(Clone, Copy, Debug)]
pub struct Greeting {
    /// Its last transaction; zero if it has none.
    pub start: Tid,
    pub knows_blobs: bool,
}

/// Reads the greeting, within the time.
pub fn greeting(
    incoming: &mut Incoming,
    storage: &dyn Storage,
    until: IoDeadline,
) -> Result<Greeting, FeedError> {
    let mut late = || match until.is_over() {
        true => Err(io::Error::new(io::ErrorKind::TimedOut, "it has not said what it has")),
        false => Ok(()),
    };
    let mut frame = Vec::new();
    let ended = || FeedError::Gone(io::ErrorKind::UnexpectedEof.into());
    if !incoming.next(FRAME_LEN_MAX, &mut frame, &mut late)? {
        return Err(ended());
    }
    let knows_blobs = match frame.as_slice() {
        WITH_BLOBS => true,
        WITHOUT_BLOBS if storage.blobs().is_none() => false,
        WITHOUT_BLOBS => {
            return Err(FeedError::Refused(
                "it speaks zrs2.0, which has no blobs, and there are blobs here".into(),
            ));
        }
        other => {
            let what = format!("'{}' is no protocol of ZRS", UntrustedBytes(other));
            return Err(FeedError::Refused(what));
        }
    };
    if !incoming.next(FRAME_LEN_MAX, &mut frame, &mut late)? {
        return Err(ended());
    }
    let start = frame.as_slice().try_into();
    let start = start.map_err(|_| FeedError::Refused("its last transaction id has not 8 bytes".into()))?;
    Ok(Greeting { start: Tid(u64::from_be_bytes(start)), knows_blobs })
}

/// Whether a secondary whose last transaction is `start` can follow. A transaction that is not here may have been
/// removed by a pack if the next one was there at that pack.
pub fn check_start(storage: &dyn Storage, start: Tid) -> Result<(), FeedError> {
    if start == Tid::ZERO {
        return Ok(());
    }
    let refused = |why: &str| {
        Err(FeedError::Refused(format!(
            "its last transaction {start} {why}. It has another history than this server. To make it follow, stop it, \
             move its Data.fs, Data.fs.index and Data.fs.tmp away, and start it without a file or with a copy of the one \
             here"
        )))
    };
    let last = storage.last_transaction();
    if start > last {
        return refused(&format!("is later than the last one here, {last}"));
    }
    let first = storage.require_iteration()?.iterate(Some(start), None)?.next_transaction()?;
    match first {
        Some(first) if first.tid == start || first.status == b'p' => Ok(()),
        _ => refused("is not here, and no pack can have removed it"),
    }
}

/// Sends what is later than the greeting says, as soon as it is published, until `published` says that it is over.
pub fn feed(
    storage: &dyn Storage,
    stream: &Arc<Stream>,
    greeting: Greeting,
    published: &Published,
    connection: u64,
) -> Result<(), FeedError> {
    let mut feed = Feed {
        storage,
        out: Outgoing::new(Arc::clone(stream), greeting.start),
        knows_blobs: greeting.knows_blobs,
        block: vec![0; BLOCK_LEN],
    };
    let mut sent = greeting.start;
    while published.wait_for_later(storage, sent, connection) {
        // Without a start it is quicker than with the first possible one.
        let from = (sent != Tid::ZERO).then(|| Tid(sent.0.saturating_add(1)));
        let mut transactions = storage.require_iteration()?.iterate(from, None)?;
        while let Some(transaction) = transactions.next_transaction()? {
            let tid = transaction.tid;
            feed.send(transaction, &*transactions)?;
            sent = tid;
            published.sent(connection, sent);
        }
        feed.out.flush()?;
    }
    Ok(())
}

struct Feed<'a> {
    storage: &'a dyn Storage,
    out: Outgoing,
    knows_blobs: bool,
    block: Vec<u8>,
}

impl Feed<'_> {
    fn send(
        &mut self,
        transaction: TransactionRecord,
        transactions: &dyn TransactionIterator,
    ) -> Result<(), FeedError> {
        let TransactionRecord { tid, status, meta } = transaction;
        let is_plain = self.out.put(|out| Transaction { tid, status, meta }.put(out))?.is_ok();
        if !is_plain {
            log::warn!(
                target: PRIMARY_LOG,
                "transaction {tid}: its extension has instances, and is sent as an empty one"
            );
        }
        let mut records = transactions.records()?;
        while let Some(record) = records.next_record()? {
            self.send_record(&record)?;
        }
        let checksum = self.out.checksum();
        self.out.put(|out| put_commit(&checksum, out))?;
        Ok(())
    }

    fn send_record(&mut self, record: &DataRecord) -> Result<(), FeedError> {
        let DataRecord { oid, tid, data, data_txn } = record;
        let data = data.as_deref().unwrap_or_default();
        let blob = if self.knows_blobs && is_blob(data) { self.blob(record)? } else { None };
        // A secondary of Python makes no file for a blob in no frame, but one for a blob in an empty frame.
        let blocks = blob.as_ref().map(|blob| blob.len.div_ceil(BLOCK_LEN as u64).max(1));
        self.out.put(|out| RecordHead { oid: *oid, tid: *tid, data_txn: *data_txn, blocks }.put(out))?;
        self.out.put_bytes(data)?;
        match blob {
            Some(blob) => self.send_blob(&blob),
            None => Ok(()),
        }
    }

    /// The blob of a record; `None` if its file is lost.
    fn blob(&self, record: &DataRecord) -> Result<Option<BlobFile>, FeedError> {
        let Some(blobs) = self.storage.blobs() else { return Ok(None) };
        match blobs.load_blob(record.oid, record.tid) {
            Ok(blob) => Ok(Some(blob)),
            Err(StorageError::NoBlob { .. } | StorageError::PosKey(_)) => {
                log::error!(
                    target: PRIMARY_LOG,
                    "object 0x{} has no file of its blob of transaction {}: it is sent without",
                    record.oid,
                    record.tid
                );
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn send_blob(&mut self, blob: &BlobFile) -> Result<(), FeedError> {
        let mut pos = 0;
        loop {
            let len = (blob.len - pos).min(BLOCK_LEN as u64) as usize;
            let block = self.block.get_mut(..len).unwrap_or_default();
            let doing = || StorageError::io(format!("reading {}", blob.path.display()));
            if blob.read_at(block, pos).map_err(doing())? < len {
                return Err(doing()(io::ErrorKind::UnexpectedEof.into()).into());
            }
            self.out.put_bytes(block)?;
            pos += len as u64;
            if pos >= blob.len {
                return Ok(());
            }
        }
    }
}
