//! Copies a stream and computes its MD5 sum.
//!
//! The calling thread reads (and decompresses), a second one hashes, a third one writes (and compresses), so that the
//! slowest of the three decides how long it takes. A short stream is copied without threads.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use md5::{Digest, Md5};

/// Bytes of one read.
const CHUNK_LEN: usize = 256 * 1024;
/// Number of chunks that wait for a thread.
const QUEUE_LEN: usize = 8;

/// An MD5 sum.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Md5Sum(pub [u8; 16]);

impl Md5Sum {
    /// From 32 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Md5Sum> {
        let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten()?;
        Some(Md5Sum(number.to_be_bytes()))
    }
}

impl fmt::Display for Md5Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// An MD5 sum in the making.
#[derive(Clone, Default)]
pub struct RunningSum(Md5);

impl RunningSum {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The sum of all bytes.
    pub fn sum(self) -> Md5Sum {
        Md5Sum(self.0.finalize().into())
    }
}

/// What was copied.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Copied {
    /// Number of bytes.
    pub len: u64,
    /// Their sum.
    pub sum: Md5Sum,
}

/// Why a copy ended early.
#[derive(Debug)]
pub enum CopyError {
    /// The source cannot be read.
    Source(io::Error),
    /// The copy cannot be written.
    Target(io::Error),
}

/// Copies everything from `from` to `to`, or only reads it. `each` is called in order with all bytes.
pub fn copy(
    from: &mut dyn Read,
    mut to: Option<&mut (dyn Write + Send)>,
    each: &mut dyn FnMut(&[u8]),
) -> Result<Copied, CopyError> {
    let mut first = vec![0; CHUNK_LEN];
    let len = fill(from, &mut first).map_err(CopyError::Source)?;
    first.truncate(len);
    if len < CHUNK_LEN {
        each(&first);
        let mut sum = RunningSum::default();
        sum.update(&first);
        if let Some(to) = &mut to {
            to.write_all(&first).map_err(CopyError::Target)?;
        }
        return Ok(Copied { len: len as u64, sum: sum.sum() });
    }
    thread::scope(|scope| {
        let (recycle, used) = channel();
        let (to_hash, hashed) = sync_channel(QUEUE_LEN);
        let (to_write, written) = sync_channel(QUEUE_LEN);
        let recycled = recycle.clone();
        let hasher = scope.spawn(move || hash(&hashed, &recycled));
        let to_write = to.is_some().then_some(to_write);
        let writer = to.map(|to| scope.spawn(move || write(&written, &recycle, to)));
        let queues = (to_hash, to_write);
        let read = read_on(from, first, each, &queues, &used);
        drop(queues);
        // A panic of these threads would be one of the hasher's or the compressor's library.
        let sum =
            hasher.join().map_err(|_| CopyError::Source(io::Error::other("the hasher has panicked")))?;
        if let Some(writer) = writer {
            let result = writer.join().unwrap_or_else(|_| Err(io::Error::other("the writer has panicked")));
            result.map_err(CopyError::Target)?;
        }
        Ok(Copied { len: read.map_err(CopyError::Source)?, sum })
    })
}

type Chunk = Arc<Vec<u8>>;

/// Reads to the end, or until the writer has given up.
fn read_on(
    from: &mut dyn Read,
    first: Vec<u8>,
    each: &mut dyn FnMut(&[u8]),
    queues: &(SyncSender<Chunk>, Option<SyncSender<Chunk>>),
    used: &Receiver<Vec<u8>>,
) -> io::Result<u64> {
    let (mut len, mut chunk) = (0, first);
    loop {
        let is_last = chunk.len() < CHUNK_LEN;
        len += chunk.len() as u64;
        each(&chunk);
        let shared = Arc::new(chunk);
        let (to_hash, to_write) = queues;
        let is_written = to_write.as_ref().is_none_or(|queue| queue.send(shared.clone()).is_ok());
        if to_hash.send(shared).is_err() || !is_written || is_last {
            return Ok(len);
        }
        chunk = used.try_recv().unwrap_or_default();
        chunk.resize(CHUNK_LEN, 0);
        let read = fill(from, &mut chunk)?;
        chunk.truncate(read);
    }
}

fn hash(chunks: &Receiver<Chunk>, recycle: &Sender<Vec<u8>>) -> Md5Sum {
    let mut sum = RunningSum::default();
    for chunk in chunks {
        sum.update(&chunk);
        give_back(chunk, recycle);
    }
    sum.sum()
}

fn write(chunks: &Receiver<Chunk>, recycle: &Sender<Vec<u8>>, to: &mut (dyn Write + Send)) -> io::Result<()> {
    for chunk in chunks {
        to.write_all(&chunk)?;
        give_back(chunk, recycle);
    }
    Ok(())
}

/// The last thread that has used a chunk gives its memory back. The reader may be done already.
fn give_back(chunk: Chunk, recycle: &Sender<Vec<u8>>) {
    if let Some(memory) = Arc::into_inner(chunk) {
        let _ = recycle.send(memory);
    }
}

/// Reads until the buffer is full or the stream ends.
pub fn fill(from: &mut dyn Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..)
        && !rest.is_empty()
    {
        match from.read(rest) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_every_length_have_the_sum_of_their_bytes() {
        for len in [0, 1, CHUNK_LEN - 1, CHUNK_LEN, CHUNK_LEN + 1, 40 * CHUNK_LEN + 7] {
            let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            let (mut out, mut seen) = (Vec::new(), 0);
            let copied = copy(&mut &bytes[..], Some(&mut out), &mut |bytes| seen += bytes.len()).unwrap();
            let mut sum = RunningSum::default();
            sum.update(&bytes);
            assert_eq!(copied, Copied { len: len as u64, sum: sum.sum() });
            assert!(out == bytes && seen == len);
            assert_eq!(copy(&mut &bytes[..], None, &mut |_| ()).unwrap(), copied);
        }
    }

    #[test]
    fn sums_are_those_of_md5sum() {
        let copied = copy(&mut &b"abc"[..], None, &mut |_| ()).unwrap();
        assert_eq!(copied.sum.to_string(), "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(Md5Sum::from_hex("900150983cd24fb0d6963f7d28e17f72"), Some(copied.sum));
        for wrong in ["", "900150983cd24fb0d6963f7d28e17f7", "+00150983cd24fb0d6963f7d28e17f72"] {
            assert_eq!(Md5Sum::from_hex(wrong), None);
        }
    }

    /// Fails after a number of bytes.
    struct Failing(usize);

    impl Read for Failing {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let len = buf.len().min(self.0);
            self.0 -= len;
            if len == 0 { Err(io::Error::other("unreadable")) } else { Ok(len) }
        }
    }

    impl Write for Failing {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.read(&mut vec![0; buf.len()])
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn errors_end_the_copy_and_say_on_which_side() {
        for len in [0, 5, 3 * CHUNK_LEN, 30 * CHUNK_LEN] {
            let read = copy(&mut Failing(len), Some(&mut io::sink()), &mut |_| ());
            assert!(matches!(read, Err(CopyError::Source(_))), "{len}");
            let bytes = vec![0; 50 * CHUNK_LEN];
            let written = copy(&mut &bytes[..], Some(&mut Failing(len)), &mut |_| ());
            assert!(matches!(written, Err(CopyError::Target(_))), "{len}");
        }
    }
}
