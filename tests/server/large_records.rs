//! Records that are long, or become long when they are decompressed: their cost does not grow with the number of
//! clients that request them and do not read, and no record is stored that clients could not load.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::support::client::{RawClient, Speaks, record};
use crate::support::pickle::{Value, id};
use crate::support::process::Server;
use crate::support::storage::{Answers, commit, load, open};
use runzeo::ids::{Oid, Tid};
use runzeo::internal::storage::transform::zlib::Zlib;
use runzeo::storage::prelude::*;
use runzeo::storage::{Codec, PackProgress, PackRequest, StorageError, Transform};

const MB: usize = 1 << 20;
const ZLIB: &str =
    "%import zc.zlibstorage\n<zlibstorage 1>\n<filestorage>\npath Data.fs\n</filestorage>\n</zlibstorage>";

fn client(server: &Server) -> RawClient {
    RawClient::register(server.address, Speaks::Z5).expect("register").0
}

/// A compressed record of this length.
fn compressed(len: usize) -> Vec<u8> {
    Zlib { compress: true }.encode(&record(&vec![0; len])).into_owned()
}

fn grown(server: &Server, before: u64) -> u64 {
    server.peak_rss().saturating_sub(before) / MB as u64
}

/// A client stored a megabyte that decompressed to a gigabyte, at each load.
#[test]
fn a_record_that_no_message_could_carry_is_not_stored() {
    for by_clients in [false, true] {
        let storage =
            if by_clients { ZLIB.replace("zlibstorage 1>", "serverzlibstorage 1>") } else { ZLIB.into() };
        let storage = storage
            .replace("</zlibstorage>", if by_clients { "</serverzlibstorage>" } else { "</zlibstorage>" });
        let mut server = Server::start_any("max-message-size 1MB", &storage, |_| ());
        let mut storer = client(&server);
        let bomb = compressed(200 * MB);
        let before = server.rss();
        let (class, detail) = storer.commit(&[(7, 0, &bomb)]).expect("connected").expect_err("too long");
        assert_eq!(class, "ZODB.POSException.StorageError");
        let detail = format!("{detail:?}");
        assert!(detail.contains("0x0000000000000007") && detail.contains("max-message-size"), "{detail}");
        storer.commit(&[(7, 0, &compressed(900 << 10))]).expect("connected").expect("commit");
        assert!(grown(&server, before) < 20, "{} MB", grown(&server, before));
        assert!(server.stop().success(), "{}", server.talk());
    }
}

#[test]
fn a_record_that_became_too_long_is_an_error_of_its_load() {
    let bomb = compressed(200 * MB);
    let mut server = Server::start_any("max-message-size 1MB", ZLIB, |directory| {
        let storage = open(&directory.join("Data.fs"));
        commit(&storage, &[(7, Tid::ZERO, &bomb), (8, Tid::ZERO, b"small")]).expect("commit");
        storage.close().expect("close");
    });
    let before = server.rss();
    let mut readers: Vec<RawClient> = (0..10).map(|_| client(&server)).collect();
    for reader in &mut readers {
        let loads = [reader.queue_load(7), reader.queue_load(8)];
        reader.flush().expect("send");
        let (class, detail) = reader.answer(loads[0]).expect("connected").expect_err("too long");
        assert_eq!(class, "ZODB.POSException.StorageError");
        assert!(format!("{detail:?}").contains("max-message-size"), "{detail:?}");
        let small = reader.answer(loads[1]).expect("connected").expect("small");
        assert_eq!(small.tuple()[0].bytes(), b"small");
    }
    assert!(grown(&server, before) < 40, "{} MB", grown(&server, before));
    assert!(server.log().contains("Can't read object 0x0000000000000007"), "{}", server.talk());
    assert!(server.stop().success(), "{}", server.talk());
}

/// A record that was stored while longer messages were allowed keeps its references.
#[test]
fn a_pack_reads_what_is_longer_than_a_message() {
    let directory = tempfile::tempdir().expect("a directory");
    let base: Arc<dyn Storage> = Arc::new(open(&directory.path().join("Data.fs")));
    let zlib = || Arc::new(Zlib { compress: true });
    let long = [b"1 ".as_slice(), &vec![b' '; 5000]].concat();
    let generous = Transform::new(Arc::clone(&base), zlib(), false);
    let root = commit(&generous, &[(0, Tid::ZERO, &long), (1, Tid::ZERO, b"referred to")]).expect("commit");
    let strict = Transform::new(base, zlib(), false).with_len_max(1000);
    strict.set_publisher(Arc::new(Answers));
    let refused = strict.load_before(Oid(0), Tid::MAX, 0, &mut Vec::new());
    assert!(matches!(&refused, Err(StorageError::Refused { message, .. }) if message.contains("1000 bytes")));
    let refused = commit(&strict, &[(0, root, &zlib().encode(&long))]);
    assert!(
        matches!(&refused, Err(StorageError::Refused { message, .. }) if message.contains("0x0000000000000000"))
    );
    let references = |record: &[u8], oids: &mut Vec<Oid>| {
        oids.extend(record.starts_with(b"1 ").then_some(Oid(1)));
        Ok(())
    };
    let progress = PackProgress::default();
    let time = root.to_unix() + 10.0;
    let request =
        PackRequest { time, gc: Some(true), references: &references, progress: &progress, removals: None };
    strict.pack(&request).expect("pack");
    assert_eq!(load(&strict, 1).expect("kept").0, b"referred to");
}

/// Many clients requested a record of eight megabytes each and read nothing: the server had all of them in memory.
/// Loads of small records never wait, and loads of large ones do not wait for ever.
#[test]
fn clients_that_do_not_read_large_records_share_the_memory() {
    let zlib_record = compressed(8 * MB);
    for (storage, large) in [
        ("<filestorage 1>\npath Data.fs\n</filestorage>", record(&vec![7; 8 * MB])),
        ("<mappingstorage 1>\n</mappingstorage>", record(&vec![7; 8 * MB])),
        (ZLIB, zlib_record),
    ] {
        let mut server = Server::start_any("max-message-size 12MB", storage, |_| ());
        let mut honest = client(&server);
        let tid =
            honest.commit(&[(7, 0, &large), (8, 0, &record(b"8"))]).expect("connected").expect("commit");
        if storage == ZLIB || !storage.contains("mapping") {
            // After a restart the lengths are unknown.
            server.restart();
            honest = client(&server);
        }
        server.reset_peak();
        let before = server.rss();
        let mut silent: Vec<RawClient> = (0..24).map(|_| client(&server)).collect();
        for (at, silent) in silent.iter_mut().enumerate() {
            match at % 3 {
                0 => _ = silent.queue_load(7),
                1 => _ = silent.queue_call("loadSerial", vec![id(7), id(tid)]),
                _ => _ = silent.queue_call("record_iternext", vec![Value::None]),
            }
            silent.flush().expect("send");
        }
        thread::sleep(Duration::from_millis(500));
        for _ in 0..20 {
            honest.queue_load(8);
            honest.flush().expect("send");
            let small = honest.next().expect("connected");
            drop(small);
        }
        let grown = grown(&server, before);
        // Shares of 24 MB, each of which may be in memory twice, and 24 connections.
        assert!(grown < 130, "{grown} MB: {storage}");
        let waiting = honest.queue_load(7);
        honest.flush().expect("send");
        drop(silent);
        let loaded = honest.answer(waiting).expect("connected").expect("load");
        assert!(loaded.tuple()[0].bytes().len() >= 8 * MB);
        assert!(server.stop().success(), "{}", server.talk());
    }
}
