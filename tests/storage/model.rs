//! FileStorage compared with a model, a map of all revisions, under random work; and the bytes of a small log.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::support::storage::*;
use proptest::prelude::*;
use runzeo::ids::{Oid, Tid};
use runzeo::internal::base::clock::ManualClock;
use runzeo::storage::file::{FileStorage, FileStorageOptions};
use runzeo::storage::prelude::*;
use runzeo::storage::{Staged, StorageError};

#[derive(Clone, Debug)]
enum Step {
    /// Objects and lengths; the first gets a stale serial if the last field is set.
    Store(Vec<(u64, usize)>, bool),
    Delete(u64),
    Restore(u64, Option<usize>),
    /// With or without the index.
    Reopen(bool),
    /// The clock is set back.
    ClockBack,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let oid = prop_oneof![4 => 0..12u64, 1 => Just(1 << 33), 1 => Just(70_000)];
    let len = prop_oneof![3 => 1..200usize, 1 => 4000..9000usize, 1 => 65_530..65_540usize];
    let step = prop_oneof![
        8 => (prop::collection::vec((oid.clone(), len.clone()), 1..5), prop::bool::weighted(0.2))
            .prop_map(|(o, stale)| Step::Store(o, stale)),
        2 => oid.clone().prop_map(Step::Delete),
        2 => (oid, prop::option::of(len)).prop_map(|(o, l)| Step::Restore(o, l)),
        1 => any::<bool>().prop_map(Step::Reopen),
        1 => Just(Step::ClockBack),
    ];
    prop::collection::vec(step, 1..25)
}

/// Revisions of each object, oldest first; `None` where it is gone.
type Model = BTreeMap<u64, Vec<(Tid, Option<Vec<u8>>)>>;

fn serial(model: &Model, oid: u64) -> Tid {
    model.get(&oid).and_then(|revisions| revisions.last()).map_or(Tid::ZERO, |(tid, _)| *tid)
}

fn compare(storage: &FileStorage, model: &Model, last: Tid) {
    assert_eq!(storage.last_transaction(), last);
    assert_eq!(storage.object_count(), model.len() as u64);
    for (&oid, revisions) in model {
        for (n, (tid, data)) in revisions.iter().enumerate() {
            let end = revisions.get(n + 1).map(|(tid, _)| *tid);
            let found = load_before(storage, oid, Tid(tid.0 + 1));
            match data {
                Some(data) => assert_eq!(found.unwrap(), Some((data.clone(), *tid, end))),
                None => assert!(matches!(found, Err(StorageError::PosKey(_)))),
            }
        }
        assert_eq!(load_before(storage, oid, revisions[0].0).unwrap(), None);
        let history = storage.history(Oid(oid), 1000).unwrap();
        let tids: Vec<Tid> = history.iter().rev().map(|entry| entry.tid).collect();
        assert_eq!(tids, revisions.iter().map(|(tid, _)| *tid).collect::<Vec<_>>());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn as_the_model(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(Tid(1 << 58)));
        let options = FileStorageOptions {
            clock: clock.clone(),
            ..FileStorageOptions::new(dir.path().join("Data.fs"))
        };
        let mut storage = open_with(options.clone()).unwrap();
        let (mut model, mut last) = (Model::new(), Tid::ZERO);
        for (n, step) in steps.into_iter().enumerate() {
            match step {
                Step::Store(mut objects, stale) => {
                    objects.sort_unstable();
                    objects.dedup_by_key(|(oid, _)| *oid);
                    let mut txn = Staged::new(meta("", ""), None, b' ', if n % 3 == 0 { 500 } else { 1 << 20 });
                    let stale = stale && model.contains_key(&objects[0].0);
                    for (at, (oid, len)) in objects.iter().enumerate() {
                        let serial = if stale && at == 0 { Tid(3) } else { serial(&model, *oid) };
                        txn.store(Oid(*oid), serial, &vec![n as u8; *len]).unwrap();
                    }
                    match commit_staged(&storage, txn) {
                        Err(StorageError::Conflict(_)) => prop_assert!(stale),
                        Err(error) => panic!("{error}"),
                        Ok(tid) => {
                            prop_assert!(!stale && tid > last);
                            last = tid;
                            for (oid, len) in objects {
                                model.entry(oid).or_default().push((tid, Some(vec![n as u8; len])));
                            }
                        }
                    }
                }
                Step::Delete(oid) => {
                    let mut txn = staged();
                    txn.delete(Oid(oid), serial(&model, oid)).unwrap();
                    match commit_staged(&storage, txn) {
                        Err(StorageError::PosKey(_)) => prop_assert!(!model.contains_key(&oid)),
                        Err(error) => panic!("{error}"),
                        Ok(tid) => {
                            last = tid;
                            model.get_mut(&oid).unwrap().push((tid, None));
                        }
                    }
                }
                Step::Restore(oid, len) => {
                    let tid = Tid(last.0.max(1 << 58) + 1);
                    let mut txn = Staged::new(meta("", ""), Some(tid), b' ', 1000);
                    // Data that a revision may have, and a hint that may be right.
                    let known = model.get(&oid).and_then(|r| r.iter().rev().find(|(_, data)| data.is_some()));
                    let data = match (len, known) {
                        (Some(len), _) if len % 2 == 0 => Some(vec![9; len]),
                        (Some(_), Some((_, data))) => data.clone(),
                        (Some(len), None) => Some(vec![9; len]),
                        (None, _) => None,
                    };
                    // A hint at a removed revision is trusted, as in Python, so none is given.
                    let hint = known.filter(|_| data.is_some()).map(|(tid, _)| *tid);
                    txn.restore(Oid(oid), tid, data.as_deref(), hint).unwrap();
                    prop_assert_eq!(commit_staged(&storage, txn).unwrap(), tid);
                    last = tid;
                    model.entry(oid).or_default().push((tid, data));
                }
                Step::Reopen(with_index) => {
                    drop(storage);
                    if !with_index {
                        std::fs::remove_file(dir.path().join("Data.fs.index")).unwrap();
                    }
                    storage = open_with(options.clone()).unwrap();
                }
                Step::ClockBack => clock.set(Tid(1 << 57)),
            }
        }
        compare(&storage, &model, last);
        drop(storage);
        compare(&open_with(options).unwrap(), &model, last);
    }
}

