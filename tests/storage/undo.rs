//! Undo writes the same as Python's FileStorage, byte for byte, and fails where and as Python does.
//!
//! `python-fixtures/undo` has random transactions that Python has undone, with several undos in one, undos of undos, of
//! creations and deletions, merged states, and undos that fail.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::support::storage::*;
use runzeo::ids::{Oid, Tid};
use runzeo::storage::prelude::*;
use runzeo::storage::{PackProgress, PackRequest, Staged, StorageError, TidAt, TransactionMeta, UndoEntry};
use runzeo::storage::{Resolver, ThreeStates, Unresolved};

/// The merging of `counter.py`: the state is a number, at the end of the record.
struct Counters;

impl Resolver for Counters {
    fn resolve(&self, states: &ThreeStates<'_>) -> Result<Vec<u8>, Unresolved> {
        let number = |record: &[u8]| -> Result<i32, Unresolved> {
            let (rest, last) = record.split_last_chunk::<6>().expect("a record ends with its number");
            if !rest.windows(7).any(|w| w == b"Counter") {
                return Err(Unresolved { reason: "no counter".into() });
            }
            assert!(last[0] == b'J' && last[5] == b'.');
            Ok(i32::from_le_bytes([last[1], last[2], last[3], last[4]]))
        };
        let (old, committed, new) = (number(states.old)?, number(states.committed)?, number(states.new)?);
        if old % 7 == 3 {
            return Err(Unresolved { reason: "not this one".into() });
        }
        let merged = committed + new - old;
        let mut record = states.new[..states.new.len() - 6].to_vec();
        if let Ok(short) = u16::try_from(merged) {
            // As Python pickles a number of 16 bits.
            record.push(b'M');
            record.extend_from_slice(&short.to_le_bytes());
        } else {
            record.push(b'J');
            record.extend_from_slice(&merged.to_le_bytes());
        }
        record.push(b'.');
        Ok(record)
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let text = if text == "-" { "" } else { text };
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn tid(text: &str) -> Tid {
    Tid(u64::from_str_radix(text, 16).unwrap())
}

fn oid(text: &str) -> Oid {
    Oid(tid(text).0)
}

fn fixtures() -> Vec<PathBuf> {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("python-fixtures/undo");
    let dirs = std::fs::read_dir(all).unwrap().map(|entry| entry.unwrap().path());
    dirs.filter(|dir| dir.join("steps.txt").exists()).collect()
}

/// The line of the fixture with the outcome.
fn outcome(result: Result<Tid, StorageError>) -> String {
    let underlined = |reason: &str| reason.replace(' ', "_");
    match result {
        Ok(_) => "ok".into(),
        Err(StorageError::Undo { reason, .. }) => format!("error UndoError {}", underlined(reason)),
        Err(StorageError::MultipleUndo(errors)) => {
            let mut errors: Vec<_> =
                errors.iter().map(|(oid, reason)| format!("{oid}:{}", underlined(reason))).collect();
            errors.sort();
            format!("error MultipleUndoErrors {}", errors.join(" "))
        }
        Err(StorageError::Conflict(_)) => "error ConflictError -".into(),
        Err(StorageError::PosKey(_)) => "error POSKeyError -".into(),
        Err(error) => panic!("{error}"),
    }
}

/// Replays a fixture; `preview` asks for the outcome of each undo before the vote.
fn replay(fixture: &Path, preview: bool, memory_max: usize) {
    let name = fixture.display();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    std::fs::copy(fixture.join("base.fs"), &path).unwrap();
    let storage = open(&path);
    storage.set_resolver(Arc::new(Counters));
    let steps = std::fs::read_to_string(fixture.join("steps.txt")).unwrap();
    let mut staged = None;
    let mut previewed: Result<Vec<Oid>, StorageError> = Ok(Vec::new());
    let mut committed = 0;
    let mut undone = Tid::ZERO;
    // The last packed transaction is found, because it marks the end.
    let mut packed = None;
    let mut transactions = storage.iterate(None, None).unwrap();
    while let Some(txn) = transactions.next_transaction().unwrap() {
        packed = if txn.status == b'p' { Some(txn.tid) } else { packed };
    }
    let mut log = Vec::new();
    for (n, line) in steps.lines().enumerate() {
        let words: Vec<&str> = line.split(' ').collect();
        let here = || format!("{name}: line {}: {line}", n + 1);
        match words[..] {
            ["T", id] => {
                let meta = TransactionMeta {
                    description: format!("number {}", 12 + committed).into(),
                    ..TransactionMeta::default()
                };
                staged = Some(Staged::new(meta, Some(tid(id)), b' ', memory_max));
                previewed = Ok(Vec::new());
            }
            ["S", of, serial, data] => {
                staged.as_mut().unwrap().store(oid(of), tid(serial), &unhex(data)).unwrap();
            }
            ["D", of, serial] => staged.as_mut().unwrap().delete(oid(of), tid(serial)).unwrap(),
            ["U", id] => {
                let staged = staged.as_mut().unwrap();
                staged.undo(tid(id));
                undone = tid(id);
                if preview && let Ok(oids) = &mut previewed {
                    match storage.undo_now(staged) {
                        Ok((id, more)) => {
                            assert_eq!(Some(id), staged.tid);
                            oids.extend(more);
                        }
                        Err(error) => previewed = Err(error),
                    }
                }
            }
            ["ok"] | ["error", ..] => {
                let staged = staged.take().unwrap();
                let id = staged.tid.unwrap();
                let result = storage.vote(staged, TidAt::Vote).map_err(StorageError::from).map(|voted| {
                    if let Ok(previewed) = &previewed {
                        let undone: Vec<_> = voted.undone().iter().map(|undone| undone.oid).collect();
                        assert!(!preview || *previewed == undone, "{}", here());
                    }
                    let undone = voted.undone().to_vec();
                    let (to, from) = std::sync::mpsc::channel::<Outcome>();
                    storage.finish(voted, Box::new(to));
                    assert!(matches!(from.recv(), Ok(Outcome::Done { .. })), "{}", here());
                    // An object that was undone to an earlier state has this state, with the new tid.
                    for undone in undone {
                        let now = load_before(&storage, undone.oid.0, Tid::MAX);
                        match (undone.restored, now) {
                            (Some(restored), Ok(Some((data, serial, _)))) if serial == id => {
                                let mut then = Vec::new();
                                let loaded = storage.load_serial(undone.oid, restored, 0, &mut then).unwrap();
                                // Unless a later operation of the same transaction changed it again.
                                if then[loaded.start..] != data[..] {
                                    assert!(words.len() == 1 && line == "ok", "{}", here());
                                }
                            }
                            (None, Ok(Some(_)) | Err(StorageError::PosKey(_))) | (Some(_), _) => {}
                            (None, now) => panic!("{}: {now:?}", here()),
                        }
                    }
                    id
                });
                committed += usize::from(result.is_ok());
                if preview && let (Err(previewed), Err(error)) = (&previewed, &result) {
                    assert_eq!(previewed.to_string(), error.to_string(), "{}", here());
                }
                // Python 2 stops searching at the first packed transaction, Python 3 finds those before it and then
                // refuses.
                let line = match line {
                    "error UndoError non-undoable_transaction" if packed != Some(undone) => {
                        "error UndoError Invalid_transaction_id"
                    }
                    line => line,
                };
                assert_eq!(outcome(result), line, "{}", here());
            }
            ["L", id, size, description] => {
                log.push((tid(id), size.parse::<u64>().unwrap(), unhex(description)));
            }
            _ => panic!("{}", here()),
        }
    }
    let entries: Vec<_> =
        undo_log(&storage).into_iter().map(|e| (e.tid, e.size, e.meta.description)).collect();
    assert_eq!(entries, log, "{name}: undoLog");
    storage.close().unwrap();
    let (ours, pythons) = (std::fs::read(&path).unwrap(), std::fs::read(fixture.join("Data.fs")).unwrap());
    let same = ours.iter().zip(&pythons).take_while(|(a, b)| a == b).count();
    assert!(
        ours == pythons,
        "{name}: differs from Python's at {same} of {} and {}",
        ours.len(),
        pythons.len()
    );
}

#[test]
fn undo_writes_what_python_writes() {
    let fixtures = fixtures();
    assert_eq!(fixtures.len(), 2);
    for fixture in &fixtures {
        replay(fixture, false, 1 << 20);
        // Spilled to a temporary file
        replay(fixture, false, 10);
    }
}

#[test]
fn the_outcome_is_known_before_the_vote() {
    for fixture in fixtures() {
        replay(&fixture, true, 1 << 20);
    }
}

fn undo_log(storage: &dyn Storage) -> Vec<UndoEntry> {
    let mut entries = Vec::new();
    let mut add = |entry| {
        entries.push(entry);
        ControlFlow::Continue(())
    };
    storage.require_undo().unwrap().undo_log(&mut add).unwrap();
    entries
}

/// An undo of a transaction far back read all later ones, and so did the next undo.
#[test]
fn transactions_far_back_are_found_whatever_was_looked_up_before() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&dir.path().join("Data.fs"));
    let mut serial = Tid::ZERO;
    let mut tids = Vec::new();
    for n in 0..300u16 {
        serial = commit(&storage, &[(1, serial, &n.to_be_bytes())]).unwrap();
        tids.push(serial);
    }
    for at in [299, 0, 150, 1, 298, 64, 63, 65, 0, 200] {
        assert_eq!(storage.undo_oids(tids[at]).unwrap(), [Oid(1)], "{at}");
        let none = Tid(tids[at].0 + 1);
        assert!(matches!(storage.undo_oids(none), Err(StorageError::Undo { .. })), "{at}");
    }
}

