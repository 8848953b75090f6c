//! From a large object to a file of the cache.

use std::sync::Arc;

use super::super::session::{AskError, LOG, refused};
use super::super::shared::{Shared, number};
use super::sessions::Sessions;
use crate::base::ids::{Oid, Tid};
use crate::postgres::{Batch, Connection, Statement, Type, Value};
use crate::storage::blob::cache::{Begun, BlobCache, BlobDownload};
use crate::storage::{BlobFile, Result, StorageError};

/// Bytes of a piece.
const PIECE_LEN: usize = 256 << 10;
/// Pieces that are asked for in one message, after the first one.
const PIECES: i64 = 16;
/// `undefined_object`: there is no such large object.
const UNDEFINED: &str = "42704";

static GET: Statement =
    Statement { sql: "select lo_get($1, $2, $3)", types: &[Type::Oid, Type::Int8, Type::Int4] };

/// Downloads blobs.
pub struct Downloads {
    shared: Arc<Shared>,
    sessions: Arc<Sessions>,
}

impl Downloads {
    pub fn new(shared: Arc<Shared>, sessions: Arc<Sessions>) -> Downloads {
        Downloads { shared, sessions }
    }

    pub fn close(&self) {
        self.sessions.close();
    }

    /// A blob, open. Threads that want the same one wait for one download.
    ///
    /// Errors: `NoBlob` if the database has none for this revision.
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
            log::error!(
                target: LOG,
                "{}: the blob of object 0x{oid} in transaction {serial} is large object {}, which is not there",
                self.shared.name,
                chunks.first().copied().unwrap_or_default()
            );
            return Err(missing());
        }
        download.finish()
    }
}

/// Appends a large object to the file. `false`: there is none.
fn fetch(
    session: &mut Connection,
    chunk: u32,
    download: &mut BlobDownload,
) -> std::result::Result<bool, AskError> {
    let mut batch = Batch::new();
    let (mut pos, mut count) = (0, 1);
    loop {
        batch.clear();
        for _ in 0..count {
            let values = [Value::Oid(chunk), Value::Int8(pos), Value::Int4(PIECE_LEN as i32)];
            batch.execute(&GET, &values).map_err(|error| AskError::Other(error.into()))?;
            pos += PIECE_LEN as i64;
        }
        batch.sync();
        count = PIECES;
        for answer in session.run(&batch).map_err(AskError::Lost)? {
            let pieces = match answer {
                Ok(pieces) => pieces,
                Err(error) if error.code.as_str() == UNDEFINED => return Ok(false),
                Err(error) => return Err(AskError::Other(refused(&error))),
            };
            for rows in pieces {
                let piece = rows.first().map(|row| row.bytes(0)).transpose();
                let piece =
                    piece.map_err(|error| AskError::Other(error.into()))?.flatten().unwrap_or_default();
                let path = download.path();
                download.write(piece).map_err(|error| {
                    AskError::Other(StorageError::io(format!("storing the blob {}", path.display()))(error))
                })?;
                if piece.len() < PIECE_LEN {
                    return Ok(true);
                }
            }
        }
    }
}
