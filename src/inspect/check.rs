//! Whether all that is in a file agrees with all else in it.
//!
//! Checked are: the structure (lengths, statuses, ascending tids), for each record its tid, the pointer to the object's
//! previous record, the back-pointer, that its data is two pickles which can be read to their end, and that the
//! extension of each transaction is a pickled dict; with a blob directory, that each revision of a blob has its file. A
//! changed byte in a text inside a pickle, in a user or a description is found by nothing.

use super::data_file::DataFile;
use super::record::plain;
use super::walk::{Damage, Ending, EndingKind, FoundRecord, FoundTxn, Part, RecordPart, Walk};
use crate::base::ids::{Oid, Tid};
use crate::pickle::read::{Accept, read};
use crate::pickle::record::is_blob;
use crate::pickle::refs::references;
use crate::pickle::value::Node;
use crate::storage::file::index::Index;
use crate::storage::{BlobDir, Result, StorageError};

/// Something that is wrong.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// Its position in the file.
    pub pos: u64,
    pub tid: Option<Tid>,
    pub oid: Option<Oid>,
    pub what: String,
    pub kind: FindingKind,
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FindingKind {
    /// The file of the database.
    Damage,
    /// The file of a blob, which is missing or cannot be read. The file of the database may be whole.
    Blob,
}

/// What has been checked.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Checked {
    pub transactions: u64,
    pub records: u64,
    /// Records of blobs, among them.
    pub blobs: u64,
    /// Bytes at the end that are not finished yet.
    pub unfinished: u64,
}

/// What to check.
#[derive(Clone, Copy, Default)]
pub struct CheckOptions<'a> {
    /// Data of earlier transactions is not read.
    pub since: Tid,
    pub blobs: Option<&'a BlobDir>,
    /// A server has the file open: its end may be a transaction that is being written.
    pub is_in_use: bool,
}

/// The check of a file, part by part.
pub struct Check<'a> {
    file: &'a DataFile,
    walk: Walk<'a>,
    options: CheckOptions<'a>,
    /// The newest record of each object, up to the transaction before.
    index: Index,
    last_tid: Tid,
    checked: Checked,
    /// Oid, position and length of data of each record of a transaction.
    records: Vec<(Oid, u64, u64)>,
    oids: Vec<Oid>,
    findings: Vec<Finding>,
}

