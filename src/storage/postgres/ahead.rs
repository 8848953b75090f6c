//! Records of an iteration, read for many transactions at once: most transactions are small, and one question for each
//! would be most of the time.

use std::ops::Range;
use std::sync::Arc;

use super::shared::{data_record, oid, tid};
use super::sql::AHEAD_LEN;
use crate::base::ids::{Oid, Tid};
use crate::postgres::Rows;
use crate::storage::{DataRecord, Result};

/// Transactions whose records are read alone, before it is clear that those of all are wanted.
const ALONE: u32 = 2;

/// What was read ahead.
#[derive(Default)]
pub struct Ahead {
    asked: u32,
    window: Option<AheadWindow>,
}

/// Records of consecutive transactions.
struct AheadWindow {
    rows: Arc<Rows>,
    /// The rows in the order of transactions and objects.
    order: Arc<[(Tid, Oid, usize)]>,
    /// The first transaction in it.
    first: Tid,
    /// The last one of which all records are in it.
    complete_to: Tid,
}

/// Some of the rows that were read.
pub struct AheadRecords {
    rows: Arc<Rows>,
    order: Arc<[(Tid, Oid, usize)]>,
    left: Range<usize>,
}

impl AheadRecords {
    pub fn next(&mut self) -> Option<Result<DataRecord>> {
        let (tid, _, at) = *self.order.get(self.left.next()?)?;
        Some(data_record(&self.rows.get(at)?, 1, tid))
    }
}

impl Ahead {
    /// The records of transaction `of`, which is not later than `stop`. `None`: they are to be read alone. `read`
    /// returns the records of this transaction and later ones up to `stop`, as many as come at once.
    pub fn records(
        &mut self,
        of: Tid,
        stop: Tid,
        read: impl FnOnce() -> Result<Rows>,
    ) -> Result<Option<AheadRecords>> {
        self.asked = self.asked.saturating_add(1);
        if self.asked <= ALONE {
            return Ok(None);
        }
        if !self.window.as_ref().is_some_and(|window| window.has(of)) {
            self.window = Some(AheadWindow::new(read()?, of, stop)?);
        }
        // Otherwise the records of this one alone are more than come at once.
        Ok(self.window.as_ref().filter(|window| window.has(of)).map(|window| window.records(of)))
    }
}

impl AheadWindow {
    fn new(rows: Rows, first: Tid, stop: Tid) -> Result<AheadWindow> {
        let (mut order, mut len) = (Vec::with_capacity(rows.len()), 0);
        for (at, row) in rows.iter().enumerate() {
            order.push((tid(&row, 0)?, oid(&row, 1)?, at));
            len += row.bytes(2)?.map_or(0, <[u8]>::len);
        }
        order.sort_unstable();
        let complete_to = match order.last() {
            // Of the last transaction there may be more.
            Some((last, ..)) if rows.len() >= AHEAD_LEN.0 || len >= AHEAD_LEN.1 => {
                Tid(last.0.saturating_sub(1))
            }
            _ => stop,
        };
        Ok(AheadWindow { rows: Arc::new(rows), order: order.into(), first, complete_to })
    }

    fn has(&self, of: Tid) -> bool {
        self.first <= of && of <= self.complete_to
    }

    fn records(&self, of: Tid) -> AheadRecords {
        let begin = self.order.partition_point(|(tid, ..)| *tid < of);
        let end = self.order.partition_point(|(tid, ..)| *tid <= of);
        AheadRecords { rows: Arc::clone(&self.rows), order: Arc::clone(&self.order), left: begin..end }
    }
}
