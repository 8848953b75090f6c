//! Conflicts, merged by the storage's resolver or by the client.

use std::sync::Arc;

use runzeo::ids::{Oid, Tid};
use runzeo::internal::storage::transform::zlib::Zlib;
use runzeo::storage::{
    Codec, Merging, NotVoted, Resolver, Staged, StorageError, ThreeStates, TidAt, Unresolved,
};

use super::kinds::Kind;
use crate::support::storage::{commit, commit_staged, load, staged};

/// Joins the states. Refuses if one of them says so, or is compressed: a resolver gets records as applications store
/// them.
struct Joins;

impl Resolver for Joins {
    fn resolve(&self, states: &ThreeStates<'_>) -> Result<Vec<u8>, Unresolved> {
        let states = [states.old, states.committed, states.new];
        if states.iter().any(|state| state.starts_with(b".z") || state.starts_with(b"refuse")) {
            return Err(Unresolved { reason: "told to".into() });
        }
        Ok(states.join(&b"+"[..]))
    }
}

/// A record as the kind's clients send it, long enough to be compressed.
fn record(kind: &Kind, word: &str) -> Vec<u8> {
    let plain = word.repeat(20).into_bytes();
    if kind.zlib_at_clients { Zlib { compress: true }.encode(&plain).into_owned() } else { plain }
}

fn plain(record: Vec<u8>) -> Vec<u8> {
    Zlib { compress: true }.decode(&record, usize::MAX).unwrap().into_owned()
}

pub fn conflicts_are_merged(kind: &Kind) {
    let storage = kind.storage.as_ref();
    storage.set_resolver(Arc::new(Joins));
    let word = |word| record(kind, word);
    let t1 = commit(storage, &[(1, Tid::ZERO, &word("old")), (2, Tid::ZERO, &word("two"))]).unwrap();
    let t2 = commit(storage, &[(1, t1, &word("committed"))]).unwrap();
    let mut both = staged();
    both.store(Oid(2), t1, &word("second")).unwrap();
    both.store(Oid(1), t1, &word("new")).unwrap();
    let voted = match storage.vote(both, TidAt::Finish) {
        Ok(voted) if kind.merges => voted,
        Err(NotVoted::Failed(StorageError::Conflict(_))) if !kind.merges => return,
        other => panic!("{:?}", other.map(|voted| voted.resolved().to_vec())),
    };
    assert_eq!(voted.resolved(), [Oid(1)]);
    storage.abort(voted);
    let t3 = commit(storage, &[(2, t1, &word("second")), (1, t1, &word("new"))]).unwrap();
    let (merged, serial) = load(storage, 1).unwrap();
    let expected = ["old".repeat(20), "committed".repeat(20), "new".repeat(20)].join("+").into_bytes();
    assert_eq!((plain(merged.clone()), serial), (expected.clone(), t3));
    if !kind.zlib_at_clients {
        assert_eq!(merged, expected);
    }
    assert_eq!(plain(load(storage, 2).unwrap().0), "second".repeat(20).into_bytes());
    match commit(storage, &[(1, t2, &word("refuse"))]) {
        Err(StorageError::Conflict(conflict)) => {
            assert_eq!((conflict.committed, conflict.read), (t3, t2));
            assert_eq!(
                conflict.data,
                "refuse".repeat(20).into_bytes(),
                "the class of the object can be told"
            );
        }
        other => panic!("{other:?}"),
    }
    // The transaction's starting revision is unknown.
    assert!(matches!(commit(storage, &[(1, Tid(5), &word("new"))]), Err(StorageError::Conflict(_))));
}

