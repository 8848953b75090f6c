//! A saved index after reading, and the packed buckets that all layouts of the file have in common. The layouts are in
//! `index_file` and `index_legacy`.

#![cfg_attr(not(test), deny(clippy::cast_possible_truncation))]

use super::index::Index;
use crate::base::ids::Oid;

/// The content of an index file, in any layout.
pub struct SavedIndex {
    /// All transactions before this position are in the index.
    pub pos: u64,
    pub(super) index: Index,
    /// Oids up to this one may have been given out.
    pub oid_mark: Option<Oid>,
}

impl SavedIndex {
    /// All objects and their positions, in oid order.
    pub fn objects(&self) -> impl Iterator<Item = (Oid, u64)> {
        let mut next = self.index.next(Oid::ZERO);
        std::iter::from_fn(move || {
            let found = next?;
            next = found.0.0.checked_add(1).and_then(|from| self.index.next(Oid(from)));
            Some(found)
        })
    }
}

/// Inserts a bucket from `fsBucket.toString`: all suffixes, then all positions.
pub fn fill(index: &Index, prefix: &[u8], bucket: &[u8], end: u64) -> Result<(), String> {
    let Some(&[a, b, c, d, e, f]) = prefix.first_chunk::<6>().filter(|_| prefix.len() == 6) else {
        return Err("an oid prefix is not 6 bytes long".into());
    };
    let prefix = u64::from_be_bytes([0, 0, a, b, c, d, e, f]) << 16;
    if !bucket.len().is_multiple_of(8) {
        return Err("a bucket's length is not a multiple of 8".into());
    }
    let (suffixes, positions) = bucket.split_at(bucket.len() / 4);
    let (suffixes, _) = suffixes.as_chunks::<2>();
    let (positions, _) = positions.as_chunks::<6>();
    let suffix = |at: usize| suffixes.get(at).map_or(0, |&s| u16::from_be_bytes(s));
    let mut from = 0;
    while from < suffixes.len() {
        // One page of the index at a time: oids that differ only in the last 12 bits.
        let page = suffix(from) >> 12;
        let len = suffixes.iter().skip(from).take_while(|s| u16::from_be_bytes(**s) >> 12 == page).count();
        let positions = positions.get(from..from + len).ok_or("a bucket has more oids than positions")?;
        if positions.iter().any(|p| !(4..end).contains(&position(p))) {
            return Err("a position is not in the file".into());
        }
        let slots = (from..).zip(positions).map(|(at, p)| (suffix(at) & 0xfff, position(p)));
        index.fill(Oid(prefix | u64::from(page) << 12), KnownLen { slots, len });
        from += len;
    }
    Ok(())
}

/// An iterator whose length is known.
struct KnownLen<I> {
    slots: I,
    len: usize,
}

impl<I: Iterator> Iterator for KnownLen<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        let next = self.slots.next()?;
        self.len -= 1;
        Some(next)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len, Some(self.len))
    }
}

impl<I: Iterator> ExactSizeIterator for KnownLen<I> {}

/// A position as it is saved: 6 bytes, big endian.
pub fn position(bytes: &[u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = *bytes;
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}
