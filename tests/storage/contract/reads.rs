//! Reading objects.

use runzeo::ids::{Oid, Tid};
use runzeo::storage::StorageError;

use super::kinds::Kind;
use crate::support::storage::{commit, load, load_before};

pub fn what_is_stored_is_loaded(kind: &Kind) {
    let storage = kind.storage.as_ref();
    let (count, size) = (storage.object_count(), storage.size());
    let long = [b"long ".repeat(20_000), b"and not the same".to_vec()].concat();
    let t1 = commit(storage, &[(0, Tid::ZERO, b"root"), (1, Tid::ZERO, b"one")]).unwrap();
    let t2 = commit(storage, &[(1, t1, &long)]).unwrap();
    assert!(t2 > t1);
    assert_eq!(load(storage, 0).unwrap(), (b"root".to_vec(), t1));
    assert_eq!(load(storage, 1).unwrap(), (long.clone(), t2));
    assert_eq!((storage.get_tid(Oid(0)).unwrap(), storage.get_tid(Oid(1)).unwrap()), (t1, t2));
    assert_eq!(storage.last_transaction(), t2);
    assert_eq!(storage.object_count(), count + 2);
    assert!(storage.size() > size || !kind.logs);
    let mut out = b"in front".to_vec();
    let loaded = storage.load_serial(Oid(1), t1, 100, &mut out).unwrap();
    assert_eq!((loaded.serial, loaded.end), (t1, None));
    assert!(out.starts_with(b"in front") && loaded.start >= 108);
    assert_eq!(&out[loaded.start..], b"one");
}

pub fn every_revision_before_a_tid(kind: &Kind) {
    let storage = kind.storage.as_ref();
    let mut tids = vec![commit(storage, &[(5, Tid::ZERO, b"0")]).unwrap()];
    for n in 1..5u8 {
        // Other commits in between.
        commit(storage, &[(6 + u64::from(n), Tid::ZERO, b"other")]).unwrap();
        tids.push(commit(storage, &[(5, tids[usize::from(n) - 1], &[b'0' + n])]).unwrap());
    }
    for (n, tid) in tids.iter().enumerate() {
        let end = tids.get(n + 1).copied();
        let expected = Some((vec![b'0' + n as u8], *tid, end));
        assert_eq!(load_before(storage, 5, Tid(tid.0 + 1)).unwrap(), expected);
        if let Some(end) = end {
            assert_eq!(load_before(storage, 5, end).unwrap(), expected);
        }
    }
    assert_eq!(load_before(storage, 5, tids[0]).unwrap(), None);
    assert_eq!(load_before(storage, 5, Tid(1)).unwrap(), None);
}

pub fn what_there_is_not(kind: &Kind) {
    let storage = kind.storage.as_ref();
    let missing = |result: StorageError| assert!(matches!(result, StorageError::PosKey(Oid(77))), "{result}");
    let t1 = commit(storage, &[(1, Tid::ZERO, b"one")]).unwrap();
    let mut out = b"kept".to_vec();
    missing(storage.load_before(Oid(77), Tid::MAX, 10, &mut out).unwrap_err());
    missing(storage.load_serial(Oid(77), t1, 10, &mut out).unwrap_err());
    missing(storage.get_tid(Oid(77)).unwrap_err());
    if kind.logs {
        missing(storage.history(Oid(77), 1).unwrap_err());
    }
    assert!(matches!(storage.load_serial(Oid(1), Tid(t1.0 - 1), 0, &mut out), Err(StorageError::PosKey(_))));
    assert!(matches!(storage.load_serial(Oid(1), Tid(t1.0 + 1), 0, &mut out), Err(StorageError::PosKey(_))));
    assert!(storage.load_before(Oid(1), t1, 10, &mut out).unwrap().is_none());
    assert_eq!(out, b"kept", "nothing is left behind where nothing was found");
    assert!(storage.record_iternext(Some(Oid(1 << 50))).unwrap().is_none());
    assert!(storage.extension_methods().is_none_or(|methods| methods.call("no such method", b").").is_err()));
}

pub fn history_is_newest_first(kind: &Kind) {
    let storage = kind.storage.as_ref();
    let t1 = commit(storage, &[(1, Tid::ZERO, b"one")]).unwrap();
    let t2 = commit(storage, &[(1, t1, b"two two")]).unwrap();
    let t3 = commit(storage, &[(1, t2, b"three three three")]).unwrap();
    let entries = storage.history(Oid(1), 10).unwrap();
    if !kind.logs {
        assert_eq!(entries, []);
        return;
    }
    let shown: Vec<_> = entries.iter().map(|entry| (entry.tid, entry.size)).collect();
    if kind.forgets {
        assert_eq!(shown, [(t3, 17)]);
        assert_eq!((&entries[0].meta.user[..], &entries[0].meta.description[..]), (&b""[..], &b""[..]));
        return;
    }
    assert_eq!(shown, [(t3, 17), (t2, 7), (t1, 3)]);
    assert_eq!(
        (&entries[0].meta.user[..], &entries[0].meta.description[..]),
        (&b"user"[..], &b"description"[..])
    );
    assert_eq!(storage.history(Oid(1), 2).unwrap(), entries[..2]);
    assert_eq!(storage.history(Oid(1), 0).unwrap(), []);
}
