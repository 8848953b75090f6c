//! What a file consists of, and what makes it grow: sums of classes, objects, users and descriptions.
//!
//! Bytes are those in the file: of a record with its header, of a transaction all that is in no record. A record with a
//! back-pointer has 50 bytes, wherever its data is. The memory is about 16 bytes for each object.

use std::collections::HashMap;

use super::data_file::DataFile;
use super::object_sums::{ObjectSums, ObjectTable};
use super::record::{class_key, class_text, plain};
use super::walk::{FoundRecord, FoundTxn, Part, RecordPart, Walk};
use crate::base::ids::Tid;
use crate::pickle::record::is_blob;
use crate::storage::file::format::TRAILER_LEN;
use crate::storage::{BlobDir, Result, StorageError};

/// Different users, descriptions or classes that are told apart; further ones are summed up.
const NAMES_MAX: usize = 100_000;
/// Bytes of a user or description that are kept.
const NAME_LEN_MAX: usize = 200;

/// A number of records or transactions, and their bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Sum {
    pub count: u64,
    pub bytes: u64,
}

impl Sum {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

/// All records of one class.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ClassSums {
    pub all: Sum,
    /// Those that are the newest of their object.
    pub current: Sum,
}

/// Sums by name, with an end to the names.
#[derive(Default)]
struct Named(HashMap<Vec<u8>, Sum>);

impl Named {
    fn add(&mut self, name: &[u8], bytes: u64) {
        let name = name.get(..NAME_LEN_MAX).unwrap_or(name);
        if let Some(sum) = self.0.get_mut(name) {
            return sum.add(bytes);
        }
        let name = if self.0.len() < NAMES_MAX { name } else { b"(others)" };
        self.0.entry(name.to_vec()).or_default().add(bytes);
    }

    fn sorted(self) -> Vec<(Vec<u8>, Sum)> {
        let mut all: Vec<_> = self.0.into_iter().collect();
        all.sort_by(|(a, more), (b, less)| less.bytes.cmp(&more.bytes).then_with(|| a.cmp(b)));
        all
    }
}

/// The sums of a file.
pub struct Stats {
    pub transactions: Sum,
    pub records: Sum,
    /// Records without data of their own: undone, copied or deleted.
    pub pointers: Sum,
    /// Records of objects that are new.
    pub new_objects: Sum,
    /// The newest records of objects.
    pub current: Sum,
    /// Blobs with a file: number and bytes of the files.
    pub blobs: Sum,
    /// Bytes of the file that are damaged or no transaction.
    pub unreadable: u64,
    /// Bytes that a pack without garbage collection would take out.
    pub packable: u64,
    pub first: Tid,
    pub last: Tid,
    /// Descending by bytes.
    pub classes: Vec<(String, ClassSums)>,
    /// Descending by bytes: those that were written most.
    pub objects: Vec<(ObjectSums, String)>,
    pub users: Vec<(Vec<u8>, Sum)>,
    pub descriptions: Vec<(Vec<u8>, Sum)>,
}

/// Counts a file, part by part.
pub struct Count<'a> {
    file: &'a DataFile,
    walk: Walk<'a>,
    since: Tid,
    until: Tid,
    blob_dir: Option<&'a BlobDir>,
    classes: HashMap<Vec<u8>, u32>,
    class_sums: Vec<ClassSums>,
    objects: ObjectTable,
    users: Named,
    descriptions: Named,
    /// Bytes of each transaction that are in no record.
    overheads: Vec<u64>,
    stats: Stats,
}

