//! Pack and undo, for storages that support them.

use std::ops::ControlFlow;

use runzeo::ids::{Oid, Tid};
use runzeo::internal::storage::transform::zlib::Zlib;
use runzeo::storage::prelude::*;
use runzeo::storage::{Codec, PackProgress, PackRequest, StorageError, UndoEntry};

use super::kinds::Kind;
use crate::support::storage::{commit, commit_staged, load, load_before, staged};

/// A record that refers to these objects, long enough to be compressed, in the form of the kind's clients.
fn record(kind: &Kind, name: &str, oids: &[u64]) -> Vec<u8> {
    let oids: Vec<String> = oids.iter().map(u64::to_string).collect();
    let plain = format!("{name}{}:{}", " ".repeat(80), oids.join(",")).into_bytes();
    if kind.zlib_at_clients { Zlib { compress: true }.encode(&plain).into_owned() } else { plain }
}

/// Finds references in such records only: compressed ones are refused.
fn references(record: &[u8], oids: &mut Vec<Oid>) -> Result<(), String> {
    let text = std::str::from_utf8(record).map_err(|error| error.to_string())?;
    let Some((_, list)) = text.split_once(':') else { return Ok(()) };
    oids.extend(list.split(',').filter_map(|oid| oid.parse().ok()).map(Oid));
    Ok(())
}

fn pack(storage: &dyn Storage, time: Tid, gc: Option<bool>) -> Result<(), StorageError> {
    let progress = PackProgress::default();
    let time = time.to_unix() + 1e-3;
    storage.require_packing()?.pack(&PackRequest {
        time,
        gc,
        references: &references,
        progress: &progress,
        removals: None,
    })
}

pub fn a_pack_forgets_the_past(kind: &Kind) {
    let storage = kind.storage.as_ref();
    if !kind.logs {
        return;
    }
    let record = |name, oids: &[u64]| record(kind, name, oids);
    let t1 = commit(
        storage,
        &[
            (0, Tid::ZERO, &record("root", &[1])),
            (1, Tid::ZERO, &record("one", &[])),
            (2, Tid::ZERO, &record("two", &[])),
        ],
    )
    .unwrap();
    let t2 = commit(storage, &[(1, t1, &record("changed", &[]))]).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(3));
    let packed_at = Tid::now();
    std::thread::sleep(std::time::Duration::from_millis(3));
    let t3 = commit(storage, &[(1, t2, &record("again", &[]))]).unwrap();
    if kind.deletes {
        pack(storage, packed_at, None).unwrap();
        assert!(matches!(load(storage, 2), Err(StorageError::PosKey(_))), "nothing refers to it");
    } else {
        // The references of the base are unknown.
        let refused = pack(storage, packed_at, Some(true));
        assert!(matches!(refused, Err(StorageError::Refused { .. })), "{refused:?}");
        pack(storage, packed_at, None).unwrap();
        assert_eq!(load(storage, 2).unwrap().1, t1);
    }
    assert_eq!(load(storage, 0).unwrap(), (record("root", &[1]), t1));
    assert_eq!(load(storage, 1).unwrap(), (record("again", &[]), t3));
    if !kind.forgets {
        assert_eq!(load_before(storage, 1, t3).unwrap(), Some((record("changed", &[]), t2, Some(t3))));
        assert_eq!(load_before(storage, 1, t2).unwrap(), None);
    }
    let tids: Vec<Tid> = storage.history(Oid(1), 9).unwrap().iter().map(|entry| entry.tid).collect();
    assert_eq!(tids, if kind.forgets { vec![t3] } else { vec![t3, t2] });
    // The storage continues to work.
    let t4 = commit(storage, &[(1, t3, &record("and on", &[])), (5, Tid::ZERO, b"new")]).unwrap();
    assert_eq!(load(storage, 5).unwrap().1, t4);
}

fn undo_log(storage: &dyn Storage) -> Vec<Tid> {
    let mut tids = Vec::new();
    let mut add = |entry: UndoEntry| {
        tids.push(entry.tid);
        ControlFlow::Continue(())
    };
    storage.undo().unwrap().undo_log(&mut add).unwrap();
    tids
}

pub fn transactions_are_undone(kind: &Kind) {
    let storage = kind.storage.as_ref();
    let t1 = commit(storage, &[(1, Tid::ZERO, &record(kind, "one", &[]))]).unwrap();
    let t2 = commit(storage, &[(1, t1, &record(kind, "two", &[])), (2, Tid::ZERO, b"new")]).unwrap();
    let undo = |tid| {
        let mut staged = staged();
        staged.undo(tid);
        commit_staged(storage, staged)
    };
    if storage.undo().is_none() {
        assert!(matches!(undo(t2), Err(StorageError::Unsupported(_))));
        return;
    }
    let interfaces = storage.interfaces();
    assert!(interfaces.contains(&("ZODB.interfaces", "IStorageUndoable")), "{interfaces:?}");
    assert_eq!(undo_log(storage)[..2], [t2, t1]);
    assert_eq!(storage.undo().unwrap().undo_oids(t2).unwrap().len(), 2);
    let t3 = undo(t2).unwrap();
    assert_eq!(load(storage, 1).unwrap(), (record(kind, "one", &[]), t3));
    assert!(matches!(load(storage, 2), Err(StorageError::PosKey(_))));
    let t4 = undo(t3).unwrap();
    assert_eq!(load(storage, 1).unwrap(), (record(kind, "two", &[]), t4));
    assert_eq!(load(storage, 2).unwrap(), (b"new".to_vec(), t4));
    assert!(undo(t1).is_err(), "it was changed since");
}
