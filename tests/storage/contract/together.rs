//! Several threads at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;

use runzeo::ids::{Oid, Tid};
use runzeo::storage::TidAt;

use super::kinds::Kind;
use crate::support::storage::{Outcome, commit, load, staged};

pub fn transactions_vote_and_finish_in_any_order(kind: &Kind) {
    let storage = kind.storage.as_ref();
    let vote = |oid| {
        let mut staged = staged();
        staged.store(Oid(oid), Tid::ZERO, b"data").unwrap();
        storage.vote(staged, TidAt::Finish).unwrap()
    };
    let (first, second, third) = (vote(1), vote(2), vote(3));
    let (to, from) = channel::<Outcome>();
    storage.finish(third, Box::new(to.clone()));
    storage.abort(second);
    storage.finish(first, Box::new(to));
    let done: Vec<(Tid, Vec<Oid>)> = from
        .iter()
        .map(|outcome| match outcome {
            Outcome::Done { tid, oids, .. } => (tid, oids),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!((&done[0].1[..], &done[1].1[..]), (&[Oid(3)][..], &[Oid(1)][..]));
    assert!(done[0].0 < done[1].0);
    assert!(load(storage, 2).is_err());
}

/// Each thread increments an object of its own; another thread reads and must never see a value decrease. (A load may
/// see a group before `last_transaction` reports it: the publisher does both in one step.)
pub fn threads_commit_and_read(kind: &Kind) {
    const COUNT: u64 = 30;
    let storage = kind.storage.as_ref();
    let done = AtomicBool::new(false);
    let before = storage.last_transaction();
    // Stops the reader even if a writer fails; otherwise the test would not end.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let tids: Vec<Vec<Tid>> = std::thread::scope(|scope| {
        let stop = Stop(&done);
        scope.spawn(|| {
            let mut seen = [0u64; 4];
            while !done.load(Ordering::Relaxed) {
                for (oid, seen) in (0u64..).zip(&mut seen) {
                    let Ok((data, _)) = load(storage, oid) else { continue };
                    let number: u64 = String::from_utf8(data).unwrap().parse().unwrap();
                    assert!(number >= *seen);
                    *seen = number;
                }
            }
        });
        let count = |oid: u64| {
            let mut tids = vec![Tid::ZERO];
            for n in 0..COUNT {
                let data = n.to_string().into_bytes();
                let tid = commit(storage, &[(oid, tids[n as usize], &data)]).unwrap();
                assert_eq!(load(storage, oid).unwrap(), (data, tid), "what was answered can be read");
                tids.push(tid);
            }
            tids.split_off(1)
        };
        let writers: Vec<_> = (0..4).map(|oid| scope.spawn(move || count(oid))).collect();
        let tids = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        drop(stop);
        tids
    });
    let mut all: Vec<Tid> = tids.concat();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len() as u64, 4 * COUNT);
    if !kind.logs {
        return;
    }
    let mut transactions = storage.iteration().unwrap().iterate(Some(Tid(before.0 + 1)), None).unwrap();
    let mut listed = Vec::new();
    while let Some(transaction) = transactions.next_transaction().unwrap() {
        listed.push(transaction.tid);
    }
    if kind.forgets {
        all = tids.iter().filter_map(|of_object| of_object.last().copied()).collect();
        all.sort_unstable();
    }
    assert_eq!(listed, all, "the order of the log is that of the tids");
}
