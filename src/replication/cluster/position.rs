//! Which transactions two servers have in common: a search by *probes*, which are transactions with a digest of their
//! content.
//!
//! The side that follows sends its last transaction. If the other side has it, that is all. Otherwise the other side
//! asks for probes between two transactions, of which it has the first and not the second, until they are neighbours.
//! The common part of two histories is at their beginning, so this finds its end.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::base::ids::Tid;
use crate::storage::{DataRecord, Replicable, Result, TransactionIterator, TransactionRecord};

/// Probes that are looked for at once. A message has fewer than twice as many.
const PROBES_MAX: u64 = 64;

/// A transaction, as far as a comparison needs it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Probe {
    pub tid: Tid,
    /// `b'p'`: a pack has removed parts of it, so the digest tells nothing.
    pub status: u8,
    /// Of user, description, extension and records.
    pub digest: [u8; 16],
}

impl Probe {
    /// The first transaction from `start` on.
    pub fn at(storage: &dyn Replicable, start: Tid) -> Result<Option<Probe>> {
        let mut transactions = storage.iterate_written(Some(start))?;
        let Some(transaction) = transactions.next_transaction()? else { return Ok(None) };
        Probe::of(&transaction, &*transactions).map(Some)
    }

    fn of(transaction: &TransactionRecord, transactions: &dyn TransactionIterator) -> Result<Probe> {
        let TransactionRecord { tid, status, meta } = transaction;
        let mut hash = Sha256::new();
        let mut add = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        [&meta.user, &meta.description, &meta.extension].iter().for_each(|part| add(part));
        let mut records = transactions.records()?;
        while let Some(DataRecord { oid, tid, data, .. }) = records.next_record()? {
            add(&oid.to_bytes());
            add(&tid.to_bytes());
            add(data.as_deref().unwrap_or_default());
        }
        let digest = hash.finalize();
        let digest = digest.first_chunk().copied().unwrap_or_default();
        Ok(Probe { tid: *tid, status: *status, digest })
    }

    /// Whether `storage` has the same transaction.
    pub fn is_in(&self, storage: &dyn Replicable) -> Result<bool> {
        Ok(self.compare(storage)? == Compared::Same)
    }

    fn compare(&self, storage: &dyn Replicable) -> Result<Compared> {
        let Some(own) = Probe::at(storage, self.tid)? else { return Ok(Compared::Other) };
        let is_packed = own.status == b'p';
        Ok(match own.tid == self.tid {
            true if is_packed || self.status == b'p' || own.digest == self.digest => Compared::Same,
            false if is_packed => Compared::Unknown,
            _ => Compared::Other,
        })
    }
}

/// What is found in the place of a probe.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Compared {
    Same,
    Other,
    /// A pack may have removed it.
    Unknown,
}

/// Probes between two transactions, both exclusive: the first one, and others that are spread over the time between
/// them. Where this finds few, because most are close to each other, some of those as well; all, if they are few.
pub fn probes_between(storage: &dyn Replicable, low: Tid, high: Tid) -> Result<Vec<Probe>> {
    let mut probes: BTreeMap<Tid, Probe> = BTreeMap::new();
    let mut step = (high.0.saturating_sub(low.0) / PROBES_MAX).max(1);
    loop {
        let mut next = low.0.saturating_add(1);
        for _ in 0..PROBES_MAX {
            match Probe::at(storage, Tid(next))? {
                Some(probe) if probe.tid < high => {
                    next = probe.tid.0.saturating_add(step);
                    probes.insert(probe.tid, probe);
                }
                _ => break,
            }
        }
        if step == 1 || probes.len() as u64 > PROBES_MAX / 4 {
            return Ok(probes.into_values().collect());
        }
        step = (step / PROBES_MAX).max(1);
    }
}

/// The search of the side that is followed. First it finds where the histories part: what a pack may have removed
/// counts as before that. Then, if there was such, it looks back from there for what both have.
pub struct Search {
    /// Both have it; zero at first: both begin with nothing.
    pub low: Tid,
    /// The other side has it, and this one does not.
    high: Tid,
    /// Nothing that the other side has up to here is known to be missing for another reason than a pack.
    from: Tid,
    /// How far the second part looks back.
    window: Option<u64>,
}

/// The factor by which the second part looks further back each time.
const WIDER: u64 = 16;

impl Search {
    /// The last transaction of the other side is not here.
    pub fn new(last: Tid) -> Search {
        Search { low: Tid::ZERO, high: last, from: Tid::ZERO, window: None }
    }

    /// Probes are wanted between these two, both exclusive.
    pub fn between(&self) -> (Tid, Tid) {
        match self.window {
            None => (self.from, self.high),
            Some(window) => (self.low.max(Tid(self.from.0.saturating_sub(window))), self.high),
        }
    }

