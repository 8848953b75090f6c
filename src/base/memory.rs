//! Buffers whose length comes from outside: from a peer, a file or a helper.
//!
//! If there is not enough memory, the call fails. (With a plain `Vec`, Rust ends the process.) A thread that answers a
//! client may use only [`LARGE`] bytes for a record unless it was granted more: see [`within`].

use std::cell::Cell;
use std::fmt;
use std::io;

/// Longer records need a grant.
pub const LARGE: usize = 1 << 20;

thread_local! {
    /// Upper bound on a buffer of this thread.
    static LEN_MAX: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// The buffer would be longer than [`within`] allows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NoGrant {
    pub wanted: usize,
}

impl fmt::Display for NoGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a buffer of {} bytes is larger than was granted", self.wanted)
    }
}

impl std::error::Error for NoGrant {}

/// Calls `run`; making a buffer longer than `len_max` in it fails with [`NoGrant`].
pub fn within<T>(len_max: usize, run: impl FnOnce() -> T) -> T {
    struct Restore(usize);
    impl Drop for Restore {
        fn drop(&mut self) {
            LEN_MAX.set(self.0);
        }
    }
    let _restore = Restore(LEN_MAX.replace(len_max));
    run()
}

/// The wanted number of bytes, if this is a [`NoGrant`] error.
pub fn not_granted(error: &io::Error) -> Option<usize> {
    Some(error.get_ref()?.downcast_ref::<NoGrant>()?.wanted)
}

/// Reserves memory for a buffer of `len` bytes in all.
pub fn reserve(buf: &mut Vec<u8>, len: usize) -> io::Result<()> {
    if len > LEN_MAX.get() {
        return Err(io::Error::new(io::ErrorKind::OutOfMemory, NoGrant { wanted: len }));
    }
    let more = len.saturating_sub(buf.len());
    if more <= buf.capacity() - buf.len() {
        return Ok(());
    }
    buf.try_reserve(more)
        .map_err(|_| io::Error::new(io::ErrorKind::OutOfMemory, format!("no memory for {len} bytes")))
}

/// Extends the buffer to `len` bytes with zeros, or cuts it off.
pub fn resize(buf: &mut Vec<u8>, len: usize) -> io::Result<()> {
    reserve(buf, len)?;
    buf.resize(len, 0);
    Ok(())
}

/// A buffer of `len` zeros.
pub fn zeros(len: usize) -> io::Result<Vec<u8>> {
    let mut buf = Vec::new();
    resize(&mut buf, len)?;
    Ok(buf)
}

/// Appends bytes.
pub fn append(buf: &mut Vec<u8>, bytes: &[u8]) -> io::Result<()> {
    reserve(buf, buf.len().saturating_add(bytes.len()))?;
    buf.extend_from_slice(bytes);
    Ok(())
}

/// A copy of `bytes`.
pub fn copy(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut buf = Vec::new();
    append(&mut buf, bytes)?;
    Ok(buf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_cannot_be_had_is_an_error() {
        let error = zeros(usize::MAX / 2 - 7).unwrap_err();
        assert_eq!((error.kind(), not_granted(&error)), (io::ErrorKind::OutOfMemory, None));
        assert_eq!(zeros(3).unwrap(), [0; 3]);
        let mut buf = b"abc".to_vec();
        append(&mut buf, b"de").unwrap();
        resize(&mut buf, 4).unwrap();
        assert_eq!(buf, b"abcd");
    }

    #[test]
    fn a_grant_ends_with_what_it_is_for() {
        let wanted = |len| zeros(len).err().and_then(|error| not_granted(&error));
        assert_eq!(
            within(100, || (wanted(100), within(200, || wanted(200)), wanted(101))),
            (None, None, Some(101))
        );
        assert_eq!(wanted(101), None);
    }
}
