//! Finding the next transaction behind damage.
//!
//! A place is accepted if all that can be checked there without what is before it agrees: the status, the lengths in
//! front of and behind the transaction, and the first data record, which has the position of its transaction in it. A
//! copy of a `Data.fs` inside a record is not accepted: its records have other positions.

use super::data_file::DataFile;
use crate::storage::Result;
use crate::storage::file::format::{DATA_HEADER_LEN, DataHeader, TRAILER_LEN, TXN_HEADER_LEN, TxnHeader};
use crate::storage::file::log::be_u64;
use crate::storage::file::window::Window;

/// Bytes that are looked at together.
const CHUNK: usize = 256 << 10;

/// The position of the first whole transaction from `from` on. Each byte is looked at once, with at most two reads
/// elsewhere for each place that may be one.
pub fn next_transaction(file: &DataFile, from: u64) -> Result<Option<u64>> {
    let log = file.log();
    let end = file.end();
    let mut window = Window::new(log.file(), end, CHUNK);
    let mut pos = from;
    while pos.saturating_add(TXN_HEADER_LEN as u64) <= end {
        let bytes = window.get(pos, CHUNK).map_err(log.io("looking for a transaction", pos))?;
        let whole = bytes.windows(TXN_HEADER_LEN);
        let count = whole.len() as u64;
        let candidates: Vec<(u64, TxnHeader)> = whole
            .zip(pos..)
            .filter_map(|(bytes, at)| Some((at, may_begin(bytes.first_chunk()?, end - at)?)))
            .collect();
        for (at, header) in candidates {
            if is_transaction(file, at, &header)? {
                return Ok(Some(at));
            }
        }
        if count == 0 {
            break;
        }
        pos += count;
    }
    Ok(None)
}

/// The header, if a whole transaction of at most `rest` bytes may begin with it.
fn may_begin(bytes: &[u8; TXN_HEADER_LEN], rest: u64) -> Option<TxnHeader> {
    // No file is longer than 48 bits can say. This excludes nearly every place.
    if !matches!(bytes, [_, _, _, _, _, _, _, _, 0, 0, _, _, _, _, _, _, b' ' | b'p' | b'u', ..]) {
        return None;
    }
    let header = TxnHeader::decode(bytes);
    let is_possible = header.len >= header.head_len()
        && header.len.saturating_add(TRAILER_LEN as u64) <= rest
        && header.tid.0 != 0
        && header.tid.0 >> 63 == 0;
    is_possible.then_some(header)
}

fn is_transaction(file: &DataFile, pos: u64, header: &TxnHeader) -> Result<bool> {
    let log = file.log();
    let read = |bytes: &mut [u8], at: u64| -> Result<bool> {
        let len = log.file().read_at(bytes, at).map_err(log.io("looking for a transaction", at))?;
        Ok(len == bytes.len())
    };
    let mut trailer = [0; TRAILER_LEN];
    if !read(&mut trailer, pos + header.len)? || be_u64(&trailer) != Some(header.len) {
        return Ok(false);
    }
    let records_len = header.len - header.head_len();
    if records_len == 0 {
        return Ok(true);
    }
    let mut first = [0; DATA_HEADER_LEN];
    if records_len < DATA_HEADER_LEN as u64 || !read(&mut first, pos + header.head_len())? {
        return Ok(false);
    }
    let record = DataHeader::decode(&first);
    Ok(record.tloc == pos && record.record_len() <= records_len)
}
