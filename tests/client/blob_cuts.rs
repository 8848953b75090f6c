//! The line is cut, and servers are killed, at each point of a blob's way through a middle.
//!
//! Afterwards no part of a blob is served, nothing is left over, and the next attempt succeeds.

use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use runzeo::internal::base::address::Address;

use crate::blobs::{files, has_suffix};
use crate::line::{At, Event, Line, Point, Way};
use crate::raw_blobs::{Received, commit, content, get};
use crate::servers::{AnyServer, with_each_that_has_blobs};
use crate::support::client::{RawClient, Speaks};
use crate::support::pickle::{Value, text};
use crate::support::process::Server;

/// A blob of four messages.
const LEN: usize = 200_000;

pub const fn point(way: Way, name: &'static str, nth: usize, at: At) -> Point {
    Point { way, name, nth, at }
}

/// The points of a download.
const DOWNLOAD: [Point; 9] = [
    point(Way::ToServer, "sendBlob", 1, At::Before),
    point(Way::ToServer, "sendBlob", 1, At::After),
    point(Way::ToClient, "receiveBlobStart", 1, At::After),
    point(Way::ToClient, "receiveBlobChunk", 1, At::Within),
    point(Way::ToClient, "receiveBlobChunk", 2, At::After),
    point(Way::ToClient, "receiveBlobChunk", 4, At::Within),
    point(Way::ToClient, "receiveBlobChunk", 4, At::After),
    point(Way::ToClient, "receiveBlobStop", 1, At::Before),
    point(Way::ToClient, "receiveBlobStop", 1, At::After),
];

/// The points of an upload, from `tpc_begin` to `tpc_finish`.
const UPLOAD: [Point; 9] = [
    point(Way::ToServer, "tpc_begin", 1, At::After),
    point(Way::ToServer, "storeBlobStart", 1, At::After),
    point(Way::ToServer, "storeBlobChunk", 1, At::Within),
    point(Way::ToServer, "storeBlobChunk", 3, At::After),
    point(Way::ToServer, "storeBlobEnd", 1, At::Before),
    point(Way::ToServer, "storeBlobEnd", 1, At::After),
    point(Way::ToServer, "vote", 1, At::After),
    point(Way::ToServer, "tpc_finish", 1, At::Before),
    point(Way::ToServer, "tpc_finish", 1, At::After),
];

/// All points for a root of this program; every third for one of Python, not the same for each of them.
pub fn some<const N: usize>(root_name: &str, points: [Point; N]) -> impl Iterator<Item = (usize, Point)> {
    let is_ours = root_name == "ours";
    let first = root_name.bytes().map(usize::from).sum::<usize>();
    points.into_iter().enumerate().filter(move |(n, _)| is_ours || (n + first).is_multiple_of(3))
}

pub fn socket(server: &AnyServer) -> SocketAddr {
    let Address::Tcp { host: Some(host), port: Some(port) } = server.address() else {
        panic!("a TCP address")
    };
    format!("{host}:{port}").parse().unwrap()
}

/// A middle whose line to its root is `line`.
pub fn middle(line: &Line) -> Server {
    let storage = format!(
        "<zeoclient 1>\nserver {}\nmin-disconnect-poll 1\nmax-disconnect-poll 1\nblob-dir cache\n</zeoclient>",
        line.address
    );
    Server::start_any("", &storage, |_| ())
}

