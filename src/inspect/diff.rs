//! Two files beside each other: their transactions, and the newest records of their objects.
//!
//! Transactions are the same if they have the same tid, user, description and extension, and the same records with the
//! same data in the same order. How the data is stored does not matter (a pack replaces back-pointers by data), nor
//! that a transaction is marked as packed. An object that was deleted, or whose creation was undone, is as one that
//! never was: a pack takes it out.
//!
//! Tids are expected to ascend, as they do in each whole file.

use super::data_file::DataFile;
use super::objects::{Newest, NotThere, RecordWalk};
use super::show;
use super::walk::{Damage, FoundRecord, FoundTxn, Part, RecordPart, Walk};
use crate::base::ids::{Oid, Tid};
use crate::storage::{Result, StorageError};

/// Objects that are named of a transaction.
const NAMED_MAX: usize = 5;

/// One of the two files.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    A,
    B,
}

/// A step through both files.
#[derive(Debug)]
pub enum HistoryStep {
    Same,
    Only(Side, FoundTxn),
    /// A transaction of both, as it is in the first file.
    Differs(FoundTxn, TxnDifference),
    Damage(Side, Damage),
}

/// What differs between the transactions of one tid.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TxnDifference {
    pub user: bool,
    pub description: bool,
    pub extension: bool,
    /// Records whose data differs; of them some.
    pub records: u64,
    pub oids: Vec<Oid>,
    /// From this record on there are not the same objects.
    pub other_objects_from: Option<Oid>,
}

impl TxnDifference {
    fn is_none(&self) -> bool {
        *self == TxnDifference::default()
    }
}

/// Goes through the transactions of both files.
pub struct HistoryDiff<'a> {
    files: [&'a DataFile; 2],
    walks: [Walk<'a>; 2],
    ahead: [Option<Part>; 2],
    /// Extensions are the same if their values are.
    by_values: bool,
}

impl<'a> HistoryDiff<'a> {
    /// `by_values`: extensions are the same if their values are, however these were pickled. For transactions that a
    /// server has sent, which are pickled anew.
    pub fn new(a: &'a DataFile, b: &'a DataFile, by_values: bool) -> HistoryDiff<'a> {
        HistoryDiff { files: [a, b], walks: [Walk::new(a), Walk::new(b)], ahead: [None, None], by_values }
    }

    fn is_same_extension(&self, a: &[u8], b: &[u8]) -> bool {
        a == b || self.by_values && show::extension(a) == show::extension(b)
    }

    /// The positions that were reached.
    pub fn pos(&self) -> [u64; 2] {
        self.walks.each_ref().map(Walk::pos)
    }

    /// The next step; `None` at the end of both files. Bytes at the end of a file that are no transaction are passed.
    ///
    /// Errors: `Io` alone.
    pub fn next_step(&mut self) -> Result<Option<HistoryStep>> {
        for (walk, ahead) in self.walks.iter_mut().zip(&mut self.ahead) {
            while ahead.is_none()
                && let Some(part) = walk.next_part()?
            {
                *ahead = Some(part).filter(|part| !matches!(part, Part::Ending(_)));
            }
        }
        let [a, b] = &mut self.ahead;
        let step = match (a.take(), b.take()) {
            (Some(Part::Damage(damage)), other) => {
                *b = other;
                HistoryStep::Damage(Side::A, damage)
            }
            (other, Some(Part::Damage(damage))) => {
                *a = other;
                HistoryStep::Damage(Side::B, damage)
            }
            (Some(Part::Transaction(x)), Some(Part::Transaction(y))) => match x.header.tid.cmp(&y.header.tid)
            {
                std::cmp::Ordering::Less => {
                    *b = Some(Part::Transaction(y));
                    HistoryStep::Only(Side::A, x)
                }
                std::cmp::Ordering::Greater => {
                    *a = Some(Part::Transaction(x));
                    HistoryStep::Only(Side::B, y)
                }
                std::cmp::Ordering::Equal => {
                    let difference = self.compare(&x, &y)?;
                    if difference.is_none() { HistoryStep::Same } else { HistoryStep::Differs(x, difference) }
                }
            },
            (Some(Part::Transaction(x)), _) => HistoryStep::Only(Side::A, x),
            (_, Some(Part::Transaction(y))) => HistoryStep::Only(Side::B, y),
            // Endings are not kept.
            _ => return Ok(None),
        };
        Ok(Some(step))
    }

    fn compare(&mut self, x: &FoundTxn, y: &FoundTxn) -> Result<TxnDifference> {
        // Beside the walks, which go on behind these transactions.
        let [mut a, mut b] = [Walk::from(self.files[0], x.pos), Walk::from(self.files[1], y.pos)];
        let (a_meta, b_meta) = (a.meta(x)?, b.meta(y)?);
        let mut difference = TxnDifference {
            user: a_meta.user != b_meta.user,
            description: a_meta.description != b_meta.description,
            extension: !self.is_same_extension(&a_meta.extension, &b_meta.extension),
            ..TxnDifference::default()
        };
        let (mut a_cursor, mut b_cursor) = (a.records(x), b.records(y));
        let mut buffers = Buffers::default();
        loop {
            let (x, y) = (next(&mut a, &mut a_cursor)?, next(&mut b, &mut b_cursor)?);
            match (x, y) {
                (None, None) => return Ok(difference),
                (Some(x), Some(y)) if x.header.oid == y.header.oid => {
                    if x.header.tid != y.header.tid
                        || !buffers.are_same(self.files, [&x, &y], [&mut a, &mut b])?
                    {
                        difference.records += 1;
                        if difference.oids.len() < NAMED_MAX {
                            difference.oids.push(x.header.oid);
                        }
                    }
                }
                (Some(record), _) | (None, Some(record)) => {
                    difference.other_objects_from = Some(record.header.oid);
                    return Ok(difference);
                }
            }
        }
    }
}

