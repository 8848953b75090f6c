//! Blobs to and from servers of all generations.

use std::path::Path;
use std::sync::{Arc, Barrier};
use std::thread;

use runzeo::ids::{Oid, Tid};
use runzeo::internal::base::address::Address;
use runzeo::internal::base::cancel::Cancel;
use runzeo::internal::client::blobs::{
    Begun, BlobCache, BlobCacheOptions, BlobRecord, ClientBlobs, Fetched, IncomingBlobs, fetch, send,
};
use runzeo::internal::client::dial::{DialOptions, dial};
use runzeo::internal::client::link::{EndCause, Link, LinkOptions, Receiver, start};
use runzeo::internal::wire::answers::ServerPush;
use runzeo::internal::wire::calls::Call;
use runzeo::internal::wire::value::Value;
use runzeo::storage::{BlobFile, StorageError};

use crate::servers::{AnyServer, PYTHONS, PythonServer};
use crate::support::process::Server;

/// The class of a blob's record.
const RECORD: &[u8] = b"cZODB.blob\nBlob\n.N.";
const BLOB_STORAGE: &str =
    "<blobstorage 1>\nblob-dir blobs\n<filestorage>\npath Data.fs\n</filestorage>\n</blobstorage>";

/// Hands on what arrives.
#[derive(Default)]
struct Receiving(IncomingBlobs);

impl Receiver for Receiving {
    fn push(&self, _link: &Link, push: ServerPush<'_>) {
        match push {
            ServerPush::BlobStart { oid, serial } => self.0.started(oid, serial),
            ServerPush::BlobChunk { oid, serial, chunk } => self.0.chunk(oid, serial, chunk),
            ServerPush::BlobStop { oid, serial } => self.0.stopped(oid, serial),
            _ => {}
        }
    }

    fn ended(&self, _link: &Link, _cause: &EndCause) {}
}

struct Client {
    link: Link,
    receiving: Arc<Receiving>,
    cache: Arc<BlobCache>,
}

impl Client {
    fn connect(address: &Address, dir: &Path) -> Client {
        let dialled = dial(address, &DialOptions::default(), &Cancel::default()).expect("a connection");
        let receiving = Arc::new(Receiving::default());
        let link = start(dialled, Arc::clone(&receiving) as _, LinkOptions::default()).expect("threads");
        call(&link, &Call::Register { storage: "1", read_only: false });
        let options = BlobCacheOptions {
            dir: dir.into(),
            size: None,
            check_percent: 10,
            name: "test".into(),
            serves_clients: false,
        };
        Client { link, receiving, cache: BlobCache::open(options).unwrap() }
    }

    fn get(&self, oid: Oid, serial: Tid) -> Result<BlobFile, StorageError> {
        let download = match self.cache.begin(oid, serial)? {
            Begun::There(blob) => return Ok(blob),
            Begun::Download(download) => download,
        };
        match fetch(&self.link, &self.receiving.0, download)? {
            Fetched::Done(blob) => Ok(blob),
            Fetched::LinkEnded(_) => Err(StorageError::Closed("the link has ended".into())),
            Fetched::Raised(exception) => panic!("{exception}"),
        }
    }

    /// Commits these blobs in one transaction.
    fn commit(&self, answers_begin: bool, blobs: &[(Oid, Vec<u8>)]) -> Tid {
        let begin = Call::TpcBegin {
            txn: 7,
            user: b"",
            description: b"",
            extension: &Value::dict([]),
            tid: None,
            status: ' ',
        };
        if answers_begin {
            call(&self.link, &begin)
        } else {
            self.link.send(&begin)
        }
        let of_client = ClientBlobs::Cache(Arc::clone(&self.cache));
        let mut staged = Vec::new();
        for (oid, data) in blobs {
            let mut upload = of_client.dir().begin().unwrap();
            upload.write(data).unwrap();
            let mut blob = upload.end(*oid).unwrap();
            let outgoing = of_client.outgoing(&mut blob, Tid::ZERO).unwrap();
            let record = BlobRecord { oid: *oid, serial: Tid::ZERO, data: RECORD };
            send(&self.link, &outgoing, record, 7, &Cancel::default()).unwrap();
            staged.push((*oid, blob));
        }
        call(&self.link, &Call::Vote { txn: 7 });
        let finish = Call::TpcFinish { txn: 7 };
        let tid =
            self.link.call(&finish, None, |answer| answer.tid()).expect("the link lives").expect("committed");
        staged.into_iter().for_each(|(oid, blob)| of_client.committed(oid, tid, blob));
        tid
    }
}

