//! Compresses with several cores: the input is cut into pieces, each thread compresses every n-th of them, and the
//! results are written in their order. An input of one piece takes no thread.
//!
//! What the pieces are in the output is said by the format: [`super::gzip`], [`super::zstd`].

use std::io::{self, Write};
use std::marker::PhantomData;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// Bytes of a piece.
pub const PIECE_LEN: usize = 1 << 20;
/// Pieces that wait for each thread.
const QUEUE_LEN: usize = 2;

/// Compresses pieces, one after the other.
pub trait PieceCompressor: Send + Sized + 'static {
    /// Upper bound on the threads.
    const THREADS_MAX: usize;
    /// Name of the threads.
    const NAME: &'static str;

    /// `level`: of the format.
    fn new(level: u32) -> io::Result<Self>;
    /// The piece in the output.
    fn compress(&mut self, piece: &[u8]) -> io::Result<Vec<u8>>;
}

/// Compresses what is written to it.
pub struct PieceWriter<W: Write, C: PieceCompressor> {
    out: W,
    level: u32,
    piece: Vec<u8>,
    workers: Vec<Worker>,
    /// Pieces that were given to the threads, and results that were taken.
    given: usize,
    taken: usize,
    compressor: PhantomData<C>,
}

struct Worker {
    pieces: SyncSender<Vec<u8>>,
    results: Receiver<io::Result<Vec<u8>>>,
}

impl<W: Write, C: PieceCompressor> PieceWriter<W, C> {
    pub fn new(out: W, level: u32) -> PieceWriter<W, C> {
        let piece = Vec::with_capacity(PIECE_LEN);
        let compressor = PhantomData;
        PieceWriter { out, level, piece, workers: Vec::new(), given: 0, taken: 0, compressor }
    }

    /// Writes what is left. The last piece may be empty.
    pub fn finish(mut self) -> io::Result<W> {
        while self.taken < self.given {
            self.take()?;
        }
        // Only an empty input has no piece at all.
        if self.given == 0 || !self.piece.is_empty() {
            self.out.write_all(&C::new(self.level)?.compress(&self.piece)?)?;
        }
        Ok(self.out)
    }

    /// Gives a full piece to the thread whose turn it is.
    fn give(&mut self) -> io::Result<()> {
        if self.workers.is_empty() {
            let count = thread::available_parallelism().map_or(1, usize::from).min(C::THREADS_MAX);
            self.workers = (0..count).map(|_| Worker::start::<C>(self.level)).collect::<io::Result<_>>()?;
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
    fn start<C: PieceCompressor>(level: u32) -> io::Result<Worker> {
        let (pieces, to_compress) = sync_channel::<Vec<u8>>(QUEUE_LEN);
        let (compressed, results) = sync_channel(QUEUE_LEN);
        let mut compressor = C::new(level)?;
        let run = move || {
            for piece in to_compress {
                // The writer has given up.
                if compressed.send(compressor.compress(&piece)).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name(C::NAME.into()).spawn(run)?;
        Ok(Worker { pieces, results })
    }
}

impl<W: Write, C: PieceCompressor> Write for PieceWriter<W, C> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len().min(PIECE_LEN - self.piece.len());
        let (now, _) = bytes.split_at(len);
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
pub mod testing {
    use super::PIECE_LEN;

    /// Inputs of the lengths that matter, compressible and not.
    pub fn inputs() -> impl Iterator<Item = Vec<u8>> {
        [0, 1, 1000, PIECE_LEN - 1, PIECE_LEN, PIECE_LEN + 1, 9 * PIECE_LEN + 5].into_iter().map(|len| {
            let mut state = 1u32;
            let byte = |at| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if at % 3000 < 1000 { b'a' } else { (state >> 24) as u8 }
            };
            (0..len).map(byte).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::zstd::Zstd;

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
        for room in [0, 20, 500] {
            let write = || -> io::Result<()> {
                let mut writer = PieceWriter::<_, Zstd>::new(Full(room), 1);
                for _ in 0..40 {
                    writer.write_all(&vec![7; PIECE_LEN])?;
                }
                writer.finish().map(drop)
            };
            assert_eq!(write().unwrap_err().kind(), io::ErrorKind::StorageFull, "{room}");
        }
    }
}
