//! The words of 64 bits that an [`Index`](super::index::Index) consists of: a position, and what fits beside it.
//!
//! ```text
//! dense    position 48 | length hint 16     the slot is the word's place in the page; 0: no object
//! sparse   slot 16     | position 48        sorted by slot
//! ```
//!
//! The highest bit of a position is the mark of a pack, see [`MARK`].

use super::format::POS_MAX;

/// Bits of a position.
const POS_BITS: u32 = 48;
/// Bits of a length hint, and of a slot.
const SIDE_BITS: u32 = 16;
const _: () = assert!(POS_BITS + SIDE_BITS == u64::BITS);
const _: () = assert!(POS_MAX == (1 << POS_BITS) - 1);

/// The bit in the position of a marked object.
pub const MARK: u64 = 1 << (POS_BITS - 1);

/// The known length of a record's data.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LenHint {
    Unknown,
    Exactly(usize),
    AtLeast(usize),
}

/// A [`LenHint`] in 16 bits: 0 for an unknown length, otherwise the length plus one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HintBits(u16);

impl HintBits {
    pub const UNKNOWN: HintBits = HintBits(0);
    /// Stands for all lengths that do not fit.
    const LONG: HintBits = HintBits(u16::MAX);

    #[inline]
    pub fn of(data_len: u64) -> HintBits {
        data_len.checked_add(1).and_then(|bits| u16::try_from(bits).ok()).map_or(HintBits::LONG, HintBits)
    }

    #[inline]
    pub fn hint(self) -> LenHint {
        let less_one = usize::from(self.0).wrapping_sub(1);
        match self {
            HintBits::UNKNOWN => LenHint::Unknown,
            HintBits::LONG => LenHint::AtLeast(less_one),
            _ => LenHint::Exactly(less_one),
        }
    }
}

/// The word of an object in a dense page.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DenseWord(u64);

impl DenseWord {
    pub const NONE: DenseWord = DenseWord(0);

    #[inline]
    pub fn new(pos: u64, len: HintBits) -> DenseWord {
        DenseWord(pos << SIDE_BITS | u64::from(len.0))
    }

    #[inline]
    pub fn from_bits(bits: u64) -> DenseWord {
        DenseWord(bits)
    }

    #[inline]
    pub fn bits(self) -> u64 {
        self.0
    }

    #[inline]
    pub fn is_none(self) -> bool {
        self == DenseWord::NONE
    }

    /// The position, with its mark; 0 if there is no object.
    #[inline]
    pub fn pos(self) -> u64 {
        self.0 >> SIDE_BITS
    }

    #[inline]
    pub fn len(self) -> HintBits {
        HintBits(self.0 as u16)
    }

    #[inline]
    pub fn is_marked(self) -> bool {
        self.pos() & MARK != 0
    }

    #[inline]
    pub fn marked(self) -> DenseWord {
        DenseWord(self.0 | MARK << SIDE_BITS)
    }
}

/// The word of an object in a sparse page.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SparseWord(u64);

impl SparseWord {
    #[inline]
    pub fn new(slot: usize, pos: u64) -> SparseWord {
        SparseWord((slot as u64) << POS_BITS | pos)
    }

    #[inline]
    pub fn slot(self) -> usize {
        (self.0 >> POS_BITS) as usize
    }

    /// The position, with its mark.
    #[inline]
    pub fn pos(self) -> u64 {
        self.0 & POS_MAX
    }

    #[inline]
    pub fn is_marked(self) -> bool {
        self.0 & MARK != 0
    }

    #[inline]
    pub fn marked(self) -> SparseWord {
        SparseWord(self.0 | MARK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_hold_what_was_put_in() {
        for pos in [4, 1 << 20, MARK - 1, MARK, POS_MAX] {
            for (len, hint) in [
                (0, LenHint::Exactly(0)),
                (65_533, LenHint::Exactly(65_533)),
                (65_534, LenHint::AtLeast(65_534)),
                (u64::MAX, LenHint::AtLeast(65_534)),
            ] {
                let word = DenseWord::new(pos, HintBits::of(len));
                assert_eq!((word.pos(), word.len().hint()), (pos, hint));
                assert_eq!(word.is_marked(), pos & MARK != 0);
                assert_eq!((word.marked().pos(), word.marked().len().hint()), (pos | MARK, hint));
                assert_eq!(DenseWord::from_bits(word.bits()), word);
            }
            for slot in [0, 1, 4095, 65_535] {
                let word = SparseWord::new(slot, pos);
                assert_eq!((word.slot(), word.pos()), (slot, pos));
                assert_eq!(word.is_marked(), pos & MARK != 0);
                assert_eq!((word.marked().slot(), word.marked().pos()), (slot, pos | MARK));
            }
        }
        assert_eq!(DenseWord::new(7, HintBits::UNKNOWN).len().hint(), LenHint::Unknown);
        assert!(DenseWord::NONE.is_none());
    }
}
