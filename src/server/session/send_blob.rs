//! Blobs on their way to a client: read and sent a chunk at a time, waiting for the client. So a blob of any size needs
//! little memory.
//!
//! A short blob that is here is sent by the session. Others are sent by threads of the client's, see `downloads.rs`:
//! those that are long, and those that must come from another server first.

use std::io;
use std::path::PathBuf;

use crate::base::ids::{Oid, Tid};
use crate::base::level::ERROR;
use crate::base::sync::Arc;
use crate::exceptions;
use crate::server::client_log;
use crate::server::connection::Connection;
use crate::server::descriptors::{Share, Taken};
use crate::server::registered::Registered;
use crate::storage::media::MediaFile;
use crate::storage::{BlobFile, StorageError};
use crate::wire::exception::PyException;
use crate::wire::push::Push;
use crate::wire::request::OwnedMsgId;

/// As Python's servers send them: a message of at most 64 KB. Each is sent before the next one is read, while it is
/// in the processor's cache, and so that the client works on one while the next is read: four at once made a download
/// a quarter slower.
const CHUNK_LEN: usize = 59_000;
/// Chunks of a blob that are sent before another blob has its turn.
const CHUNKS_AT_ONCE: usize = 64;

/// How much of a blob is sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sent {
    Part,
    /// All of it, or an error instead.
    All,
}

/// A blob on its way to a client.
pub struct Download {
    registered: Registered,
    descriptors: Share,
    id: OwnedMsgId,
    oid: Oid,
    serial: Tid,
    /// `None`: it must come from another server.
    open: Option<OpenBlob>,
}

/// A blob that is here, and how much of it is sent.
struct OpenBlob {
    len: u64,
    path: PathBuf,
    /// `None`: no descriptor was free, so it is opened for each chunk: the client may take the chunks as slowly as it
    /// likes.
    file: Option<Arc<dyn MediaFile>>,
    /// `None` with a file: it cannot be opened again. It is sent in one go, so that there are no more of them than
    /// threads.
    taken: Option<Taken>,
    is_begun: bool,
    /// Bytes that are sent.
    pos: u64,
}

impl OpenBlob {
    fn new(blob: BlobFile, descriptors: &Share) -> OpenBlob {
        let BlobFile { file, len, path, is_unnamed } = blob;
        let taken = descriptors.take();
        let file = (is_unnamed || taken.is_some()).then_some(file);
        OpenBlob { len, path, file, taken, is_begun: false, pos: 0 }
    }

    fn is_long(&self) -> bool {
        self.len - self.pos >= CHUNK_LEN as u64
    }
}

impl Download {
    /// Of a call `sendBlob` of this client. `descriptors`: for open blobs.
    pub fn new(
        registered: &Registered,
        descriptors: &Share,
        id: &OwnedMsgId,
        oid: Oid,
        serial: Tid,
    ) -> Download {
        let (registered, descriptors) = (registered.clone(), descriptors.clone());
        Download { registered, descriptors, id: id.clone(), oid, serial, open: None }
    }

    /// The blob is here. Returns its length.
    pub fn found(&mut self, found: Result<BlobFile, StorageError>) -> Result<u64, PyException> {
        let blob = found.map_err(|error| self.exception(error))?;
        Ok(self.open.insert(OpenBlob::new(blob, &self.descriptors)).len)
    }

    pub fn connection(&self) -> &Arc<Connection> {
        &self.registered.connection
    }

    /// The client has gone.
    pub fn is_unwanted(&self) -> bool {
        self.connection().outbox.is_closed()
    }