#[test]
fn undo_log_has_what_python_counts() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&dir.path().join("Data.fs"));
    let mut serial = Tid::ZERO;
    let mut tids = Vec::new();
    for n in 0..30u8 {
        let mut staged = Staged::new(meta(&format!("user {}", n % 3), "d"), None, b' ', 1 << 20);
        staged.store(Oid(1), serial, &[n; 9]).unwrap();
        serial = commit_staged(&storage, staged).unwrap();
        tids.push(serial);
    }
    tids.reverse();
    assert_eq!(undo_log(&storage).iter().map(|entry| entry.tid).collect::<Vec<_>>(), tids);
    // It ends when enough entries are found.
    let mut seen = Vec::new();
    storage
        .undo_log(&mut |entry| {
            seen.push(entry.tid);
            if seen.len() < 5 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .unwrap();
    assert_eq!(seen, tids[..5]);
    let newest = undo_log(&storage).remove(0);
    assert_eq!((newest.size, newest.meta), (23 + 6 + 1 + 42 + 9, meta("user 2", "d")));
}

#[test]
fn undos_of_different_objects_are_voted_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&dir.path().join("Data.fs"));
    let old = commit(&storage, &[(1, Tid::ZERO, b"one"), (2, Tid::ZERO, b"two")]).unwrap();
    let first = commit(&storage, &[(1, old, b"one changed")]).unwrap();
    let second = commit(&storage, &[(2, old, b"two changed")]).unwrap();
    assert_eq!(storage.undo_oids(first).unwrap(), [Oid(1)]);
    let undo = |tid| {
        let mut staged = staged();
        staged.undo(tid);
        storage.vote(staged, TidAt::Finish).unwrap()
    };
    let (a, b) = (undo(first), undo(second));
    assert_eq!(a.tid(), None);
    let answers: Vec<_> = [b, a]
        .into_iter()
        .map(|voted| {
            let (to, from) = std::sync::mpsc::channel::<Outcome>();
            storage.finish(voted, Box::new(to));
            from.recv().unwrap()
        })
        .collect();
    assert!(matches!(&answers[..], [Outcome::Done { oids: b, .. }, Outcome::Done { oids: a, .. }]
        if *a == [Oid(1)] && *b == [Oid(2)]));
    assert_eq!(load(&storage, 1).unwrap().0, b"one");
    assert_eq!(load(&storage, 2).unwrap().0, b"two");
    assert!(matches!(storage.undo_oids(Tid(5)), Err(StorageError::Undo { .. })));
}

