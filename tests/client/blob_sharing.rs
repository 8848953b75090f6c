//! A directory of blobs that a server in the middle and its leaves use at the same time.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use runzeo::ids::{Oid, Tid};
use runzeo::internal::client::library::Client;
use runzeo::internal::client::options::ClientOptions;
use runzeo::storage::prelude::*;

use crate::blobs::{Known, check_files, files, has_suffix, read, script, start};
use crate::servers::tcp;
use crate::support::process::Server;

/// Environments of the clients that may be leaves.
const LEAVES: [&str; 3] = ["zeo4-py27", "zeo5-py38", "zeo6-py311"];

pub fn root() -> Server {
    let storage = "<filestorage 1>\npath Data.fs\nblob-dir blobs\n</filestorage>";
    Server::start_logging("debug", "", storage, |_| ())
}

pub fn middle(upstream: SocketAddr, keys: &str) -> Server {
    let section = format!("<zeoclient 1>\nserver {upstream}\n{keys}\n</zeoclient>");
    Server::start_any("", &section, |_| ())
}

/// Waits until the client of Python has ended, for less than the ten minutes that it may wait for a lock.
pub fn ended(name: &str, mut child: Child) -> Output {
    let deadline = Instant::now() + Duration::from_secs(60);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            _ = child.kill();
            panic!("{name} waits");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

fn check_ends(name: &str, child: Child) -> String {
    let output = ended(name, child);
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Makes blobs with a client of Python. Returns its lines. `None`: there is no such Python.
pub fn stored(environment: &str, server: SocketAddr, dir: &Path, count: usize) -> Option<String> {
    let command = script(environment, "store", server, dir, [&count.to_string(), "0"])?;
    let lines = check_ends(environment, start(command, ""));
    assert_eq!(lines.lines().count(), count, "{environment}");
    Some(lines)
}

fn parse(lines: &str) -> Vec<Known> {
    lines.lines().map(Known::parse).collect()
}

fn library(server: &Server, dir: &Path, is_shared: bool) -> Client {
    let mut options = ClientOptions::new(vec![tcp(server.address)]);
    options.blob_dir = Some(dir.into());
    options.shared_blob_dir = is_shared;
    Client::open(options).expect("a connection")
}

/// Checks that the cache has exactly these blobs, whole, and nothing that was left over.
fn check_cache(dir: &Path, known: &[Known]) {
    let blobs = files(dir).into_iter().filter(|path| has_suffix(path, "blob"));
    assert_eq!(blobs.count(), known.len());
    check_files(dir, known);
    assert_eq!(fs::read_dir(dir.join("tmp")).unwrap().count(), 0);
    let endings: BTreeSet<_> =
        files(dir).iter().filter_map(|path| Some(path.extension()?.to_owned())).collect();
    assert!(
        !endings.iter().any(|ending| ending == "dl" || ending == "tmp" || ending == "tmp-"),
        "{endings:?}"
    );
}

/// A client has the lock of the blob's directory while it waits for the middle.
#[test]
fn leaves_have_the_cache_of_their_middle() {
    let (root, dir) = (root(), tempfile::tempdir().unwrap());
    let Some(lines) = stored("zeo6-py311", root.address, &dir.path().join("committer"), 40) else { return };
    let known = parse(&lines);
    let asked = || root.count_in_log("Blob requested");
    for environment in LEAVES {
        let cache = dir.path().join(environment);
        let middle = middle(root.address, &format!("blob-dir {}", cache.display()));
        let before = asked();
        let load = || script(environment, "load", middle.address, &cache, ["100000000", "0"]);
        let Some(command) = load() else { continue };
        check_ends(environment, start(command, &lines));
        check_cache(&cache, &known);
        assert_eq!(asked() - before, known.len(), "{environment}");
        // A commit of a leaf, and its blobs with another leaf.
        let more = stored(environment, middle.address, &cache, 10).unwrap();
        check_ends(environment, start(load().unwrap(), &more));
        check_cache(&cache, &[known.clone(), parse(&more)].concat());
        assert_eq!(asked() - before, known.len(), "{environment}");
    }
    let cache = dir.path().join("library");
    let middle = middle(root.address, &format!("blob-dir {}", cache.display()));
    let leaf = library(&middle, &cache, false);
    for known in &known {
        let blob = leaf.open_blob(known.oid, known.tid).unwrap();
        assert!(read(&blob) == known.content());
    }
    check_cache(&cache, &known);
}

/// With a client of Python that takes the directory for its server's own.
fn shared(
    environment: &str,
    what: &str,
    server: SocketAddr,
    dir: &Path,
    numbers: [&str; 2],
) -> Option<Command> {
    let mut command = script(environment, what, server, dir, numbers)?;
    command.arg("shared");
    Some(command)
}

/// Commits a blob of the library.
fn commit(client: &Client, data: &[u8]) -> (Oid, Tid) {
    let oid = client.new_oids(1).unwrap()[0];
    let mut transaction = client.transaction(Default::default());
    let staged = client.stage_blob(oid, &mut &*data).unwrap();
    transaction.store_blob(oid, Tid::ZERO, b"cZODB.blob\nBlob\n.N.", staged).unwrap();
    (oid, client.commit(transaction).unwrap().tid)
}

/// Clients move the file of a blob that they commit to where the middle takes it over; so does the middle for the root.
#[test]
fn root_middle_and_leaves_have_one_directory() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = dir.path().join("blobs");
    let root = Server::start_storage("", &format!("blob-dir {}", blobs.display()));
    let middle = middle(root.address, &format!("blob-dir {}\nshared-blob-dir true", blobs.display()));
    let mut lines = String::new();
    for environment in LEAVES {
        let store = shared(environment, "store", middle.address, &blobs, ["10", "1"]);
        lines += &store.map_or_else(String::new, |command| check_ends(environment, start(command, "")));
    }
    for environment in LEAVES {
        let load = shared(environment, "load", middle.address, &blobs, ["100000000", "0"]);
        load.map(|command| check_ends(environment, start(command, &lines)));
    }
    let leaf = library(&middle, &blobs, true);
    let (oid, tid) = commit(&leaf, b"of the library");
    for client in [&leaf, &library(&root, &blobs, true)] {
        assert_eq!(read(&client.open_blob(oid, tid).unwrap()), b"of the library");
        for known in parse(&lines) {
            assert!(read(&client.open_blob(known.oid, known.tid).unwrap()) == known.content());
        }
    }
    assert_eq!(fs::read_dir(blobs.join("tmp")).unwrap().count(), 0);
    let files = files(&blobs);
    let others: Vec<_> =
        files.iter().filter(|path| !has_suffix(path, "blob") && !path.ends_with(".layout")).collect();
    assert!(others.is_empty(), "{others:?}");
}

/// What the leaf takes the directory for is not what it is.
#[test]
fn leaves_that_take_a_directory_for_another_kind() {
    let dir = tempfile::tempdir().unwrap();
    let (blobs, cache) = (dir.path().join("blobs"), dir.path().join("cache"));
    let root = Server::start_storage("", &format!("blob-dir {}", blobs.display()));
    let middle = middle(root.address, &format!("blob-dir {}", cache.display()));
    let Some(lines) = stored("zeo6-py311", root.address, &dir.path().join("committer"), 4) else { return };
    let known = parse(&lines);
    let reader = library(&middle, &dir.path().join("reader"), false);
    // Only the first is in the cache of the middle.
    reader.open_blob(known[0].oid, known[0].tid).unwrap();
    let first = lines.lines().next().unwrap();
    let refused = |name: &str, mut command: Command, lines: &str, text: &str| {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        // It may have ended.
        _ = child.stdin.take().unwrap().write_all(lines.as_bytes());
        let output = ended(name, child);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(text), "{name}: {said}");
    };
    for environment in LEAVES {
        let numbers = ["1", "0"];
        let Some(command) = shared(environment, "load", middle.address, &cache, numbers) else { continue };
        refused(environment, command, first, "KeyError: 'zeocache'");
        // In a process that has had a cache, Python knows the layout; but it does not ask for what is not there.
        let registered = |what: &str| {
            let mut command = script(environment, what, middle.address, &cache, numbers).unwrap();
            command.arg("registered");
            command
        };
        check_ends(environment, start(registered("load"), first));
        refused(environment, registered("load"), &lines, "No blob file at");
        refused(environment, registered("store"), "", "cannot share");
        let command = script(environment, "load", middle.address, &blobs, numbers).unwrap();
        refused(environment, command, first, "bushy");
        // The root's directory, with a middle that does not share it.
        let load = shared(environment, "load", middle.address, &blobs, numbers).unwrap();
        check_ends(environment, start(load, &lines));
        let store = shared(environment, "store", middle.address, &blobs, numbers).unwrap();
        refused(environment, store, "", "cannot share");
    }
    let open = |dir: &Path, is_shared: bool| {
        let mut options = ClientOptions::new(vec![tcp(middle.address)]);
        options.blob_dir = Some(dir.into());
        options.shared_blob_dir = is_shared;
        Client::open(options).map(drop).unwrap_err().to_string()
    };
    assert!(open(&cache, true).contains("a client's cache"));
    assert!(open(&blobs, false).contains("marker found for layout `bushy`"));
}