/// Connects as a client does: again and again. A middle is read-only while its root is away.
pub fn register(address: SocketAddr, speaks: Speaks) -> RawClient {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let mut client = RawClient::connect(address, speaks);
        let arguments = vec![text("1"), Value::Bool(false)];
        match client.as_mut().map(|client| client.call("register", arguments)) {
            Ok(Ok(Ok(_))) => return client.unwrap(),
            refused => assert!(Instant::now() < deadline, "{:?}", refused.map(drop)),
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Gets a blob as a client does that connects again when its connection ends.
fn get_at_last(address: SocketAddr, speaks: Speaks, oid: u64, tid: u64) -> Received {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match get(&mut register(address, speaks), oid, tid) {
            Ok(received) => return received,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}

/// Commits a blob. Of an attempt that ended without an answer it is found out whether it counts.
fn commit_at_last(address: SocketAddr, speaks: Speaks, oid: u64, data: &[u8]) -> u64 {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let mut client = register(address, speaks);
        match commit(&mut client, oid, data, 1) {
            Ok(Ok(tid)) => return tid,
            // The attempt before was committed; this one says so.
            Ok(Err(class)) if class.contains("ConflictError") => return tid_of(address, oid),
            Ok(Err(class)) => assert!(class.contains("ReadOnlyError"), "{speaks:?}: {class}"),
            Err(_) => {}
        }
        assert!(Instant::now() < deadline);
    }
}

fn tid_of(address: SocketAddr, oid: u64) -> u64 {
    let mut client = register(address, Speaks::Z5);
    let load = client.queue_load(oid);
    client.flush().unwrap();
    client.answer(load).unwrap().expect("the object").tuple()[1].id()
}

fn new_oid(address: SocketAddr) -> u64 {
    register(address, Speaks::Z5).new_oids(1).unwrap()[0]
}

/// Nothing but whole blobs is in the cache of the middle.
fn check_cache(what: &str, middle: &Server, blobs: &[(u64, Vec<u8>)]) {
    let cache = middle.directory().join("cache");
    let is_left =
        |path: &Path| has_suffix(path, "dl") || path.parent().is_some_and(|dir| dir.ends_with("tmp"));
    // What a killed process left is removed at the start, in a thread; what an abort leaves, by a session.
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Some(left) = files(&cache).into_iter().find(|path| is_left(path)) {
        assert!(Instant::now() < deadline, "{what}: {} is left", left.display());
        thread::sleep(Duration::from_millis(10));
    }
    for path in files(&cache).into_iter().filter(|path| has_suffix(path, "blob")) {
        let data = std::fs::read(&path).unwrap();
        assert!(blobs.iter().any(|(_, known)| *known == data), "{what}: {} is damaged", path.display());
    }
}

#[test]
fn a_download_is_cut_at_each_point() {
    with_each_that_has_blobs(|root_name, root| {
        let line = Line::to(socket(&root));
        let middle = middle(&line);
        let committer = self::middle(&Line::to(socket(&root)));
        let mut blobs = Vec::new();
        for (n, point) in some(root_name, DOWNLOAD) {
            let speaks = Speaks::ALL[n % Speaks::ALL.len()];
            let what = format!("{root_name}, {speaks:?}, {point:?}");
            let oid = new_oid(committer.address);
            let data = content(oid, LEN);
            let tid = commit_at_last(committer.address, Speaks::Z5, oid, &data);
            blobs.push((oid, data.clone()));
            line.plan(point, Event::Cut);
            let received = get_at_last(middle.address, speaks, oid, tid);
            line.wait(&what);
            assert!(received == Received::Blob(data), "{what}");
        }
        check_cache(root_name, &middle, &blobs);
    });
}

#[test]
fn servers_are_killed_at_each_point_of_a_download() {
    let mut root = Server::start_storage("", "blob-dir blobs");
    let line = Line::to(root.address);
    let mut middle = middle(&line);
    let mut blobs = Vec::new();
    for (n, point) in DOWNLOAD.into_iter().enumerate() {
        for kill_root in [true, false] {
            let speaks = Speaks::ALL[(n + usize::from(kill_root)) % Speaks::ALL.len()];
            let what = format!("{} killed, {speaks:?}, {point:?}", if kill_root { "root" } else { "middle" });
            let oid = new_oid(root.address);
            let data = content(oid, LEN);
            let tid = commit_at_last(root.address, Speaks::Z5, oid, &data);
            blobs.push((oid, data.clone()));
            line.plan(point, Event::Hold);
            let address = middle.address;
            let asking = thread::spawn(move || get_at_last(address, speaks, oid, tid));
            line.wait(&what);
            let killed = if kill_root { &mut root } else { &mut middle };
            killed.kill();
            line.cut();
            killed.start_again();
            assert!(asking.join().unwrap() == Received::Blob(data), "{what}");
            check_cache(&what, &middle, &blobs);
        }
    }
}

#[test]
fn an_upload_is_cut_at_each_point_between_middle_and_root() {
    with_each_that_has_blobs(|root_name, root| {
        let line = Line::to(socket(&root));
        let middle = middle(&line);
        let reader = self::middle(&Line::to(socket(&root)));
        let mut blobs = Vec::new();
        for (n, point) in some(root_name, UPLOAD) {
            let speaks = Speaks::ALL[n % Speaks::ALL.len()];
            let what = format!("{root_name}, {speaks:?}, {point:?}");
            let oid = new_oid(middle.address);
            let data = content(oid, LEN);
            blobs.push((oid, data.clone()));
            line.plan(point, Event::Cut);
            let tid = commit_at_last(middle.address, speaks, oid, &data);
            line.wait(&what);
            for address in [middle.address, reader.address] {
                assert!(get_at_last(address, speaks, oid, tid) == Received::Blob(data.clone()), "{what}");
            }
        }
        check_cache(root_name, &middle, &blobs);
    });
}

#[test]
fn an_upload_is_cut_at_each_point_between_leaf_and_middle() {
    let root = Server::start_storage("", "blob-dir blobs");
    let middle = middle(&Line::to(root.address));
    let line = Line::to(middle.address);
    let mut blobs = Vec::new();
    for (n, point) in UPLOAD.into_iter().enumerate() {
        for speaks in [Speaks::ALL[n % Speaks::ALL.len()], Speaks::ALL[(n + 3) % Speaks::ALL.len()]] {
            let what = format!("{speaks:?}, {point:?}");
            let oid = new_oid(middle.address);
            let data = content(oid, LEN);
            blobs.push((oid, data.clone()));
            line.plan(point, Event::Cut);
            let tid = commit_at_last(line.address, speaks, oid, &data);
            line.wait(&what);
            for address in [middle.address, root.address] {
                assert!(get_at_last(address, speaks, oid, tid) == Received::Blob(data.clone()), "{what}");
            }
        }
    }
    check_cache("leaf", &middle, &blobs);
}

#[test]
fn servers_are_killed_at_each_point_of_an_upload() {
    let mut root = Server::start_storage("", "blob-dir blobs");
    let line = Line::to(root.address);
    let mut middle = middle(&line);
    let mut blobs = Vec::new();
    for (n, point) in UPLOAD.into_iter().enumerate() {
        for kill_root in [true, false] {
            let speaks = Speaks::ALL[(n + usize::from(kill_root)) % Speaks::ALL.len()];
            let what = format!("{} killed, {speaks:?}, {point:?}", if kill_root { "root" } else { "middle" });
            let oid = new_oid(root.address);
            let data = content(oid, LEN);
            blobs.push((oid, data.clone()));
            line.plan(point, Event::Hold);
            let (address, sent) = (middle.address, data.clone());
            let storing = thread::spawn(move || commit_at_last(address, speaks, oid, &sent));
            line.wait(&what);
            let killed = if kill_root { &mut root } else { &mut middle };
            killed.kill();
            line.cut();
            killed.start_again();
            let tid = storing.join().unwrap();
            for address in [middle.address, root.address] {
                assert!(get_at_last(address, speaks, oid, tid) == Received::Blob(data.clone()), "{what}");
            }
        }
    }
    // What a killed middle was to send stays in its directory for uploads, for a week. It is never a blob.
    let cache = middle.directory().join("cache");
    for path in files(&cache) {
        assert!(!has_suffix(&path, "dl"), "{}", path.display());
        if has_suffix(&path, "blob") {
            let data = std::fs::read(&path).unwrap();
            assert!(blobs.iter().any(|(_, known)| *known == data), "{} is damaged", path.display());
        }
    }
    // Nothing of it is left in the root.
    let deadline = Instant::now() + Duration::from_secs(60);
    while std::fs::read_dir(root.directory().join("blobs/tmp")).unwrap().next().is_some() {
        assert!(Instant::now() < deadline, "an upload is left in the root");
        thread::sleep(Duration::from_millis(10));
    }
}
