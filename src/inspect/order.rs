//! The transactions of a damaged file in the order of their tids: which one is the odd one out.
//!
//! Each transaction is compared with the two behind it. A tid that is too high does not make all later ones wrong, and
//! a tid that is wrong in the header alone is taken from the records, which have it too.

use std::collections::VecDeque;

use super::data_file::DataFile;
use super::walk::{Damage, Ending, FoundTxn, Part, RecordPart, Walk};
use crate::base::ids::Tid;
use crate::storage::Result;

/// A part of the file.
pub enum Placed {
    /// Its tid is later than the one of the transaction before; `wrong_tid`: not the one in its header, which was this.
    Transaction {
        txn: FoundTxn,
        wrong_tid: Option<Tid>,
    },
    /// Its tid does not fit, for this reason.
    OutOfOrder {
        txn: FoundTxn,
        why: String,
    },
    Damage(Damage),
    Ending(Ending),
}

/// Goes through a file.
pub struct InOrder<'a> {
    walk: Walk<'a>,
    /// For the tids of records, so that `walk` reads ahead.
    beside: Walk<'a>,
    ahead: VecDeque<Ahead>,
    last: Tid,
    now: Tid,
}

struct Ahead {
    part: Part,
    /// Of a transaction: the tids that it may have, the likeliest first.
    tids: Vec<Tid>,
}

impl<'a> InOrder<'a> {
    /// `now`: later tids are unlikely.
    pub fn new(file: &'a DataFile, now: Tid) -> InOrder<'a> {
        let (walk, beside) = (Walk::new(file), Walk::new(file));
        InOrder { walk, beside, ahead: VecDeque::new(), last: Tid::ZERO, now }
    }

    /// The next part; `None` at the end. Errors: `Io` alone.
    pub fn next_part(&mut self) -> Result<Option<Placed>> {
        while self.ahead.iter().filter(|ahead| !ahead.tids.is_empty()).count() < 3
            && let Some(part) = self.walk.next_part()?
        {
            let tids = match &part {
                Part::Transaction(txn) => self.tids(txn)?,
                _ => Vec::new(),
            };
            self.ahead.push_back(Ahead { part, tids });
        }
        let Some(Ahead { part, tids }) = self.ahead.pop_front() else { return Ok(None) };
        Ok(Some(match part {
            Part::Damage(damage) => Placed::Damage(damage),
            Part::Ending(ending) => Placed::Ending(ending),
            Part::Transaction(txn) => match self.place(&tids) {
                Ok(tid) => {
                    self.last = tid;
                    let wrong_tid = (tid != txn.header.tid).then_some(txn.header.tid);
                    let mut txn = txn;
                    txn.header.tid = tid;
                    Placed::Transaction { txn, wrong_tid }
                }
                Err(why) => Placed::OutOfOrder { txn, why },
            },
        }))
    }

    /// Whether a transaction that was found between the parts may have this tid.
    pub fn may_be(&self, tid: Tid) -> bool {
        let next = self.ahead.iter().find(|ahead| !ahead.tids.is_empty());
        let end = next.and_then(|next| next.tids.iter().max().copied()).unwrap_or(self.now);
        tid > self.last && tid < end && tid <= Tid::MAX
    }

    /// A transaction was found between the parts.
    pub fn set_last(&mut self, tid: Tid) {
        self.last = tid;
    }

    /// The tids in the header and in the records. If they differ, the one of several records is likelier.
    fn tids(&mut self, txn: &FoundTxn) -> Result<Vec<Tid>> {
        let mut cursor = self.beside.records(txn);
        let mut of_records = Vec::new();
        while of_records.len() < 2
            && let Some(part) = self.beside.next_record(&mut cursor)?
        {
            match part {
                RecordPart::Record(record) if record.header.tid == txn.header.tid => break,
                RecordPart::Record(record) => of_records.push(record.header.tid),
                RecordPart::Damage(_) => {}
            }
        }
        let header = txn.header.tid;
        Ok(match of_records.as_slice() {
            [first, second] if first == second => vec![*first, header],
            [only] => vec![header, *only],
            _ => vec![header],
        })
    }

    fn place(&self, tids: &[Tid]) -> std::result::Result<Tid, String> {
        let fitting: Vec<Tid> =
            tids.iter().copied().filter(|tid| *tid > self.last && *tid <= Tid::MAX).collect();
        let Some(&likeliest) = fitting.first() else {
            return Err(format!(
                "its tid is not later than the one of the transaction before, {}",
                self.last
            ));
        };
        let mut behind = self.ahead.iter().filter(|ahead| !ahead.tids.is_empty());
        let (Some(next), after) = (behind.next(), behind.next()) else {
            return Ok(fitting.iter().copied().find(|tid| *tid <= self.now).unwrap_or(likeliest));
        };
        let is_before = |tid: Tid, other: &Ahead| other.tids.iter().any(|later| *later > tid);
        if let Some(tid) = fitting.iter().find(|tid| is_before(**tid, next)) {
            return Ok(*tid);
        }
        // The next transaction has a lower tid: this one is too high, or that one too low.
        let is_too_high = next.tids.iter().any(|tid| *tid > self.last)
            && match after {
                Some(after) => !is_before(likeliest, after),
                None => likeliest > self.now,
            };
        if is_too_high { Err("its tid is later than those behind it".into()) } else { Ok(likeliest) }
    }
}
