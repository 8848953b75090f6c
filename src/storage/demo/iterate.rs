//! The transactions of the base, then those of the changes.

use super::DemoStorage;
use crate::base::ids::Tid;
use crate::storage::{Iterate, RecordIterator, Result, TransactionIterator, TransactionRecord};

impl Iterate for DemoStorage {
    fn iterate(&self, start: Option<Tid>, stop: Option<Tid>) -> Result<Box<dyn TransactionIterator>> {
        let base = self.base.require_iteration()?.iterate(start, stop)?;
        let changes = self.changes.require_iteration()?.iterate(start, stop)?;
        Ok(Box::new(Transactions { base, changes, in_changes: false }))
    }
}

/// An iterator over the two storages.
struct Transactions {
    base: Box<dyn TransactionIterator>,
    changes: Box<dyn TransactionIterator>,
    in_changes: bool,
}

impl TransactionIterator for Transactions {
    fn next_transaction(&mut self) -> Result<Option<TransactionRecord>> {
        if !self.in_changes {
            if let Some(next) = self.base.next_transaction()? {
                return Ok(Some(next));
            }
            self.in_changes = true;
        }
        self.changes.next_transaction()
    }

    fn records(&self) -> Result<Box<dyn RecordIterator>> {
        if self.in_changes { self.changes.records() } else { self.base.records() }
    }
}
