//! Blobs of Rust programs, with servers of all generations: `Client::stage_blob`, `Staged::store_blob` and
//! `Client::open_blob`.

use std::io::{self, Read};
use std::path::Path;

use runzeo::ids::{Oid, Tid};
use runzeo::internal::client::library::Client;
use runzeo::storage::prelude::*;
use runzeo::storage::{Refusal, Result, StorageError};

use crate::blobs::{files, read};
use crate::library::options;
use crate::servers::{AnyServer, with_each_that_has_blobs};

const RECORD: &[u8] = b"cZODB.blob\nBlob\n.N.";

fn client(server: &AnyServer, dir: &Path) -> Client {
    let mut options = options(server);
    options.blob_dir = Some(dir.into());
    Client::open(options).expect("a connection")
}

/// Commits a revision of a blob.
fn commit(client: &Client, oid: Oid, serial: Tid, mut data: &[u8]) -> Result<Tid> {
    let staged = client.stage_blob(oid, &mut data)?;
    let mut transaction = client.transaction(Default::default());
    transaction.store_blob(oid, serial, RECORD, staged).unwrap();
    Ok(client.commit(transaction)?.tid)
}

/// Fails after its first bytes.
struct Broken(bool);

impl Read for Broken {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if std::mem::replace(&mut self.0, true) {
            return Err(io::Error::other("the source is broken"));
        }
        buf.fill(1);
        Ok(buf.len())
    }
}

#[test]
fn programs_commit_and_open_blobs() {
    with_each_that_has_blobs(|name, mut server| {
        let dir = tempfile::tempdir().unwrap();
        let of_writer = dir.path().join("writer");
        // Two clients of one process may have one directory.
        let (writer, second) = (client(&server, &of_writer), client(&server, &of_writer));
        let reader = client(&server, &dir.path().join("reader"));
        let oids = writer.new_oids(2).unwrap();
        let (long, empty) = (oids[0], oids[1]);
        let data: Vec<u8> = (0..200_000u32).map(|at| (at % 251) as u8).collect();
        let first = commit(&writer, long, Tid::ZERO, &data).unwrap();
        let of_empty = commit(&second, empty, Tid::ZERO, b"").unwrap();
        let changed = commit(&writer, long, first, b"changed").unwrap();

        for client in [&writer, &second, &reader] {
            let opened =
                |oid, tid| read(&client.open_blob(oid, tid).unwrap_or_else(|e| panic!("{name}: {e}")));
            assert!(opened(long, first) == data, "{name}");
            assert_eq!(
                (opened(empty, of_empty), opened(long, changed)),
                (vec![], b"changed".to_vec()),
                "{name}"
            );
        }
        let mut view = reader.view();
        view.refresh_from_server().unwrap();
        let revision = view.load(long).unwrap().expect("the record");
        assert_eq!((revision.serial, &revision.data[..]), (changed, RECORD), "{name}");

        // What fails leaves nothing.
        let before = files(&of_writer).len();
        let old = commit(&writer, long, first, b"of an old revision");
        assert!(
            matches!(&old, Err(StorageError::Conflict(conflict)) if conflict.oid == long),
            "{name}: {old:?}"
        );
        let broken = writer.stage_blob(long, &mut Broken(false)).map(drop).unwrap_err();
        assert!(broken.to_string().contains("the source is broken"), "{name}: {broken}");
        drop(writer.stage_blob(long, &mut &*data).unwrap());
        assert_eq!(files(&of_writer).len(), before, "{name}");

        let missing = reader.open_blob(long, Tid(first.0 - 1)).map(drop);
        assert!(matches!(missing, Err(StorageError::NoBlob { .. })), "{name}: {missing:?}");
        let without = Client::open(options(&server)).unwrap();
        for refused in
            [without.open_blob(long, first).map(drop), without.stage_blob(long, &mut &*data).map(drop)]
        {
            assert!(
                matches!(refused, Err(StorageError::Refused { what: Refusal::Blobs, .. })),
                "{name}: {refused:?}"
            );
        }
        // What was opened or committed needs no server.
        server.kill();
        for client in [&second, &reader] {
            assert!(read(&client.open_blob(long, first).unwrap()) == data, "{name}");
        }
    });
}
