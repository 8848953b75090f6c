//! One call that commits a group of transactions: its arguments and its results.

use std::fmt::Write;

use md5::{Digest, Md5};

use super::super::session::malformed;
use super::super::sql::Statements;
use super::super::sql::functions::{DONE, LATER, MISMATCH, TOO_EARLY};
use super::desk::{Finish, WrittenRecord};
use crate::base::ids::{Oid, Tid};
use crate::postgres::{Batch, Rows, TooLarge, Value};
use crate::storage::{Conflict, Result, StorageError};

/// Transactions of one group at most: larger ones are bound by the database's work for each object, not by its disk.
pub const COUNT_MAX: usize = 32;
/// Bytes of one group, unless a single transaction is larger.
const LEN_MAX: usize = 32 << 20;

/// The transactions that are committed together.
pub struct Group {
    pub finishes: Vec<Finish>,
    /// See `runzeo_commit_1`.
    pub number: i64,
}

/// A transaction of another client of the database.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Foreign {
    pub tid: Tid,
    pub oids: Vec<Oid>,
}

/// What the call has done.
#[derive(Debug, Eq, PartialEq)]
pub enum Done {
    /// The first transaction has this tid.
    Committed(Tid),
    /// These objects are not where they were at vote, but at this revision.
    Changed(Vec<(Oid, Tid)>),
    /// The promised tid is not later than the newest.
    TooEarly(Tid),
}

impl Finish {
    /// Whether it is committed without others.
    pub fn is_alone(&self) -> bool {
        self.written.tid.is_some() || self.written.blobs.must_be_placed()
    }

    /// The error of a transaction that did not get the commit lock: one that applications answer by trying again, if it
    /// has an object to name.
    pub fn kept_too_long(&self, name: &str) -> StorageError {
        let conflict = |record: &WrittenRecord| {
            let WrittenRecord { oid, serial, .. } = *record;
            StorageError::Conflict(Box::new(Conflict {
                oid,
                committed: serial,
                read: serial,
                data: Vec::new(),
            }))
        };
        let without_objects =
            || StorageError::Transaction(format!("{name}: another client has the commit lock"));
        self.written.records.first().map_or_else(without_objects, conflict)
    }

    /// Bytes of its records.
    fn len(&self) -> usize {
        self.written.records.iter().map(|record| record.data.as_ref().map_or(0, Vec::len) + 64).sum()
    }
}

impl Group {
    /// Takes the transactions that are next. One that must have its tid before it is committed is alone.
    pub fn take(waiting: &mut std::collections::VecDeque<Finish>, number: i64) -> Option<Group> {
        let first = waiting.pop_front()?;
        let mut len = first.len();
        let mut is_full = first.is_alone();
        let mut finishes = vec![first];
        while !is_full && finishes.len() < COUNT_MAX {
            let Some(next) = waiting.front() else { break };
            len += next.len();
            if next.is_alone() || len > LEN_MAX {
                break;
            }
            finishes.extend(waiting.pop_front());
            is_full = len > LEN_MAX;
        }
        Some(Group { finishes, number })
    }

    /// The tid of a transaction of the group, whose first one has `first`.
    pub fn tid(first: Tid, position: usize) -> Tid {
        Tid(first.0 + position as u64)
    }

