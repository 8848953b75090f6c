//! Blobs: in the database, as large objects; or as files in a directory that servers and clients of RelStorage share.
//!
//! - `upload`: from a client's file to a large object, before the transaction is voted for
//! - `remove`: large objects whose transaction was not committed
//! - `download`: from a large object to a file of the cache
//! - `voted`: the blobs of one transaction, from its vote to its commit
//! - `sessions`: the sessions for all of these
//!
//! A large object is committed in pieces, long before its transaction. Until that is committed too, the table
//! `runzeo_uploads` names it: so `vacuumlo` leaves it, and a server that finds the one that has made it gone removes
//! it. The commit of the transaction moves it from there to `blob_chunk`, and fails if it is not there any more. A
//! large object is removed only by who has deleted its row of `runzeo_uploads`, so never one that is committed.
//!
//! Invariants: each large object of the storage is in `blob_chunk` or `runzeo_uploads`; memory for a blob is bounded,
//! whatever its length.

mod download;
mod remove;
mod sessions;
mod upload;
mod voted;

pub use upload::Uploaded;
pub use voted::{VotedBlobs, VotedHome};

use std::sync::Arc;

use self::download::Downloads;
use self::remove::Remover;
use self::sessions::Sessions;
use self::upload::Uploads;
use super::options::PostgresOptions;
use super::session::LOG;
use super::shared::DatabaseState;
use crate::base::cancel::Cancel;
use crate::base::ids::{Oid, Tid};
use crate::storage::blob::StagedBlob;
use crate::storage::blob::cache::{BlobCache, BlobCacheOptions};
use crate::storage::{BlobDir, BlobFile, Blobs, Result};

/// Sessions that upload, and that remove what was uploaded.
const UPLOADS_MAX: usize = 4;
/// Sessions that download.
const DOWNLOADS_MAX: usize = 4;

/// Where the blobs of a storage are.
pub enum PostgresBlobs {
    /// In the database. The directory has copies, and what is being uploaded.
    Database(DatabaseBlobs),
    /// In a directory, `shared-blob-dir`.
    Directory(Arc<BlobDir>),
}

/// Blobs in the database.
pub struct DatabaseBlobs {
    cache: Arc<BlobCache>,
    uploads: Uploads,
    remover: Arc<Remover>,
    downloads: Downloads,
}

impl PostgresBlobs {
    /// Opens what the options say. `None`: there is no `blob-dir`. `server`: the name of this server in
    /// `runzeo_writers`.
    pub fn open(
        options: &PostgresOptions,
        shared: &Arc<DatabaseState>,
        server: &str,
    ) -> Result<Option<PostgresBlobs>> {
        let Some(dir) = &options.blob_dir else { return Ok(None) };
        if options.shared_blob_dir {
            return Ok(Some(PostgresBlobs::Directory(open_directory(options, dir)?)));
        }
        let cache = BlobCache::open(BlobCacheOptions {
            dir: dir.clone(),
            size: options.blob_cache_size,
            check_percent: options.blob_cache_size_check,
            name: shared.name.clone(),
            serves_clients: true,
        })?;
        let sessions = |count_max| Arc::new(Sessions::new(Arc::clone(&shared.readers), server, count_max));
        let uploading = sessions(UPLOADS_MAX);
        let remover = Remover::new(shared.name.clone(), Arc::clone(&uploading));
        if !options.read_only {
            remover.start_sweep();
        }
        Ok(Some(PostgresBlobs::Database(DatabaseBlobs {
            uploads: Uploads::new(uploading, Arc::clone(&remover), options.blob_chunk_size, server),
            remover,
            downloads: Downloads::new(Arc::clone(shared), sessions(DOWNLOADS_MAX)),
            cache,
        })))
    }

    /// Uploads the blobs of a transaction before its vote. `None`: its files are the blobs.
    pub fn upload(&self, blobs: &[(Oid, StagedBlob)], cancel: &Cancel) -> Result<Option<Uploaded>> {
        match self {
            PostgresBlobs::Database(database) => database.uploads.upload(blobs, cancel).map(Some),
            PostgresBlobs::Directory(_) => Ok(None),
        }
    }

    /// Where the files of transactions go.
    pub fn home(&self) -> VotedHome {
        match self {
            PostgresBlobs::Database(database) => VotedHome::Cache(Arc::clone(&database.cache)),
            PostgresBlobs::Directory(dir) => VotedHome::Directory { dir: Arc::clone(dir), placed: None },
        }
    }

    /// No session is used any more. Large objects of transactions that were aborted just now are removed before.
    pub fn close(&self) {
        if let PostgresBlobs::Database(database) = self {
            database.remover.close();
            database.uploads.close();
            database.downloads.close();
        }
    }
}

/// The directory of several servers. None of them removes what another one has just begun.
fn open_directory(options: &PostgresOptions, dir: &std::path::Path) -> Result<Arc<BlobDir>> {
    if options.read_only {
        return BlobDir::open(dir, true);
    }
    let blobs = BlobDir::open_shared(dir)?;
    if let Err(error) = blobs.remove_old_temporaries() {
        log::warn!(target: LOG, "what is left over in {} cannot be removed: {error}", blobs.base().display());
    }
    log::info!(
        target: LOG,
        "{}: blobs are in the directory {}, which all servers and clients of the database must share. A client of \
         RelStorage keeps every other commit waiting from the vote to the end of a transaction with blobs; with \
         shared-blob-dir false on all sides it does not",
        options.name(),
        blobs.base().display()
    );
    Ok(blobs)
}

impl Blobs for PostgresBlobs {
    fn dir(&self) -> Option<&Arc<BlobDir>> {
        match self {
            PostgresBlobs::Database(database) => Some(database.cache.dir()),
            PostgresBlobs::Directory(dir) => Some(dir),
        }
    }

    fn load_blob(&self, oid: Oid, serial: Tid) -> Result<BlobFile> {
        match self {
            PostgresBlobs::Database(database) => database.downloads.load(&database.cache, oid, serial),
            PostgresBlobs::Directory(dir) => dir.load(oid, serial),
        }
    }

    fn load_blob_now(&self, oid: Oid, serial: Tid) -> Option<Result<BlobFile>> {
        match self {
            PostgresBlobs::Database(database) => database.cache.get(oid, serial).transpose(),
            PostgresBlobs::Directory(dir) => Some(dir.load(oid, serial)),
        }
    }
}
