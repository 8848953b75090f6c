//! The objects of several databases that nothing refers to, in none of them.
//!
//! An object is kept if it can be reached from the root of any of the databases, or from a record since a point in
//! time. As for zc.zodbdgc, the references of all revisions of an object that are in its file count, not only those of
//! its newest one: what an undo can bring back is not taken away. So garbage shows after a pack has removed former
//! revisions.
//!
//! Nothing is concluded from what cannot be read: damage ends the search, and so does a reference to a database that is
//! not among them.
//!
//! Memory: 8 to 16 bytes for each object, and 16 for each that is still to be visited. Objects are visited in batches,
//! in the order of the file.

use std::collections::BTreeSet;
use std::fmt;

use super::data_file::DataFile;
use super::record::plain;
use super::walk::{FoundTxn, Part, RecordPart, Walk};
use crate::base::ids::{Oid, Tid};
use crate::pickle::cross_refs::cross_references;
use crate::pickle::refs::references_beside_lists;
use crate::storage::StorageError;
use crate::storage::file::format::MAGIC_LEN;
use crate::storage::file::index::{Index, MARKABLE_END, Marked};

/// Objects that are sorted and visited together.
const BATCH: usize = 1 << 17;
/// Number of references in [`Search::dangling`].
const DANGLING_MAX: usize = 10_000;

/// Why there is no result.
#[derive(Debug)]
pub enum SearchError {
    Storage(StorageError),
    /// The database, the position, and what is wrong there.
    Damaged(String, u64, String),
    /// An object of the first database refers to the second one.
    UnknownDatabase(String, Oid, String),
    /// There is no root object.
    NoRoot(String),
}

impl fmt::Display for SearchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SearchError::Storage(error) => error.fmt(f),
            SearchError::Damaged(name, pos, what) => {
                write!(
                    f,
                    "{name}: at {pos}: {what}. 'zeofs test' says more; nothing is garbage until it is mended"
                )
            }
            SearchError::UnknownDatabase(name, oid, other) => write!(
                f,
                "{name}: object 0x{oid} refers to the database '{other}', which is not given: add {other}=FILE, or \
                 --ignore {other} if it is not there any more"
            ),
            SearchError::NoRoot(name) => write!(f, "{name} has no root object: it is empty or not complete"),
        }
    }
}

impl From<StorageError> for SearchError {
    fn from(error: StorageError) -> SearchError {
        SearchError::Storage(error)
    }
}

type Result<T> = std::result::Result<T, SearchError>;

/// A database of those that refer to each other.
pub struct Member<'a> {
    /// Its name in references.
    pub name: String,
    pub file: &'a DataFile,
}

/// A reference to an object that is not there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DanglingReference {
    /// Numbers of the databases.
    pub from: (usize, Oid),
    pub to: (usize, Oid),
}

/// What was found, and can be looked for again when more was committed.
pub struct Search<'a> {
    members: Vec<Explored<'a>>,
    ignored: Vec<String>,
    to_visit: Vec<(usize, Oid)>,
    visited: u64,
    dangling_count: u64,
    dangling_across: u64,
    dangling: Vec<DanglingReference>,
}

struct Explored<'a> {
    name: String,
    file: &'a DataFile,
    /// The newest record of each object that is there. Those that are reached are marked.
    objects: Index,
    /// The last transaction that was looked at.
    last: Tid,
}

/// A reference in a record.
enum Reference {
    Same(Oid),
    Other(Vec<u8>, Oid),
}

