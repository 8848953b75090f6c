//! What a `<relstorage>` section says.

use std::path::PathBuf;
use std::time::Duration;

use super::servers::ReplicaConf;
use crate::postgres::dsn::Dsn;

/// How a database is served.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// `None`: named after the database.
    pub name: Option<String>,
    /// The database.
    pub dsn: Dsn,
    /// A file that names the servers to try, in place of the hosts of `dsn`.
    pub replica_conf: Option<PathBuf>,
    /// The same, of a storage that is only read. `None`: `replica_conf`.
    pub ro_replica_conf: Option<PathBuf>,
    /// After which an earlier server of the file is tried. Zero: never.
    pub replica_timeout: Duration,
    /// Nothing is stored, and the database is not changed by opening it.
    pub read_only: bool,
    /// Creates what is missing of the tables.
    pub create_schema: bool,
    /// The database keeps former revisions.
    pub keep_history: bool,
    /// How long a vote waits for objects that another server or a client of RelStorage has locked.
    pub lock_timeout: Duration,
    /// Bytes of memory for records that were read lately.
    pub cache_size: usize,
    /// Longer records are not kept in that memory.
    pub cache_record_max: usize,
    /// A cache of blobs; with `shared_blob_dir` the blobs themselves. `None`: there are no blobs.
    pub blob_dir: Option<PathBuf>,
    /// Blobs are not in the database.
    pub shared_blob_dir: bool,
    /// Bytes that the cache of blobs is brought down to from time to time. `None`: nothing is ever removed.
    pub blob_cache_size: Option<u64>,
    /// The part of that size, in percent and below 100, after whose growth it is checked.
    pub blob_cache_size_check: u8,
    /// Bytes of the pieces in which a blob is sent to the database.
    pub blob_chunk_size: usize,
    /// Whether packs remove objects without references, unless the client says it.
    pub pack_gc: bool,
    /// A pack commits what it removes in pieces that take no longer than this.
    pub pack_batch_timeout: Duration,
}

impl PostgresOptions {
    /// The defaults, as in RelStorage but for the memory, which all clients of the server share.
    pub fn new(dsn: Dsn) -> PostgresOptions {
        PostgresOptions {
            name: None,
            dsn,
            replica_conf: None,
            ro_replica_conf: None,
            replica_timeout: Duration::from_secs(600),
            read_only: false,
            create_schema: true,
            keep_history: true,
            lock_timeout: Duration::from_secs(30),
            cache_size: 256 << 20,
            cache_record_max: 16 << 10,
            blob_dir: None,
            shared_blob_dir: false,
            blob_cache_size: None,
            blob_cache_size_check: 10,
            blob_chunk_size: 1 << 20,
            pack_gc: true,
            pack_batch_timeout: Duration::from_secs(15),
        }
    }

    /// The file with the servers that this storage tries.
    pub fn replicas(&self) -> Option<ReplicaConf> {
        let for_reading = self.ro_replica_conf.as_ref().filter(|_| self.read_only);
        let path = for_reading.or(self.replica_conf.as_ref())?.clone();
        Some(ReplicaConf { path, timeout: Some(self.replica_timeout).filter(|timeout| !timeout.is_zero()) })
    }

    /// The storage's name. The password is never in it.
    pub fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| format!("PostgreSQL: {}", self.dsn.describe()))
    }
}
