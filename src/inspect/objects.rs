//! The newest record of each object, and references between them.
//!
//! The index has 8 to 16 bytes for each object. Everything else is read again from the file, in its order.

use std::collections::HashSet;

use super::data_file::DataFile;
use super::record::plain;
use super::walk::{FoundRecord, FoundTxn, Part, RecordPart, Walk};
use crate::base::ids::{Oid, Tid};
use crate::pickle::refs::references;
use crate::storage::file::format::{BACK_LEN, DATA_HEADER_LEN, DataHeader};
use crate::storage::file::index::{Index, MARKABLE_END};
use crate::storage::{Result, StorageError};

/// Why an object cannot be loaded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NotThere {
    Missing,
    /// Deleted, or its creation undone.
    Gone,
    /// Its back-pointer leads to no data.
    Unreadable,
}

/// The newest record of each object.
pub struct Newest {
    /// Objects that are gone are marked.
    index: Index,
    unreadable: HashSet<Oid>,
}

impl Newest {
    /// Reads the headers of all records. `progress` gets the position that was reached. Damaged parts are left out.
    pub fn read(file: &DataFile, progress: &mut dyn FnMut(u64)) -> Result<Newest> {
        if file.end() > MARKABLE_END {
            return Err(StorageError::Unsupported("files of more than 128 TiB cannot be searched".into()));
        }
        let mut newest = Newest { index: Index::new(), unreadable: HashSet::new() };
        let mut records = RecordWalk::new(file);
        while let Some((_, record)) = records.next_record()? {
            newest.add(file, &record)?;
            progress(records.pos());
        }
        Ok(newest)
    }

    fn add(&mut self, file: &DataFile, record: &FoundRecord) -> Result<()> {
        let FoundRecord { pos, header, back } = *record;
        let oid = header.oid;
        if !self.unreadable.is_empty() {
            self.unreadable.remove(&oid);
        }
        if header.data_len > 0 {
            self.index.insert(oid, pos, header.data_len);
            return Ok(());
        }
        let place = match back {
            0 => Ok(None),
            _ => file.behind(pos, oid, back).and_then(|_| file.log().follow(oid, back)),
        };
        match place {
            Ok(Some(_)) => _ = self.index.insert(oid, pos, 0),
            Ok(None) => self.index.insert_marked(oid, pos),
            Err(StorageError::Corrupt { .. }) => {
                self.index.insert(oid, pos, 0);
                self.unreadable.insert(oid);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Whether this is the newest record of its object, with data or without.
    pub fn is_newest(&self, record: &FoundRecord) -> bool {
        self.index.marked_pos(record.header.oid).1 == record.pos
    }

    /// Number of objects, those that are gone included.
    pub fn len(&self) -> u64 {
        self.index.len()
    }

    /// The position of the newest record of an object; zero if there is none.
    pub fn pos(&self, oid: Oid) -> u64 {
        self.index.marked_pos(oid).1
    }

    /// The newest record of an object, also of one that is gone. `None`: there is none.
    ///
    /// Errors: `Io`, or `Corrupt` if the file has become shorter.
    pub fn record(&self, file: &DataFile, oid: Oid) -> Result<Option<FoundRecord>> {
        let pos @ 1.. = self.pos(oid) else { return Ok(None) };
        // Its pointers were compared when it was found, as far as that is necessary.
        let mut bytes = [0; DATA_HEADER_LEN + BACK_LEN];
        file.log().read_exact(&mut bytes, pos)?;
        let (Some(header), Some(back)) = (bytes.first_chunk(), bytes.last_chunk()) else { return Ok(None) };
        let header = DataHeader::decode(header);
        let back = if header.data_len == 0 { u64::from_be_bytes(*back) } else { 0 };
        Ok(Some(FoundRecord { pos, header, back }))
    }

    /// Reads the data of an object and returns its tid. `None`: it is not there. `out` is emptied first.
    ///
    /// Errors: `Io`, or `Corrupt` if it cannot be read.
    pub fn load(&self, file: &DataFile, oid: Oid, out: &mut Vec<u8>) -> Result<Option<Tid>> {
        out.clear();
        let Some(record) = self.record(file, oid)? else { return Ok(None) };
        let found = file.data_of(record.pos, &record.header, record.back, out)?;
        Ok(found.map(|_| record.header.tid))
    }

    /// Whether this is the newest record of its object, and has data.
    pub fn is_current(&self, record: &FoundRecord) -> bool {
        let oid = record.header.oid;
        self.index.marked_pos(oid) == (false, record.pos) && !self.unreadable.contains(&oid)
    }

    /// The reason why an object cannot be loaded; `None` if it can.
    pub fn not_there(&self, oid: Oid) -> Option<NotThere> {
        match self.index.marked_pos(oid) {
            (_, 0) => Some(NotThere::Missing),
            (true, _) => Some(NotThere::Gone),
            _ if self.unreadable.contains(&oid) => Some(NotThere::Unreadable),
            _ => None,
        }
    }
}

/// All records that can be read, in the order of the file.
pub struct RecordWalk<'a> {
    file: &'a DataFile,
    walk: Walk<'a>,
    txn: Option<(FoundTxn, super::walk::RecordCursor)>,
    data: Vec<u8>,
}

impl<'a> RecordWalk<'a> {
    pub fn new(file: &'a DataFile) -> RecordWalk<'a> {
        RecordWalk { file, walk: Walk::new(file), txn: None, data: Vec::new() }
    }

    /// The position that was reached.
    pub fn pos(&self) -> u64 {
        self.walk.pos()
    }

    /// The next record, and its transaction.
    pub fn next_record(&mut self) -> Result<Option<(FoundTxn, FoundRecord)>> {
        loop {
            if let Some((txn, cursor)) = &mut self.txn {
                match self.walk.next_record(cursor)? {
                    Some(RecordPart::Record(record)) => return Ok(Some((*txn, record))),
                    Some(RecordPart::Damage(_)) => continue,
                    None => self.txn = None,
                }
            }
            match self.walk.next_part()? {
                None => return Ok(None),
                Some(Part::Transaction(txn)) if txn.header.status != b'u' => {
                    self.txn = Some((txn, self.walk.records(&txn)));
                }
                Some(_) => {}
            }
        }
    }

    /// The data of a record, as it is in the file: its own, or what its back-pointer leads to. Empty if there is none.
    ///
    /// Errors: `Io`, or `Corrupt` if the back-pointer leads to no data.
    pub fn data(&mut self, record: &FoundRecord) -> Result<&[u8]> {
        if record.header.data_len > 0 {
            return self.walk.data(record, &mut self.data);
        }
        self.file.data_of(record.pos, &record.header, record.back, &mut self.data)?;
        Ok(&self.data)
    }

    /// Appends the oids that a record refers to. The inner error says why the record cannot be read.
    pub fn references(
        &mut self,
        record: &FoundRecord,
        oids: &mut Vec<Oid>,
    ) -> Result<std::result::Result<(), String>> {
        let data = self.data(record)?;
        Ok(plain(data).and_then(|data| references(&data, oids)))
    }
}