impl<'a> Search<'a> {
    /// Finds what is reached. Objects that were written at `since` or later are kept, and so is what these records
    /// refer to. References to databases of the names `ignored` are passed over. `progress` gets the number of records
    /// that were read.
    pub fn run(
        members: Vec<Member<'a>>,
        since: Tid,
        ignored: &[String],
        progress: &mut dyn FnMut(u64),
    ) -> Result<Search<'a>> {
        let mut search = Search {
            members: Vec::new(),
            ignored: ignored.to_vec(),
            to_visit: Vec::new(),
            visited: 0,
            dangling_count: 0,
            dangling_across: 0,
            dangling: Vec::new(),
        };
        let mut recent = Vec::new();
        for Member { name, file } in members {
            let mut known = Explored { name, file, objects: Index::new(), last: Tid::ZERO };
            recent.push(known.find_objects(since, progress)?);
            search.members.push(known);
        }
        for (number, recent) in recent.into_iter().enumerate() {
            if search.reach((number, Oid::ZERO)) == Marked::Missing {
                return Err(SearchError::NoRoot(search.member(number)?.name.clone()));
            }
            if let Some(pos) = recent {
                let file = search.member(number)?.file;
                search.keep_written(number, file, pos, &mut |txn| txn.header.tid >= since)?;
            }
        }
        search.visit_all(progress)?;
        Ok(search)
    }

    /// Keeps what was committed to a database since it was read, and what that refers to. `file`: the database as it is
    /// now, or a part of it; it is read from `pos` on.
    /// Transactions in `but` are passed over.
    pub fn keep_later(
        &mut self,
        number: usize,
        file: &DataFile,
        pos: u64,
        but: &BTreeSet<Tid>,
    ) -> Result<()> {
        let last = self.member(number)?.last;
        let mut newest = last;
        self.keep_written(number, file, pos, &mut |txn| {
            newest = newest.max(txn.header.tid);
            txn.header.tid > last && !but.contains(&txn.header.tid)
        })?;
        if let Some(known) = self.members.get_mut(number) {
            known.last = newest;
        }
        self.visit_all(&mut |_| {})
    }

    /// The last transaction of a database that was looked at.
    pub fn last(&self, number: usize) -> Tid {
        self.members.get(number).map_or(Tid::ZERO, |known| known.last)
    }

    /// Number of objects of a database.
    pub fn object_count(&self, number: usize) -> u64 {
        self.members.get(number).map_or(0, |known| known.objects.len())
    }

    /// The first object of a database, from `from` on, that is not reached, with the position of its newest record.
    pub fn next_garbage(&self, number: usize, from: Oid) -> Option<(Oid, u64)> {
        let known = self.members.get(number)?;
        let mut next = known.objects.next(from);
        while let Some((oid, pos)) = next {
            if pos < MARKABLE_END {
                return Some((oid, pos));
            }
            next = known.objects.next(Oid(oid.0.checked_add(1)?));
        }
        None
    }

    /// Whether an object was there and not reached.
    pub fn is_garbage(&self, number: usize, oid: Oid) -> bool {
        self.members.get(number).is_some_and(|known| matches!(known.objects.marked_pos(oid), (false, 1..)))
    }

    /// The number of references from newest records to objects that are not there, and the first of them.
    pub fn dangling(&self) -> (u64, &[DanglingReference]) {
        (self.dangling_count, &self.dangling)
    }

    /// How many of them lead from one database to another one. Databases under wrong names have many.
    pub fn dangling_across(&self) -> u64 {
        self.dangling_across
    }

    fn member(&self, number: usize) -> Result<&Explored<'a>> {
        let missing = || StorageError::Unsupported("there is no such database".into());
        self.members.get(number).ok_or_else(|| missing().into())
    }

    fn reach(&mut self, (number, oid): (usize, Oid)) -> Marked {
        let marked = self.members.get(number).map_or(Marked::Missing, |known| known.objects.mark(oid));
        if matches!(marked, Marked::Now(_)) {
            self.to_visit.push((number, oid));
        }
        marked
    }

    /// Reaches the objects of the records of the wanted transactions, and what these records refer to.
    fn keep_written(
        &mut self,
        number: usize,
        file: &DataFile,
        pos: u64,
        is_wanted: &mut dyn FnMut(&FoundTxn) -> bool,
    ) -> Result<()> {
        let name = self.member(number)?.name.clone();
        let mut walk = Walk::from(file, pos);
        let mut data = Vec::new();
        let mut found = Vec::new();
        while let Some(txn) = next_txn(&mut walk, &name)? {
            if !is_wanted(&txn) {
                continue;
            }
            let mut cursor = walk.records(&txn);
            while let Some(part) = walk.next_record(&mut cursor)? {
                let RecordPart::Record(record) = part else { return Err(damaged(&name, part)) };
                self.reach((number, record.header.oid));
                let there = file.data_of(record.pos, &record.header, record.back, &mut data)?;
                if there.is_some() {
                    read_references(&data, &mut found)
                        .map_err(|what| SearchError::Damaged(name.clone(), record.pos, what))?;
                    self.reach_all((number, record.header.oid), &mut found, false)?;
                }
            }
        }
        Ok(())
    }

    /// `is_newest`: the references are those of a newest record, so they should lead to something.
    fn reach_all(&mut self, from: (usize, Oid), found: &mut Vec<Reference>, is_newest: bool) -> Result<()> {
        for reference in found.drain(..) {
            let to = match reference {
                Reference::Same(oid) => (from.0, oid),
                Reference::Other(database, oid) => match self.number(from, &database)? {
                    Some(number) => (number, oid),
                    None => continue,
                },
            };
            if self.reach(to) == Marked::Missing && is_newest {
                self.dangling_count += 1;
                self.dangling_across += u64::from(to.0 != from.0);
                if self.dangling.len() < DANGLING_MAX {
                    self.dangling.push(DanglingReference { from, to });
                }
            }
        }
        Ok(())
    }

    /// The number of a database; `None` if it is ignored.
    fn number(&self, from: (usize, Oid), database: &[u8]) -> Result<Option<usize>> {
        if let Some(number) = self.members.iter().position(|known| known.name.as_bytes() == database) {
            return Ok(Some(number));
        }
        if self.ignored.iter().any(|name| name.as_bytes() == database) {
            return Ok(None);
        }
        let other = String::from_utf8_lossy(database).into_owned();
        Err(SearchError::UnknownDatabase(self.member(from.0)?.name.clone(), from.1, other))
    }

    fn visit_all(&mut self, progress: &mut dyn FnMut(u64)) -> Result<()> {
        while !self.to_visit.is_empty() {
            let rest = self.to_visit.len().saturating_sub(BATCH);
            let mut batch: Vec<(usize, u64, Oid)> = Vec::new();
            for (number, oid) in self.to_visit.drain(rest..) {
                let pos = self.members.get(number).map_or(0, |known| known.objects.marked_pos(oid).1);
                batch.push((number, pos, oid));
            }
            batch.sort_unstable();
            for (number, pos, oid) in batch {
                self.visit(number, oid, pos)?;
                progress(self.visited);
            }
        }
        Ok(())
    }

    /// Reads all revisions of an object.
    fn visit(&mut self, number: usize, oid: Oid, newest: u64) -> Result<()> {
        let file = self.member(number)?.file;
        let (mut pos, mut data, mut found) = (newest, Vec::new(), Vec::new());
        // Always before the record, so it ends.
        while pos >= MAGIC_LEN {
            self.visited += 1;
            let record = file.log().read_record(pos, Some(oid))?;
            if file.data_of(pos, &record.header, record.back, &mut data)?.is_some() {
                let what = read_references(&data, &mut found);
                what.map_err(|what| SearchError::Damaged(self.name(number), pos, what))?;
                self.reach_all((number, oid), &mut found, pos == newest)?;
            }
            pos = record.header.prev;
        }
        Ok(())
    }

    fn name(&self, number: usize) -> String {
        self.members.get(number).map_or_else(String::new, |known| known.name.clone())
    }
}