impl<'a> Check<'a> {
    pub fn new(file: &'a DataFile, options: CheckOptions<'a>) -> Check<'a> {
        Check {
            file,
            walk: Walk::new(file),
            options,
            index: Index::new(),
            last_tid: Tid::ZERO,
            checked: Checked::default(),
            records: Vec::new(),
            oids: Vec::new(),
            findings: Vec::new(),
        }
    }

    /// Checks the next part of the file; `None` at its end. Errors: `Io` alone.
    pub fn next_findings(&mut self) -> Result<Option<Vec<Finding>>> {
        let Some(part) = self.walk.next_part()? else { return Ok(None) };
        match part {
            Part::Transaction(txn) => self.transaction(&txn)?,
            Part::Damage(damage) => self.damage(&damage, None),
            Part::Ending(ending) => self.ending(&ending),
        }
        Ok(Some(std::mem::take(&mut self.findings)))
    }

    /// Position up to which the file has been checked.
    pub fn pos(&self) -> u64 {
        self.walk.pos()
    }

    pub fn checked(&self) -> Checked {
        self.checked
    }

    /// Number of objects.
    pub fn objects(&self) -> u64 {
        self.index.len()
    }

    fn find(&mut self, pos: u64, tid: Option<Tid>, oid: Option<Oid>, what: impl Into<String>) {
        self.findings.push(Finding { pos, tid, oid, what: what.into(), kind: FindingKind::Damage });
    }

    fn damage(&mut self, damage: &Damage, tid: Option<Tid>) {
        let Damage { pos, end, what } = damage;
        self.find(*pos, tid, None, format!("{what}; nothing can be read up to {end}"));
    }

    fn ending(&mut self, ending: &Ending) {
        self.checked.unfinished = self.file.end() - ending.pos;
        if ending.kind != EndingKind::Zeros && !self.options.is_in_use {
            self.find(ending.pos, None, None, ending.kind.text());
        }
    }

    fn transaction(&mut self, txn: &FoundTxn) -> Result<()> {
        let FoundTxn { pos, header, wrong_len } = *txn;
        let tid = Some(header.tid);
        self.checked.transactions += 1;
        if header.tid <= self.last_tid {
            let what =
                format!("its tid is not later than the one of the transaction before, {}", self.last_tid);
            self.find(pos, tid, None, what);
        }
        self.last_tid = header.tid;
        if let Some(wrong) = wrong_len {
            self.find(pos, tid, None, wrong.text());
        }
        if !header.status_is_known() {
            let what = format!("its status '{}' is unknown", [header.status].escape_ascii());
            self.find(pos, tid, None, what);
        }
        if header.status == b'u' {
            return Ok(());
        }
        let is_read = header.tid >= self.options.since;
        if is_read && header.extension_len > 0 {
            let extension = self.walk.meta(txn)?.extension;
            if let Err(what) = is_extension(&extension) {
                self.find(pos, tid, None, what);
            }
        }
        let mut cursor = self.walk.records(txn);
        let mut apart = Vec::new();
        while let Some(part) = self.walk.next_record(&mut cursor)? {
            match part {
                RecordPart::Damage(damage) => self.damage(&damage, tid),
                RecordPart::Record(record) => self.record(txn, &record, is_read, &mut apart)?,
            }
        }
        for (oid, pos, len) in self.records.drain(..) {
            self.index.insert(oid, pos, len);
        }
        Ok(())
    }

    fn record(
        &mut self,
        txn: &FoundTxn,
        record: &FoundRecord,
        is_read: bool,
        apart: &mut Vec<u8>,
    ) -> Result<()> {
        let FoundRecord { pos, header, back } = *record;
        let (tid, oid) = (Some(header.tid), Some(header.oid));
        self.checked.records += 1;
        if header.tid != txn.header.tid {
            self.find(
                pos,
                tid,
                oid,
                format!("the record has another tid than its transaction, {}", txn.header.tid),
            );
        }
        let prev = self.index.pos(header.oid);
        // A pack writes 0.
        if header.prev != prev && (header.prev != 0 || txn.header.status != b'p') {
            let what = format!(
                "the pointer to the previous record of the object is {}, it is at {prev}",
                header.prev
            );
            self.find(pos, tid, oid, what);
        }
        self.records.push((header.oid, pos, header.data_len));
        if header.data_len == 0 {
            return if back == 0 { Ok(()) } else { self.back_pointer(record, is_read, apart) };
        }
        if !is_read {
            return Ok(());
        }
        let data = self.walk.data(record, apart)?;
        let result = plain(data).and_then(|data| {
            self.oids.clear();
            references(&data, &mut self.oids).map(|()| is_blob(&data))
        });
        match result {
            Ok(false) => Ok(()),
            Ok(true) => self.blob(record),
            Err(what) => {
                self.find(pos, tid, oid, format!("the record of the object cannot be read: {what}"));
                Ok(())
            }
        }
    }

    fn back_pointer(&mut self, record: &FoundRecord, is_read: bool, data: &mut Vec<u8>) -> Result<()> {
        let FoundRecord { pos, header, back } = *record;
        let result = match (is_read, self.options.blobs) {
            (true, Some(_)) => {
                self.file.data_of(pos, &header, back, data).map(|at| at.is_some() && is_blob(data))
            }
            _ => self.file.behind(pos, header.oid, back).map(|_| false),
        };
        match result {
            Ok(true) => self.blob(record),
            Ok(false) => Ok(()),
            Err(StorageError::Corrupt { pos: at, what, .. }) => {
                let what = format!("the back-pointer {back} leads to no data: at {at}: {what}");
                self.find(pos, Some(header.tid), Some(header.oid), what);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn blob(&mut self, record: &FoundRecord) -> Result<()> {
        let FoundRecord { pos, header, .. } = *record;
        self.checked.blobs += 1;
        let Some(blobs) = self.options.blobs else { return Ok(()) };
        let what = match blobs.load(header.oid, header.tid) {
            Ok(_) => return Ok(()),
            Err(StorageError::NoBlob { path, .. }) => format!("the blob has no file {}", path.display()),
            Err(error) => error.to_string(),
        };
        let (tid, oid) = (Some(header.tid), Some(header.oid));
        self.findings.push(Finding { pos, tid, oid, what, kind: FindingKind::Blob });
        Ok(())
    }
}

/// Whether it is a pickled dict and nothing else.
fn is_extension(bytes: &[u8]) -> std::result::Result<(), String> {
    let tree = read(bytes, Accept { persistent: false, ..Accept::RECORD })
        .map_err(|error| format!("the extension cannot be read: {error}"))?;
    match tree.node(tree.root()) {
        Node::Dict(_) if tree.len() == bytes.len() => Ok(()),
        Node::Dict(_) => Err(format!("the extension ends after {} of {} bytes", tree.len(), bytes.len())),
        _ => Err("the extension is no dict".into()),
    }
}