    /// What the answer tells, oldest first. True: the search is over, and `low` its result. The error says what is
    /// wrong with the answer.
    pub fn answered(
        &mut self,
        storage: &dyn Replicable,
        probes: &[Probe],
    ) -> Result<std::result::Result<bool, String>> {
        let (from, high) = self.between();
        let (mut last, mut first_other) = (from, None);
        let before = (self.low, self.from);
        for probe in probes {
            if probe.tid <= last || probe.tid >= high {
                return Ok(Err(format!("a probe {} that was not asked for", probe.tid)));
            }
            last = probe.tid;
            match probe.compare(storage)? {
                Compared::Same => (self.low, self.from, first_other) = (last, self.from.max(last), None),
                Compared::Other => first_other = first_other.or(Some(last)),
                Compared::Unknown if first_other.is_none() => self.from = self.from.max(last),
                Compared::Unknown => {}
            }
        }
        if let Some(window) = self.window {
            self.window = Some(window.saturating_mul(WIDER));
            return Ok(Ok(self.low != before.0 || from == self.low));
        }
        self.high = first_other.unwrap_or(high);
        let is_found = before == (self.low, self.from) && self.high == high;
        if is_found && self.from > self.low {
            self.window = Some((high.0 - self.from.0).max(1));
            return Ok(Ok(false));
        }
        Ok(Ok(is_found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::Oid;
    use crate::storage::file::{FileStorage, FileStorageOptions};
    use crate::storage::{Bulk, Staged, Storage, TransactionMeta};

    /// A file with transactions at these times, whose record tells the history. Those before `packed` look packed.
    fn packed(directory: &std::path::Path, name: &str, tids: &[(u64, u8)], packed: u64) -> FileStorage {
        let storage = FileStorage::open(FileStorageOptions::new(directory.join(name))).unwrap();
        let mut bulk = Bulk::begin(&storage).unwrap();
        for (tid, history) in tids {
            let status = if *tid < packed { b'p' } else { b' ' };
            let mut staged = Staged::new(TransactionMeta::default(), Some(Tid(*tid)), status, 1 << 20);
            staged.restore(Oid(tid % 5), Tid(*tid), Some(&[*history; 20]), None).unwrap();
            bulk.add(staged).unwrap();
        }
        bulk.complete().unwrap();
        storage
    }

    fn file(directory: &std::path::Path, name: &str, tids: &[(u64, u8)]) -> FileStorage {
        packed(directory, name, tids, 0)
    }

    /// The last common transaction, and the number of messages.
    fn search(here: &FileStorage, there: &FileStorage) -> (Tid, usize) {
        let (here, there) = (here.replicable().unwrap(), there.replicable().unwrap());
        let Some(last) = Probe::at(there, there.last_written()).unwrap() else { return (Tid::ZERO, 0) };
        if last.is_in(here).unwrap() {
            return (last.tid, 0);
        }
        let mut search = Search::new(last.tid);
        for messages in 1..100 {
            let (low, high) = search.between();
            let probes = probes_between(there, low, high).unwrap();
            assert!((probes.len() as u64) < 2 * PROBES_MAX);
            if search.answered(here, &probes).unwrap().unwrap() {
                return (search.low, messages);
            }
        }
        panic!("the search does not end");
    }

    #[test]
    fn the_last_common_transaction_is_found_wherever_the_histories_part() {
        let directory = tempfile::tempdir().unwrap();
        // Unevenly in time: most are close to each other.
        let times: Vec<u64> = (1..400_u64).map(|no| no * 7 + (no / 100) * (1 << 40)).collect();
        let whole: Vec<_> = times.iter().map(|tid| (*tid, 0)).collect();
        let there = file(directory.path(), "there", &whole);
        for common in [0, 1, 2, 63, 64, 65, 99, 100, 200, 397, 398, 399] {
            let mut other = whole.clone();
            other.iter_mut().skip(common).for_each(|(_, history)| *history = 1);
            let here = file(directory.path(), &format!("here-{common}"), &other);
            let expected = common.checked_sub(1).map_or(0, |at| times[at]);
            let (found, messages) = search(&here, &there);
            assert_eq!(found, Tid(expected), "{common}");
            assert!(messages <= 12, "{common}: {messages}");
        }
        // One that only has less.
        let short = file(directory.path(), "short", &whole[..150]);
        assert_eq!(search(&there, &short), (Tid(times[149]), 0));
        assert_eq!(search(&short, &there).0, Tid(times[149]));
    }

    /// What a pack has removed is no sign of another history.
    #[test]
    fn the_last_common_transaction_is_found_behind_a_pack() {
        let directory = tempfile::tempdir().unwrap();
        let whole: Vec<_> = (1..400_u64).map(|no| (no * 1000, 0)).collect();
        let there = file(directory.path(), "there", &whole);
        for (parted, pack_time) in [(350, 300), (390, 389), (400, 395)] {
            let kept = |no: u64| no >= pack_time || no > 50 && no.is_multiple_of(7);
            let there_is = (1..400_u64).filter(|no| kept(*no)).map(|no| (no * 1000, u8::from(no >= parted)));
            let here: Vec<_> = there_is.chain((parted == 400).then_some((500_000, 1))).collect();
            let here = packed(directory.path(), &format!("here-{parted}"), &here, pack_time * 1000);
            let (found, messages) = search(&here, &there);
            // Just behind the time of the pack it cannot be told whether it has removed something.
            let expected = if parted == pack_time + 1 { 385 } else { parted - 1 };
            assert_eq!(found, Tid(expected * 1000), "{parted} {pack_time}");
            assert!(messages <= 12, "{messages}");
        }
    }

    #[test]
    fn probes_that_were_not_asked_for_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let storage = file(directory.path(), "Data.fs", &[(5, 0), (9, 0)]);
        let storage = storage.replicable().unwrap();
        let probe = |tid| Probe { tid: Tid(tid), status: b' ', digest: [0; 16] };
        for probes in [vec![probe(5)], vec![probe(9)], vec![probe(7), probe(7)]] {
            let mut search = Search { low: Tid(5), high: Tid(9), from: Tid(5), window: None };
            assert!(search.answered(storage, &probes).unwrap().is_err(), "{probes:?}");
        }
    }
}