impl Explored<'_> {
    /// Fills the index. Returns the position of the first transaction that is not before `since`.
    fn find_objects(&mut self, since: Tid, progress: &mut dyn FnMut(u64)) -> Result<Option<u64>> {
        if self.file.end() > MARKABLE_END {
            return Err(
                StorageError::Unsupported("files of more than 128 TiB cannot be searched".into()).into()
            );
        }
        let mut walk = Walk::new(self.file);
        let (mut recent, mut count) = (None, 0);
        while let Some(txn) = next_txn(&mut walk, &self.name)? {
            self.last = self.last.max(txn.header.tid);
            if txn.header.tid >= since && recent.is_none() {
                recent = Some(txn.pos);
            }
            let mut cursor = walk.records(&txn);
            while let Some(part) = walk.next_record(&mut cursor)? {
                let RecordPart::Record(record) = part else { return Err(damaged(&self.name, part)) };
                let oid = record.header.oid;
                let is_there = record.header.data_len > 0
                    || record.back != 0 && self.file.log().follow(oid, record.back)?.is_some();
                match is_there {
                    true => _ = self.objects.insert(oid, record.pos, record.header.data_len),
                    false => self.objects.remove(oid),
                }
                count += 1;
            }
            progress(count);
        }
        Ok(recent)
    }
}

/// The next transaction whose records count.
fn next_txn(walk: &mut Walk<'_>, name: &str) -> Result<Option<FoundTxn>> {
    loop {
        match walk.next_part()? {
            None | Some(Part::Ending(_)) => return Ok(None),
            Some(Part::Transaction(txn)) if txn.wrong_len.is_some() => {
                let what = "the two lengths of a transaction differ".into();
                return Err(SearchError::Damaged(name.into(), txn.pos, what));
            }
            Some(Part::Transaction(txn)) if txn.header.status == b'u' => {}
            Some(Part::Transaction(txn)) => return Ok(Some(txn)),
            Some(Part::Damage(damage)) => {
                return Err(SearchError::Damaged(name.into(), damage.pos, damage.what));
            }
        }
    }
}

fn damaged(name: &str, part: RecordPart) -> SearchError {
    match part {
        RecordPart::Damage(damage) => SearchError::Damaged(name.into(), damage.pos, damage.what),
        RecordPart::Record(record) => {
            SearchError::Damaged(name.into(), record.pos, "a record is wrong".into())
        }
    }
}

/// Appends all strong references of a record.
fn read_references(data: &[u8], found: &mut Vec<Reference>) -> std::result::Result<(), String> {
    let data = plain(data)?;
    let mut oids = Vec::new();
    let has_lists = references_beside_lists(&data, &mut oids)?;
    found.extend(oids.into_iter().map(Reference::Same));
    if has_lists {
        let mut others = Vec::new();
        cross_references(&data, &mut others)?;
        found.extend(others.into_iter().map(|(database, oid)| Reference::Other(database, oid)));
    }
    Ok(())
}
