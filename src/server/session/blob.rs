//! Blobs on their way from a client, and to it.
//!
//! What comes is written to a temporary file chunk by chunk; what goes is read and sent a few chunks at a time, waiting
//! for the client. So a blob of any size needs a few hundred kilobytes of memory. A long download has its own thread:
//! other threads of the same client are served between the chunks.

use std::io;
use std::path::PathBuf;
use std::thread;

use crate::base::ids::{Oid, Tid};
use crate::base::level::ERROR;
use crate::base::sync::Arc;
use crate::exceptions;
use crate::server::client_log::{self, LOG};
use crate::server::connection::Connection;
use crate::server::descriptors::{Taken, too_many_files};
use crate::server::hosted::Hosted;
use crate::server::job_panic::contained;
use crate::server::registered::Registered;
use crate::server::session::Session;
use crate::server::session::transfers::Receiving;
use crate::server::transaction::state::Transaction;
use crate::storage::StorageError;
use crate::storage::media::MediaFile;
use crate::wire::exception::PyException;
use crate::wire::push::Push;
use crate::wire::request::OwnedMsgId;

/// As Python's servers send them: a message of at most 64 KB. Each is sent before the next one is read, while it is
/// in the processor's cache, and so that the client works on one while the next is read: four at once made a download
/// a quarter slower.
const CHUNK_LEN: usize = 59_000;
/// A longer blob is sent by a thread of its own, unless the client has too many already or none can be started.
const INLINE_LEN_MAX: u64 = 1 << 20;
const THREAD_STACK: usize = 128 << 10;

type Result = std::result::Result<(), PyException>;

impl Session {
    /// `storeBlobStart()`
    pub(super) fn store_blob_start(&mut self, registered: &Registered) -> Result {
        if registered.read_only {
            return Err(exceptions::read_only_error());
        }
        let is_open = matches!(*self.connection.transaction.lock(), Transaction::Open(_));
        if !is_open {
            self.upload = Receiving::Nothing;
            return Err(exceptions::transaction_error("a blob without a transaction"));
        }
        let interleaved = matches!(self.upload, Receiving::Blob(..));
        self.upload = Receiving::Failed;
        if interleaved {
            // Some clients mix up the chunks of blobs that several threads store.
            self.fail_blob(&PyException::builtin("AssertionError", "a blob was begun within a blob"));
            return Ok(());
        }
        let Some(taken) = self.server.descriptors().files.take() else {
            self.fail_blob(&exceptions::of_storage_error(&StorageError::io("storing a blob")(
                too_many_files(),
            )));
            return Ok(());
        };
        let begun = registered.hosted.storage.require_blob_dir().and_then(|dir| dir.begin());
        match begun {
            Ok(upload) => self.upload = Receiving::Blob(upload, taken),
            Err(error) => self.fail_blob(&exceptions::of_storage_error(&error)),
        }
        Ok(())
    }

    /// `storeBlobChunk(chunk)`
    pub(super) fn store_blob_chunk(&mut self, chunk: &[u8]) -> Result {
        self.connection.progresses();
        if let Some(max) = self.server.limits().transaction_size
            && matches!(self.upload, Receiving::Blob(..))
            && !self.blob_fits(chunk.len(), max)
        {
            self.upload = Receiving::Failed;
        }
        let written = match &mut self.upload {
            Receiving::Nothing => return Err(not_begun()),
            Receiving::Failed => return Ok(()),
            Receiving::Blob(upload, _) => upload.write(chunk),
        };
        if let Err(error) = written {
            // Before anything else: the disk may be full.
            self.upload = Receiving::Failed;
            self.fail_blob(&exceptions::of_storage_error(&StorageError::io("storing a blob")(error)));
        }
        Ok(())
    }

    /// Does the transaction stay within `max-transaction-size`? If not, vote will say so.
    fn blob_fits(&self, len: usize, max: u64) -> bool {
        let mut transaction = self.connection.transaction.lock();
        let Transaction::Open(open) = &mut *transaction else { return true };
        open.blob_len += len as u64;
        let is_too_large = open.refused.is_none() && open.staged.payload_len() + open.blob_len > max;
        let too_large = if is_too_large { self.keep_small(open) } else { None };
        let fits = open.refused.is_none();
        drop(transaction);
        self.log_too_large(too_large);
        fits
    }

    /// `storeBlobEnd(oid, serial, data, id)`
    pub(super) fn store_blob_end(
        &mut self,
        registered: &Registered,
        oid: Oid,
        serial: Tid,
        data: &[u8],
        id: &[u8],
    ) -> Result {
        let (upload, taken) = match std::mem::take(&mut self.upload) {
            Receiving::Nothing => return Err(not_begun()),
            Receiving::Failed => return Ok(()),
            Receiving::Blob(upload, taken) => (upload, taken),
        };
        let ended = upload.end(oid);
        // Its file is closed.
        drop(taken);
        match ended {
            Ok(blob) => self
                .stage(registered, id, "storeBlobEnd", |staged| staged.store_blob(oid, serial, data, blob)),
            Err(error) => {
                self.fail_blob(&exceptions::of_storage_error(&error));
                Ok(())
            }
        }
    }

