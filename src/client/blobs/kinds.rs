//! The two ways in which a client has blobs: a cache, or the directory of its server.

use std::sync::Arc;

use crate::base::ids::{Oid, Tid};
use crate::client::options::ClientOptions;
use crate::storage::blob::StagedBlob;
use crate::storage::blob::cache::{BlobCache, BlobCacheOptions};
use crate::storage::{BlobDir, BlobFile, Result, StorageError};

/// The blobs of a client.
#[derive(Clone)]
pub enum ClientBlobs {
    /// Copies of what it has downloaded or committed.
    Cache(Arc<BlobCache>),
    /// The directory of the server, `shared-blob-dir`.
    Shared(Arc<BlobDir>),
}

/// How a blob that is to be committed goes to the server.
pub enum OutgoingBlob {
    /// Its bytes are sent: `storeBlobStart`, `storeBlobChunk`, `storeBlobEnd`.
    Bytes(BlobFile),
    /// The server takes over the file with this name, in the directory of the object: `storeBlobShared`.
    Shared(String),
}

impl ClientBlobs {
    /// Opens what the options say. `None`: there is no `blob-dir`.
    ///
    /// Errors: `Refused` if a cache is to be shared, or the directory of a storage is to be a cache.
    pub fn open(options: &ClientOptions) -> Result<Option<ClientBlobs>> {
        let Some(dir) = &options.blob_dir else { return Ok(None) };
        if options.shared_blob_dir {
            return ClientBlobs::open_shared(dir).map(Some);
        }
        let cache = BlobCache::open(BlobCacheOptions {
            dir: dir.clone(),
            size: options.blob_cache_size,
            check_percent: options.blob_cache_size_check,
            name: options.name.clone(),
            serves_clients: options.serves_clients,
        })?;
        Ok(Some(ClientBlobs::Cache(cache)))
    }

    /// Opens the directory of the server.
    ///
    /// Errors: `Refused` if it is a cache.
    pub fn open_shared(path: &std::path::Path) -> Result<ClientBlobs> {
        Ok(ClientBlobs::Shared(BlobDir::open_shared(path)?))
    }

    /// Where blobs wait that are to be committed. Of a cache, `BlobDir::adopt` is refused: it is not shared.
    pub fn dir(&self) -> &Arc<BlobDir> {
        match self {
            ClientBlobs::Cache(cache) => cache.dir(),
            ClientBlobs::Shared(dir) => dir,
        }
    }

    /// Prepares a blob for sending. `serial`: the revision of the object that the transaction starts from.
    pub fn outgoing(&self, blob: &mut StagedBlob, serial: Tid) -> Result<OutgoingBlob> {
        let outgoing = match self {
            ClientBlobs::Cache(_) => blob.read().map(OutgoingBlob::Bytes),
            ClientBlobs::Shared(_) => blob.share(serial).map(OutgoingBlob::Shared),
        };
        outgoing.map_err(StorageError::io("sending a blob"))
    }

    /// The blob was committed as revision `tid`.
    pub fn committed(&self, oid: Oid, tid: Tid, blob: StagedBlob) {
        match self {
            ClientBlobs::Cache(cache) => cache.keep_committed(oid, tid, blob),
            // The server has taken it.
            ClientBlobs::Shared(_) => drop(blob),
        }
    }
}
