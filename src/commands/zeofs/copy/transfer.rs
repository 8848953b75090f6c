//! Transactions from one storage to another one, with their tids.

use std::io;
use std::sync::Arc;

use super::ends::End;
use super::oid_repr;
use crate::base::ids::{Oid, Tid};
use crate::commands::subcommand::Trouble;
use crate::commands::zeofs::commit::Committer;
use crate::inspect::record::plain;
use crate::pickle::record::is_blob;
use crate::storage::blob::StagedBlob;
use crate::storage::file::FileFormat;
use crate::storage::{
    BlobDir, BulkWriter, DataRecord, Staged, StorageError, TransactionIterator, TransactionRecord,
};

/// Bytes of a transaction that are kept in memory; more of it is in a temporary file.
const MEMORY_MAX: usize = 32 << 20;
/// Bytes of one read of a blob.
const BLOB_READ: usize = 256 << 10;
/// Blobs without file that are named.
pub(super) const MISSING_MAX: usize = 20;

/// What was copied.
#[derive(Debug, Default)]
pub(super) struct Copied {
    pub(super) transactions: u64,
    pub(super) records: u64,
    pub(super) blobs: u64,
    /// Blobs whose file the source does not have.
    pub(super) missing: u64,
    /// Of them some.
    pub(super) missing_named: Vec<(Oid, Tid)>,
    pub(super) last: Option<Tid>,
}

/// Copies the transactions behind `last`.
pub(super) struct Transfer<'a> {
    from: &'a End,
    to: &'a End,
    sink: Sink<'a>,
    transactions: Box<dyn TransactionIterator>,
    pub(super) copied: Copied,
}

/// Where transactions go.
enum Sink<'a> {
    /// Many at once.
    Bulk(Box<dyn BulkWriter + 'a>),
    /// One after the other.
    Single(Committer),
}

