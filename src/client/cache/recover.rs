//! After a power cut: keeps the blocks that are as they were when the file was last synced, and makes the rest free.
//!
//! The walk over the blocks cannot be used for that: a mark may be missing where a block was, and a new one may hide
//! what it did not replace. The log knows where blocks are. Only the space between them is written, so that a second
//! power cut during the recovery loses nothing.

use std::collections::HashMap;
use std::io;

use super::format::{self, BLOCK_LEN_MAX, HEADER_LEN};
use super::sums::BlockSum;
use crate::storage::media::MediaFile;

/// What was kept and dropped.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Recovered {
    pub kept: u64,
    /// Blocks that the log knows and that are not as it says. Most of them were replaced by others.
    pub changed: u64,
}

/// Makes the file blocks from its header to its end.
pub fn recover(file: &dyn MediaFile, log: &HashMap<u64, BlockSum>) -> io::Result<Recovered> {
    let len = file.len()?;
    let mut positions: Vec<(u64, &BlockSum)> = log.iter().map(|(pos, sum)| (*pos, sum)).collect();
    positions.sort_unstable_by_key(|(pos, _)| *pos);
    let mut recovered = Recovered::default();
    let mut block = Vec::new();
    let mut end = HEADER_LEN;
    for (pos, sum) in positions {
        let block_len = u64::from(sum.len);
        let fits = pos >= end && block_len <= BLOCK_LEN_MAX && pos + block_len <= len;
        if !fits || !agrees(file, pos, sum, &mut block)? {
            recovered.changed += 1;
            continue;
        }
        fill(file, end, pos)?;
        end = pos + block_len;
        recovered.kept += 1;
    }
    fill(file, end, len)?;
    Ok(recovered)
}

fn agrees(file: &dyn MediaFile, pos: u64, sum: &BlockSum, block: &mut Vec<u8>) -> io::Result<bool> {
    block.resize(sum.len as usize, 0);
    let read = file.read_at(block, pos)?;
    Ok(read == block.len() && sum.agrees(block))
}

/// Makes this part free.
fn fill(file: &dyn MediaFile, from: u64, to: u64) -> io::Result<()> {
    let mut pos = from;
    while pos < to {
        let len = BLOCK_LEN_MAX.min(to - pos);
        file.write_at(format::free_mark(len).as_slice(), pos)?;
        pos += len;
    }
    Ok(())
}
