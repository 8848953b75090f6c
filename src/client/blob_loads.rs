//! Blobs for readers: from the cache, from the server's own directory, or downloaded.

use super::blobs::{Begun, ClientBlobs, Fetched, fetch};
use super::upstream::Upstream;
use crate::base::ids::{Oid, Tid};
use crate::exceptions::meaning::to_storage_error;
use crate::storage::{BlobFile, Result, StorageError};

impl Upstream {
    /// As [`Upstream::load_blob`]. `None`: it must be downloaded.
    pub fn load_blob_now(&self, oid: Oid, serial: Tid) -> Option<Result<BlobFile>> {
        match &self.blobs {
            None => Some(Err(StorageError::no_blobs())),
            Some(ClientBlobs::Shared(dir)) => Some(dir.load(oid, serial)),
            Some(ClientBlobs::Cache(cache)) => cache.get(oid, serial).transpose(),
        }
    }

    /// A blob, open. Threads that want the same one wait for one download. If the link ends, the download begins again
    /// on the next.
    ///
    /// Errors: `NoBlob` if the server has none for this revision; `Disconnected` if there is no link in time.
    pub fn load_blob(&self, oid: Oid, serial: Tid) -> Result<BlobFile> {
        let cache = match &self.blobs {
            None => return Err(StorageError::no_blobs()),
            Some(ClientBlobs::Shared(dir)) => return dir.load(oid, serial),
            Some(ClientBlobs::Cache(cache)) => cache,
        };
        let mut download = match cache.begin(oid, serial)? {
            Begun::There(blob) => return Ok(blob),
            Begun::Download(download) => download,
        };
        loop {
            let in_use = self.in_use()?;
            download = match fetch(&in_use.link, &in_use.incoming, download)? {
                Fetched::Done(blob) => return Ok(blob),
                Fetched::Raised(exception) => return Err(to_storage_error(&exception)),
                Fetched::LinkEnded(download) => download,
            };
        }
    }
}
