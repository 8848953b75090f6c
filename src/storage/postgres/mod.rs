//! A storage in PostgreSQL, in the tables of RelStorage: `<relstorage>` with `<postgresql>`.
//!
//! Any number of servers serve one database at the same time, and clients of RelStorage read and write it beside them.
//! What all must keep to is RelStorage's protocol: objects that a transaction changes are locked by advisory locks from
//! the comparison of their serials until the commit is visible, and the commit lock (-1) is held from the choice of a
//! tid until then. So the order of tids is the order of commits, and a search for tids later than a known one misses
//! nothing.
//!
//! - `sql` has the statements, the tables and the functions.
//! - `sequencer` is the one thread that locks, commits, finds the transactions of others, and publishes.
//! - `servers` says which servers of PostgreSQL are tried.
//! - `readers` are the sessions for reading, which all clients of the server share. `records` keeps current records in
//!   memory, and `former` those that a database without history has lost.
//! - `snapshot` is what lists of transactions are read from.
//! - `standby` tells primary and standby apart. A storage that is only read may be at a standby: it follows what that
//!   replays, and changes nothing.
//! - `blobs` has the blobs, in the database or in a directory.
//! - `vote`, `vote_blobs`, `undo`, `read`, `oids`, `pack`, `copy` implement the traits.
//!
//! Reads see the state of the last published transaction and never a later one, whatever is in the tables already. So
//! the server's rules about replies and invalidations hold as for a file.
//!
//! Beside the tables of RelStorage there are `runzeo_writers`, `runzeo_uploads`, `runzeo_pack`, without history
//! also `runzeo_last`, an index of `blob_chunk`, and functions whose names begin with `runzeo_`.

mod ahead;
mod blobs;
mod copy;
mod former;
mod oids;
pub mod options;
mod pack;
mod questions;
mod read;
mod readers;
mod records;
pub mod sequencer;
mod servers;
mod session;
pub mod shared;
mod snapshot;
mod sql;
mod standby;
mod undo;
mod vote;
mod vote_blobs;

use self::blobs::PostgresBlobs;
use self::former::FormerRecords;
use self::oids::Oids;
use self::options::PostgresOptions;
use self::readers::Readers;
use self::records::RecordCache;
pub use self::sequencer::RO_REPLICA_CONF;
use self::sequencer::Sequencer;
use self::servers::Servers;
use self::session::LOG;
use self::shared::DatabaseState;
use self::snapshot::Snapshots;
use crate::base::ids::{Oid, Tid};
use crate::base::sync::{Arc, Ordering};
use crate::conflict::ResolverSlot;
use crate::postgres::Wake;
use crate::postgres::dsn::Target;
use crate::storage::{
    Blobs, Bulk, CacheCounts, Iterate, Pack, Remote, Replication, Result, Storage, StorageError, SyncCounts,
    Undo,
};

/// The memory for former records is this part of that for current ones.
const FORMER_SHARE: usize = 4;

/// A storage in a database.
pub struct PostgresStorage {
    options: PostgresOptions,
    shared: Arc<DatabaseState>,
    sequencer: Arc<Sequencer>,
    snapshots: Snapshots,
    oids: Oids,
    resolver: ResolverSlot,
    blobs: Option<Arc<PostgresBlobs>>,
}

impl PostgresStorage {
    /// Connects to the database, and creates what is missing in it.
    ///
    /// Errors: [`StorageError::Disconnected`]; `Refused` if the tables are not those of a supported RelStorage.
    pub fn open(mut options: PostgresOptions) -> Result<PostgresStorage> {
        options.read_only |= options.dsn.target.is_for_reading();
        if !options.read_only && options.dsn.target == Target::Any {
            // Of several hosts the one that can write.
            options.dsn.target = Target::ReadWrite;
        }
        let name = options.name();
        let found = sequencer::found(&options, Servers::new(options.dsn.clone(), options.replicas()))?;
        let shared = Arc::new(DatabaseState::new(
            name.clone(),
            found.sql,
            Readers::new(name.clone(), found.home(&options.dsn)),
            RecordCache::new(options.cache_size, options.cache_record_max, found.sql.forgets),
            FormerRecords::new(if found.sql.forgets { options.cache_size / FORMER_SHARE } else { 0 }),
            found.last,
        ));
        let blobs = PostgresBlobs::open(&options, &shared, &found.server)?.map(Arc::new);
        let wake = Wake::new().map_err(StorageError::io("making an eventfd"))?;
        shared.set_replication(found.replication);
        let at = if found.replication.is_standby { " at a standby, which is only read" } else { "" };
        let (for_thread, thread_options) = (Arc::clone(&shared), options.clone());
        let sequencer = Sequencer::start(name, wake, move |desk| {
            let writer = found.writer(desk, for_thread, thread_options);
            move || writer.run()
        })?;
        log::info!(target: LOG, "{}: opened{at}, last transaction {}", shared.name, shared.last());
        let sequencer = Arc::new(sequencer);
        shared.set_sequencer(&sequencer);
        // So that the number of objects and the size are known.
        sequencer.catch_up()?;
        Ok(PostgresStorage {
            snapshots: Snapshots::default(),
            options,
            shared,
            sequencer,
            oids: Oids::default(),
            resolver: ResolverSlot::default(),
            blobs,
        })
    }

