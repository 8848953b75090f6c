//! The kinds of storages.

use std::borrow::Cow;
use std::io;
use std::path::Path;
use std::sync::Arc;

use runzeo::internal::postgres::Dsn;
use runzeo::internal::storage::demo::DemoStorage;
use runzeo::internal::storage::mapping::MappingStorage;
use runzeo::internal::storage::postgres::{PostgresOptions, PostgresStorage};
use runzeo::internal::storage::temporary::TemporaryStorage;
use runzeo::internal::storage::transform::zlib::Zlib;
use runzeo::storage::file::FileStorage;
use runzeo::storage::prelude::*;
use runzeo::storage::{Codec, Transform};
use tempfile::TempDir;

use super::own_storage;
use crate::support::postgres::PostgresServer;
use crate::support::storage::{self as helpers, Answers};

/// A new storage and its abilities.
pub struct Kind {
    pub storage: Arc<dyn Storage>,
    pub deletes: bool,
    /// Keeps a log: history, transactions, copies of them.
    pub logs: bool,
    pub merges: bool,
    /// Clients send and get records in the form of zc.zlibstorage.
    pub zlib_at_clients: bool,
    /// Keeps only the current states for sure: they are all that is listed, and without their transactions' metadata.
    pub forgets: bool,
    /// Is a database: each vote waits for it.
    pub waits: bool,
    /// The directory of its files.
    pub _dir: TempDir,
    /// The server of its database.
    pub _server: Option<PostgresServer>,
}

fn kind(make: impl FnOnce(&Path) -> Arc<dyn Storage>) -> Kind {
    let dir = tempfile::tempdir().unwrap();
    let storage = make(dir.path());
    storage.set_publisher(Arc::new(Answers));
    Kind {
        storage,
        deletes: true,
        logs: true,
        merges: true,
        zlib_at_clients: false,
        forgets: false,
        waits: false,
        _dir: dir,
        _server: None,
    }
}

fn open(path: &Path) -> Arc<dyn Storage> {
    let options = runzeo::storage::file::FileStorageOptions::new(path);
    Arc::new(FileStorage::open(options).unwrap())
}

fn in_memory() -> Arc<dyn Storage> {
    Arc::new(MappingStorage::new("memory".into()))
}

fn over(base: Arc<dyn Storage>, changes: Arc<dyn Storage>) -> Arc<dyn Storage> {
    Arc::new(DemoStorage::new(None, base, changes, false))
}

fn zlib(base: Arc<dyn Storage>, by_clients: bool) -> Arc<dyn Storage> {
    Arc::new(Transform::new(base, Arc::new(Zlib { compress: true }), by_clients))
}

/// An empty database on a server of its own.
pub fn postgres() -> Kind {
    database(true)
}

/// The same, without history.
pub fn postgres_free() -> Kind {
    Kind { forgets: true, ..database(false) }
}

fn database(keep_history: bool) -> Kind {
    let server = PostgresServer::start(&[]).expect("PostgreSQL; scripts/postgres says how to get it");
    let dsn = Dsn::parse(&server.dsn(), &|_| None).unwrap();
    let options = PostgresOptions { keep_history, ..PostgresOptions::new(dsn) };
    let made = kind(|_| Arc::new(PostgresStorage::open(options).unwrap()));
    Kind { waits: true, _server: Some(server), ..made }
}

/// A file with former transactions, but without the objects of the checks.
fn base(dir: &Path) -> Arc<dyn Storage> {
    let path = dir.join("base.fs");
    let storage = helpers::open(&path);
    let t1 = helpers::commit(&storage, &[(1 << 40, runzeo::ids::Tid::ZERO, b"old")]).unwrap();
    helpers::commit(&storage, &[(1 << 40, t1, b"of the base")]).unwrap();
    storage.close().unwrap();
    drop(storage);
    open(&path)
}

pub fn file() -> Kind {
    kind(|dir| open(&dir.join("Data.fs")))
}

pub fn mapping() -> Kind {
    Kind { merges: false, ..kind(|_| in_memory()) }
}

/// The storage of examples/own_storage.rs.
pub fn of_the_example() -> Kind {
    let make = || own_storage::MemoryStorage::new("memory".into(), u64::MAX, usize::MAX);
    Kind { logs: false, ..kind(|_| Arc::new(make())) }
}

/// A temporary storage searches records for references, so the tests' data is put into a record without any.
pub fn temporary() -> Kind {
    let make = |_: &Path| {
        let storage = Arc::new(TemporaryStorage::new("temporary".into()));
        Arc::new(Transform::new(storage, Arc::new(InRecords), false)) as Arc<dyn Storage>
    };
    Kind { deletes: false, logs: false, ..kind(make) }
}

const BEFORE_STATE: &[u8] = b"cm\nC\n.B";

/// Wraps data into a record whose state is a string.
struct InRecords;

impl Codec for InRecords {
    fn encode<'a>(&self, data: &'a [u8]) -> Cow<'a, [u8]> {
        let len = (data.len() as u32).to_le_bytes();
        Cow::Owned([BEFORE_STATE, &len, data, b"."].concat())
    }

    fn decode<'a>(&self, kept: &'a [u8], _: usize) -> io::Result<Cow<'a, [u8]>> {
        let state = kept.strip_prefix(BEFORE_STATE).and_then(|rest| rest.get(4..rest.len() - 1));
        let state = state.ok_or_else(|| io::Error::other("it was not encoded here"))?;
        Ok(Cow::Owned(state.to_vec()))
    }
}

pub fn demo() -> Kind {
    Kind { deletes: false, ..kind(|_| over(in_memory(), in_memory())) }
}

pub fn demo_over_file() -> Kind {
    Kind { deletes: false, ..kind(|dir| over(base(dir), open(&dir.join("changes.fs")))) }
}

pub fn demo_in_demo() -> Kind {
    Kind { deletes: false, ..kind(|dir| over(over(base(dir), in_memory()), in_memory())) }
}

pub fn zlib_file() -> Kind {
    kind(|dir| zlib(open(&dir.join("Data.fs")), false))
}

pub fn zlib_mapping() -> Kind {
    Kind { merges: false, ..kind(|_| zlib(in_memory(), false)) }
}

pub fn server_zlib() -> Kind {
    Kind { zlib_at_clients: true, ..kind(|dir| zlib(open(&dir.join("Data.fs")), true)) }
}

pub fn demo_with_zlib_changes() -> Kind {
    Kind { deletes: false, ..kind(|dir| over(base(dir), zlib(open(&dir.join("changes.fs")), false))) }
}