    /// `storeBlobShared(oid, serial, data, filename, id)`: the client has put the file into the shared directory.
    pub(super) fn store_blob_shared(
        &mut self,
        registered: &Registered,
        oid: Oid,
        serial: Tid,
        data: &[u8],
        filename: &str,
        id: &[u8],
    ) -> Result {
        // Only files of an open transaction are taken over.
        self.stage(registered, id, "storeBlobShared", |_| Ok(()))?;
        let adopted = registered.hosted.storage.require_blob_dir().and_then(|dir| dir.adopt(oid, filename));
        match adopted {
            Ok(blob) => self.stage(registered, id, "storeBlobShared", |staged| {
                staged.store_blob(oid, serial, data, blob)
            }),
            Err(error) => {
                self.fail_blob(&exceptions::of_storage_error(&error));
                Ok(())
            }
        }
    }

    /// The client does not wait for these calls, so the error is reported at vote.
    fn fail_blob(&self, exception: &PyException) {
        self.connection.peer.log(&client_log::BLOBS, ERROR, format_args!("Can't store a blob: {exception}"));
        self.refuse_vote(exception);
    }

    /// `sendBlob(oid, serial)`: the blob is pushed to the client, and then the call answered.
    pub(super) fn send_blob(
        &self,
        registered: &Registered,
        id: &OwnedMsgId,
        oid: Oid,
        serial: Tid,
    ) -> Result {
        log::debug!(target: LOG, "Blob requested {oid}, {serial}");
        let wire = self.connection.wire();
        let blob = registered
            .hosted
            .storage
            .require_blobs()
            .and_then(|blobs| blobs.load_blob(oid, serial))
            .map_err(|error| match error {
            StorageError::NoBlob { oid, serial, .. } if !wire.no_blob_names_path() => {
                exceptions::no_blob(oid, serial, "No blob file")
            }
            error => exceptions::of_storage_error(&error),
        })?;
        let download = Download {
            hosted: Arc::clone(&registered.hosted),
            connection: Arc::clone(&self.connection),
            id: id.clone(),
            oid,
            serial,
            len: blob.len,
            path: blob.path,
            open: self.server.descriptors().downloads.take().map(|taken| (blob.file, taken)),
        };
        if download.len <= INLINE_LEN_MAX || !self.downloads.begin() {
            download.run();
            return Ok(());
        }
        let (download, downloads) = (Arc::new(download), Arc::clone(&self.downloads));
        let sent_there = Arc::clone(&download);
        let run = move || {
            contained(&sent_there.connection, || sent_there.run());
            downloads.end();
        };
        if thread::Builder::new().name("zeo-blob".into()).stack_size(THREAD_STACK).spawn(run).is_err() {
            self.downloads.end();
            download.run();
        }
        Ok(())
    }
}

fn not_begun() -> PyException {
    PyException::builtin("TypeError", "no blob was begun")
}

/// A blob on its way to a client.
struct Download {
    hosted: Arc<Hosted>,
    connection: Arc<Connection>,
    id: OwnedMsgId,
    oid: Oid,
    serial: Tid,
    len: u64,
    path: PathBuf,
    /// `None`: no descriptor was free, so it is opened for each part: the client may take the parts as slowly as it
    /// likes.
    open: Option<(Arc<dyn MediaFile>, Taken)>,
}

impl Download {
    fn run(&self) {
        let wire = self.connection.wire();
        let mut last = Vec::new();
        match self.send_chunks(&mut last) {
            Ok(()) => {
                wire.push(&Push::BlobStop { oid: self.oid, serial: self.serial }, &mut last);
                wire.none_reply(self.id.get(), &mut last);
            }
            Err(error) => {
                let error = StorageError::Io { doing: format!("reading {}", self.path.display()), error };
                let message = format_args!("Can't send a blob: {error}");
                self.connection.peer.log(&client_log::BLOBS, ERROR, message);
                last.clear();
                self.connection.put_error(self.id.get(), &exceptions::of_storage_error(&error), &mut last);
            }
        }
        self.send(&last);
    }

    /// Sends the beginning and all chunks except for the last one, which is left in `out`.
    fn send_chunks(&self, out: &mut Vec<u8>) -> io::Result<()> {
        let (wire, oid, serial, len) = (self.connection.wire(), self.oid, self.serial, self.len);
        wire.push(&Push::BlobStart { oid, serial }, out);
        let mut pos = 0;
        if len >= CHUNK_LEN as u64 {
            self.send(out);
            out.clear();
            // The frame is made once; only the bytes in it change.
            let mut frame = Vec::with_capacity(CHUNK_LEN + 128);
            let chunk_start = wire.blob_chunk(oid, serial, CHUNK_LEN, &mut frame);
            while len - pos >= CHUNK_LEN as u64 && !self.connection.outbox.is_closed() {
                self.read(&mut frame, chunk_start, CHUNK_LEN, pos)?;
                pos += CHUNK_LEN as u64;
                self.send(&frame);
            }
        }
        let rest = (len - pos).min(CHUNK_LEN as u64) as usize;
        if rest > 0 {
            let chunk_start = wire.blob_chunk(oid, serial, rest, out);
            self.read(out, chunk_start, rest, pos)?;
        }
        Ok(())
    }

    fn read(&self, out: &mut [u8], start: usize, len: usize, pos: u64) -> io::Result<()> {
        let chunk = out.get_mut(start..start + len).unwrap_or_default();
        let read = match &self.open {
            Some((file, _)) => file.read_at(chunk, pos)?,
            None => {
                let blobs = self.hosted.storage.require_blobs().map_err(io::Error::other)?;
                let blob = blobs.load_blob(self.oid, self.serial).map_err(io::Error::other)?;
                blob.file.read_at(chunk, pos)?
            }
        };
        match read {
            read if read == len => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn send(&self, frames: &[u8]) {
        let outbox = &self.connection.outbox;
        outbox.send_own(outbox.place(), frames);
    }
}
