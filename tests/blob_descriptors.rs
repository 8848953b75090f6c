//! A finish does not fail because the process is out of descriptors for a moment.
//!
//! A finish opened the directory of each blob, to sync it: `tpc_finish` failed in the second phase, when other
//! databases of the same transaction had committed. Now a staged blob keeps its directory open; for the blobs beyond
//! that limit, some descriptors are reserved.
//!
//! In its own test program, because it takes all descriptors of its process.

#[path = "support/mod.rs"]
mod support;

use std::fs::File;
use std::sync::mpsc::channel;

use crate::support::storage as helpers;
use crate::support::storage::{Outcome, meta};
use runzeo::ids::{Oid, Tid};
use runzeo::storage::file::{FileStorage, FileStorageOptions};
use runzeo::storage::prelude::*;
use runzeo::storage::{Staged, TidAt};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const RECORD: &[u8] = b"cZODB.blob\nBlob\n.N.";

fn staged(storage: &FileStorage, oids: std::ops::Range<u64>) -> Staged {
    let mut staged = Staged::new(meta("", ""), None, b' ', 1 << 20);
    for oid in oids {
        let mut upload = storage.blobs().unwrap().dir().unwrap().begin().unwrap();
        upload.write(&oid.to_be_bytes()).unwrap();
        staged.store_blob(Oid(oid), Tid::ZERO, RECORD, upload.end(Oid(oid)).unwrap()).unwrap();
    }
    staged
}

/// Opens files until no descriptor is left.
fn take_all() -> Vec<File> {
    let taken: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    assert!(!taken.is_empty());
    taken
}

#[test]
fn a_finish_without_a_free_descriptor() {
    setrlimit(Resource::Nofile, Rlimit { current: Some(200), ..getrlimit(Resource::Nofile) }).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let options = FileStorageOptions::new(dir.path().join("Data.fs"));
    let options = FileStorageOptions { blob_dir: Some(dir.path().join("blobs")), ..options };
    let storage = helpers::open_with(options).unwrap();
    let blobs = storage.blobs().unwrap().dir().unwrap();
    let in_tmp = || std::fs::read_dir(blobs.base().join("tmp")).unwrap().count();

    // Fewer blobs than are kept open, and many more than the process may open.
    for (first, count) in [(1, 3), (100, 250)] {
        let oids = first..first + count;
        let voted = storage.vote(staged(&storage, oids.clone()), TidAt::Finish).unwrap();
        let taken = take_all();
        let (to, from) = channel::<Outcome>();
        storage.finish(voted, Box::new(to));
        let outcome = from.recv().unwrap();
        drop(taken);
        let Outcome::Done { tid, .. } = outcome else { panic!("{count} blobs: {outcome:?}") };
        for oid in oids {
            let blob = storage.blobs().unwrap().load_blob(Oid(oid), tid).unwrap();
            let mut data = [0; 8];
            assert_eq!(blob.read_at(&mut data, 0).unwrap(), 8);
            assert_eq!(u64::from_be_bytes(data), oid);
        }
        assert_eq!(in_tmp(), 0);
    }

    // An abort leaves no file: before the vote, after it, and after the blob is in its place.
    let count = 1000..1050;
    for stage in 0..3 {
        let mut staged = staged(&storage, count.clone());
        let names = || count.clone().map(|oid| blobs.revisions(Oid(oid)).len()).sum::<usize>();
        match stage {
            0 => {
                let _taken = take_all();
                drop(staged);
            }
            1 => {
                let voted = storage.vote(staged, TidAt::Finish).unwrap();
                let _taken = take_all();
                storage.abort(voted);
            }
            _ => {
                let _taken = take_all();
                let to_place = staged.blobs_mut().iter_mut().map(|(oid, blob)| (*oid, Tid(7), blob));
                drop(blobs.place(to_place).unwrap());
            }
        }
        assert_eq!((names(), stage), (0, stage));
    }
    assert_eq!(in_tmp(), 0);
    storage.close().unwrap();
}
