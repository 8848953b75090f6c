//! Blobs that a middle server must download: nobody waits for them but those that want them.

use std::fs;

use crate::raw_blobs::{Received, ask, commit, content, get, receive, receive_among};
use crate::servers::AnyServer;
use crate::support::client::{Incoming, RawClient, Speaks};
use crate::support::pickle::id;
use crate::support::process::Server;

fn root() -> Server {
    let storage = "<filestorage 1>\npath Data.fs\nblob-dir blobs\n</filestorage>";
    Server::start_logging("debug", "", storage, |_| ())
}

fn middle(root: &AnyServer) -> Server {
    crate::middle::middle(root, "blob-dir cache")
}

fn register(server: &Server, speaks: Speaks) -> RawClient {
    RawClient::register(server.address, speaks).expect("register").0
}

fn ours(root: &AnyServer) -> &Server {
    let AnyServer::Ours(server) = root else { unreachable!() };
    server
}

/// The root stands still while blobs are wanted from it.
#[test]
fn a_slow_root_holds_up_only_those_that_want_its_blobs() {
    let root = AnyServer::Ours(root());
    let middle = middle(&root);
    let mut committer = register(ours(&root), Speaks::Z5);
    let mut txn = 0;
    let mut blob = |len: usize| {
        txn += 1;
        let oid = committer.new_oids(1).unwrap()[0];
        let data = content(oid, len);
        let tid = commit(&mut committer, oid, &data, txn).unwrap().unwrap();
        (oid, tid, data)
    };
    let wanted: Vec<_> = Speaks::ALL.iter().map(|_| blob(150_000)).collect();
    let (here, long_here) = (blob(1000), blob(3_000_000));
    for (speaks, (oid, tid, data)) in Speaks::ALL.into_iter().zip(wanted) {
        let (mut leaf, mut other) = (register(&middle, speaks), register(&middle, speaks));
        for (oid, tid, data) in [&here, &long_here] {
            assert!(get(&mut leaf, *oid, *tid).unwrap() == Received::Blob(data.clone()), "{speaks:?}");
        }
        // Into the cache of the middle.
        let load = leaf.queue_load(here.0);
        leaf.flush().unwrap();
        leaf.answer(load).unwrap().expect("the object");
        let threads = middle.thread_count();

        ours(&root).freeze();
        let asked = ask(&mut leaf, oid, tid);
        // More than there are threads for, and more than once the same.
        for n in 0..500 {
            leaf.queue_call("sendBlob", vec![id(oid), id(tid - 1 - n % 50)]);
        }
        let load = leaf.queue_load(here.0);
        leaf.flush().unwrap();
        loop {
            match leaf.next().unwrap() {
                Incoming::Reply { id, .. } if id == load => break,
                Incoming::Push { method, .. } if method == "info" => {}
                other => panic!("{speaks:?}: {other:?}"),
            }
        }
        let asked_too = ask(&mut other, oid, tid);
        let (short, tid_of_short, data_of_short) = &here;
        // Another leaf: what is here is sent at once.
        assert_eq!(
            get(&mut register(&middle, speaks), *short, *tid_of_short).unwrap(),
            Received::Blob(data_of_short.clone())
        );
        // So is a long one to the one that waits for the root, by another thread.
        let (long, tid_of_long, data_of_long) = &long_here;
        let got = get(&mut other, *long, *tid_of_long).unwrap();
        assert!(got == Received::Blob(data_of_long.clone()), "{speaks:?}");
        let added = middle.thread_count().saturating_sub(threads);
        assert!(added < 30, "{speaks:?}: {added} threads for 500 blobs");

        ours(&root).signal("CONT");
        assert!(receive(&mut other, asked_too, oid, tid).unwrap() == Received::Blob(data.clone()));
        let (got, mut refused) = receive_among(&mut leaf, asked, oid, tid).unwrap();
        assert!(got == Received::Blob(data), "{speaks:?}");
        while refused.len() < 500 {
            let Incoming::Error { class, .. } = leaf.next().unwrap() else { continue };
            refused.push(class);
        }
        assert!(refused.iter().all(|class| class.contains("POSKeyError")), "{speaks:?}: {refused:?}");
        assert_eq!(
            ours(&root).count_in_log(&format!("Blob requested {oid:016x}, {tid:016x}")),
            1,
            "{speaks:?}"
        );
    }
    let cache = fs::read_dir(middle.directory().join("cache/tmp")).unwrap();
    assert_eq!(cache.count(), 0);
}