#[test]
fn a_pack_may_come_between_vote_and_finish() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let storage = open(&path);
    let first = commit(&storage, &[(1, Tid::ZERO, b"one"), (2, Tid::ZERO, b"two")]).unwrap();
    let second = commit(&storage, &[(1, first, b"one changed")]).unwrap();
    let third = commit(&storage, &[(2, first, b"two changed")]).unwrap();
    // Results from the old file must not be used for the new one.
    assert_eq!(storage.undo_oids(third).unwrap(), [Oid(2)]);
    let mut undo = staged();
    undo.undo(second);
    let voted = storage.vote(undo, TidAt::Finish).unwrap();
    let progress = PackProgress::default();
    let references = |_: &[u8], _: &mut Vec<Oid>| Ok(());
    let time = third.to_unix() + 0.001;
    let request =
        PackRequest { time, gc: Some(false), references: &references, progress: &progress, removals: None };
    storage.pack(&request).unwrap();
    let (to, from) = std::sync::mpsc::channel::<Outcome>();
    storage.finish(voted, Box::new(to));
    assert!(matches!(from.recv(), Ok(Outcome::Done { .. })));
    // The data for the undo's back-pointer is gone from the file, so the undo wrote it in full.
    assert_eq!(load(&storage, 1).unwrap().0, b"one");
    assert!(matches!(storage.undo_oids(second), Err(StorageError::Undo { .. })));
    assert!(matches!(storage.undo_oids(third), Err(StorageError::Undo { .. })));
    let log = undo_log(&storage);
    assert_eq!(log.len(), 1);
    let mut again = staged();
    again.undo(log[0].tid);
    commit_staged(&storage, again).unwrap();
    storage.close().unwrap();
    std::fs::remove_file(dir.path().join("Data.fs.index")).unwrap();
    let storage = open(&path);
    assert_eq!(load(&storage, 1).unwrap().0, b"one changed");
    assert_eq!(load(&storage, 2).unwrap().0, b"two changed");
}
