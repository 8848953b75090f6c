//! A cache of blobs that this program and ZEO's own clients use at the same time, and in which processes are killed.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use runzeo::ids::{Oid, Tid};
use runzeo::internal::client::blobs::{Begun, BlobCache, BlobCacheOptions, ClientBlobs, OutgoingBlob};
use runzeo::storage::BlobFile;

use crate::pythons::python;
use crate::support::child::{child, is_child};
use crate::support::client::{RawClient, Speaks};
use crate::support::pickle::Value;
use crate::support::process::Server;

/// Environments whose clients have a cache with this layout.
const PYTHONS: [&str; 5] = ["zodb39-py27", "zodb310-py27", "zeo4-py27", "zeo5-py38", "zeo6-py311"];
const COUNT: usize = 40;

/// A blob of the server.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    pub oid: Oid,
    pub tid: Tid,
    pub len: usize,
}

impl Known {
    pub fn content(&self) -> Vec<u8> {
        vec![self.oid.0 as u8; self.len]
    }

    pub fn parse(line: &str) -> Known {
        let parts: Vec<_> = line.split(' ').collect();
        let id = |text| u64::from_str_radix(text, 16).unwrap();
        Known { oid: Oid(id(parts[0])), tid: Tid(id(parts[1])), len: parts[2].parse().unwrap() }
    }
}

pub fn read(blob: &BlobFile) -> Vec<u8> {
    let mut data = vec![0; blob.len as usize];
    assert_eq!(blob.read_at(&mut data, 0).unwrap(), data.len());
    data
}

/// Gets a blob as a client does, except that no server sends it.
fn load(cache: &Arc<BlobCache>, known: &Known) -> Vec<u8> {
    match cache.begin(known.oid, known.tid).unwrap() {
        Begun::There(blob) => read(&blob),
        Begun::Download(mut download) => {
            for chunk in known.content().chunks(59_000) {
                download.write(chunk).unwrap();
                thread::yield_now();
            }
            read(&download.finish().unwrap())
        }
    }
}

fn open(dir: &Path, size: Option<u64>) -> Arc<BlobCache> {
    BlobCache::open(BlobCacheOptions {
        dir: dir.into(),
        size,
        check_percent: 10,
        name: "test".into(),
        serves_clients: false,
    })
    .unwrap()
}

fn server() -> Server {
    Server::start_storage("", "blob-dir blobs")
}

pub fn script(
    environment: &str,
    what: &str,
    server: SocketAddr,
    dir: &Path,
    numbers: [&str; 2],
) -> Option<Command> {
    let mut command = Command::new(python(environment)?);
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/client/blob_cache.py"))
        .args([what, &server.ip().to_string(), &server.port().to_string()])
        .arg(dir)
        .args(numbers)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Some(command)
}