    /// Adds the call, as one group of the batch.
    pub fn call(
        &self,
        batch: &mut Batch,
        sql: &Statements,
        last: Tid,
        server: &str,
    ) -> std::result::Result<(), TooLarge> {
        let metas = || self.finishes.iter().map(|finish| &finish.written.meta);
        let packed: Vec<bool> = self.finishes.iter().map(|finish| finish.written.is_packed).collect();
        let users: Vec<_> = metas().map(|meta| Some(meta.user.as_slice())).collect();
        let descriptions: Vec<_> = metas().map(|meta| Some(meta.description.as_slice())).collect();
        let extensions: Vec<_> = metas().map(|meta| Some(meta.extension.as_slice())).collect();
        let fixed = self
            .finishes
            .iter()
            .find_map(|Finish { written, .. }| written.blobs.placed_at().or(written.tid))
            .unwrap_or(Tid::ZERO);
        let count = self.finishes.iter().map(|finish| finish.written.records.len()).sum();
        let (mut owners, mut oids) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let (mut serials, mut sums) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let mut states: Vec<Option<&[u8]>> = Vec::with_capacity(count);
        for (owner, finish) in (1..).zip(&self.finishes) {
            for record in &finish.written.records {
                owners.push(owner);
                oids.push(record.oid.0 as i64);
                serials.push(record.serial.0 as i64);
                sums.push(record.data.as_deref().map(md5).unwrap_or_default());
                states.push(record.data.as_deref());
            }
        }
        let (mut blob_owners, mut blob_oids, mut chunks) = (Vec::new(), Vec::new(), Vec::new());
        for (owner, finish) in (1..).zip(&self.finishes) {
            for (oid, chunk) in &finish.written.blobs.chunks {
                blob_owners.push(owner);
                blob_oids.push(oid.0 as i64);
                chunks.push(i64::from(*chunk));
            }
        }
        let sums: Vec<&str> = sums.iter().map(String::as_str).collect();
        batch.execute(
            &sql.commit,
            &[
                Value::Int8(last.0 as i64),
                Value::Int8(fixed.0 as i64),
                Value::Bools(&packed),
                Value::ByteArrays(&users),
                Value::ByteArrays(&descriptions),
                Value::ByteArrays(&extensions),
                Value::Int4s(&owners),
                Value::Int8s(&oids),
                Value::Int8s(&serials),
                Value::Texts(&sums),
                Value::ByteArrays(&states),
                Value::Int4s(&blob_owners),
                Value::Int8s(&blob_oids),
                Value::Int8s(&chunks),
                Value::Text(server),
                Value::Int8(self.number),
            ],
        )?;
        batch.sync();
        Ok(())
    }
}

/// The md5 of a state in hex digits: clients of RelStorage compare states by it when they undo.
fn md5(data: &[u8]) -> String {
    let mut digits = String::with_capacity(32);
    for byte in Md5::digest(data) {
        // Writing to a string does not fail.
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

/// Reads the rows of the call.
pub fn read(rows: &Rows) -> Result<(Vec<Foreign>, Done)> {
    let (mut foreign, mut changed, mut done) = (Vec::new(), Vec::new(), None);
    for row in rows.iter() {
        let kind = row.required_int8(0)?;
        let at = Tid(row.required_int8(1)? as u64);
        let object = row.int8(2)?.map(|oid| Oid(oid as u64));
        match kind {
            LATER => add(&mut foreign, at, object),
            MISMATCH => changed.extend(object.map(|oid| (oid, at))),
            TOO_EARLY => done = Some(Done::TooEarly(at)),
            DONE => done = Some(Done::Committed(at)),
            _ => return Err(malformed("the kind of a row")),
        }
    }
    if !changed.is_empty() {
        return Ok((foreign, Done::Changed(changed)));
    }
    Ok((foreign, done.ok_or_else(|| malformed("the end of a commit"))?))
}

/// Reads the rows of a search for later transactions, in the order of tids.
pub fn read_later(rows: &Rows) -> Result<Vec<Foreign>> {
    let mut foreign = Vec::new();
    for row in rows.iter() {
        let tid = Tid(row.required_int8(0)? as u64);
        add(&mut foreign, tid, row.int8(1)?.map(|oid| Oid(oid as u64)));
    }
    Ok(foreign)
}

fn add(foreign: &mut Vec<Foreign>, tid: Tid, object: Option<Oid>) {
    if foreign.last().is_none_or(|last| last.tid != tid) {
        foreign.push(Foreign { tid, oids: Vec::new() });
    }
    if let Some(last) = foreign.last_mut() {
        last.oids.extend(object);
    }
}
