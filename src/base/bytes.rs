//! A cursor over bytes that came from outside: every read is checked, nothing panics, nothing is allocated.

use byteorder::{BigEndian, ByteOrder, LittleEndian};

/// Reads from the front of a slice.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    pos: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, pos: 0 }
    }

    /// Bytes read so far.
    pub fn pos(&self) -> usize {
        self.pos
    }

    /// What is left.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.pos..).unwrap_or_default()
    }

    pub fn is_empty(&self) -> bool {
        self.pos >= self.bytes.len()
    }

    /// The next `len` bytes, if there are as many.
    pub fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let end = self.pos.checked_add(len)?;
        let taken = self.bytes.get(self.pos..end)?;
        self.pos = end;
        Some(taken)
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub fn u16_be(&mut self) -> Option<u16> {
        self.take(2).map(BigEndian::read_u16)
    }

    pub fn u16_le(&mut self) -> Option<u16> {
        self.take(2).map(LittleEndian::read_u16)
    }

    pub fn u32_le(&mut self) -> Option<u32> {
        self.take(4).map(LittleEndian::read_u32)
    }

    pub fn u64_be(&mut self) -> Option<u64> {
        self.take(8).map(BigEndian::read_u64)
    }

    /// Up to the next line feed, which is passed over and not returned.
    pub fn line(&mut self) -> Option<&'a [u8]> {
        let len = self.rest().iter().position(|&byte| byte == b'\n')?;
        let line = self.take(len)?;
        self.pos += 1;
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_read_past_the_end() {
        let mut r = Reader::new(b"\x00\x07abc\nrest");
        assert_eq!(r.u16_be(), Some(7));
        assert_eq!(r.line(), Some(&b"abc"[..]));
        assert_eq!(r.u64_be(), None);
        assert_eq!(r.take(usize::MAX), None);
        assert_eq!(r.rest(), b"rest");
        assert_eq!(r.line(), None);
    }
}
