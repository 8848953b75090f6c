//! Compresses with all cores, to one ordinary gzip stream.
//!
//! Blocks of deflate that end at a byte, behind each other, are one stream. It has the length and the check of
//! everything at its end, so readers see nothing of the pieces. Each piece begins without the words of the one before,
//! which costs a thousandth of the size.

use std::io::{self, Write};

use flate2::{Compress, Compression, Crc, FlushCompress};

use super::pieces::{PIECE_LEN, PieceCompressor, PieceWriter};

/// Magic, method deflate, no flags, no time, fastest level, Unix.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 3];
/// A last block without content, in the fixed code.
const LAST_BLOCK: [u8; 2] = [3, 0];

/// Compresses what is written to it.
pub struct GzipWriter<W: Write> {
    pieces: PieceWriter<W, Deflate>,
    crc: Crc,
}

impl<W: Write> GzipWriter<W> {
    /// `level`: 1 to 9.
    pub fn new(mut out: W, level: u32) -> io::Result<GzipWriter<W>> {
        out.write_all(&HEADER)?;
        Ok(GzipWriter { pieces: PieceWriter::new(out, level), crc: Crc::new() })
    }

    /// Writes what is left, and the end of the stream.
    pub fn finish(self) -> io::Result<W> {
        let mut out = self.pieces.finish()?;
        out.write_all(&LAST_BLOCK)?;
        out.write_all(&self.crc.sum().to_le_bytes())?;
        // The length modulo 2^32, as the format has it.
        out.write_all(&self.crc.amount().to_le_bytes())?;
        Ok(out)
    }
}

impl<W: Write> Write for GzipWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.pieces.write(bytes)?;
        self.crc.update(bytes.get(..len).unwrap_or_default());
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pieces.flush()
    }
}

/// A piece is blocks of deflate that end at a byte; none of them is the last of a stream.
struct Deflate(Compression);

impl PieceCompressor for Deflate {
    const THREADS_MAX: usize = 16;
    const NAME: &'static str = "gzip";

    fn new(level: u32) -> io::Result<Deflate> {
        Ok(Deflate(Compression::new(level)))
    }

    fn compress(&mut self, piece: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = Compress::new(self.0, false);
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
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::backup::pieces::testing::inputs;

    #[test]
    fn every_length_is_one_stream() {
        for bytes in inputs() {
            let len = bytes.len();
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
}
