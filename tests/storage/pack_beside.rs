//! Packs one after another, beside writers, readers and iterators.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::pack::{now, pack, record, text};
use crate::support::process::test_seconds;
use crate::support::storage::*;
use runzeo::ids::{Oid, Tid};
use runzeo::storage::file::FileStorage;
use runzeo::storage::prelude::*;
use runzeo::storage::{Result, StorageError, TidAt};

const OBJECTS: u64 = 40;
const WRITERS: u64 = 3;
/// Fewer prove nothing.
const PACKS_MIN: u64 = 4;

/// The state that all threads share.
struct Race {
    storage: FileStorage,
    /// The tid of the first transaction.
    begin: Tid,
    /// Lower bound on each object's count, set by its writer after the acknowledgement.
    counts: Vec<AtomicU64>,
    stop: AtomicBool,
}

impl Race {
    fn new(storage: FileStorage) -> Race {
        let oids: Vec<u64> = (1..=OBJECTS).collect();
        let mut first = staged();
        first.store(Oid(0), Tid::ZERO, &record(&oids, ">root")).unwrap();
        for oid in &oids {
            first.store(Oid(*oid), Tid::ZERO, &record(&[], ">0")).unwrap();
        }
        let begin = commit_staged(&storage, first).unwrap();
        let counts = (0..=OBJECTS).map(|_| AtomicU64::new(0)).collect();
        Race { storage, begin, counts, stop: AtomicBool::new(false) }
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Counts in its own objects.
    fn write(&self, writer: u64) {
        let mut serial = self.begin;
        let mut count = 0;
        let mine: Vec<u64> = (1..=OBJECTS).filter(|oid| oid % WRITERS == writer).collect();
        while self.goes_on() {
            count += 1;
            let mut txn = staged();
            for &oid in &mine {
                let data = record(&[], &format!("{}>{count}", "x".repeat(count as usize % 500)));
                txn.store(Oid(oid), serial, &data).unwrap();
            }
            // Some wait between vote and finish, so that a pack completes in between.
            let voted = self.storage.vote(txn, TidAt::Finish).unwrap();
            if count % 5 == 0 {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            let (to, from) = std::sync::mpsc::channel::<Outcome>();
            self.storage.finish(voted, Box::new(to));
            let Outcome::Done { tid, .. } = from.recv().unwrap() else { panic!("a commit failed") };
            serial = tid;
            for oid in &mine {
                self.counts[*oid as usize].store(count, Ordering::SeqCst);
            }
        }
    }

    /// No read is older than an acknowledged commit.
    fn read(&self, reader: u64) {
        let mut oid = reader;
        while self.goes_on() {
            oid = oid % OBJECTS + 1;
            let least = self.counts[oid as usize].load(Ordering::SeqCst);
            let (data, tid) = load(&self.storage, oid).unwrap();
            assert!(text(&data).parse::<u64>().unwrap() >= least);
            match self.storage.load_serial(Oid(oid), tid, 0, &mut Vec::new()) {
                // It may have been packed away in between.
                Ok(_) | Err(StorageError::PosKey(_)) => {}
                Err(error) => panic!("{error}"),
            }
            self.storage.history(Oid(oid), 3).unwrap();
        }
    }

    /// An iterator reads the file of its creation, and fails if there are too many packs.
    fn iterate(&self) {
        while self.goes_on() {
            match read_all(&self.storage) {
                Ok(()) | Err(StorageError::Refused { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn pack(&self) {
        let until = std::time::Instant::now() + test_seconds(3);
        let mut packs = 0;
        while packs < PACKS_MIN || std::time::Instant::now() < until {
            pack(&self.storage, now(), Some(packs % 3 != 0)).unwrap();
            packs += 1;
        }
    }
}

fn read_all(storage: &dyn Storage) -> Result<()> {
    let mut it = storage.require_iteration()?.iterate(None, None)?;
    let mut last = Tid::ZERO;
    while let Some(txn) = it.next_transaction()? {
        assert!(txn.tid > last);
        last = txn.tid;
        let mut records = it.records()?;
        while records.next_record()?.is_some() {}
    }
    Ok(())
}

fn current(storage: &FileStorage) -> Vec<(Vec<u8>, Tid)> {
    (1..=OBJECTS).map(|oid| load(storage, oid).unwrap()).collect()
}

/// Ends the other threads, also when it is dropped by a panic.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn writers_readers_and_iterators_beside_packs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let race = Race::new(open(&path));
    std::thread::scope(|scope| {
        let race = &race;
        for writer in 0..WRITERS {
            scope.spawn(move || race.write(writer));
        }
        for reader in 0..2 {
            scope.spawn(move || race.read(reader));
        }
        scope.spawn(|| race.iterate());
        let _stop = Stop(&race.stop);
        race.pack();
    });
    let at_end = current(&race.storage);
    for (data, count) in at_end.iter().zip(&race.counts[1..]) {
        assert_eq!(text(&data.0).parse::<u64>().unwrap(), count.load(Ordering::SeqCst));
    }
    race.storage.close().unwrap();
    assert!(open(&path).used_index());
    std::fs::remove_file(dir.path().join("Data.fs.index")).unwrap();
    assert_eq!(current(&open(&path)), at_end);
}