fn next(walk: &mut Walk<'_>, cursor: &mut super::walk::RecordCursor) -> Result<Option<FoundRecord>> {
    while let Some(part) = walk.next_record(cursor)? {
        if let RecordPart::Record(record) = part {
            return Ok(Some(record));
        }
    }
    Ok(None)
}

/// Memory for the data of two records.
#[derive(Default)]
struct Buffers {
    a: Vec<u8>,
    b: Vec<u8>,
}

impl Buffers {
    /// Whether two records have the same data. One whose data cannot be read differs from all.
    fn are_same(
        &mut self,
        files: [&DataFile; 2],
        records: [&FoundRecord; 2],
        walks: [&mut Walk<'_>; 2],
    ) -> Result<bool> {
        let [x, y] = records;
        let lens = [x.header.data_len, y.header.data_len];
        if !lens.contains(&0) {
            let [a, b] = walks;
            return Ok(lens[0] == lens[1] && a.data(x, &mut self.a)? == b.data(y, &mut self.b)?);
        }
        let a = data_of(files[0], x, &mut self.a)?;
        let b = data_of(files[1], y, &mut self.b)?;
        Ok(matches!((a, b), (Some(a), Some(b)) if a == b) && self.a == self.b)
    }
}

/// Whether the record has data, which is in `out` then; `None`: it cannot be read.
fn data_of(file: &DataFile, record: &FoundRecord, out: &mut Vec<u8>) -> Result<Option<bool>> {
    match file.data_of(record.pos, &record.header, record.back, out) {
        Ok(found) => Ok(Some(found.is_some())),
        Err(StorageError::Corrupt { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// An object whose newest records differ.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ObjectDifference {
    pub oid: Oid,
    /// The transaction of the newest record in each file; `None`: the object is not there.
    pub tids: [Option<Tid>; 2],
    /// Only the transactions differ.
    pub same_data: bool,
    /// In one of the files the record cannot be read.
    pub unreadable: bool,
}

/// Goes through the objects of both files.
pub struct ObjectDiff<'a> {
    files: [&'a DataFile; 2],
    newest: [&'a Newest; 2],
    records: RecordWalk<'a>,
    /// The file whose records are read: first all of the first one, then those of the second one that it does not have.
    reading: Side,
    buffers: Buffers,
    /// Objects that are the same.
    pub same: u64,
}

impl<'a> ObjectDiff<'a> {
    /// `newest`: those of both files.
    pub fn new(files: [&'a DataFile; 2], newest: [&'a Newest; 2]) -> ObjectDiff<'a> {
        let records = RecordWalk::new(files[0]);
        ObjectDiff { files, newest, records, reading: Side::A, buffers: Buffers::default(), same: 0 }
    }

    /// The file that is read, and the position that was reached.
    pub fn pos(&self) -> (Side, u64) {
        (self.reading, self.records.pos())
    }

    /// The next object that differs; `None` behind the last one.
    pub fn next_difference(&mut self) -> Result<Option<ObjectDifference>> {
        loop {
            let Some((_, record)) = self.records.next_record()? else {
                if self.reading == Side::B {
                    return Ok(None);
                }
                (self.reading, self.records) = (Side::B, RecordWalk::new(self.files[1]));
                continue;
            };
            let [a, b] = self.newest;
            let difference = match self.reading {
                Side::A if a.is_newest(&record) => self.compare(&record)?,
                Side::B if b.is_newest(&record) && is_missing(a.not_there(record.header.oid)) => {
                    self.only_in_b(&record)
                }
                _ => None,
            };
            if difference.is_some() {
                return Ok(difference);
            }
        }
    }

    /// Of a newest record of the first file.
    fn compare(&mut self, record: &FoundRecord) -> Result<Option<ObjectDifference>> {
        let oid = record.header.oid;
        let [a, b] = self.newest.map(|newest| newest.not_there(oid));
        if is_missing(a) {
            return Ok(None);
        }
        let mut difference = ObjectDifference {
            oid,
            tids: [Some(record.header.tid), None],
            same_data: false,
            unreadable: [a, b].contains(&Some(NotThere::Unreadable)),
        };
        if is_missing(b) {
            return Ok(Some(difference));
        }
        let other = self.newest[1].record(self.files[1], oid)?;
        difference.tids[1] = other.map(|other| other.header.tid);
        if !difference.unreadable {
            let Buffers { a, b } = &mut self.buffers;
            a.clear();
            a.extend_from_slice(self.records.data(record)?);
            self.newest[1].load(self.files[1], oid, b)?;
            difference.same_data = a == b;
        }
        let [x, y] = difference.tids;
        if difference.same_data && x == y {
            self.same += 1;
            return Ok(None);
        }
        Ok(Some(difference))
    }

    fn only_in_b(&self, record: &FoundRecord) -> Option<ObjectDifference> {
        let oid = record.header.oid;
        let reason = self.newest[1].not_there(oid);
        if is_missing(reason) {
            return None;
        }
        let tids = [None, Some(record.header.tid)];
        Some(ObjectDifference { oid, tids, same_data: false, unreadable: reason.is_some() })
    }
}

/// Whether an application finds no object.
fn is_missing(reason: Option<NotThere>) -> bool {
    matches!(reason, Some(NotThere::Missing | NotThere::Gone))
}
