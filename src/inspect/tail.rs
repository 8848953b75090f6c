//! The newest transactions, read from the end of the file.

use std::collections::VecDeque;

use super::data_file::DataFile;
use super::walk::{FoundTxn, Part, Walk};
use crate::storage::file::backwards::Backwards;
use crate::storage::file::format::{MAGIC_LEN, TRAILER_LEN};
use crate::storage::{Result, StorageError};

/// At most `count` transactions, the newest first.
///
/// If the file does not end behind a transaction, or with zeros behind one, because a server is writing one or because
/// it is damaged, all transactions are passed from the front, and what is damaged is left out.
pub fn newest(file: &DataFile, count: usize) -> Result<Vec<FoundTxn>> {
    match backwards(file, count) {
        Err(StorageError::Corrupt { .. }) => forwards(file, count),
        result => result,
    }
}

/// Where the last transaction ends, if only zeros follow: space that a server has reserved. Otherwise the end of the
/// file.
pub fn end_before_zeros(file: &DataFile) -> Result<u64> {
    /// Bytes of one read.
    const CHUNK: u64 = 64 << 10;
    if is_end(file, file.end())? {
        return Ok(file.end());
    }
    let mut chunk = Vec::new();
    let mut end = file.end();
    let zeros = loop {
        if end <= MAGIC_LEN {
            return Ok(file.end());
        }
        let start = end.saturating_sub(CHUNK).max(MAGIC_LEN);
        chunk.resize(usize::try_from(end - start).unwrap_or(0), 0);
        match file.log().read_exact(&mut chunk, start) {
            // It has become shorter since.
            Err(StorageError::Corrupt { .. }) => return Ok(file.end()),
            result => result?,
        }
        match chunk.iter().rposition(|&byte| byte != 0) {
            Some(at) => break start + at as u64 + 1,
            None => end = start,
        }
    };
    // The last bytes of a length may be zero, too.
    for candidate in (zeros..zeros + TRAILER_LEN as u64).take_while(|end| *end <= file.end()) {
        if is_end(file, candidate)? {
            return Ok(candidate);
        }
    }
    Ok(file.end())
}

/// Whether a finished transaction ends there.
fn is_end(file: &DataFile, end: u64) -> Result<bool> {
    match Backwards::new(file.log(), end).next_txn() {
        Ok(None) => Ok(true),
        Ok(Some((_, header))) => Ok(header.status_is_known() && header.len >= header.head_len()),
        Err(StorageError::Corrupt { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

fn backwards(file: &DataFile, count: usize) -> Result<Vec<FoundTxn>> {
    let mut transactions = Backwards::new(file.log(), end_before_zeros(file)?);
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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::base::ids::Tid;
    use crate::storage::file::format::TxnHeader;

    /// A file of transactions without records, whose lengths these are.
    fn file_of(lens: &[u64], zeros: usize) -> (u64, DataFile) {
        use std::io::Write;
        let mut bytes = b"FS30".to_vec();
        for (number, len) in lens.iter().enumerate() {
            let description_len = u16::try_from(len - 23).unwrap();
            let header = TxnHeader {
                tid: Tid(number as u64 + 1),
                len: *len,
                status: b' ',
                user_len: 0,
                description_len,
                extension_len: 0,
            };
            bytes.extend(header.encode());
            bytes.extend(vec![0; usize::from(description_len)]);
            bytes.extend(len.to_be_bytes());
        }
        let end = bytes.len() as u64;
        bytes.extend(vec![0; zeros]);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        (end, DataFile::of(Path::new("Data.fs"), Arc::new(file)).unwrap())
    }

    #[test]
    fn reserved_space_is_passed() {
        for lens in [&[][..], &[30], &[30, 255], &[30, 256], &[256, 0x1000], &[300, 0x8000], &[30, 0x101]] {
            for zeros in [0, 1, 7, 8, 9, 4096, 200_000] {
                let (end, file) = file_of(lens, zeros);
                let found = end_before_zeros(&file).unwrap();
                if lens.is_empty() {
                    assert_eq!(found, file.end(), "{zeros}");
                    continue;
                }
                assert_eq!(found, end, "{lens:?} {zeros}");
                assert_eq!(newest(&file, 9).unwrap().len(), lens.len(), "{lens:?} {zeros}");
            }
        }
    }
}