impl<'a> Count<'a> {
    /// Counts transactions from `since` to `until`.
    pub fn new(file: &'a DataFile, since: Tid, until: Tid, blob_dir: Option<&'a BlobDir>) -> Count<'a> {
        let stats = Stats {
            transactions: Sum::default(),
            records: Sum::default(),
            pointers: Sum::default(),
            new_objects: Sum::default(),
            current: Sum::default(),
            blobs: Sum::default(),
            unreadable: 0,
            packable: 0,
            first: Tid::ZERO,
            last: Tid::ZERO,
            classes: Vec::new(),
            objects: Vec::new(),
            users: Vec::new(),
            descriptions: Vec::new(),
        };
        Count {
            file,
            walk: Walk::new(file),
            since,
            until,
            blob_dir,
            // Of objects whose class is not known yet.
            classes: HashMap::from([(b"?".to_vec(), 0)]),
            class_sums: vec![ClassSums::default()],
            objects: ObjectTable::default(),
            users: Named::default(),
            descriptions: Named::default(),
            overheads: Vec::new(),
            stats,
        }
    }

    /// Position up to which the file has been counted.
    pub fn pos(&self) -> u64 {
        self.walk.pos()
    }

    /// Counts the next part; false at the end. Errors: `Io` alone.
    pub fn next_part(&mut self) -> Result<bool> {
        match self.walk.next_part()? {
            None => return Ok(false),
            Some(Part::Damage(damage)) => self.stats.unreadable += damage.end - damage.pos,
            Some(Part::Ending(ending)) => self.stats.unreadable += self.file.end() - ending.pos,
            Some(Part::Transaction(txn)) if txn.header.tid > self.until => return Ok(false),
            Some(Part::Transaction(txn)) if txn.header.tid >= self.since => self.transaction(&txn)?,
            Some(Part::Transaction(_)) => {}
        }
        Ok(true)
    }

    fn transaction(&mut self, txn: &FoundTxn) -> Result<()> {
        let len = txn.header.len + TRAILER_LEN as u64;
        let meta = self.walk.meta(txn)?;
        self.stats.transactions.add(len);
        self.users.add(&meta.user, len);
        self.descriptions.add(&meta.description, len);
        if self.stats.first == Tid::ZERO {
            self.stats.first = txn.header.tid;
        }
        self.stats.last = txn.header.tid;
        let before = self.stats.records.bytes;
        let mut apart = Vec::new();
        let mut cursor = self.walk.records(txn);
        while txn.header.status != b'u'
            && let Some(part) = self.walk.next_record(&mut cursor)?
        {
            match part {
                RecordPart::Record(record) => self.record(&record, &mut apart)?,
                RecordPart::Damage(damage) => self.stats.unreadable += damage.end - damage.pos,
            }
        }
        self.overheads.push(len.saturating_sub(self.stats.records.bytes - before));
        Ok(())
    }

    fn record(&mut self, record: &FoundRecord, apart: &mut Vec<u8>) -> Result<()> {
        let len = record.header.record_len();
        let oid = record.header.oid;
        self.stats.records.add(len);
        if record.header.prev == 0 {
            self.stats.new_objects.add(len);
        }
        let mut has_blob = false;
        let class = if record.header.data_len > 0 {
            let data = self.walk.data(record, apart)?;
            let data = plain(data).unwrap_or_default();
            let key = class_key(&data);
            let key = key.as_deref().unwrap_or(b"?");
            has_blob = self.blob_dir.is_some() && is_blob(&data);
            match self.classes.get(key) {
                Some(class) => *class,
                None if self.classes.len() >= NAMES_MAX => 0,
                None => {
                    let class = u32::try_from(self.class_sums.len()).unwrap_or(0);
                    self.classes.insert(key.to_vec(), class);
                    self.class_sums.push(ClassSums::default());
                    class
                }
            }
        } else {
            self.stats.pointers.add(len);
            self.objects.get(oid).map_or(0, |object| object.class)
        };
        if has_blob {
            self.blob(record);
        }
        if let Some(sums) = self.class_sums.get_mut(class as usize) {
            sums.all.add(len);
        }
        let packed = if record.is_gone() { 0 } else { self.packed_len(record)? };
        let txn = u32::try_from(self.overheads.len()).unwrap_or(u32::MAX);
        let new = ObjectSums { oid, records: 0, bytes: 0, class, current: 0, packed: 0, txn };
        let mut object = self.objects.get(oid).unwrap_or(new);
        object.records += 1;
        object.bytes += len;
        object.current = if record.is_gone() { 0 } else { len };
        object.packed = packed;
        (object.class, object.txn) = (class, txn);
        self.objects.set(object);
        Ok(())
    }

    /// Bytes of the record with its data in place of a back-pointer. One that leads nowhere stays.
    fn packed_len(&self, record: &FoundRecord) -> Result<u64> {
        let FoundRecord { pos, header, back } = *record;
        if header.data_len > 0 {
            return Ok(header.record_len());
        }
        let found =
            self.file.behind(pos, header.oid, back).and_then(|_| self.file.log().follow(header.oid, back));
        match found {
            Ok(Some((_, behind))) => Ok(behind.record_len()),
            Ok(None) => Ok(0),
            Err(StorageError::Corrupt { .. }) => Ok(header.record_len()),
            Err(error) => Err(error),
        }
    }

    /// A blob without file is found by the check, and not counted here.
    fn blob(&mut self, record: &FoundRecord) {
        let blob = self.blob_dir.and_then(|blobs| blobs.load(record.header.oid, record.header.tid).ok());
        if let Some(blob) = blob {
            self.stats.blobs.add(blob.len);
        }
    }

    /// The sums, with the `objects_max` objects that were written most.
    pub fn finish(self, objects_max: usize) -> Stats {
        let Count { mut stats, classes, mut class_sums, objects, overheads, users, descriptions, .. } = self;
        let mut is_kept = vec![false; overheads.len()];
        let mut packed = 0;
        for object in objects.iter().filter(|object| object.current > 0) {
            stats.current.add(object.current);
            if let Some(sums) = class_sums.get_mut(object.class as usize) {
                sums.current.add(object.current);
            }
            packed += object.packed;
            if let Some(is_kept) = is_kept.get_mut(object.txn as usize)
                && object.packed > 0
            {
                *is_kept = true;
            }
        }
        let kept: u64 =
            overheads.iter().zip(&is_kept).filter(|(_, is_kept)| **is_kept).map(|(bytes, _)| bytes).sum();
        stats.packable = stats.transactions.bytes.saturating_sub(kept + packed);
        let mut names = vec![String::new(); class_sums.len()];
        for (key, class) in classes {
            if let Some(name) = names.get_mut(class as usize) {
                *name = class_text(&key);
            }
        }
        let objects = most_written(&objects, objects_max);
        let name = |object: &ObjectSums| names.get(object.class as usize).cloned().unwrap_or_default();
        stats.objects = objects.into_iter().map(|object| (object, name(&object))).collect();
        stats.classes = names.into_iter().zip(class_sums).filter(|(_, sums)| sums.all.count > 0).collect();
        stats
            .classes
            .sort_by(|(a, more), (b, less)| less.all.bytes.cmp(&more.all.bytes).then_with(|| a.cmp(b)));
        stats.users = users.sorted();
        stats.descriptions = descriptions.sorted();
        stats
    }
}

/// The objects with the most bytes, of which there are at most `objects_max`, in descending order.
fn most_written(objects: &ObjectTable, objects_max: usize) -> Vec<ObjectSums> {
    let order = |a: &ObjectSums, b: &ObjectSums| b.bytes.cmp(&a.bytes).then(a.oid.cmp(&b.oid));
    let mut most: Vec<ObjectSums> = Vec::new();
    for object in objects.iter() {
        most.push(object);
        // So that never all are together in memory.
        if most.len() >= objects_max.saturating_mul(2).saturating_add(1000) {
            keep_first(&mut most, objects_max, order);
        }
    }
    keep_first(&mut most, objects_max, order);
    most.sort_by(order);
    most
}

/// Keeps those that come first in this order.
fn keep_first(
    objects: &mut Vec<ObjectSums>,
    count: usize,
    order: impl Fn(&ObjectSums, &ObjectSums) -> std::cmp::Ordering,
) {
    if objects.len() > count && count > 0 {
        objects.select_nth_unstable_by(count - 1, order);
    }
    objects.truncate(count);
}
