//! From the file of a client to a large object.
//!
//! The first piece makes the large object together with its row in `runzeo_uploads`. The others are committed as they
//! are sent: no database transaction is as long as the upload, which would hold up `vacuum`. Only the last commit is
//! waited for until it is on the disk, because the log of the database has the others before it.

use std::collections::HashSet;
use std::sync::Arc;

use super::super::session::{AskError, malformed, refused};
use super::remove::Remover;
use super::sessions::Sessions;
use crate::base::cancel::Cancel;
use crate::base::ids::Oid;
use crate::postgres::{Answer, Batch, Connection, Rows, Statement, Type, Value};
use crate::storage::blob::StagedBlob;
use crate::storage::{BlobFile, Result, StorageError};

/// Bytes of pieces that are sent in one message, unless one piece is longer.
const MESSAGE_LEN: usize = 4 << 20;
/// Large objects that are made in one message.
const MESSAGE_COUNT: usize = 100;

static CREATE: Statement = Statement {
    sql: "insert into runzeo_uploads (chunk, server) values (lo_from_bytea(0, $1), $2) returning chunk",
    types: &[Type::Bytea, Type::Text],
};
static PUT: Statement =
    Statement { sql: "select lo_put($1, $2, $3) is null", types: &[Type::Oid, Type::Int8, Type::Bytea] };
/// This commit need not be on the disk yet.
static ASYNCHRONOUS: Statement =
    Statement { sql: "select set_config('synchronous_commit', 'off', true)", types: &[] };
/// This one must, and so all before it.
static SYNCHRONOUS: Statement = Statement {
    sql: "select case when current_setting('synchronous_commit') = 'off' \
          then set_config('synchronous_commit', 'on', true) end",
    types: &[],
};

/// Uploads the blobs of transactions.
pub struct Uploads {
    sessions: Arc<Sessions>,
    remover: Arc<Remover>,
    /// `blob-chunk-size`
    piece_len: usize,
    /// This server, in `runzeo_uploads`.
    server: String,
}

/// Large objects of a transaction that is not committed. When this is dropped they are removed, except those that were
/// committed.
pub struct Uploaded {
    remover: Arc<Remover>,
    /// The large object of each object.
    pub blobs: Vec<(Oid, u32)>,
    /// All that were made.
    made: Vec<u32>,
}

impl Uploaded {
    /// Those in `chunks` are committed.
    pub fn committed(&mut self, chunks: &[(Oid, u32)]) {
        let committed: HashSet<u32> = chunks.iter().map(|(_, chunk)| *chunk).collect();
        self.made.retain(|made| !committed.contains(made));
    }
}

impl Drop for Uploaded {
    fn drop(&mut self) {
        self.remover.remove(std::mem::take(&mut self.made));
    }
}

/// Large objects that are made with the next message.
#[derive(Default)]
struct Gathered {
    batch: Batch,
    oids: Vec<Oid>,
    len: usize,
}

impl Uploads {
    pub fn new(sessions: Arc<Sessions>, remover: Arc<Remover>, piece_len: usize, server: &str) -> Uploads {
        Uploads { sessions, remover, piece_len, server: server.into() }
    }

    /// Makes large objects of blobs, and waits until they are on the disk.
    ///
    /// Errors: a blob cannot be read; the database cannot be reached or refuses; `cancel` was cancelled.
    pub fn upload(&self, blobs: &[(Oid, StagedBlob)], cancel: &Cancel) -> Result<Uploaded> {
        self.remover.sweep_if_due();
        self.sessions.with(|session| {
            // What a lost session has made is removed.
            let (blobs_made, made) = (Vec::with_capacity(blobs.len()), Vec::with_capacity(blobs.len()));
            let mut uploaded = Uploaded { remover: Arc::clone(&self.remover), blobs: blobs_made, made };
            self.upload_on(session, blobs, cancel, &mut uploaded)?;
            Ok(uploaded)
        })
    }

    pub fn close(&self) {
        self.sessions.close();
    }

