//! Shared code of the tests of FileStorage: a commit in one line, a publisher that records its calls.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use runzeo::ids::{Oid, Tid};
use runzeo::storage::file::{FileStorage, FileStorageOptions};
use runzeo::storage::prelude::*;
use runzeo::storage::{
    Committed, Delivery, Publisher, Result, Staged, StorageError, Ticket, TidAt, TransactionMeta, Voted,
};

/// The outcome of a finish.
#[derive(Debug)]
pub enum Outcome {
    Done { tid: Tid, oids: Vec<Oid>, object_count: u64, size: u64 },
    Failed(StorageError),
}

/// Answers through a channel that is the ticket.
pub struct Answers;

impl Publisher for Answers {
    fn publish(&self, group: Vec<Committed>, install: &mut dyn FnMut()) -> Delivery {
        install();
        Box::new(move || {
            for c in group {
                // A transaction of another client of the database has no sender.
                let Ok(to) = c.ticket.downcast::<Sender<Outcome>>() else { continue };
                let _ = to.send(Outcome::Done {
                    tid: c.tid,
                    oids: c.oids,
                    object_count: c.object_count,
                    size: c.size,
                });
            }
        })
    }

    fn failed(&self, ticket: Ticket, error: StorageError) {
        let _ = ticket.downcast::<Sender<Outcome>>().unwrap().send(Outcome::Failed(error));
    }
}

pub fn open(path: &Path) -> FileStorage {
    open_with(FileStorageOptions::new(path)).unwrap()
}

pub fn open_with(options: FileStorageOptions) -> Result<FileStorage> {
    let storage = FileStorage::open(options)?;
    storage.set_publisher(Arc::new(Answers));
    Ok(storage)
}

pub fn meta(user: &str, description: &str) -> TransactionMeta {
    TransactionMeta { user: user.into(), description: description.into(), extension: Vec::new() }
}

pub fn staged() -> Staged {
    Staged::new(meta("user", "description"), None, b' ', 1 << 20)
}

/// Finishes a voted transaction without waiting.
pub fn finish(storage: &dyn Storage, staged: Staged, at: TidAt) -> Result<Receiver<Outcome>> {
    Ok(finish_voted(storage, storage.vote(staged, at)?))
}

pub fn finish_voted(storage: &dyn Storage, voted: Box<dyn Voted>) -> Receiver<Outcome> {
    let (to, from) = channel::<Outcome>();
    storage.finish(voted, Box::new(to));
    from
}

pub fn commit_staged(storage: &dyn Storage, staged: Staged) -> Result<Tid> {
    let at = if staged.tid.is_some() { TidAt::Vote } else { TidAt::Finish };
    match finish(storage, staged, at)?.recv().expect("every finish is answered") {
        Outcome::Done { tid, .. } => Ok(tid),
        Outcome::Failed(error) => Err(error),
    }
}

/// Offsets of the transactions in a file, oldest first.
pub fn transactions(file: &[u8]) -> Vec<usize> {
    let (mut pos, mut found) = (4, Vec::new());
    while pos < file.len() {
        found.push(pos);
        pos += u64::from_be_bytes(file[pos + 8..pos + 16].try_into().unwrap()) as usize + 8;
    }
    found
}

/// Stores `(oid, serial, data)` in one transaction.
pub fn commit(storage: &dyn Storage, objects: &[(u64, Tid, &[u8])]) -> Result<Tid> {
    let mut staged = staged();
    for (oid, serial, data) in objects {
        staged.store(Oid(*oid), *serial, data).unwrap();
    }
    commit_staged(storage, staged)
}

/// Current data and serial.
pub fn load(storage: &dyn Storage, oid: u64) -> Result<(Vec<u8>, Tid)> {
    let loaded = load_before(storage, oid, Tid::MAX)?.expect("the current revision is before the last tid");
    assert_eq!(loaded.2, None);
    Ok((loaded.0, loaded.1))
}

/// Data, serial, and the tid of the next revision.
pub type Found = (Vec<u8>, Tid, Option<Tid>);

pub fn load_before(storage: &dyn Storage, oid: u64, before: Tid) -> Result<Option<Found>> {
    let mut out = b"scratch".to_vec();
    let loaded = storage.load_before(Oid(oid), before, 30, &mut out)?;
    assert!(out.starts_with(b"scratch"));
    Ok(loaded.map(|l| {
        assert!(l.start >= 7 + 30);
        (out[l.start..].to_vec(), l.serial, l.end)
    }))
}

/// A record that refers to `oids`.
pub fn referring_to(oids: &[u64]) -> Vec<u8> {
    let mut record = b"cm\nC\n.(".to_vec();
    for oid in oids {
        record.extend_from_slice(b"U\x08");
        record.extend_from_slice(&Oid(*oid).to_bytes());
        record.push(b'Q');
    }
    record.extend_from_slice(b"t.");
    record
}