impl<'a> Transfer<'a> {
    pub(super) fn new(from: &'a End, to: &'a End, last: Tid) -> Result<Transfer<'a>, Trouble> {
        let start = (last != Tid::ZERO).then(|| Tid(last.0.saturating_add(1)));
        let transactions = from.storage.require_iteration()?.iterate(start, None)?;
        to.storage.sync_later();
        let sink = match to.storage.bulk() {
            Some(bulk) => Sink::Bulk(bulk.begin()?),
            None => Sink::Single(Committer::new(Arc::clone(&to.storage))),
        };
        Ok(Transfer { from, to, sink, transactions, copied: Copied::default() })
    }

    /// Copies one transaction. False: there are no more.
    pub(super) fn step(&mut self) -> Result<bool, Trouble> {
        let Some(txn) = self.transactions.next_transaction()? else { return Ok(false) };
        let tid = txn.tid;
        let staged = self.stage(txn)?;
        let name = &self.to.name;
        match &mut self.sink {
            Sink::Bulk(bulk) => bulk.add(staged)?,
            Sink::Single(committer) => match committer.commit(staged) {
                Ok(found) if found == tid => {}
                Ok(found) => {
                    let what = format!("{name}: the transaction {tid} got the tid {found}");
                    return Err(Trouble::Failed(what));
                }
                Err(error) => {
                    let what = format!("{name}: the transaction {tid} cannot be copied: {error}");
                    return Err(Trouble::Failed(what));
                }
            },
        }
        self.copied.transactions += 1;
        self.copied.last = Some(tid);
        Ok(true)
    }

    /// Everything that was copied is published after this. In a file it is durable when the storage is closed.
    pub(super) fn complete(self) -> Result<Copied, Trouble> {
        if let Sink::Bulk(bulk) = self.sink {
            bulk.complete()?;
        }
        Ok(self.copied)
    }

    fn stage(&mut self, txn: TransactionRecord) -> Result<Staged, Trouble> {
        let mut staged = Staged::new(txn.meta, Some(txn.tid), txn.status, MEMORY_MAX);
        let mut is_python2 = self.from.format.map(|format| format == FileFormat::FS21);
        let mut records = self.transactions.records()?;
        while let Some(record) = records.next_record()? {
            let DataRecord { oid, tid, data, data_txn } = &record;
            let buffering = |error: io::Error| {
                Trouble::Failed(format!("buffering a transaction in the temporary directory: {error}"))
            };
            staged.restore(*oid, *tid, data.as_deref(), *data_txn).map_err(buffering)?;
            self.copied.records += 1;
            is_python2 = is_python2.or(data.as_deref().map(is_of_python2));
            if data.as_deref().is_some_and(is_blob)
                && let Some(blob) = self.blob(*oid, *tid)?
            {
                staged.add_blob(*oid, blob);
                self.copied.blobs += 1;
            }
        }
        staged.set_python2(is_python2.unwrap_or(false));
        Ok(staged)
    }

    /// A copy of the blob; `None`: the source has no file of it.
    fn blob(&mut self, oid: Oid, tid: Tid) -> Result<Option<StagedBlob>, Trouble> {
        let Some(blobs) = self.from.storage.blobs() else {
            return Err(Trouble::Failed(format!(
                "{} has blobs, such as {} in {tid}: give its blob directory (--blob-dir)",
                self.from.name,
                oid_repr(oid)
            )));
        };
        let source = match blobs.load_blob(oid, tid) {
            Ok(source) => source,
            Err(StorageError::NoBlob { .. } | StorageError::PosKey(_)) => {
                self.copied.missing += 1;
                if self.copied.missing_named.len() < MISSING_MAX {
                    self.copied.missing_named.push((oid, tid));
                }
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let mut upload = self.target_blobs()?.begin()?;
        let failed =
            |error: io::Error| Trouble::Failed(format!("copying {}: {error}", source.path.display()));
        let mut buffer = vec![0; BLOB_READ];
        let mut pos = 0;
        loop {
            let len = source.read_at(&mut buffer, pos).map_err(failed)?;
            let Some(part) = buffer.get(..len).filter(|part| !part.is_empty()) else { break };
            upload.write(part).map_err(failed)?;
            pos += len as u64;
        }
        if pos != source.len {
            return Err(failed(io::Error::other("its length has changed")));
        }
        Ok(Some(upload.end(oid)?))
    }

    fn target_blobs(&self) -> Result<Arc<BlobDir>, Trouble> {
        let name = &self.to.name;
        if self.to.is_server {
            let what = "is another server's storage: the protocol has no copies of blobs; copy to a file";
            return Err(Trouble::Failed(format!("{name} {what}")));
        }
        let dir = self.to.storage.blobs().and_then(|blobs| blobs.dir());
        dir.cloned().ok_or_else(|| {
            Trouble::Failed(format!(
                "there are blobs, and {name} keeps none: give a directory (--to-blob-dir)"
            ))
        })
    }
}

/// Whether Python 2 has written the record: Python 3 has always used protocol 3 or later.
fn is_of_python2(record: &[u8]) -> bool {
    plain(record).is_ok_and(|record| !matches!(&*record, [0x80, 3..=u8::MAX, ..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_says_which_python_has_written_it() {
        for (record, expected) in [
            (&b"\x80\x03cpersistent.mapping\nPersistentMapping\nq\x00.\x80\x03}q\x01."[..], false),
            (b"\x80\x04\x8c\x01mq\x00\x8c\x01Cq\x01\x93.}.", false),
            (b"cpersistent.mapping\nPersistentMapping\nq\x01.}q\x02.", true),
            (b"(cpersistent.mapping\nPersistentMapping\nq\x01Ntq\x02.}q\x03.", true),
            (b"\x80\x02cm\nC\nq\x01.\x80\x02}q\x02.", true),
        ] {
            assert_eq!(is_of_python2(record), expected, "{}", record.escape_ascii());
        }
    }
}
