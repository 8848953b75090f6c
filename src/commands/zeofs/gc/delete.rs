//! Deletes objects, some at a time, beside commits of others.
//!
//! Before each transaction everything that was committed since the last look counts: what it has written, and what it
//! refers to, is garbage no more. A reference that is made in the same moment as the deletion is noticed behind it.

use std::collections::BTreeSet;

use super::super::commit::Committer;
use super::database::Database;
use crate::base::ids::{Oid, Tid};
use crate::commands::subcommand::Trouble;
use crate::inspect::garbage::Search;
use crate::storage::{Staged, StorageError, TransactionMeta};

/// Objects of a transaction: their records are some 60 KB.
const TOGETHER: usize = 1000;
/// Attempts of a transaction that meets commits of others.
const ATTEMPTS: usize = 10;

/// What was done.
#[derive(Debug, Default)]
pub(super) struct Deleted {
    /// For each database the objects and the transactions.
    pub(super) counts: Vec<(u64, u64)>,
    /// Objects to which a reference was made at the moment of their deletion: database, object, transaction.
    pub(super) revived: Vec<(usize, Oid, Tid)>,
}

/// Objects with their serials, which transaction `tid` has deleted.
struct Batch {
    objects: Vec<(Oid, Tid)>,
    tid: Tid,
}

pub(super) struct Deletion<'a> {
    databases: &'a [Database],
    /// The transactions that were made here.
    own: BTreeSet<Tid>,
}

impl<'a> Deletion<'a> {
    pub(super) fn new(databases: &'a [Database]) -> Deletion<'a> {
        Deletion { databases, own: BTreeSet::new() }
    }

    /// Deletes all garbage.
    pub(super) fn run(&mut self, search: &mut Search<'_>) -> Result<Deleted, Trouble> {
        let mut deleted = Deleted::default();
        for number in 0..self.databases.len() {
            let mut from = Oid::ZERO;
            let mut counts = (0, 0);
            while let Some(Batch { objects, tid }) = self.some(search, number, from)? {
                counts = (counts.0 + objects.len() as u64, counts.1 + 1);
                self.keep_later(search)?;
                let revived = objects.iter().filter(|(oid, _)| !search.is_garbage(number, *oid));
                deleted.revived.extend(revived.map(|(oid, _)| (number, *oid, tid)));
                let Some((last, _)) = objects.last() else { break };
                from = Oid(last.0.saturating_add(1));
            }
            deleted.counts.push(counts);
        }
        Ok(deleted)
    }

    /// Deletes the next objects of a database, those from `from` on. `None`: there are no more.
    fn some(&mut self, search: &mut Search<'_>, number: usize, from: Oid) -> Result<Option<Batch>, Trouble> {
        let database =
            self.databases.get(number).ok_or_else(|| Trouble::Failed("no such database".into()))?;
        for attempt in 1.. {
            self.keep_later(search)?;
            let objects = next_objects(search, number, database, from)?;
            if objects.is_empty() {
                return Ok(None);
            }
            match delete(database.committer()?, &objects) {
                Ok(tid) => {
                    self.own.insert(tid);
                    return Ok(Some(Batch { objects, tid }));
                }
                // Another transaction was faster.
                Err(StorageError::Conflict(_) | StorageError::PosKey(_)) if attempt < ATTEMPTS => {}
                Err(error) => return Err(Trouble::Failed(format!("{}: {error}", database.name))),
            }
        }
        Ok(None)
    }

    fn keep_later(&self, search: &mut Search<'_>) -> Result<(), Trouble> {
        for (number, database) in self.databases.iter().enumerate() {
            let (file, pos) = database.as_it_is(search.last(number))?;
            search.keep_later(number, &file, pos, &self.own)?;
        }
        Ok(())
    }
}

/// Objects that are garbage, with the tids of their newest records.
fn next_objects(
    search: &Search<'_>,
    number: usize,
    database: &Database,
    from: Oid,
) -> Result<Vec<(Oid, Tid)>, Trouble> {
    let mut objects = Vec::new();
    let mut next = from;
    while objects.len() < TOGETHER
        && let Some((oid, pos)) = search.next_garbage(number, next)
    {
        let record = database.file.data.log().read_record(pos, Some(oid))?;
        objects.push((oid, record.header.tid));
        next = Oid(oid.0.saturating_add(1));
    }
    Ok(objects)
}

fn delete(committer: &Committer, objects: &[(Oid, Tid)]) -> Result<Tid, StorageError> {
    let meta = TransactionMeta { description: b"zeofs gc".to_vec(), ..TransactionMeta::default() };
    let mut staged = Staged::new(meta, None, b' ', usize::MAX);
    for (oid, serial) in objects {
        staged.delete(*oid, *serial).map_err(StorageError::io("buffering a transaction"))?;
    }
    committer.commit(staged)
}