fn call(link: &Link, call: &Call<'_>) {
    link.call(call, None, |answer| answer.done()).expect("the link lives").expect("it succeeds");
}

fn content(blob: &BlobFile) -> Vec<u8> {
    let mut data = vec![0; blob.len as usize];
    assert_eq!(blob.read_at(&mut data, 0).unwrap(), data.len());
    data
}

fn with_each(test: impl Fn(&str, AnyServer)) {
    test("ours", AnyServer::Ours(Server::start_storage("", "blob-dir blobs")));
    test("ours with msgpack", AnyServer::Ours(Server::start_storage("msgpack true", "blob-dir blobs")));
    for &(environment, msgpack) in PYTHONS {
        let zeo = if msgpack { "msgpack true" } else { "" };
        if let Some(server) = PythonServer::start_any(environment, zeo, BLOB_STORAGE, |_| ()) {
            test(environment, AnyServer::Python(server));
        }
    }
}

#[test]
fn blobs_go_to_every_server_and_come_back() {
    with_each(|name, mut server| {
        let dir = tempfile::tempdir().unwrap();
        let committer = Client::connect(&server.address(), &dir.path().join("committer"));
        let answers_begin = ["zodb38-py27", "zodb39-py27"].contains(&name);
        let blobs: Vec<_> = [200_000, 0, 59_000, 59_001, 1]
            .into_iter()
            .zip(1..)
            .map(|(len, oid)| (Oid(oid), (0..len).map(|at| (at * oid % 251) as u8).collect::<Vec<u8>>()))
            .collect();
        let tid = committer.commit(answers_begin, &blobs);
        let reader = Client::connect(&server.address(), &dir.path().join("reader"));
        // Several threads, each of which wants all, and in another order.
        let start = Barrier::new(4);
        thread::scope(|scope| {
            for thread in 0..4 {
                let (reader, blobs, start) = (&reader, &blobs, &start);
                scope.spawn(move || {
                    start.wait();
                    for at in 0..blobs.len() {
                        let (oid, data) = &blobs[(at + thread) % blobs.len()];
                        let blob = reader.get(*oid, tid).unwrap_or_else(|error| panic!("{name}: {error}"));
                        assert!(content(&blob) == *data, "{name}: {oid}");
                    }
                });
            }
        });
        let missing = reader.get(Oid(1), Tid(tid.0 - 1)).map(drop);
        assert!(matches!(missing, Err(StorageError::NoBlob { .. })), "{name}: {missing:?}");
        // The committer needs no server.
        server.kill();
        for (oid, data) in &blobs {
            assert!(
                content(&committer.cache.get(*oid, tid).unwrap().expect("kept")) == *data,
                "{name}: {oid}"
            );
        }
        let other = reader.get(Oid(9), tid).map(drop);
        assert!(matches!(other, Err(StorageError::Closed(_))), "{name}: {other:?}");
    });
}

/// A server of Python keeps a blob that was begun beyond the end of its transaction.
#[test]
fn a_blob_that_cannot_be_read_disturbs_no_later_one() {
    with_each(|name, server| {
        let dir = tempfile::tempdir().unwrap();
        let client = Client::connect(&server.address(), dir.path());
        let answers_begin = ["zodb38-py27", "zodb39-py27"].contains(&name);
        let begin = Call::TpcBegin {
            txn: 6,
            user: b"",
            description: b"",
            extension: &Value::dict([]),
            tid: None,
            status: ' ',
        };
        if answers_begin {
            call(&client.link, &begin)
        } else {
            client.link.send(&begin)
        }
        let of_client = ClientBlobs::Cache(Arc::clone(&client.cache));
        let mut upload = of_client.dir().begin().unwrap();
        upload.write(&[1; 200_000]).unwrap();
        let mut blob = upload.end(Oid(1)).unwrap();
        let outgoing = of_client.outgoing(&mut blob, Tid::ZERO).unwrap();
        let given_up = Cancel::default();
        given_up.cancel();
        let record = BlobRecord { oid: Oid(1), serial: Tid::ZERO, data: RECORD };
        send(&client.link, &outgoing, record, 6, &given_up).unwrap_err();
        let abort = Call::TpcAbort { txn: 6 };
        if answers_begin {
            client.link.send(&abort)
        } else {
            call(&client.link, &abort)
        }
        let tid = client.commit(answers_begin, &[(Oid(1), b"blob".to_vec())]);
        assert_eq!(content(&client.cache.get(Oid(1), tid).unwrap().unwrap()), b"blob", "{name}");
    });
}
