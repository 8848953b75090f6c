//! The line between a middle and its root is cut before the root has answered a vote: the middle sends the transaction
//! again, and its client notices nothing.

use std::fmt::Debug;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use runzeo::ids::Oid;
use runzeo::internal::client::library::Client;

use crate::blob_cuts::{middle, point, register, socket, some};
use crate::library::{options, record, state};
use crate::line::{At, Event, Line, Point, Way};
use crate::proxy::Proxy;
use crate::raw_blobs::{Received, commit, content, get};
use crate::servers::{AnyServer, with_each_that_has_blobs};
use crate::support::client::{RawClient, Speaks};
use crate::support::process::Server;

/// In the log of the middle.
const REPEATED: &str = "a vote goes to the server once more";

/// The points up to the vote.
const STORE: [Point; 6] = [
    point(Way::ToServer, "tpc_begin", 1, At::Before),
    point(Way::ToServer, "tpc_begin", 1, At::After),
    point(Way::ToServer, "storea", 1, At::Within),
    point(Way::ToServer, "storea", 2, At::After),
    point(Way::ToServer, "vote", 1, At::Before),
    point(Way::ToServer, "vote", 1, At::Within),
];

const BLOB: [Point; 3] = [
    point(Way::ToServer, "storeBlobChunk", 2, At::After),
    point(Way::ToServer, "storeBlobEnd", 1, At::Within),
    point(Way::ToServer, "vote", 1, At::Before),
];

/// The state of an object at the root, and its serial.
fn current(root: &AnyServer, oid: u64) -> (String, u64) {
    let client = Client::open(options(root)).expect("a connection to the root");
    let view = client.view();
    let revision = view.load(Oid(oid)).expect("a load").expect("a revision");
    (state(&view, Oid(oid)), revision.serial.0)
}

/// The tid of a commit that was answered.
fn done<E: Debug>(what: &str, middle: &Server, outcome: io::Result<Result<u64, E>>) -> u64 {
    match outcome {
        Ok(Ok(tid)) => tid,
        other => panic!("{what}: {other:?}\n{}", middle.talk()),
    }
}

#[test]
fn a_client_does_not_notice_a_line_that_is_cut_before_its_vote_is_answered() {
    with_each_that_has_blobs(|root_name, root| {
        let line = Line::to(socket(&root));
        let middle = middle(&line);
        let reader = self::middle(&Line::to(socket(&root)));
        for speaks in [Speaks::Z4, Speaks::Z5] {
            let mut leaf = register(middle.address, speaks);
            let oids = leaf.new_oids(2).expect("oids");
            let mut last = 0;
            for (n, point) in some(root_name, STORE) {
                let what = format!("{root_name}, {speaks:?}, {point:?}");
                let text = format!("{n} {speaks:?}");
                let data = record(&text);
                line.plan(point, Event::Cut);
                let stores = [(oids[0], last, data.as_slice()), (oids[1], last, &data)];
                last = done(&what, &middle, leaf.commit(&stores));
                line.wait(&what);
                assert_eq!(current(&root, oids[n % 2]), (text, last), "{what}");
            }
            for (_, point) in some(root_name, BLOB) {
                let what = format!("{root_name}, {speaks:?}, {point:?}");
                let oid = leaf.new_oids(1).expect("oids")[0];
                let data = content(oid, 200_000);
                line.plan(point, Event::Cut);
                let tid = done(&what, &middle, commit(&mut leaf, oid, &data, 1));
                line.wait(&what);
                assert!(
                    get(&mut register(reader.address, Speaks::Z5), oid, tid).expect(&what)
                        == Received::Blob(data),
                    "{what}"
                );
            }
        }
        assert!(middle.count_in_log(REPEATED) > 0, "{}", middle.talk());
    });
}

/// The root has voted, and its answer is lost. It gives back the locks when it notices.
#[test]
fn a_vote_whose_answer_is_lost_is_repeated() {
    let root = Server::start();
    let proxy = Proxy::start(root.address, Duration::ZERO);
    let section = format!(
        "<zeoclient 1>\nserver {}\nmin-disconnect-poll 1\nmax-disconnect-poll 1\n</zeoclient>",
        proxy.address
    );
    let middle = Server::start_any("", &section, |_| ());
    let mut leaf = register(middle.address, Speaks::Z5);
    let oid = leaf.new_oids(1).expect("oids")[0];
    proxy.hold(0);
    let voting = thread::spawn(move || leaf.commit(&[(oid, 0, &record("once"))]));
    proxy.wait_until_kept_back(0);
    proxy.cut(0);
    let tid = done("the vote", &middle, voting.join().expect("no panic"));
    assert_eq!(middle.count_in_log(REPEATED), 1, "{}", middle.talk());
    assert_eq!(current(&AnyServer::Ours(root), oid), ("once".into(), tid));
}

/// The serials are compared again.
#[test]
fn what_was_committed_while_a_vote_was_lost_is_a_conflict() {
    let root = AnyServer::Ours(Server::start_storage("", "blob-dir blobs"));
    let line = Line::to(socket(&root));
    let middle = middle(&line);
    for speaks in [Speaks::Z4, Speaks::Z5] {
        let mut leaf = register(middle.address, speaks);
        let oid = leaf.new_oids(1).expect("oids")[0];
        let first = leaf.commit(&[(oid, 0, &record("first"))]).expect("connected").expect("a commit");
        // The root does not get the vote, so it holds no locks.
        line.plan(point(Way::ToServer, "vote", 1, At::Before), Event::Hold);
        let voting = thread::spawn(move || (leaf.commit(&[(oid, first, &record("lost"))]), leaf));
        line.wait("the vote");
        let mut direct = register(socket(&root), Speaks::Z5);
        let second = direct.commit(&[(oid, first, &record("second"))]).expect("connected").expect("a commit");
        line.cut();
        let (outcome, mut leaf) = voting.join().expect("no panic");
        let outcome = outcome.expect("connected");
        assert!(outcome.is_err(), "{speaks:?}: {outcome:?}");
        assert_eq!(current(&root, oid), ("second".into(), second));
        // The connection is the same one as before.
        leaf.call("lastTransaction", vec![]).expect("connected").expect("an answer");
    }
}

/// A root that ends the connection at each vote: the client gets an end, too, and the middle does not try for ever.
#[test]
fn a_vote_that_ends_each_connection_is_given_up() {
    let root = AnyServer::Ours(Server::start_storage("", "blob-dir blobs"));
    let line = Line::to(socket(&root));
    let middle = middle(&line);
    let mut leaf = register(middle.address, Speaks::Z5);
    let oid = leaf.new_oids(1).expect("oids")[0];
    let cut = point(Way::ToServer, "vote", 1, At::Before);
    line.plan(cut, Event::Cut);
    let voting = thread::spawn(move || leaf.commit(&[(oid, 0, &record("never"))]));
    let deadline = Instant::now() + Duration::from_secs(60);
    while !voting.is_finished() {
        assert!(Instant::now() < deadline, "it tries for ever");
        line.plan(cut, Event::Cut);
        thread::sleep(Duration::from_millis(1));
    }
    voting.join().expect("no panic").expect_err("the connection has ended");
    assert_eq!(middle.count_in_log(REPEATED), 2, "{}", middle.talk());
    let mut leaf: RawClient = register(middle.address, Speaks::Z5);
    line.clear();
    leaf.commit(&[(oid, 0, &record("once"))]).expect("connected").expect("a commit");
}
