//! Replays the steps of a fixture of `python-fixtures/undo` and compares each outcome, the undo log and the file with
//! Python's.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::undo_log;
use crate::support::storage::*;
use runzeo::ids::{Oid, Tid};
use runzeo::storage::file::FileStorage;
use runzeo::storage::prelude::*;
use runzeo::storage::{
    Resolver, Staged, StorageError, ThreeStates, TidAt, TransactionMeta, Unresolved, Voted,
};

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

pub fn fixtures() -> Vec<PathBuf> {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("python-fixtures/undo");
    let dirs = std::fs::read_dir(all).unwrap().map(|entry| entry.unwrap().path());
    dirs.filter(|dir| dir.join("steps.txt").exists()).collect()
}

/// The line of the fixture with the outcome.
fn outcome(result: Result<Tid, StorageError>) -> String {
    let underlined = |reason: &str| reason.replace(' ', "_");
    match result {
        Ok(_) => "ok".into(),
        Err(StorageError::Undo { reason, .. }) => format!("error UndoError {}", underlined(&reason)),
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

/// How a fixture is replayed.
pub struct Way {
    /// Asks for the outcome of each undo before the vote.
    pub preview: bool,
    pub memory_max: usize,
}

/// A fixture under way.
struct Replay {
    storage: FileStorage,
    way: Way,
    staged: Option<Staged>,
    /// The undone objects of the transaction, as known before its vote.
    previewed: Result<Vec<Oid>, StorageError>,
    committed: usize,
    /// The transaction of the last undo.
    undone: Tid,
    /// The last packed transaction.
    packed: Option<Tid>,
    /// Python's undoLog: tid, size, description.
    log: Vec<(Tid, u64, Vec<u8>)>,
    /// The stores, deletions and undos of the transaction.
    operations: usize,
    /// The step that is replayed, for messages.
    here: String,
}

pub fn replay(fixture: &Path, way: Way) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    std::fs::copy(fixture.join("base.fs"), &path).unwrap();
    let steps = std::fs::read_to_string(fixture.join("steps.txt")).unwrap();
    let mut replay = Replay::new(open(&path), way);
    let name = fixture.display();
    for (n, line) in steps.lines().enumerate() {
        replay.here = format!("{name}: line {}: {line}", n + 1);
        replay.step(line);
    }
    let entries: Vec<_> =
        undo_log(&replay.storage).into_iter().map(|e| (e.tid, e.size, e.meta.description)).collect();
    assert_eq!(entries, replay.log, "{name}: undoLog");
    replay.storage.close().unwrap();
    let (ours, pythons) = (std::fs::read(&path).unwrap(), std::fs::read(fixture.join("Data.fs")).unwrap());
    let same = ours.iter().zip(&pythons).take_while(|(a, b)| a == b).count();
    assert!(
        ours == pythons,
        "{name}: differs from Python's at {same} of {} and {}",
        ours.len(),
        pythons.len()
    );
}

impl Replay {
    fn new(storage: FileStorage, way: Way) -> Self {
        storage.set_resolver(Arc::new(Counters));
        // The last packed transaction is found, because it marks the end.
        let mut packed = None;
        let mut transactions = storage.iterate(None, None).unwrap();
        while let Some(txn) = transactions.next_transaction().unwrap() {
            packed = if txn.status == b'p' { Some(txn.tid) } else { packed };
        }
        Replay {
            storage,
            way,
            staged: None,
            previewed: Ok(Vec::new()),
            committed: 0,
            undone: Tid::ZERO,
            packed,
            log: Vec::new(),
            operations: 0,
            here: String::new(),
        }
    }

    fn step(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        self.operations += usize::from(matches!(words[0], "S" | "D" | "U"));
        match words[..] {
            ["T", id] => {
                let meta = TransactionMeta {
                    description: format!("number {}", 12 + self.committed).into(),
                    ..TransactionMeta::default()
                };
                self.staged = Some(Staged::new(meta, Some(tid(id)), b' ', self.way.memory_max));
                self.previewed = Ok(Vec::new());
                self.operations = 0;
            }
            ["S", of, serial, data] => {
                self.staged.as_mut().unwrap().store(oid(of), tid(serial), &unhex(data)).unwrap();
            }
            ["D", of, serial] => self.staged.as_mut().unwrap().delete(oid(of), tid(serial)).unwrap(),
            ["U", id] => self.undo(tid(id)),
            ["ok"] | ["error", ..] => self.end(line),
            ["L", id, size, description] => {
                self.log.push((tid(id), size.parse::<u64>().unwrap(), unhex(description)));
            }
            _ => panic!("{}", self.here),
        }
    }

    fn undo(&mut self, id: Tid) {
        let staged = self.staged.as_mut().unwrap();
        staged.undo(id);
        self.undone = id;
        if self.way.preview
            && let Ok(oids) = &mut self.previewed
        {
            match self.storage.undo_now(staged) {
                Ok((id, more)) => {
                    assert_eq!(Some(id), staged.tid);
                    oids.extend(more);
                }
                Err(error) => self.previewed = Err(error),
            }
        }
    }

    /// Votes and finishes; `line` has Python's outcome.
    fn end(&mut self, line: &str) {
        let here = self.here.clone();
        let staged = self.staged.take().unwrap();
        let id = staged.tid.unwrap();
        let result = match self.storage.vote(staged, TidAt::Vote) {
            Ok(voted) => {
                self.finish(voted, id);
                Ok(id)
            }
            Err(error) => Err(StorageError::from(error)),
        };
        self.committed += usize::from(result.is_ok());
        if self.way.preview
            && let (Err(previewed), Err(error)) = (&self.previewed, &result)
        {
            assert_eq!(previewed.to_string(), error.to_string(), "{here}");
        }
        // Python 2 stops searching at the first packed transaction, Python 3 finds those before it and then refuses.
        let line = match line {
            "error UndoError non-undoable_transaction" if self.packed != Some(self.undone) => {
                "error UndoError Invalid_transaction_id"
            }
            line => line,
        };
        assert_eq!(outcome(result), line, "{here}");
    }

    fn finish(&self, voted: Box<dyn Voted>, id: Tid) {
        let here = &self.here;
        let undone = voted.undone().to_vec();
        if let Ok(previewed) = &self.previewed {
            let oids: Vec<_> = undone.iter().map(|undone| undone.oid).collect();
            assert!(!self.way.preview || *previewed == oids, "{here}");
        }
        let (to, from) = std::sync::mpsc::channel::<Outcome>();
        self.storage.finish(voted, Box::new(to));
        assert!(matches!(from.recv(), Ok(Outcome::Done { .. })), "{here}");
        // An object that was undone to an earlier state has this state, with the new tid.
        for undone in undone {
            let now = load_before(&self.storage, undone.oid.0, Tid::MAX);
            match (undone.restored, now) {
                (Some(restored), Ok(Some((data, serial, _)))) if serial == id => {
                    let mut then = Vec::new();
                    let loaded = self.storage.load_serial(undone.oid, restored, 0, &mut then).unwrap();
                    // A later operation of the same transaction may have changed it again.
                    assert!(self.operations > 1 || then[loaded.start..] == data[..], "{here}");
                }
                (None, Ok(Some(_)) | Err(StorageError::PosKey(_))) | (Some(_), _) => {}
                (None, now) => panic!("{here}: {now:?}"),
            }
        }
    }
}
