//! What the storage and its sequencer share: the published state, and how to read it.

use std::sync::{OnceLock, Weak};

use super::former::FormerRecords;
#[cfg(loom)]
use super::readers::Home;
use super::readers::Readers;
use super::records::{Lookup, RecordCache};
use super::sequencer::Sequencer;
use super::session::malformed;
use super::sql::{self, Statements};
use crate::base::ids::{Oid, Tid};
use crate::base::memory;
use crate::base::sync::{Arc, AtomicU64, Mutex, Ordering, rank};
use crate::postgres::{Row, Rows, Statement};
use crate::storage::{
    Conflict, DataRecord, Loaded, PublisherSlot, Remote, Replication, Result, StorageError, SyncHistograms,
};

/// How often a read that finds a state of after the last published transaction waits for the publication, before its
/// client has to try again.
const AHEAD_MAX: usize = 20;

/// One database.
pub struct DatabaseState {
    pub name: String,
    pub sql: &'static Statements,
    pub readers: Arc<Readers>,
    pub records: RecordCache,
    /// Revisions that the database has no more.
    pub former: FormerRecords,
    pub publisher: PublisherSlot,
    /// The last published transaction. Only `install` of a publication changes it.
    published: AtomicU64,
    /// Estimates, of the database.
    pub object_count: AtomicU64,
    pub size: AtomicU64,
    /// The server of PostgreSQL.
    replication: Mutex<Option<Replication>, rank::PostgresReplication>,
    pub remote: Mutex<Remote, rank::PostgresRemote>,
    /// Commits of groups.
    pub syncs: SyncHistograms,
    /// Publishes what others have committed.
    sequencer: OnceLock<Weak<Sequencer>>,
    /// Why nothing can be read or stored any more.
    failure: OnceLock<String>,
}

impl DatabaseState {
    pub fn new(
        name: String,
        sql: &'static Statements,
        readers: Readers,
        records: RecordCache,
        former: FormerRecords,
        published: Tid,
    ) -> DatabaseState {
        DatabaseState {
            name,
            sql,
            readers: Arc::new(readers),
            records,
            former,
            replication: Mutex::default(),
            remote: Mutex::new(Remote::reached()),
            syncs: SyncHistograms::default(),
            sequencer: OnceLock::new(),
            publisher: PublisherSlot::default(),
            published: AtomicU64::new(published.0),
            object_count: AtomicU64::new(0),
            size: AtomicU64::new(0),
            failure: OnceLock::new(),
        }
    }

    /// For models, which ask no database.
    #[cfg(loom)]
    pub fn of_model(published: Tid) -> DatabaseState {
        let dsn = crate::postgres::dsn::Dsn::parse("", &|_| None).expect("an empty text");
        let readers = Readers::new("model".into(), Home { dsn, identity: String::new() });
        let records = RecordCache::new(0, 0, false);
        let sql = &sql::preserving::STATEMENTS;
        DatabaseState::new("model".into(), sql, readers, records, FormerRecords::new(0), published)
    }

    /// Nothing is read or stored any more. `false`: there was a reason already, which stays.
    pub fn fail(&self, why: String) -> bool {
        self.failure.set(why).is_ok()
    }

    /// The reason of [`DatabaseState::fail`].
    pub fn failure(&self) -> Option<String> {
        self.failure.get().cloned()
    }

    pub fn check_open(&self) -> Result<()> {
        self.failure().map_or(Ok(()), |why| Err(StorageError::Closed(why)))
    }

    pub fn last(&self) -> Tid {
        Tid(self.published.load(Ordering::SeqCst))
    }

    /// Makes the state with `last` visible. Changed objects are replaced in `records` afterwards.
    pub fn set_last(&self, last: Tid) {
        self.published.store(last.0, Ordering::SeqCst);
    }

    /// What is known of the server, for the status.
    pub fn replication(&self) -> Option<Replication> {
        *self.replication.lock()
    }

    pub fn set_replication(&self, replication: Replication) {
        *self.replication.lock() = Some(replication);
    }

    pub fn set_sequencer(&self, sequencer: &Arc<Sequencer>) {
        // It is set once.
        let _ = self.sequencer.set(Arc::downgrade(sequencer));
    }

    /// What is found in the database was committed after the last published transaction, and what was there before is
    /// gone: has it published.
    pub fn catch_up(&self) -> Result<()> {
        match self.sequencer.get().and_then(Weak::upgrade) {
            Some(sequencer) => sequencer.catch_up(),
            None => Err(StorageError::Closed(format!("{} is closed", self.name))),
        }
    }

    /// Asks about published states.
    pub fn ask(&self, statement: &'static Statement, values: &[i64]) -> Result<Rows> {
        self.readers.ask(statement, values)
    }

