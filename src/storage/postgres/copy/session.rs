//! The session of a copy: sends segments, and commits batches of them.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::blobs::PostgresBlobs;
use super::super::session::{AskError, LOG, Purpose, ask, lost, malformed, refused};
use super::super::shared::DatabaseState;
use super::super::sql::{copy as sql, pack};
use super::segment::{CopiedBlob, Segment};
use crate::base::ids::{Oid, Tid};
use crate::postgres::{Batch, BinaryRows, Connection, ServerError, Statement, Value};
use crate::storage::blob::{Placement, StagedBlob};
use crate::storage::{BlobFile, Result, StorageError};

/// Records after which the database looks at its tables for the first time. Later it does so when there are four times
/// as many as the last time.
const ANALYZE_FIRST: usize = 10_000;
/// Batches that keep the foreign keys, after one that could not take them away.
const GUARDED: u32 = 8;
/// Bytes of a piece of a blob, and of pieces in one message.
const PIECE_LEN: usize = 1 << 20;
const MESSAGE_LEN: usize = 4 << 20;
/// `lock_not_available`
const NO_LOCK: &str = "55P03";
/// `insufficient_privilege`
const NO_RIGHT: &str = "42501";

/// Sends what is copied.
pub struct CopySession {
    name: String,
    session: Connection,
    blobs: Option<Arc<PostgresBlobs>>,
    /// The newest transaction that is committed.
    last: Tid,
    /// The greatest oid that may be there. Greater ones are new.
    greatest: i64,
    batch: Option<OpenBatch>,
    /// Batches until foreign keys may be taken away again.
    guarded: u32,
    /// Records since the database has looked at its tables, and how many let it do so again.
    records: usize,
    analyze_at: usize,
}

/// A database transaction.
#[derive(Default)]
struct OpenBatch {
    /// Statements that add the foreign keys again.
    foreign_keys: Vec<String>,
    /// Files of blobs in a shared directory, and their names.
    files: Vec<(Oid, StagedBlob)>,
    placements: Vec<Placement>,
}

impl CopySession {
    /// `last`: the newest transaction. No other one may be committed beside the copy.
    pub fn open(shared: &DatabaseState, blobs: Option<Arc<PostgresBlobs>>, last: Tid) -> Result<CopySession> {
        let name = shared.name.clone();
        let session = shared.readers.session(Purpose::Copy).map_err(|error| lost(&name, &error))?;
        let mut copy = CopySession {
            name,
            session,
            blobs,
            last,
            greatest: -1,
            batch: None,
            guarded: 0,
            records: 0,
            analyze_at: ANALYZE_FIRST,
        };
        copy.run(sql::SETTINGS)?;
        copy.greatest = copy.newest()?.1;
        Ok(copy)
    }

    /// Sends a segment. If a transaction ends with it, everything that was sent is committed.
    pub fn send(&mut self, segment: Segment) -> Result<()> {
        if segment.is_empty() && self.batch.is_none() {
            return Ok(());
        }
        let Segment { transactions, mut states, objects, blobs, ends_at, .. } = segment;
        let mut batch = match self.batch.take() {
            Some(batch) => batch,
            None => self.begin(ends_at.is_some())?,
        };
        let known: Vec<i64> =
            objects.iter().map(|object| object.oid).filter(|oid| *oid <= self.greatest).collect();
        let former = self.current(&known)?;
        let (mut new, mut changed, mut tids) = (BinaryRows::default(), Vec::new(), Vec::new());
        for object in &objects {
            match former.get(&object.oid) {
                Some(tid) => {
                    states.replace_int8(object.former_at, *tid);
                    changed.push(object.oid);
                    tids.push(object.tid);
                }
                None => {
                    new.begin(2);
                    new.int8(object.oid);
                    new.int8(object.tid);
                }
            }
            self.greatest = self.greatest.max(object.oid);
        }
        self.copy(sql::COPY_TRANSACTIONS, transactions)?;
        self.copy(sql::COPY_STATES, states)?;
        self.copy(sql::COPY_OBJECTS, new)?;
        if !changed.is_empty() {
            self.ask(&sql::REPLACE, &[Value::Int8s(&changed), Value::Int8s(&tids)])?;
        }
        self.add_blobs(blobs, &mut batch)?;
        self.records += objects.len();
        self.analyze_if_due()?;
        match ends_at {
            Some(last) => self.commit(batch, last),
            None => {
                self.batch = Some(batch);
                Ok(())
            }
        }
    }

