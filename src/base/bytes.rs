//! A cursor over bytes from outside: every read is checked; it never panics or allocates.

/// Reads from the front of a slice. A read that fails leaves the cursor where it was.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, rest: bytes }
    }

    /// Number of bytes read so far.
    #[inline]
    pub fn pos(&self) -> usize {
        self.bytes.len() - self.rest.len()
    }

    /// The bytes that are left.
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The bytes that were read since the cursor was at `pos`.
    #[inline]
    pub fn since(&self, pos: usize) -> &'a [u8] {
        self.bytes.get(pos..self.pos()).unwrap_or_default()
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `len` bytes; `None` if there are fewer.
    #[inline]
    pub fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    /// The next `N` bytes.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*array)
    }

    #[inline]
    pub fn u8(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    #[inline]
    pub fn u16_le(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    #[inline]
    pub fn u32_le(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    #[inline]
    pub fn u64_le(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    #[inline]
    pub fn u16_be(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    #[inline]
    pub fn u32_be(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    #[inline]
    pub fn u64_be(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// The bytes up to the next line feed, which is skipped and not returned.
    pub fn line(&mut self) -> Option<&'a [u8]> {
        let len = memchr::memchr(b'\n', self.rest)?;
        let line = self.take(len)?;
        self.take(1)?;
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
        assert_eq!(r.array::<5>(), None);
        assert_eq!(r.rest(), b"rest");
        assert_eq!(r.line(), None);
        assert_eq!(r.take(1), Some(&b"r"[..]));
        assert_eq!((r.pos(), r.since(2)), (7, &b"abc\nr"[..]));
    }
}