    /// See [`Load::load_before`](crate::storage::Load::load_before).
    pub fn load_before(
        &self,
        oid: Oid,
        before: Tid,
        headroom: usize,
        out: &mut Vec<u8>,
    ) -> Result<Option<Loaded>> {
        let changes = match self.records.get(oid) {
            Lookup::Record(record) if record.serial < before => {
                let start = append(&record.data, headroom, out)?;
                return Ok(Some(Loaded { start, serial: record.serial, end: None }));
            }
            Lookup::Record(_) => None,
            Lookup::Nothing(changes) => Some(changes),
        };
        let number = number(oid)?;
        for _ in 0..AHEAD_MAX {
            let last = self.last();
            let limit = before.0.min(last.0.saturating_add(1)) as i64;
            let load = if before > last { &self.sql.load_last } else { &self.sql.load };
            let rows = self.readers.ask_load(load, [number, limit, last.0 as i64])?;
            let Some(row) = rows.first() else {
                if let Some(loaded) = self.load_former(oid, before, headroom, out)? {
                    return Ok(Some(loaded));
                }
                // Either it was created later, or there is no such object.
                return if self.exists(number, last)? { Ok(None) } else { Err(StorageError::PosKey(oid)) };
            };
            let serial = tid(&row, 0)?;
            if serial > last {
                self.catch_up()?;
                continue;
            }
            if serial >= before {
                return self.load_former(oid, before, headroom, out);
            }
            let data = row.bytes(1)?.ok_or(StorageError::PosKey(oid))?;
            let end = row.int8(2)?.map(|end| Tid(end as u64));
            let start = append(data, headroom, out)?;
            if let Some(changes) = changes.filter(|_| end.is_none()) {
                self.records.add(oid, serial, data, changes);
            }
            return Ok(Some(Loaded { start, serial, end }));
        }
        // It changes all the time.
        let committed = self.last();
        let conflict = Conflict { oid, committed, read: Tid::ZERO, data: Vec::new() };
        Err(StorageError::ReadConflict(Box::new(conflict)))
    }

    /// A revision that was current before `before`, from memory.
    fn load_former(
        &self,
        oid: Oid,
        before: Tid,
        headroom: usize,
        out: &mut Vec<u8>,
    ) -> Result<Option<Loaded>> {
        let Some(former) = self.former.before(oid, before) else { return Ok(None) };
        let start = append(&former.data, headroom, out)?;
        Ok(Some(Loaded { start, serial: former.serial, end: Some(former.end) }))
    }

    /// The answer of memory to [`DatabaseState::load_before`], if it has one.
    pub fn load_from_memory(
        &self,
        oid: Oid,
        before: Tid,
        headroom: usize,
        out: &mut Vec<u8>,
    ) -> Option<Result<Option<Loaded>>> {
        match self.records.get(oid) {
            Lookup::Record(record) if record.serial < before => {
                let appended = append(&record.data, headroom, out);
                Some(appended.map(|start| Some(Loaded { start, serial: record.serial, end: None })))
            }
            _ => None,
        }
    }

    /// The data of one revision, published or not.
    pub fn revision(&self, oid: Oid, serial: Tid) -> Result<Vec<u8>> {
        let rows = self.ask(&self.sql.load_serial, &[number(oid)?, serial.0 as i64])?;
        let former = if rows.is_empty() { self.former.revision(oid, serial) } else { None };
        let data = rows.first().map(|row| row.bytes(0)).transpose()?.flatten();
        let data = data.or(former.as_ref().map(|former| &*former.data)).ok_or(StorageError::PosKey(oid))?;
        memory::copy(data).map_err(StorageError::io("reading an object"))
    }

    /// The revision that is current as of the last published transaction.
    pub fn current(&self, oid: Oid) -> Result<Tid> {
        loop {
            let last = self.last();
            let rows = self.ask(&self.sql.current, &[number(oid)?, last.0 as i64])?;
            let row = rows.first().ok_or(StorageError::PosKey(oid))?;
            let serial = tid(&row, 0)?;
            if serial > last {
                self.catch_up()?;
            } else {
                return if row.required_bool(1)? { Err(StorageError::PosKey(oid)) } else { Ok(serial) };
            }
        }
    }

    /// The large objects of a blob, by the number of its object: one, unless RelStorage before 3.5 has written it; none
    /// if the database has no such blob.
    pub fn chunks(&self, number: i64, serial: Tid) -> Result<Vec<u32>> {
        let rows = self.ask(&sql::BLOB, &[number, serial.0 as i64])?;
        let chunk = |row: Row<'_>| row.oid(0)?.ok_or_else(|| malformed("a large object"));
        rows.iter().map(chunk).collect()
    }

    /// Whether an object, by its number, existed after transaction `last`.
    pub fn exists(&self, number: i64, last: Tid) -> Result<bool> {
        let rows = self.ask(&self.sql.first, &[number])?;
        let first = rows.first().map(|row| row.int8(0)).transpose()?.flatten();
        Ok(first.is_some_and(|first| first as u64 <= last.0))
    }
}

/// Appends a record's data to `out`, behind `headroom` bytes. Returns where the data begins.
pub fn append(data: &[u8], headroom: usize, out: &mut Vec<u8>) -> Result<usize> {
    let start = out.len() + headroom;
    let copied = memory::resize(out, start).and_then(|()| memory::append(out, data));
    copied.map_err(StorageError::io("reading an object"))?;
    Ok(start)
}

/// An oid as a `bigint`. There is no object whose oid has the top bit.
pub fn number(oid: Oid) -> Result<i64> {
    i64::try_from(oid.0).map_err(|_| StorageError::PosKey(oid))
}

/// A column with a tid, which cannot be null.
pub fn tid(row: &Row<'_>, column: usize) -> Result<Tid> {
    Ok(Tid(row.required_int8(column)? as u64))
}

/// A column with an oid, which cannot be null.
pub fn oid(row: &Row<'_>, column: usize) -> Result<Oid> {
    Ok(Oid(row.required_int8(column)? as u64))
}

/// A record of transaction `tid`: its oid and its state are two columns from `column` on.
pub fn data_record(row: &Row<'_>, column: usize, tid: Tid) -> Result<DataRecord> {
    let data = row.bytes(column + 1)?.map(memory::copy).transpose();
    let data = data.map_err(StorageError::io("reading an object"))?;
    Ok(DataRecord { oid: oid(row, column)?, tid, data, data_txn: None })
}
