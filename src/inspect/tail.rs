//! The newest transactions, read from the end of the file.

use std::collections::VecDeque;

use super::data_file::DataFile;
use super::walk::{FoundTxn, Part, Walk};
use crate::storage::file::backwards::Backwards;
use crate::storage::{Result, StorageError};

/// At most `count` transactions, the newest first.
///
/// If the file does not end behind a transaction, because a server is writing one or because it is damaged, all
/// transactions are passed from the front, and what is damaged is left out.
pub fn newest(file: &DataFile, count: usize) -> Result<Vec<FoundTxn>> {
    match backwards(file, count) {
        Err(StorageError::Corrupt { .. }) => forwards(file, count),
        result => result,
    }
}

fn backwards(file: &DataFile, count: usize) -> Result<Vec<FoundTxn>> {
    let mut transactions = Backwards::new(file.log(), file.end());
    let mut found = Vec::new();
    while found.len() < count
        && let Some((pos, header)) = transactions.next_txn()?
    {
        if header.status == b'c' || header.len < header.head_len() {
            return Err(file.log().corrupt(pos, "no finished transaction"));
        }
        found.push(FoundTxn { pos, header, wrong_len: None });
    }
    Ok(found)
}

fn forwards(file: &DataFile, count: usize) -> Result<Vec<FoundTxn>> {
    let mut walk = Walk::new(file);
    let mut found = VecDeque::new();
    while let Some(part) = walk.next_part()? {
        if let Part::Transaction(txn) = part {
            found.push_front(txn);
            found.truncate(count);
        }
    }
    Ok(found.into())
}