pub fn clients_merge_themselves(kind: &Kind) {
    let storage = kind.storage.as_ref();
    storage.set_resolver(Arc::new(Joins));
    let word = |word| record(kind, word);
    let t1 = commit(storage, &[(1, Tid::ZERO, &word("old")), (2, Tid::ZERO, &word("two"))]).unwrap();
    let t2 = commit(storage, &[(1, t1, &word("committed"))]).unwrap();
    let mut transaction = staged();
    transaction.set_merging(Merging::ByClient);
    transaction.store(Oid(1), t1, &word("new")).unwrap();
    transaction.store(Oid(2), t1, &word("second")).unwrap();
    let mut back: Staged = match storage.vote(transaction, TidAt::Finish) {
        Err(NotVoted::Unmerged { conflicts, staged }) => {
            assert_eq!(conflicts.len(), 1);
            let conflict = &conflicts[0];
            assert_eq!((conflict.oid, conflict.committed, conflict.read), (Oid(1), t2, t1));
            assert_eq!(conflict.data, word("new"));
            *staged
        }
        other => panic!("{:?}", other.map(|voted| voted.resolved().to_vec())),
    };
    // Another commit in between makes the other store conflict.
    let t3 = commit(storage, &[(2, t1, &word("between"))]).unwrap();
    back.store(Oid(1), t2, &word("merged")).unwrap();
    let mut back: Staged = match storage.vote(back, TidAt::Finish) {
        Err(NotVoted::Unmerged { conflicts, staged }) => {
            let listed: Vec<_> = conflicts.iter().map(|conflict| (conflict.oid, conflict.read)).collect();
            assert_eq!(listed, [(Oid(2), t1)]);
            *staged
        }
        other => panic!("{:?}", other.map(|voted| voted.resolved().to_vec())),
    };
    back.store(Oid(2), t3, &word("merged too")).unwrap();
    let t4 = commit_staged(storage, back).unwrap();
    assert_eq!(load(storage, 1).unwrap(), (word("merged"), t4));
    assert_eq!(load(storage, 2).unwrap(), (word("merged too"), t4));
}

/// Obeys the new state: `merge` or not; `now`, or only if it may wait, as a helper process does.
struct Obeys;

impl Resolver for Obeys {
    fn resolve(&self, states: &ThreeStates<'_>) -> Result<Vec<u8>, Unresolved> {
        let merges = states.new.starts_with(b"merge");
        if merges { Ok(states.new.to_vec()) } else { Err(Unresolved { reason: "told to".into() }) }
    }

    fn resolve_now(&self, states: &ThreeStates<'_>) -> Option<Result<Vec<u8>, Unresolved>> {
        states.new.ends_with(b"now").then(|| self.resolve(states))
    }
}

/// A client got a ReadConflictError without a class instead of its store's ConflictError, if the store waited for a
/// helper process: the vote continued to a check that failed. As in Python's servers the first call that fails decides.
pub fn the_first_conflict_is_told(kind: &Kind) {
    let storage = kind.storage.as_ref();
    storage.set_resolver(Arc::new(Obeys));
    let word = |word| record(kind, word);
    for (n, new) in (0..).zip(["merge now", "merge later", "refuse now", "refuse later"]) {
        for stores_first in [false, true] {
            let [stored, checked] = [0, 1].map(|i| Oid(100 + 4 * n + 2 * u64::from(stores_first) + i));
            let [old, committed, mine] = ["old", "committed", new].map(word);
            let t1 = commit(storage, &[(stored.0, Tid::ZERO, &old), (checked.0, Tid::ZERO, &old)]).unwrap();
            commit(storage, &[(stored.0, t1, &committed), (checked.0, t1, &committed)]).unwrap();
            let mut transaction = staged();
            transaction.set_merging(Merging::AtOnce);
            if !stores_first {
                transaction.check_current(checked, t1);
            }
            transaction.store(stored, t1, &mine).unwrap();
            if stores_first {
                transaction.check_current(checked, t1);
            }
            let voted = match storage.vote(transaction, TidAt::Finish) {
                Err(NotVoted::Postponed(mut transaction)) => {
                    assert!(kind.waits || stores_first && new.ends_with("later"), "{new}");
                    transaction.set_merging(Merging::Waiting);
                    storage.vote(*transaction, TidAt::Finish)
                }
                voted => voted,
            };
            let store_fails = !(kind.merges && new.starts_with("merge"));
            match voted.map(|voted| voted.resolved().to_vec()).map_err(StorageError::from) {
                Err(StorageError::Conflict(conflict)) if stores_first && store_fails => {
                    assert_eq!(conflict.oid, stored, "{new}");
                    assert!(!conflict.data.is_empty(), "the class of the object can be told");
                }
                Err(StorageError::ReadConflict(conflict)) if !(stores_first && store_fails) => {
                    assert_eq!(conflict.oid, checked, "{new}");
                }
                other => panic!("{new}, stores first: {stores_first}: {other:?}"),
            }
        }
    }
}
