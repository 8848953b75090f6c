//! From a large object to a file of the cache.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::super::session::{AskError, LOG, refused};
use super::super::shared::{DatabaseState, number};
use super::sessions::Sessions;
use crate::base::ids::{Oid, Tid};
use crate::conflict::Conflict;
use crate::postgres::{Batch, Connection, Row, Rows, ServerError, Statement, Type, Value};
use crate::storage::blob::cache::{Begun, BlobCache, BlobDownload};
use crate::storage::{BlobFile, Result, StorageError};

/// Bytes of a piece.
const PIECE_LEN: i32 = 256 << 10;
/// Pieces that the database sends before it waits for us. Twice as many may be on their way.
const AT_ONCE: u32 = 8;
/// Bytes that are read in one database transaction: a long one would hold up `vacuum`.
const SECTION_LEN: i64 = 32 << 20;
/// `undefined_object`: there is no such large object.
const UNDEFINED: &str = "42704";

static GET: Statement =
    Statement { sql: "select lo_get($1, $2, $3)", types: &[Type::Oid, Type::Int8, Type::Int4] };
/// One row after the other: a series in the list of columns is not stored before.
static GET_ALL: Statement = Statement {
    sql: "select lo_get($1, generate_series($2, $4, $3::bigint), $3)",
    types: &[Type::Oid, Type::Int8, Type::Int4, Type::Int8],
};

/// Downloads blobs.
pub struct Downloads {
    shared: Arc<DatabaseState>,
    sessions: Arc<Sessions>,
}

impl Downloads {
    pub fn new(shared: Arc<DatabaseState>, sessions: Arc<Sessions>) -> Downloads {
        Downloads { shared, sessions }
    }

    pub fn close(&self) {
        self.sessions.close();
    }

    /// A database without history has no blobs of former revisions, and a client may still stand at one.
    fn check_is_current(&self, oid: Oid, read: Tid) -> Result<()> {
        if !self.shared.sql.forgets {
            return Ok(());
        }
        match self.shared.current(oid) {
            Ok(committed) if committed != read => {
                Err(StorageError::ReadConflict(Box::new(Conflict { oid, committed, read, data: Vec::new() })))
            }
            Ok(_) | Err(StorageError::PosKey(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A blob, open. Threads that want the same one wait for one download.
    ///
    /// Errors: `NoBlob` if the database has none for this revision; without history `ReadConflict` if it is a former
    /// one.
    pub fn load(&self, cache: &Arc<BlobCache>, oid: Oid, serial: Tid) -> Result<BlobFile> {
        let mut download = match cache.begin(oid, serial)? {
            Begun::There(blob) => return Ok(blob),
            Begun::Download(download) => download,
        };
        let path = download.path();
        let missing = || StorageError::NoBlob { oid, serial, path: path.clone() };
        // RelStorage before 3.5 has made several large objects of a long blob.
        let chunks = self.shared.chunks(number(oid)?, serial)?;
        if chunks.is_empty() {
            self.check_is_current(oid, serial)?;
            return Err(missing());
        }
        let is_there = self.sessions.with(|session| {
            let writing = |error| {
                AskError::Other(StorageError::io(format!("storing the blob {}", path.display()))(error))
            };
            download.restart().map_err(writing)?;
            for chunk in &chunks {
                if !fetch(session, *chunk, &mut download)? {
                    return Ok(false);
                }
            }
            Ok(true)
        })?;
        if !is_there {
            self.check_is_current(oid, serial)?;
            log::error!(
                target: LOG,
                "{}: the blob of object 0x{oid} in transaction {serial} is large object {}, which is not there",
                self.shared.name,
                chunks.first().copied().unwrap_or_default()
            );
            return Err(missing());
        }
        download.finish_behind()
    }
}

/// Appends a large object to the file. `false`: there is none.
fn fetch(
    session: &mut Connection,
    chunk: u32,
    download: &mut BlobDownload,
) -> std::result::Result<bool, AskError> {
    let mut batch = Batch::new();
    let values = [Value::Oid(chunk), Value::Int8(0), Value::Int4(PIECE_LEN)];
    batch.execute(&GET, &values).map_err(|error| AskError::Other(error.into()))?;
    batch.sync();
    let mut pieces = BlobPieces { download, is_last: false, error: None };
    for answer in session.run(&batch).map_err(AskError::Lost)? {
        match answer {
            Ok(answered) => {
                for row in answered.iter().filter_map(Rows::first) {
                    // What it answers is in `pieces`, too.
                    let _ = pieces.take(row);
                }
            }
            Err(error) => return missing(&error),
        }
    }
    let mut pos = i64::from(PIECE_LEN);
    while !pieces.is_last {
        let values =
            [Value::Oid(chunk), Value::Int8(pos), Value::Int4(PIECE_LEN), Value::Int8(pos + SECTION_LEN - 1)];
        let streamed = session.stream(&GET_ALL, &values, AT_ONCE, &mut |row| pieces.take(row));
        if let Err(error) = streamed.map_err(AskError::Lost)? {
            return missing(&error);
        }
        pos += SECTION_LEN;
    }
    pieces.error.map_or(Ok(true), |error| Err(AskError::Other(error)))
}

fn missing(error: &ServerError) -> std::result::Result<bool, AskError> {
    if error.code.as_str() == UNDEFINED { Ok(false) } else { Err(AskError::Other(refused(error))) }
}

/// Writes pieces to the file.
struct BlobPieces<'a> {
    download: &'a mut BlobDownload,
    /// There are no more, or they cannot be written.
    is_last: bool,
    error: Option<StorageError>,
}

impl BlobPieces<'_> {
    fn take(&mut self, row: Row<'_>) -> ControlFlow<()> {
        let piece = row.bytes(0).map_err(StorageError::from);
        let written = piece.and_then(|piece| {
            let piece = piece.unwrap_or_default();
            if let Err(error) = self.download.write(piece) {
                let path = self.download.path();
                return Err(StorageError::Io {
                    doing: format!("storing the blob {}", path.display()),
                    error,
                });
            }
            Ok(piece.len())
        });
        match written {
            Ok(len) => self.is_last = len < PIECE_LEN as usize,
            Err(error) => (self.is_last, self.error) = (true, Some(error)),
        }
        if self.is_last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}