/// The whole file, field by field, so that a change of the format shows in the diff.
fn bytes_dump(bytes: &[u8]) -> String {
    let number = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
    let short = |at: usize| usize::from(u16::from_be_bytes(bytes[at..at + 2].try_into().unwrap()));
    let text = |from: usize, len: usize| bytes[from..from + len].escape_ascii().to_string();
    let mut out = format!("0 {}\n", text(0, 4));
    let mut pos = 4;
    while pos < bytes.len() {
        let (len, status) = (number(pos + 8) as usize, bytes[pos + 16] as char);
        let (u, d, e) = (short(pos + 17), short(pos + 19), short(pos + 21));
        let (user, description) = (text(pos + 23, u), text(pos + 23 + u, d));
        out +=
            &format!("{pos} txn {:x} len {len} {status:?} {user:?} {description:?} ext {e}\n", number(pos));
        let mut at = pos + 23 + u + d + e;
        while at < pos + len {
            let n = number(at + 34) as usize;
            let data = if n == 0 { format!("-> {}", number(at + 42)) } else { text(at + 42, n) };
            out += &format!(
                "{at} oid {:x} tid {:x} prev {} tloc {} version {} {data}\n",
                number(at),
                number(at + 8),
                number(at + 16),
                number(at + 24),
                short(at + 32)
            );
            at += 42 + if n == 0 { 8 } else { n };
        }
        out += &format!("{at} len {}\n", number(at));
        pos = at + 8;
    }
    out
}

#[test]
fn the_bytes_of_a_small_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let clock = Arc::new(ManualClock::new(Tid(0x1000)));
    let storage = open_with(FileStorageOptions { clock, ..FileStorageOptions::new(&path) }).unwrap();
    let t1 = commit(&storage, &[(0, Tid::ZERO, b"root"), (1, Tid::ZERO, b"one")]).unwrap();
    let t2 = commit(&storage, &[(1, t1, b"two")]).unwrap();
    let mut txn = Staged::new(meta("", "back"), Some(Tid(0x2000)), b'p', 1000);
    txn.restore(Oid(1), Tid(0x2000), Some(b"one"), Some(t1)).unwrap();
    commit_staged(&storage, txn).unwrap();
    let mut txn = staged();
    txn.delete(Oid(0), t1).unwrap();
    commit_staged(&storage, txn).unwrap();
    assert_eq!(t2, Tid(0x1001));
    storage.close().unwrap();
    let expected = "\
0 FS30
4 txn 1000 len 129 ' ' \"user\" \"description\" ext 0
42 oid 0 tid 1000 prev 0 tloc 4 version 0 root
88 oid 1 tid 1000 prev 0 tloc 4 version 0 one
133 len 129
141 txn 1001 len 83 ' ' \"user\" \"description\" ext 0
179 oid 1 tid 1001 prev 88 tloc 141 version 0 two
224 len 83
232 txn 2000 len 77 'p' \"\" \"back\" ext 0
259 oid 1 tid 2000 prev 179 tloc 232 version 0 -> 88
309 len 77
317 txn 2001 len 88 ' ' \"user\" \"description\" ext 0
355 oid 0 tid 2001 prev 42 tloc 317 version 0 -> 0
405 len 88
";
    assert_eq!(bytes_dump(&std::fs::read(&path).unwrap()), expected);
}