/// Lets a client of Python make blobs in the server: one line for each. `None`: there is no such Python.
fn stored(server: &Server, dir: &Path) -> Option<String> {
    let count = COUNT.to_string();
    let output = script("zeo6-py311", "store", server.address, dir, [&count, "0"])?.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

pub fn start(mut command: Command, lines: &str) -> Child {
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    child
}

pub fn check_success(name: &str, child: Child) {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
}

pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

pub fn has_suffix(path: &Path, suffix: &str) -> bool {
    path.extension().is_some_and(|found| found == suffix)
}

fn total(dir: &Path) -> u64 {
    files(dir)
        .iter()
        .filter(|path| has_suffix(path, "blob"))
        .map(|path| fs::metadata(path).unwrap().len())
        .sum()
}

/// Every file with the name of a blob is the whole blob.
pub fn check_files(dir: &Path, known: &[Known]) {
    let cache = open(dir, None);
    for known in known {
        if let Some(blob) = cache.get(known.oid, known.tid).unwrap() {
            assert!(read(&blob) == known.content(), "{known:?} is damaged");
        }
    }
}

#[test]
fn pythons_clients_read_what_we_downloaded_and_we_what_they_did() {
    let (server, dir) = (server(), tempfile::tempdir().unwrap());
    let Some(lines) = stored(&server, &dir.path().join("of_committer")) else { return };
    let known: Vec<_> = lines.lines().map(Known::parse).collect();
    for environment in PYTHONS {
        let (ours, theirs) = (dir.path().join(environment), dir.path().join(format!("{environment}-theirs")));
        let cache = open(&ours, None);
        for known in &known {
            assert!(load(&cache, known) == known.content());
        }
        let Some(command) = script(environment, "load", server.address, &ours, ["100000000", "0"]) else {
            continue;
        };
        // It could not get them from the server.
        let before = files(&ours).len();
        check_success(environment, start(command, &lines));
        // Its lock and its attempts to check the size are files, too.
        let added: Vec<_> = files(&ours).into_iter().filter(|path| has_suffix(path, "blob")).collect();
        assert_eq!(added.len(), COUNT, "{before} files before");
        let command = script(environment, "load", server.address, &theirs, ["100000000", "0"]).unwrap();
        check_success(environment, start(command, &lines));
        let cache = open(&theirs, None);
        for known in &known {
            let blob = cache.get(known.oid, known.tid).unwrap().expect("Python has downloaded it");
            assert!(read(&blob) == known.content());
        }
    }
}

#[test]
fn processes_of_all_kinds_download_and_check_sizes_at_the_same_time() {
    let (server, dir) = (server(), tempfile::tempdir().unwrap());
    let Some(lines) = stored(&server, &dir.path().join("of_committer")) else { return };
    let known: Vec<_> = lines.lines().map(Known::parse).collect();
    let shared = dir.path().join("shared");
    let cache = open(&shared, Some(1_000_000));
    let pythons: Vec<_> = ["zeo4-py27", "zeo6-py311", "zeo6-py311"]
        .iter()
        .filter_map(|name| Some((name, script(name, "load", server.address, &shared, ["1000000", "1500"])?)))
        .map(|(name, command)| (name, start(command, &lines)))
        .collect();
    thread::scope(|scope| {
        for thread in 0..3usize {
            let (cache, known) = (&cache, &known);
            scope.spawn(move || {
                for round in 0..1500 {
                    let known = &known[(round * 11 + round / 40 + thread * 17) % COUNT];
                    assert!(load(cache, known) == known.content(), "{known:?}");
                    thread::sleep(Duration::from_millis(1));
                }
            });
        }
    });
    for (name, child) in pythons {
        check_success(name, child);
    }
    cache.set_size(Some(1_000_000), 10);
    cache.wait_for_check();
    assert!(total(&shared) <= 900_000);
    check_files(&shared, &known);
    assert!(!files(&shared).iter().any(|path| has_suffix(path, "dl")), "no download is left over");
}

#[test]
fn a_killed_download_leaves_no_damaged_blob() {
    if is_child() {
        return download_for_ever();
    }
    let (server, dir) = (server(), tempfile::tempdir().unwrap());
    let Some(lines) = stored(&server, &dir.path().join("of_committer")) else { return };
    let known: Vec<_> = lines.lines().map(Known::parse).collect();
    let shared = dir.path().join("shared");
    fs::write(dir.path().join("known"), &lines).unwrap();
    // Python's client fails if another process makes the directories at the same moment.
    drop(open(&shared, None));
    for round in 0..6u64 {
        let test = "blobs::a_killed_download_leaves_no_damaged_blob";
        let mut ours = child(test).env("BLOBS", dir.path()).stdout(Stdio::null()).spawn().unwrap();
        let python = script("zeo6-py311", "load", server.address, &shared, ["300000", "1000000"]).unwrap();
        let mut python = start(python, &lines);
        thread::sleep(Duration::from_millis(700 + 37 * round));
        ours.kill().unwrap();
        python.kill().unwrap();
        assert_eq!(ours.wait().unwrap().code(), None);
        let python = python.wait_with_output().unwrap();
        assert_eq!(python.status.code(), None, "{}", String::from_utf8_lossy(&python.stderr));
        check_files(&shared, &known);
    }
    let cache = open(&shared, None);
    for known in &known {
        assert!(load(&cache, known) == known.content());
    }
    let python = script("zeo4-py27", "load", server.address, &shared, ["100000000", "0"]);
    if let Some(python) = python {
        check_success("zeo4-py27", start(python, &lines));
    }
}

fn download_for_ever() {
    let dir = PathBuf::from(std::env::var_os("BLOBS").unwrap());
    let known: Vec<_> = fs::read_to_string(dir.join("known")).unwrap().lines().map(Known::parse).collect();
    let cache = open(&dir.join("shared"), Some(300_000));
    for round in 0.. {
        load(&cache, &known[round * 7 % COUNT]);
    }
}

/// The class of a blob's record.
const RECORD: &[u8] = b"cZODB.blob\nBlob\n.N.";

#[test]
fn a_blob_goes_through_the_directory_that_the_server_shares() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("blobs");
    let server = Server::start_storage("", &format!("blob-dir {}", path.display()));
    let blobs = ClientBlobs::open_shared(&path).unwrap();
    let mut upload = blobs.dir().begin().unwrap();
    upload.write(b"the blob").unwrap();
    let mut staged = upload.end(Oid(7)).unwrap();
    let OutgoingBlob::Shared(name) = blobs.outgoing(&mut staged, Tid::ZERO).unwrap() else {
        panic!("it is shared")
    };
    let (mut client, _) = RawClient::register(server.address, Speaks::Z5).unwrap();
    client.queue_begin(1);
    let (oid, serial) = (Value::Bytes(7u64.to_be_bytes().to_vec()), Value::Bytes(vec![0; 8]));
    let arguments = vec![oid, serial, Value::Bytes(RECORD.to_vec()), Value::Text(name), Value::Int(1)];
    client.queue_async("storeBlobShared", arguments);
    client.call("vote", vec![Value::Int(1)]).unwrap().unwrap();
    let tid = client.call("tpc_finish", vec![Value::Int(1)]).unwrap().unwrap().id();
    blobs.committed(Oid(7), Tid(tid), staged);
    let blob = blobs.dir().load(Oid(7), Tid(tid)).unwrap();
    assert_eq!(read(&blob), b"the blob");
    let left: Vec<_> = files(&path).into_iter().filter(|path| !has_suffix(path, "blob")).collect();
    assert_eq!(left, [path.join(".layout")]);
}

#[test]
fn a_committed_blob_is_in_the_cache_without_being_copied() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path(), None);
    let blobs = ClientBlobs::Cache(Arc::clone(&cache));
    let mut upload = blobs.dir().begin().unwrap();
    upload.write(b"the blob").unwrap();
    let mut staged = upload.end(Oid(7)).unwrap();
    let OutgoingBlob::Bytes(sent) = blobs.outgoing(&mut staged, Tid::ZERO).unwrap() else {
        panic!("it is sent")
    };
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    let before = inode(&sent.path);
    blobs.committed(Oid(7), Tid(5), staged);
    let kept = cache.get(Oid(7), Tid(5)).unwrap().unwrap();
    assert_eq!((read(&kept), inode(&kept.path)), (b"the blob".to_vec(), before));
    let refused = blobs.dir().adopt(Oid(7), "0x00abc.tmp-").map(drop).unwrap_err().to_string();
    assert!(refused.contains("cannot share"), "{refused}");
}
