//! The transactions of a server in a temporary file: a FileStorage that has no name, and is gone when it is closed.
//!
//! Pointers to previous records are made as a FileStorage makes them. A record that has its data from an earlier one
//! gets a back-pointer to it, if that has the same data; otherwise the data itself.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::connection::Served;
use crate::base::ids::{Oid, Tid};
use crate::commands::progress::Progress;
use crate::commands::subcommand::Trouble;
use crate::inspect::data_file::DataFile;
use crate::storage::file::FileFormat;
use crate::storage::file::format::{DATA_HEADER_LEN, DataHeader, POS_MAX, TxnHeader};
use crate::storage::file::index::Index;
use crate::storage::file::pack::out::Out;
use crate::storage::media::{Identity, MediaFile};
use crate::storage::{DataRecord, StorageError, TransactionRecord};

/// Earlier revisions that are looked at for back-pointers, in all. A server that has more of them at long distances
/// gets copies of the data instead.
const STEPS_MAX: u64 = 10_000_000;

/// Copies the transactions from `since` to `until` into a temporary file.
pub fn fetch(served: &Served<'_>, since: Tid, until: Tid) -> Result<DataFile, Trouble> {
    let failed =
        |error| Trouble::Failed(format!("making a file in the temporary directory (TMPDIR): {error}"));
    let file: Arc<dyn MediaFile> = Arc::new(Temporary(tempfile::tempfile().map_err(failed)?));
    let doing = format!("copying {} to the temporary directory (TMPDIR)", served.name);
    let mut copy = Copy { out: Out::new(file, doing), index: Index::new(), steps: 0, objects: Vec::new() };
    // The records are the same for Python 2 and 3.
    copy.out.push(&FileFormat::FS30.magic())?;
    let mut progress = Progress::on_terminal(served.name, None, true);
    let mut transactions = served.transactions(since, until)?;
    let mut count = 0;
    while let Some(txn) = transactions.next_transaction()? {
        let tid = txn.tid;
        let pos = copy.begin(served.name, &txn)?;
        let mut records = transactions.records()?;
        while let Some(record) = records.next_record()? {
            copy.record(pos, record)?;
        }
        copy.end(pos, &txn)?;
        count += 1;
        if copy.out.end() > POS_MAX {
            return Err(Trouble::Failed(format!(
                "{}: more than 256 TiB up to the transaction {tid}",
                served.name
            )));
        }
        if let Some(progress) = &mut progress {
            progress.show_count(count, "transactions fetched");
        }
    }
    if let Some(progress) = &mut progress {
        progress.end();
    }
    let (file, _) = copy.out.finished()?;
    Ok(DataFile::of(Path::new(served.name), file)?)
}

/// The file while it is written.
struct Copy {
    out: Out,
    index: Index,
    /// Earlier revisions that were looked at.
    steps: u64,
    /// Of the present transaction: oid, position, length of the data.
    objects: Vec<(Oid, u64, u64)>,
}

impl Copy {
    /// Begins a transaction, and returns its position.
    fn begin(&mut self, name: &str, txn: &TransactionRecord) -> Result<u64, Trouble> {
        let pos = self.out.end();
        let Some(header) = header_of(txn, 0) else {
            return Err(Trouble::Failed(format!(
                "{name}: transaction {}: its user, description or extension is longer than the 65,535 bytes that a \
                 Data.fs can have; zeofs dump and tail show it",
                txn.tid
            )));
        };
        self.out.push(&header.encode())?;
        for text in [&txn.meta.user, &txn.meta.description, &txn.meta.extension] {
            self.out.push(text)?;
        }
        Ok(pos)
    }

    fn record(&mut self, tpos: u64, record: DataRecord) -> Result<(), StorageError> {
        let DataRecord { oid, tid, data, data_txn } = record;
        let data = data.unwrap_or_default();
        let prev = self.index.pos(oid);
        let back = match data_txn {
            Some(data_txn) if !data.is_empty() => self.back_pointer(prev, data_txn, &data)?,
            _ => 0,
        };
        let here = self.out.end();
        let data_len = if back == 0 { data.len() as u64 } else { 0 };
        self.out.push(&DataHeader { oid, tid, prev, tloc: tpos, version_len: 0, data_len }.encode())?;
        match data_len {
            0 => self.out.push(&back.to_be_bytes())?,
            _ => self.out.push(&data)?,
        }
        self.objects.push((oid, here, data_len));
        Ok(())
    }

    /// The record that transaction `tid` has written, of `prev` and those before it, if it has this data; otherwise
    /// zero.
    fn back_pointer(&mut self, prev: u64, tid: Tid, data: &[u8]) -> Result<u64, StorageError> {
        let mut pos = prev;
        while pos != 0 && self.steps < STEPS_MAX {
            self.steps += 1;
            let header = self.out.record(pos)?;
            if header.tid == tid {
                return Ok(if self.has_data(pos, &header, data)? { pos } else { 0 });
            }
            if header.tid < tid {
                break;
            }
            pos = header.prev;
        }
        Ok(0)
    }

    fn has_data(&mut self, pos: u64, header: &DataHeader, data: &[u8]) -> Result<bool, StorageError> {
        if header.data_len != data.len() as u64 {
            return Ok(false);
        }
        let (file, _) = self.out.finished()?;
        let mut found = vec![0; data.len()];
        let read = file.read_at(&mut found, pos + DATA_HEADER_LEN as u64);
        let len = read.map_err(StorageError::io("reading the copy in the temporary directory"))?;
        Ok(len == data.len() && found == data)
    }

    fn end(&mut self, pos: u64, txn: &TransactionRecord) -> Result<(), StorageError> {
        let len = self.out.end() - pos;
        if let Some(header) = header_of(txn, len) {
            self.out.patch(pos, &header.encode())?;
        }
        self.out.push(&len.to_be_bytes())?;
        // Not earlier: two records of one object both point to the revision before the transaction.
        for (oid, pos, len) in self.objects.drain(..) {
            self.index.insert(oid, pos, len);
        }
        Ok(())
    }
}

/// `None`: a text is too long.
fn header_of(txn: &TransactionRecord, len: u64) -> Option<TxnHeader> {
    let text_len = |text: &[u8]| u16::try_from(text.len()).ok();
    Some(TxnHeader {
        tid: txn.tid,
        len,
        status: txn.status,
        user_len: text_len(&txn.meta.user)?,
        description_len: text_len(&txn.meta.description)?,
        extension_len: text_len(&txn.meta.extension)?,
    })
}

/// A file that is not needed after a crash: it is not synced.
struct Temporary(File);

impl MediaFile for Temporary {
    fn read_at(&self, buf: &mut [u8], pos: u64) -> io::Result<usize> {
        MediaFile::read_at(&self.0, buf, pos)
    }

    fn write_at(&self, buf: &[u8], pos: u64) -> io::Result<()> {
        MediaFile::write_at(&self.0, buf, pos)
    }

    fn len(&self) -> io::Result<u64> {
        MediaFile::len(&self.0)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        MediaFile::set_len(&self.0, len)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn reserve(&self, pos: u64, len: u64) -> io::Result<bool> {
        MediaFile::reserve(&self.0, pos, len)
    }

    fn identity(&self) -> io::Result<Identity> {
        self.0.identity()
    }
}
