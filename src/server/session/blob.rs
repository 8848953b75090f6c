//! The calls of blobs. What comes from a client is written to a temporary file chunk by chunk; how a blob is sent is in
//! `send_blob.rs`.

use crate::base::ids::{Oid, Tid};
use crate::base::level::ERROR;
use crate::exceptions;
use crate::server::client_log::{self, LOG};
use crate::server::descriptors::too_many_files;
use crate::server::registered::Registered;
use crate::server::session::Session;
use crate::server::session::send_blob::{Download, Sent};
use crate::server::session::transfers::Receiving;
use crate::server::transaction::state::Transaction;
use crate::storage::StorageError;
use crate::wire::exception::PyException;
use crate::wire::request::OwnedMsgId;

/// A longer blob is sent by another thread, unless none can be started.
const INLINE_LEN_MAX: u64 = 1 << 20;

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
        if let Some(max) = self.limits.transaction_size
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
        let found = match registered.hosted.storage.require_blobs() {
            Ok(blobs) => blobs.load_blob_now(oid, serial),
            Err(error) => Some(Err(error)),
        };
        let mut download = Download::new(registered, &self.server.descriptors().downloads, id, oid, serial);
        if let Some(found) = found
            && download.found(found)? <= INLINE_LEN_MAX
        {
            while download.send_part() == Sent::Part {}
            return Ok(());
        }
        self.downloads.send(download);
        Ok(())
    }
}

fn not_begun() -> PyException {
    PyException::builtin("TypeError", "no blob was begun")
}