    /// Sends the next chunks. Loads the blob first if it is not here.
    pub fn send_part(&mut self) -> Sent {
        if self.is_unwanted() {
            return Sent::All;
        }
        let mut open = match self.open.take().map_or_else(|| self.load(), Ok) {
            Ok(open) => open,
            Err(exception) => {
                self.send_error(&exception);
                return Sent::All;
            }
        };
        let mut last = Vec::new();
        match self.send_chunks(&mut open, &mut last) {
            Ok(Sent::Part) => {
                self.open = Some(open);
                return Sent::Part;
            }
            Ok(Sent::All) => {
                let wire = self.connection().wire();
                wire.push(&Push::BlobStop { oid: self.oid, serial: self.serial }, &mut last);
                wire.none_reply(self.id.get(), &mut last);
            }
            Err(error) => {
                let error = StorageError::Io { doing: format!("reading {}", open.path.display()), error };
                let message = format_args!("Can't send a blob: {error}");
                self.connection().peer.log(&client_log::BLOBS, ERROR, message);
                last.clear();
                let exception = exceptions::of_storage_error(&error);
                self.connection().put_error(self.id.get(), &exception, &mut last);
            }
        }
        self.send(&last);
        Sent::All
    }

    fn load(&self) -> Result<OpenBlob, PyException> {
        let blobs = self.registered.hosted.storage.require_blobs();
        let blob = blobs.and_then(|blobs| blobs.load_blob(self.oid, self.serial));
        blob.map(|blob| OpenBlob::new(blob, &self.descriptors)).map_err(|error| self.exception(error))
    }

    fn exception(&self, error: StorageError) -> PyException {
        match error {
            StorageError::NoBlob { oid, serial, .. } if !self.connection().wire().no_blob_names_path() => {
                exceptions::no_blob(oid, serial, "No blob file")
            }
            error => exceptions::of_storage_error(&error),
        }
    }

    /// Answers with an error, as a session does.
    fn send_error(&self, exception: &PyException) {
        let connection = self.connection();
        let is_routine = exceptions::is_routine(exception) || exceptions::is_upstream_lost(exception);
        if !is_routine && !self.is_unwanted() {
            connection.peer.log(&client_log::CALLS, ERROR, format_args!("call raised {exception}"));
        }
        let mut frame = Vec::new();
        connection.put_error(self.id.get(), exception, &mut frame);
        self.send(&frame);
    }

    /// Sends some chunks. If all are sent but the last one, that is left in `last`.
    fn send_chunks(&self, open: &mut OpenBlob, last: &mut Vec<u8>) -> io::Result<Sent> {
        let (wire, oid, serial) = (self.connection().wire(), self.oid, self.serial);
        if !open.is_begun {
            open.is_begun = true;
            wire.push(&Push::BlobStart { oid, serial }, last);
        }
        if open.is_long() {
            if !last.is_empty() {
                self.send(last);
                last.clear();
            }
            // The frame is made once; only the bytes in it change.
            let mut frame = Vec::with_capacity(CHUNK_LEN + 128);
            let chunk_start = wire.blob_chunk(oid, serial, CHUNK_LEN, &mut frame);
            let mut left = CHUNKS_AT_ONCE;
            while open.is_long() && !self.is_unwanted() {
                if left == 0 && (open.taken.is_some() || open.file.is_none()) {
                    return Ok(Sent::Part);
                }
                left = left.saturating_sub(1);
                self.read(open, &mut frame, chunk_start, CHUNK_LEN)?;
                self.send(&frame);
            }
        }
        let rest = (open.len - open.pos).min(CHUNK_LEN as u64) as usize;
        if rest > 0 {
            let chunk_start = wire.blob_chunk(oid, serial, rest, last);
            self.read(open, last, chunk_start, rest)?;
        }
        Ok(Sent::All)
    }

    /// Reads the next `len` bytes to `out` from `start` on.
    fn read(&self, open: &mut OpenBlob, out: &mut [u8], start: usize, len: usize) -> io::Result<()> {
        let chunk = out.get_mut(start..start + len).unwrap_or_default();
        let read = match &open.file {
            Some(file) => file.read_at(chunk, open.pos)?,
            None => {
                let blobs = self.registered.hosted.storage.require_blobs().map_err(io::Error::other)?;
                let blob = blobs.load_blob(self.oid, self.serial).map_err(io::Error::other)?;
                blob.file.read_at(chunk, open.pos)?
            }
        };
        if read != len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        open.pos += len as u64;
        Ok(())
    }

    fn send(&self, frames: &[u8]) {
        let outbox = &self.connection().outbox;
        outbox.send_own(outbox.place(), frames);
    }
}
