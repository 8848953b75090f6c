//! Zstandard (RFC 8878): frames behind each other, each of one piece, with the length of its content in its header; or
//! one frame.
//!
//! Any decompressor reads such a file as one content, and needs no more memory than a piece has.

use std::io::{self, BufRead, Read, Write};

use zstd::bulk::Compressor;
use zstd::stream::read::Decoder;
use zstd::stream::write::Encoder;

use super::pieces::{PieceCompressor, PieceWriter};

/// Compresses what is written to it, with several cores.
pub type ZstdWriter<W> = PieceWriter<W, Zstd>;

/// Compresses what is written to it without threads, to one frame: 128 KB at once, which takes less than a millisecond.
pub type ZstdStream<W> = Encoder<'static, W>;

/// Begins such a frame.
pub fn zstd_stream<W: Write>(out: W, level: u32) -> io::Result<ZstdStream<W>> {
    Encoder::new(out, i32::try_from(level).map_err(io::Error::other)?)
}

/// The largest window that is read, as a power of two: the memory that a frame can ask for.
const WINDOW_LOG_MAX: u32 = 23;

/// A piece is a frame.
pub struct Zstd(Compressor<'static>);

impl PieceCompressor for Zstd {
    /// Each compresses as much as two disks write.
    const THREADS_MAX: usize = 4;
    const NAME: &'static str = "zstd";

    fn new(level: u32) -> io::Result<Zstd> {
        let level = i32::try_from(level).map_err(io::Error::other)?;
        Ok(Zstd(Compressor::new(level)?))
    }

    fn compress(&mut self, piece: &[u8]) -> io::Result<Vec<u8>> {
        self.0.compress(piece)
    }
}

/// Decompresses what it reads.
///
/// Errors: those of reading; `InvalidData` if it is no such file, `UnexpectedEof` if it ends early.
pub struct ZstdReader<R: BufRead>(Decoder<'static, R>);

impl<R: BufRead> ZstdReader<R> {
    pub fn new(from: R) -> io::Result<ZstdReader<R>> {
        let mut decoder = Decoder::with_buffer(from)?;
        decoder.window_log_max(WINDOW_LOG_MAX)?;
        Ok(ZstdReader(decoder))
    }
}

impl<R: BufRead> Read for ZstdReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        // What the decoder itself finds wrong has no kind of its own; errors of a disk never have this one.
        self.0.read(buf).map_err(|error| match error.kind() {
            io::ErrorKind::Other => io::Error::new(io::ErrorKind::InvalidData, error),
            _ => error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::pieces::testing::inputs;

    fn compressed(bytes: &[u8]) -> Vec<u8> {
        let mut writer = ZstdWriter::new(Vec::new(), 1);
        bytes.chunks(300_007).try_for_each(|chunk| writer.write_all(chunk)).unwrap();
        writer.finish().unwrap()
    }

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        ZstdReader::new(bytes)?.read_to_end(&mut content).map(|_| content)
    }

    #[test]
    fn every_length_comes_back() {
        for bytes in inputs() {
            assert!(read(&compressed(&bytes)).unwrap() == bytes, "{}", bytes.len());
            let mut writer = zstd_stream(Vec::new(), 1).unwrap();
            writer.write_all(&bytes).unwrap();
            assert!(read(&writer.finish().unwrap()).unwrap() == bytes, "{}", bytes.len());
        }
    }

    #[test]
    fn frames_of_others_are_read() {
        let frame = b"\x28\xb5\x2f\xfd\x20\x05\x29\x00\x00hello";
        assert_eq!(read(&[&frame[..], frame].concat()).unwrap(), b"hellohello");
    }

    #[test]
    fn what_is_damaged_has_a_kind() {
        let whole = compressed(&inputs().last().unwrap());
        for len in [1, 5, 100, whole.len() / 2, whole.len() - 1] {
            assert_eq!(read(&whole[..len]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{len}");
        }
        for more in [&b"x"[..], b"more than a header", &whole[1..]] {
            let wrong = [&whole[..], more].concat();
            let kind = read(&wrong).unwrap_err().kind();
            assert!(matches!(kind, io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof), "{kind}");
        }
    }

    #[test]
    fn no_frame_gets_a_large_window() {
        // No single segment; window descriptor: exponent 17, 128 MB; a last block, empty.
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0, 17 << 3, 1, 0, 0];
        assert_eq!(read(&frame).unwrap_err().kind(), io::ErrorKind::InvalidData);
        let smaller = [0x28, 0xb5, 0x2f, 0xfd, 0, 13 << 3, 1, 0, 0];
        assert_eq!(read(&smaller).unwrap(), b"");
    }
}
