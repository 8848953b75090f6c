//! All objects, all transactions, the last transactions.

use runzeo::ids::{Oid, Tid};
use runzeo::storage::TransactionIterator;

use super::kinds::Kind;
use crate::support::storage::commit;

pub fn all_objects_in_order(kind: &Kind) {
    let storage = kind.storage.as_ref();
    let t1 = commit(storage, &[(9, Tid::ZERO, b"nine"), (2, Tid::ZERO, b"two"), (300, Tid::ZERO, b"far")])
        .unwrap();
    let t2 = commit(storage, &[(2, t1, b"changed")]).unwrap();
    let mut seen = Vec::new();
    let mut next = None;
    loop {
        let record = storage.record_iternext(next).unwrap().unwrap();
        seen.push((record.oid.0, record.tid, record.data));
        next = record.next;
        if next.is_none() {
            break;
        }
    }
    // Other objects of a base come last.
    seen.truncate(3);
    let expected = [(2, t2, b"changed".to_vec()), (9, t1, b"nine".to_vec()), (300, t1, b"far".to_vec())];
    assert_eq!(seen, expected);
    let between = storage.record_iternext(Some(Oid(3))).unwrap().unwrap();
    assert_eq!((between.oid, between.next), (Oid(9), Some(Oid(300))));
}

/// Tid, then oid and data of each record.
type Shown = Vec<(Tid, Vec<(u64, Vec<u8>)>)>;

fn shown(kind: &Kind, mut transactions: Box<dyn TransactionIterator>) -> Shown {
    let (user, status) = if kind.forgets { (&b""[..], b'p') } else { (&b"user"[..], b' ') };
    let mut shown = Vec::new();
    while let Some(transaction) = transactions.next_transaction().unwrap() {
        assert_eq!(transaction.meta.user, user);
        assert_eq!(transaction.status, status);
        let mut records = transactions.records().unwrap();
        let mut listed = Vec::new();
        while let Some(record) = records.next_record().unwrap() {
            assert_eq!(record.tid, transaction.tid);
            listed.push((record.oid.0, record.data.unwrap()));
        }
        assert!(records.next_record().unwrap().is_none());
        shown.push((transaction.tid, listed));
    }
    assert!(transactions.next_transaction().unwrap().is_none());
    shown
}

pub fn transactions_in_order(kind: &Kind) {
    let storage = kind.storage.as_ref();
    let before = storage.last_transaction();
    let t1 = commit(storage, &[(2, Tid::ZERO, b"two"), (1, Tid::ZERO, b"one")]).unwrap();
    let t2 = commit(storage, &[(1, t1, b"changed")]).unwrap();
    let t3 = commit(storage, &[(3, Tid::ZERO, b"three")]).unwrap();
    if !kind.logs {
        assert!(storage.iteration().is_none());
        return;
    }
    let after = Some(Tid(before.0 + 1));
    let mut first = (t1, vec![(2, b"two".to_vec()), (1, b"one".to_vec())]);
    if kind.waits {
        // A table has no order of stores.
        first.1.sort();
    }
    if kind.forgets {
        // A later transaction has its object.
        first.1.retain(|(oid, _)| *oid != 1);
    }
    let second = (t2, vec![(1, b"changed".to_vec())]);
    let third = (t3, vec![(3, b"three".to_vec())]);
    let all = [first.clone(), second.clone(), third.clone()];
    let list = |start, stop| shown(kind, storage.iteration().unwrap().iterate(start, stop).unwrap());
    assert_eq!(list(after, None), all);
    assert!(list(None, None).ends_with(&all));
    assert_eq!(list(Some(t1), Some(t2)), [first, second.clone()]);
    assert_eq!(list(Some(Tid(t1.0 + 1)), Some(Tid(t3.0 - 1))), [second]);
    assert_eq!(list(Some(t3), None), [third]);
    assert_eq!(list(Some(Tid(t3.0 + 1)), None), []);
}

pub fn iterators_see_what_was_there(kind: &Kind) {
    let storage = kind.storage.as_ref();
    if !kind.logs {
        return;
    }
    let t1 = commit(storage, &[(1, Tid::ZERO, b"one")]).unwrap();
    let iterator = storage.iteration().unwrap().iterate(Some(t1), None).unwrap();
    let t2 = commit(storage, &[(1, t1, b"later")]).unwrap();
    assert_eq!(shown(kind, iterator), [(t1, vec![(1, b"one".to_vec())])]);
    assert_eq!(shown(kind, storage.iteration().unwrap().iterate(Some(t2), None).unwrap()).len(), 1);
}

pub fn the_last_transactions(kind: &Kind) {
    let storage = kind.storage.as_ref();
    let t1 = commit(storage, &[(1, Tid::ZERO, b"one"), (2, Tid::ZERO, b"two")]).unwrap();
    let t2 = commit(storage, &[(1, t1, b"changed")]).unwrap();
    let newest = |count: usize| {
        let last = storage.last_invalidations(count).unwrap();
        assert!(last.cut_short.is_none());
        let oldest = last.transactions.last().map_or(t2, |(tid, _)| Tid(tid.0 - 1));
        // A demo over an empty base knows all transactions.
        assert!([oldest, Tid::ZERO].contains(&last.complete_after), "{last:?}");
        last.transactions
    };
    if !kind.logs {
        assert_eq!(newest(1), []);
        return;
    }
    assert_eq!(newest(1), [(t2, vec![Oid(1)])]);
    let first = if kind.forgets { vec![Oid(2)] } else { vec![Oid(1), Oid(2)] };
    assert_eq!(newest(2), [(t2, vec![Oid(1)]), (t1, first)]);
    let all = newest(100);
    assert!(all.windows(2).all(|pair| pair[0].0 > pair[1].0), "newest first, through to the base");
    assert!(all.len() < 100);
}

/// The records of the last transaction, for other checks.
pub fn records_of_last(kind: &Kind) -> Vec<(u64, Vec<u8>)> {
    let storage = kind.storage.as_ref();
    shown(kind, storage.iteration().unwrap().iterate(Some(storage.last_transaction()), None).unwrap())
        .remove(0)
        .1
}