    fn upload_on(
        &self,
        session: &mut Connection,
        blobs: &[(Oid, StagedBlob)],
        cancel: &Cancel,
        uploaded: &mut Uploaded,
    ) -> std::result::Result<(), AskError> {
        let mut gathered = Gathered::default();
        let mut piece = Vec::new();
        for (oid, blob) in blobs {
            let file =
                blob.read().map_err(|error| AskError::Other(StorageError::io("reading a blob")(error)))?;
            self.read(&file, 0, &mut piece).map_err(AskError::Other)?;
            let values = [Value::Bytes(&piece), Value::Text(&self.server)];
            gathered.batch.execute(&CREATE, &values).map_err(|error| AskError::Other(error.into()))?;
            gathered.oids.push(*oid);
            gathered.len += piece.len();
            let is_longer = file.len > piece.len() as u64;
            if is_longer || gathered.len >= MESSAGE_LEN || gathered.oids.len() >= MESSAGE_COUNT {
                check(cancel)?;
                create(session, &mut gathered, uploaded)?;
            }
            if is_longer && let Some((_, chunk)) = uploaded.blobs.last().copied() {
                self.append(session, chunk, &file, cancel)?;
            }
        }
        create(session, &mut gathered, uploaded)
    }

    /// Sends what follows the first piece.
    fn append(
        &self,
        session: &mut Connection,
        chunk: u32,
        file: &BlobFile,
        cancel: &Cancel,
    ) -> std::result::Result<(), AskError> {
        let too_large = |error: crate::postgres::TooLarge| AskError::Other(error.into());
        let (mut batch, mut piece) = (Batch::new(), Vec::new());
        let mut pos = self.piece_len as u64;
        while pos < file.len {
            check(cancel)?;
            batch.clear();
            let message_end = file.len.min(pos.saturating_add(MESSAGE_LEN.max(self.piece_len) as u64));
            let commit = if message_end < file.len { &ASYNCHRONOUS } else { &SYNCHRONOUS };
            batch.execute(commit, &[]).map_err(too_large)?;
            while pos < message_end {
                self.read(file, pos, &mut piece).map_err(AskError::Other)?;
                let values = [Value::Oid(chunk), Value::Int8(pos as i64), Value::Bytes(&piece)];
                batch.execute(&PUT, &values).map_err(too_large)?;
                pos += piece.len() as u64;
            }
            batch.sync();
            for answer in session.run(&batch).map_err(AskError::Lost)? {
                rows_of(answer)?;
            }
        }
        Ok(())
    }

    /// Reads the piece at `pos`: as long as all, unless the blob ends.
    fn read(&self, file: &BlobFile, pos: u64, piece: &mut Vec<u8>) -> Result<()> {
        let len = file.len.saturating_sub(pos).min(self.piece_len as u64) as usize;
        piece.resize(len, 0);
        let reading = || StorageError::io(format!("reading the blob {}", file.path.display()));
        match file.read_at(piece, pos) {
            Ok(count) if count == len => Ok(()),
            Ok(_) => Err(reading()(std::io::ErrorKind::UnexpectedEof.into())),
            Err(error) => Err(reading()(error)),
        }
    }
}

/// Makes the large objects.
fn create(
    session: &mut Connection,
    gathered: &mut Gathered,
    uploaded: &mut Uploaded,
) -> std::result::Result<(), AskError> {
    gathered.batch.sync();
    let answers = session.run(&gathered.batch).map_err(AskError::Lost)?;
    let oids = std::mem::take(&mut gathered.oids);
    *gathered = Gathered::default();
    let mut made = Vec::with_capacity(oids.len());
    for answer in answers {
        for rows in rows_of(answer)? {
            let chunk = rows
                .first()
                .map(|row| row.oid(0))
                .transpose()
                .map_err(|error| AskError::Other(error.into()))?;
            made.push(chunk.flatten().ok_or_else(|| AskError::Other(malformed("a large object")))?);
        }
    }
    uploaded.made.extend(&made);
    if made.len() != oids.len() {
        return Err(AskError::Other(malformed("a large object")));
    }
    uploaded.blobs.extend(oids.into_iter().zip(made));
    Ok(())
}

fn rows_of(answer: Answer) -> std::result::Result<Vec<Rows>, AskError> {
    answer.map_err(|error| AskError::Other(refused(&error)))
}

fn check(cancel: &Cancel) -> std::result::Result<(), AskError> {
    if cancel.is_cancelled() {
        return Err(AskError::Other(StorageError::Transaction("the transaction was given up".into())));
    }
    Ok(())
}
