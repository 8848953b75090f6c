//! Blobs through a server that is itself a client: from leaves to the server of the database and back.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use crate::blobs::{check_success, files, has_suffix, script, start};
use crate::servers::{PYTHONS, PythonServer};
use crate::support::process::Server;

const BLOB_STORAGE: &str =
    "<blobstorage 1>\nblob-dir blobs\n<filestorage>\npath Data.fs\n</filestorage>\n</blobstorage>";

/// A server of this program whose storage is that of another one.
fn middle(upstream: SocketAddr, keys: &str) -> Server {
    let section = format!("<zeoclient 1>\nserver {upstream}\n{keys}\n</zeoclient>");
    Server::start_any("", &section, |_| ())
}

/// Makes blobs with one client and reads them with others, all of them clients of `addresses` in turn.
fn check_leaves(name: &str, dir: &Path, stored_at: SocketAddr, read_at: &[SocketAddr]) {
    let Some(mut command) = script("zeo6-py311", "store", stored_at, &dir.join("committer"), ["40", "0"])
    else {
        return;
    };
    let output = command.output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    assert_eq!(lines.lines().count(), 40, "{name}");
    for (number, address) in read_at.iter().enumerate() {
        for environment in ["zeo4-py27", "zeo6-py311"] {
            let cache = dir.join(format!("{environment}-{number}"));
            let Some(command) = script(environment, "load", *address, &cache, ["100000000", "0"]) else {
                continue;
            };
            check_success(&format!("{name}, {environment}"), start(command, &lines));
        }
    }
}

fn count(dir: &Path) -> usize {
    files(dir).into_iter().filter(|path| has_suffix(path, "blob")).count()
}

#[test]
fn leaves_store_and_read_blobs_through_a_middle() {
    let dir = tempfile::tempdir().unwrap();
    let ours = Server::start_storage("", "blob-dir blobs");
    let pythons: Vec<_> = PYTHONS
        .iter()
        .filter(|(_, msgpack)| !msgpack)
        .filter_map(|(name, _)| Some((*name, PythonServer::start_any(name, "", BLOB_STORAGE, |_| ())?)))
        .collect();
    let mut upstreams = vec![("ours", ours.address)];
    upstreams.extend(pythons.iter().map(|(name, server)| (*name, server.address)));
    for (name, upstream) in upstreams {
        let dir = dir.path().join(name);
        let (first, second) = (dir.join("first"), dir.join("second"));
        let middle = |cache: &Path| middle(upstream, &format!("blob-dir {}", cache.display()));
        let (one, other) = (middle(&first), middle(&second));
        check_leaves(name, &dir, one.address, &[one.address, other.address]);
        // The first has kept what went through it; the second has downloaded it.
        assert_eq!((count(&first), count(&second)), (40, 40), "{name}");
        let left =
            files(&first).into_iter().filter(|path| path.parent().is_some_and(|dir| dir.ends_with("tmp")));
        assert_eq!(left.count(), 0, "{name}");
    }
}

#[test]
fn a_middle_and_its_server_share_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = dir.path().join("blobs");
    let upstream = Server::start_storage("", &format!("blob-dir {}", blobs.display()));
    let shared = format!("blob-dir {}\nshared-blob-dir true", blobs.display());
    let middle = middle(upstream.address, &shared);
    check_leaves("shared", dir.path(), middle.address, &[middle.address, upstream.address]);
    assert_eq!(count(&blobs), 40);
    assert_eq!(fs::read_dir(blobs.join("tmp")).unwrap().count(), 0);
    assert!(!files(&blobs).iter().any(|path| has_suffix(path, "tmp-")));
}