    /// Everything was copied: makes the foreign keys valid, and lets the database look at its tables.
    pub fn complete(&mut self) -> Result<()> {
        self.run(sql::SETTINGS_AT_END)?;
        let keys = self.foreign_keys()?;
        for key in keys.into_iter().filter(|key| !key.is_valid) {
            match self.try_run(&key.validate)? {
                Ok(()) => {}
                Err(error) if error.code.as_str() == NO_RIGHT => {
                    log::warn!(target: LOG, "{}: {}: {error}; its owner can do it", self.name, key.validate);
                }
                Err(error) => return Err(refused(&error)),
            }
        }
        if self.records > 0 { self.run(pack::ANALYZE) } else { Ok(()) }
    }

    /// `is_short`: one segment is the whole batch. A longer one would keep the tables from their readers for too long.
    fn begin(&mut self, is_short: bool) -> Result<OpenBatch> {
        if let Err(error) = self.try_run(sql::BEGIN)? {
            return Err(match error.code.as_str() {
                NO_LOCK => StorageError::Disconnected(format!(
                    "{}: others have held the commit lock for a minute: try again",
                    self.name
                )),
                _ => refused(&error),
            });
        }
        // A statement of its own: the lock is held.
        let (newest, _) = self.newest()?;
        if newest != self.last {
            return Err(StorageError::Transaction(format!(
                "{}: beside the copy others have committed: the newest transaction is {newest} and not {}. What is \
                 left of the copy has earlier ids and cannot follow: copy into a database that nothing else writes \
                 to",
                self.name, self.last
            )));
        }
        let mut batch = OpenBatch::default();
        if !is_short {
            return Ok(batch);
        }
        if self.guarded > 0 {
            self.guarded -= 1;
            return Ok(batch);
        }
        if let Err(error) = self.try_run(sql::LOCK_TABLES)? {
            return self.leave_tables(batch, &error);
        }
        let keys = self.foreign_keys()?;
        let drop: Vec<&str> = keys.iter().map(|key| key.drop.as_str()).collect();
        if let Err(error) = self.try_run(&drop.join("; "))? {
            return self.leave_tables(batch, &error);
        }
        batch.foreign_keys = keys.into_iter().map(|key| key.add).collect();
        Ok(batch)
    }

    /// The batch keeps the foreign keys, which takes longer.
    fn leave_tables(&mut self, batch: OpenBatch, error: &ServerError) -> Result<OpenBatch> {
        self.run(sql::LEAVE_TABLES)?;
        self.guarded = match error.code.as_str() {
            NO_LOCK => GUARDED,
            NO_RIGHT => u32::MAX,
            _ => return Err(refused(error)),
        };
        log::debug!(target: LOG, "{}: a batch is copied with foreign keys: {error}", self.name);
        Ok(batch)
    }

    fn commit(&mut self, batch: OpenBatch, last: Tid) -> Result<()> {
        let OpenBatch { mut foreign_keys, placements, mut files } = batch;
        foreign_keys.push("commit".into());
        match self.session.simple(&foreign_keys.join("; ")) {
            Ok(Ok(())) => {
                placements.into_iter().for_each(Placement::keep);
                self.last = last;
                Ok(())
            }
            Ok(Err(error)) => Err(refused(&error)),
            Err(error) => {
                // It is not known whether it is committed. The next start finds out which files are in use.
                placements.into_iter().for_each(|placement| placement.leave(files.iter_mut()));
                Err(lost(&self.name, &error))
            }
        }
    }

    /// Without numbers the database might choose to read whole tables.
    fn analyze_if_due(&mut self) -> Result<()> {
        if self.records < self.analyze_at {
            return Ok(());
        }
        self.analyze_at = self.records.saturating_mul(4);
        self.run(pack::ANALYZE)
    }

    fn newest(&mut self) -> Result<(Tid, i64)> {
        let rows = self.ask(&sql::NEWEST, &[])?;
        let row = rows.first().ok_or_else(|| malformed("a transaction"))?;
        Ok((Tid(row.required_int8(0)? as u64), row.required_int8(1)?))
    }

    /// The current revisions of those objects that exist.
    fn current(&mut self, oids: &[i64]) -> Result<HashMap<i64, i64>> {
        if oids.is_empty() {
            return Ok(HashMap::new());
        }
        let rows = self.ask(&sql::CURRENT, &[Value::Int8s(oids)])?;
        rows.iter().map(|row| Ok((row.required_int8(0)?, row.required_int8(1)?))).collect()
    }

