//! Compresses with all cores, to one ordinary gzip stream.
//!
//! The input is cut into pieces, each thread compresses every n-th of them, and the results are written in their order:
//! blocks of deflate that end at a byte, behind each other, are one stream. The stream has the length and the check of
//! everything at its end, so readers see nothing of the pieces. Each piece begins without the words of the one before,
//! which costs a thousandth of the size. An input of one piece takes no thread.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use flate2::{Compress, Compression, Crc, FlushCompress};

/// Bytes of a piece.
const PIECE_LEN: usize = 1 << 20;
/// Pieces that wait for each thread.
const QUEUE_LEN: usize = 2;
const THREADS_MAX: usize = 16;

/// Magic, method deflate, no flags, no time, fastest level, Unix.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 3];
/// A last block without content, in the fixed code.
const LAST_BLOCK: [u8; 2] = [3, 0];

/// Compresses what is written to it.
pub struct GzipWriter<W: Write> {
    out: W,
    level: u32,
    piece: Vec<u8>,
    crc: Crc,
    workers: Vec<Worker>,
    /// Pieces that were given to the threads, and results that were taken.
    given: usize,
    taken: usize,
}

struct Worker {
    pieces: SyncSender<Vec<u8>>,
    results: Receiver<io::Result<Vec<u8>>>,
}

impl<W: Write> GzipWriter<W> {
    /// `level`: 1 to 9.
    pub fn new(mut out: W, level: u32) -> io::Result<GzipWriter<W>> {
        out.write_all(&HEADER)?;
        let piece = Vec::with_capacity(PIECE_LEN);
        Ok(GzipWriter { out, level, piece, crc: Crc::new(), workers: Vec::new(), given: 0, taken: 0 })
    }

    /// Writes what is left, and the end of the stream.
    pub fn finish(mut self) -> io::Result<W> {
        while self.taken < self.given {
            self.take()?;
        }
        let last = compress(&self.piece, self.level)?;
        self.out.write_all(&last)?;
        self.out.write_all(&LAST_BLOCK)?;
        self.out.write_all(&self.crc.sum().to_le_bytes())?;
        // The length modulo 2^32, as the format has it.
        self.out.write_all(&self.crc.amount().to_le_bytes())?;
        Ok(self.out)
    }

    /// Gives a full piece to the thread whose turn it is.
    fn give(&mut self) -> io::Result<()> {
        if self.workers.is_empty() {
            let count = thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
            self.workers = (0..count).map(|_| Worker::start(self.level)).collect::<io::Result<_>>()?;
        }
        if self.given - self.taken >= self.workers.len() * QUEUE_LEN {
            self.take()?;
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE_LEN));
        let turn = self.given % self.workers.len();
        let sent = self.workers.get(turn).map(|worker| worker.pieces.send(piece).is_ok());
        self.given += 1;
        if sent == Some(true) { Ok(()) } else { Err(ended()) }
    }

    /// Writes the next result.
    fn take(&mut self) -> io::Result<()> {
        let turn = self.taken % self.workers.len().max(1);
        let result = self.workers.get(turn).and_then(|worker| worker.results.recv().ok());
        self.taken += 1;
        self.out.write_all(&result.ok_or_else(ended)??)
    }
}

fn ended() -> io::Error {
    io::Error::other("a thread that compresses has ended")
}

impl Worker {
    fn start(level: u32) -> io::Result<Worker> {
        let (pieces, to_compress) = sync_channel::<Vec<u8>>(QUEUE_LEN);
        let (compressed, results) = sync_channel(QUEUE_LEN);
        let run = move || {
            for piece in to_compress {
                // The writer has given up.
                if compressed.send(compress(&piece, level)).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("gzip".into()).spawn(run)?;
        Ok(Worker { pieces, results })
    }
}

/// A piece as blocks of deflate that end at a byte; none of them is the last of a stream.
fn compress(piece: &[u8], level: u32) -> io::Result<Vec<u8>> {
    let mut stream = Compress::new(Compression::new(level), false);
    let mut out = Vec::with_capacity(piece.len() / 2 + 64);
    loop {
        let done = usize::try_from(stream.total_in()).unwrap_or(usize::MAX);
        let rest = piece.get(done..).unwrap_or_default();
        stream.compress_vec(rest, &mut out, FlushCompress::Sync).map_err(io::Error::other)?;
        // With room left, everything was flushed.
        if stream.total_in() == piece.len() as u64 && out.len() < out.capacity() {
            return Ok(out);
        }
        out.reserve(PIECE_LEN / 4);
    }
}

impl<W: Write> Write for GzipWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len().min(PIECE_LEN - self.piece.len());
        let (now, _) = bytes.split_at(len);
        self.crc.update(now);
        self.piece.extend_from_slice(now);
        if self.piece.len() == PIECE_LEN {
            self.give()?;
        }
        Ok(len)
    }

    /// Nothing: a flush in the middle would be a piece of its own.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn every_length_is_one_stream() {
        for len in [0, 1, 1000, PIECE_LEN - 1, PIECE_LEN, PIECE_LEN + 1, 9 * PIECE_LEN + 5] {
            // Compressible and not.
            let mut state = 1u32;
            let bytes: Vec<u8> = (0..len)
                .map(|at| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    if at % 3000 < 1000 { b'a' } else { (state >> 24) as u8 }
                })
                .collect();
            let mut writer = GzipWriter::new(Vec::new(), 1).unwrap();
            for chunk in bytes.chunks(300_007) {
                writer.write_all(chunk).unwrap();
            }
            let compressed = writer.finish().unwrap();
            let mut content = Vec::new();
            // Reads one stream only.
            let mut reader = flate2::bufread::GzDecoder::new(&compressed[..]);
            reader.read_to_end(&mut content).unwrap();
            assert!(content == bytes, "{len}");
            assert!(reader.into_inner().is_empty(), "{len}");
        }
    }

    /// Fails after a number of bytes.
    struct Full(usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_is_an_error() {
        for room in [0, 20, 5000, 30_000] {
            let write = || -> io::Result<()> {
                let mut writer = GzipWriter::new(Full(room), 1)?;
                for _ in 0..20 {
                    writer.write_all(&vec![7; PIECE_LEN])?;
                }
                writer.finish().map(drop)
            };
            assert_eq!(write().unwrap_err().kind(), io::ErrorKind::StorageFull, "{room}");
        }
    }
}
