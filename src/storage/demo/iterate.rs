//! The transactions of the base, then those of the changes.

use crate::storage::{RecordIterator, Result, TransactionIterator, TransactionRecord};

/// See the module.
pub struct Transactions {
    base: Box<dyn TransactionIterator>,
    changes: Box<dyn TransactionIterator>,
    in_changes: bool,
}

impl Transactions {
    pub fn new(base: Box<dyn TransactionIterator>, changes: Box<dyn TransactionIterator>) -> Transactions {
        Transactions { base, changes, in_changes: false }
    }
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