    fn foreign_keys(&mut self) -> Result<Vec<ForeignKey>> {
        let rows = self.ask(&sql::FOREIGN_KEYS, &[])?;
        let text = |text: &str| text.to_owned();
        rows.iter()
            .map(|row| {
                Ok(ForeignKey {
                    drop: row.required_text(0).map(text)?,
                    add: row.required_text(1).map(text)?,
                    validate: row.required_text(2).map(text)?,
                    is_valid: row.required_bool(3)?,
                })
            })
            .collect()
    }

    fn copy(&mut self, statement: &str, rows: BinaryRows) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut rows = rows.into_bytes();
        let copied = self.session.copy_in(statement, &mut |piece| {
            std::mem::swap(piece, &mut rows);
            Ok(false)
        });
        copied.map_err(|error| lost(&self.name, &error))?.map_err(|error| refused(&error))?;
        Ok(())
    }

    fn add_blobs(&mut self, blobs: Vec<CopiedBlob>, batch: &mut OpenBatch) -> Result<()> {
        let Some(home) = self.blobs.clone().filter(|_| !blobs.is_empty()) else { return Ok(()) };
        if let PostgresBlobs::Directory(dir) = &*home {
            let mut blobs = blobs;
            let placed = blobs.iter_mut().map(|CopiedBlob { oid, tid, blob }| (*oid, *tid, blob));
            batch.placements.push(dir.place(placed)?);
            batch.files.extend(blobs.into_iter().map(|copied| (copied.oid, copied.blob)));
            return Ok(());
        }
        let (mut oids, mut tids, mut chunks) = (Vec::new(), Vec::new(), Vec::new());
        for CopiedBlob { oid, tid, blob } in blobs {
            oids.push(oid.0 as i64);
            tids.push(tid.0 as i64);
            let file = blob.read().map_err(StorageError::io("reading a blob"))?;
            chunks.push(i64::from(self.upload(&file)?));
        }
        self.ask(&sql::ADD_BLOBS, &[Value::Int8s(&oids), Value::Int8s(&tids), Value::Int8s(&chunks)])?;
        Ok(())
    }

    /// Makes a large object, which belongs to the batch as everything does.
    fn upload(&mut self, file: &BlobFile) -> Result<u32> {
        let mut piece = Vec::new();
        read(file, 0, &mut piece)?;
        let rows = self.ask(&sql::CREATE_BLOB, &[Value::Bytes(&piece)])?;
        let chunk = rows.first().map(|row| row.oid(0)).transpose()?.flatten();
        let chunk = chunk.ok_or_else(|| malformed("a large object"))?;
        let mut pos = piece.len() as u64;
        while pos < file.len {
            let mut message = Batch::new();
            let end = file.len.min(pos.saturating_add(MESSAGE_LEN as u64));
            while pos < end {
                read(file, pos, &mut piece)?;
                let values = [Value::Oid(chunk), Value::Int8(pos as i64), Value::Bytes(&piece)];
                message.execute(&sql::APPEND_BLOB, &values)?;
                pos += piece.len() as u64;
            }
            message.sync();
            for answer in self.session.run(&message).map_err(|error| lost(&self.name, &error))? {
                answer.map_err(|error| refused(&error))?;
            }
        }
        Ok(chunk)
    }

    fn ask(&mut self, statement: &'static Statement, values: &[Value<'_>]) -> Result<crate::postgres::Rows> {
        ask(&mut self.session, statement, values).map_err(|error| match error {
            AskError::Lost(error) => lost(&self.name, &error),
            AskError::Other(error) => error,
        })
    }

    fn try_run(&mut self, statements: &str) -> Result<std::result::Result<(), ServerError>> {
        self.session.simple(statements).map_err(|error| lost(&self.name, &error))
    }

    fn run(&mut self, statements: &str) -> Result<()> {
        self.try_run(statements)?.map_err(|error| refused(&error))
    }
}

/// Statements about a foreign key.
struct ForeignKey {
    drop: String,
    add: String,
    validate: String,
    is_valid: bool,
}

/// Reads the piece at `pos`.
fn read(file: &BlobFile, pos: u64, piece: &mut Vec<u8>) -> Result<()> {
    let len = file.len.saturating_sub(pos).min(PIECE_LEN as u64) as usize;
    piece.resize(len, 0);
    let reading = StorageError::io(format!("reading the blob {}", file.path.display()));
    match file.read_at(piece, pos) {
        Ok(count) if count == len => Ok(()),
        Ok(_) => Err(reading(std::io::ErrorKind::UnexpectedEof.into())),
        Err(error) => Err(reading(error)),
    }
}
