//! Whether the target of a copy has the past of its source.
//!
//! A pack of either storage takes transactions and records out, up to a transaction that it marks. Before such a mark
//! only what both have is compared; behind it everything is.

use std::collections::HashMap;

use md5::{Digest, Md5};

use super::ends::End;
use super::oid_repr;
use crate::base::ids::{Oid, Tid};
use crate::commands::subcommand::Trouble;
use crate::inspect::show;
use crate::storage::{TransactionIterator, TransactionRecord};

/// Refuses a target that has another past. `last`: its last transaction. `at` gets the number of transactions.
pub(super) fn agree(from: &End, to: &End, last: Tid, at: &mut dyn FnMut(u64)) -> Result<(), Trouble> {
    let mut sides = [Side::new(from, last)?, Side::new(to, last)?];
    // A transaction that one has alone, and that was not packed away so far.
    let mut alone: [Option<Tid>; 2] = [None, None];
    let mut done = 0;
    loop {
        let [a, b] = &mut sides;
        let order = match (&a.ahead, &b.ahead) {
            (None, None) => break,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(x), Some(y)) => x.tid.cmp(&y.tid),
        };
        // What is marked in one storage has excused what is missing in it before.
        for (side, alone) in [&*a, &*b].into_iter().zip(alone.iter_mut().rev()) {
            if side.ahead.as_ref().is_some_and(|txn| txn.status == b'p') {
                *alone = None;
            }
        }
        match order {
            std::cmp::Ordering::Less => {
                let tid = a.ahead.as_ref().map(|txn| txn.tid);
                alone[0] = alone[0].or(tid);
                a.advance()?;
            }
            std::cmp::Ordering::Greater => {
                let tid = b.ahead.as_ref().map(|txn| txn.tid);
                alone[1] = alone[1].or(tid);
                b.advance()?;
            }
            std::cmp::Ordering::Equal => {
                compare(a, b)?;
                a.advance()?;
                b.advance()?;
            }
        }
        done += 1;
        at(done);
    }
    let [only_from, only_to] = alone;
    let refuse = |tid: Tid, has: &End, other: &End| {
        Err(Trouble::Failed(format!(
            "the histories differ: {} has the transaction {tid}, {} does not: copy to a new storage",
            has.name, other.name
        )))
    };
    match (only_from, only_to) {
        (_, Some(tid)) => refuse(tid, to, from),
        (Some(tid), _) => refuse(tid, from, to),
        (None, None) => Ok(()),
    }
}

/// One of the storages.
struct Side<'a> {
    end: &'a End,
    transactions: Box<dyn TransactionIterator>,
    ahead: Option<TransactionRecord>,
}

impl<'a> Side<'a> {
    fn new(end: &'a End, last: Tid) -> Result<Side<'a>, Trouble> {
        let transactions = end.storage.require_iteration()?.iterate(None, Some(last))?;
        let mut side = Side { end, transactions, ahead: None };
        side.advance()?;
        Ok(side)
    }

    fn advance(&mut self) -> Result<(), Trouble> {
        self.ahead = self.transactions.next_transaction()?;
        Ok(())
    }
}

/// Some servers, and ZODB's own copies, pickle the dict again.
fn is_same_extension(a: &[u8], b: &[u8]) -> bool {
    a == b || show::extension(a) == show::extension(b)
}

/// Compares the transactions that are next on both sides.
fn compare(a: &Side<'_>, b: &Side<'_>) -> Result<(), Trouble> {
    let (Some(x), Some(y)) = (&a.ahead, &b.ahead) else { return Ok(()) };
    let differ = |what: String| {
        Err(Trouble::Failed(format!(
            "the histories differ: {what} of the transaction {} in {} and in {}: copy to a new storage",
            x.tid, a.end.name, b.end.name
        )))
    };
    for (name, differs) in [
        ("the user", x.meta.user != y.meta.user),
        ("the description", x.meta.description != y.meta.description),
        ("the extension", !is_same_extension(&x.meta.extension, &y.meta.extension)),
    ] {
        if differs {
            return differ(name.into());
        }
    }
    // A pack has taken records out of one of them.
    if [x.status, y.status].contains(&b'p') {
        return Ok(());
    }
    let (mut xs, mut ys) = (records(a)?, records(b)?);
    xs.retain(|oid, record| {
        let is_same = ys.get(oid) == Some(record);
        if is_same {
            ys.remove(oid);
        }
        !is_same
    });
    match xs.keys().chain(ys.keys()).min() {
        None => Ok(()),
        Some(oid) => differ(format!("the object {}", oid_repr(*oid))),
    }
}

/// The serial of a record and the sum of its data, `None` for a deletion.
type RecordSum = (Tid, Option<[u8; 16]>);

/// The records of the next transaction. A database has them in another order, and of several records of an object only
/// the last one.
fn records(side: &Side<'_>) -> Result<HashMap<Oid, RecordSum>, Trouble> {
    let (mut records, mut seen) = (side.transactions.records()?, HashMap::new());
    while let Some(record) = records.next_record()? {
        seen.insert(record.oid, (record.tid, record.data.map(|data| Md5::digest(data).into())));
    }
    Ok(seen)
}