    fn check_open(&self) -> Result<()> {
        self.shared.check_open()
    }

    fn check_writable(&self) -> Result<()> {
        self.check_open()?;
        if self.options.read_only { Err(StorageError::ReadOnly) } else { Ok(()) }
    }
}

impl Storage for PostgresStorage {
    fn name(&self) -> String {
        self.shared.name.clone()
    }

    fn is_read_only(&self) -> bool {
        self.options.read_only
    }

    fn object_count(&self) -> u64 {
        self.shared.object_count.load(Ordering::Relaxed)
    }

    fn size(&self) -> u64 {
        self.shared.size.load(Ordering::Relaxed)
    }

    fn interfaces(&self) -> Vec<(&'static str, &'static str)> {
        let blobs: &[_] = match self.blobs {
            Some(_) => &[("ZODB.interfaces", "IBlobStorageRestoreable"), ("ZODB.interfaces", "IBlobStorage")],
            None => &[],
        };
        let others = [
            ("ZODB.interfaces", "IStorageRestoreable"),
            ("ZODB.interfaces", "IStorageIteration"),
            ("ZODB.interfaces", "IStorageUndoable"),
            ("ZODB.interfaces", "IStorageCurrentRecordIteration"),
            ("ZODB.interfaces", "IExternalGC"),
            ("ZODB.interfaces", "IStorage"),
            ("zope.interface", "Interface"),
        ];
        let is_provided = |(_, name): &(_, &str)| self.undo().is_some() || *name != "IStorageUndoable";
        blobs.iter().chain(&others).copied().filter(is_provided).collect()
    }

    fn last_transaction(&self) -> Tid {
        self.shared.last()
    }

    fn new_oids(&self, count: usize) -> Result<Vec<Oid>> {
        self.check_writable()?;
        self.oids.draw(&self.shared, count)
    }

    fn close(&self) -> Result<()> {
        self.sequencer.close();
        if let Some(blobs) = &self.blobs {
            blobs.close();
        }
        self.shared.fail(format!("{} is closed", self.shared.name));
        self.snapshots.close();
        self.shared.readers.close();
        Ok(())
    }

    fn catch_up(&self) -> Result<()> {
        self.sequencer.catch_up()
    }

    fn iteration(&self) -> Option<&dyn Iterate> {
        Some(self)
    }

    fn undo(&self) -> Option<&dyn Undo> {
        self.shared.sql.undo.is_some().then_some(self as &dyn Undo)
    }

    fn blobs(&self) -> Option<&dyn Blobs> {
        self.blobs.as_deref().map(|blobs| blobs as &dyn Blobs)
    }

    /// Without history a copy has few rows, and most of them replace each other.
    fn bulk(&self) -> Option<&dyn Bulk> {
        (!self.shared.sql.forgets).then_some(self as &dyn Bulk)
    }

    fn packing(&self) -> Option<&dyn Pack> {
        Some(self)
    }

    fn replication(&self) -> Option<Replication> {
        self.shared.replication()
    }

    fn cache_counts(&self) -> Option<CacheCounts> {
        Some(self.shared.records.counts())
    }

    fn remote(&self) -> Option<Remote> {
        Some(self.shared.remote.lock().clone())
    }

    fn sync_counts(&self) -> Option<SyncCounts> {
        (!self.options.read_only).then(|| self.shared.syncs.read())
    }

    fn failure(&self) -> Option<String> {
        let away = || self.shared.remote.lock().failure.clone();
        self.shared.failure().or_else(|| Some(format!("its database cannot be reached: {}", away()?)))
    }
}
