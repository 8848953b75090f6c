//! Records of zc.zlibstorage: `.z` and a zlib stream, if that is shorter than the record.

use std::borrow::Cow;
use std::io::{self, Write};

use flate2::write::ZlibEncoder;
use flate2::{Compression, Decompress, FlushDecompress, Status};

use super::Codec;
use crate::base::memory;

const MARK: &[u8] = b".z";
/// Records up to this length are not compressed.
const SHORT: usize = 20;
/// Bytes that are decompressed at a time to determine a length.
const PIECE_LEN: usize = 64 << 10;
/// Upper bound on the bytes that deflate makes of one byte.
const RATIO_MAX: usize = 1032;

/// Compresses and decompresses records.
pub struct Zlib {
    /// If false, records are only decompressed.
    pub compress: bool,
}

impl Codec for Zlib {
    fn encode<'a>(&self, record: &'a [u8]) -> Cow<'a, [u8]> {
        if !self.compress || record.len() <= SHORT || record.starts_with(MARK) {
            return Cow::Borrowed(record);
        }
        match compressed(record) {
            Ok(shorter) if shorter.len() < record.len() => Cow::Owned(shorter),
            _ => Cow::Borrowed(record),
        }
    }

    fn decode<'a>(&self, kept: &'a [u8], len_max: usize) -> io::Result<Cow<'a, [u8]>> {
        let Some(stream) = kept.strip_prefix(MARK) else { return Ok(Cow::Borrowed(kept)) };
        let mut record = Vec::new();
        // Most records shrink to a third; memory for longer ones is added as needed.
        let mut room = stream.len().saturating_mul(3).clamp(256, memory::LARGE);
        let mut inflate = Decompress::new(true);
        loop {
            memory::reserve(&mut record, room)?;
            let rest = stream.get(inflate.total_in() as usize..).unwrap_or_default();
            let before = (inflate.total_in(), inflate.total_out());
            let status = inflate.decompress_vec(rest, &mut record, FlushDecompress::None);
            let status = status.map_err(|error| io::Error::other(format!("no zlib stream: {error}")))?;
            if record.len() > len_max {
                let message =
                    format!("it is longer than {len_max} bytes (max-message-size) when it is decompressed");
                return Err(io::Error::other(message));
            }
            match status {
                Status::StreamEnd => break,
                _ if record.len() == record.capacity() => {
                    room = record.len().saturating_mul(2).min(len_max.saturating_add(1));
                }
                _ if before == (inflate.total_in(), inflate.total_out()) => {
                    return Err(io::Error::other("no zlib stream: it ends too early"));
                }
                _ => {}
            }
        }
        // An empty stream is returned undecoded, as in Python.
        Ok(if record.is_empty() { Cow::Borrowed(kept) } else { Cow::Owned(record) })
    }

    fn decoded_len_max(&self, kept_len: usize) -> usize {
        kept_len.saturating_mul(RATIO_MAX)
    }

    fn is_longer(&self, kept: &[u8], len_max: usize) -> bool {
        let Some(stream) = kept.strip_prefix(MARK) else { return false };
        let mut inflate = Decompress::new(true);
        let mut piece = Vec::with_capacity(PIECE_LEN);
        while inflate.total_out() <= len_max as u64 {
            piece.clear();
            let rest = stream.get(inflate.total_in() as usize..).unwrap_or_default();
            let before = (inflate.total_in(), inflate.total_out());
            // An invalid stream is an error of the load, as in Python.
            match inflate.decompress_vec(rest, &mut piece, FlushDecompress::None) {
                Ok(Status::StreamEnd) | Err(_) => return inflate.total_out() > len_max as u64,
                Ok(_) if before == (inflate.total_in(), inflate.total_out()) => return false,
                Ok(_) => {}
            }
        }
        true
    }
}

fn compressed(record: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(record.len());
    out.extend_from_slice(MARK);
    let mut encoder = ZlibEncoder::new(out, Compression::default());
    encoder.write_all(record)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::memory::{not_granted, within};

    const MAX: usize = 1 << 20;

    #[test]
    fn compresses_what_becomes_shorter() {
        let zlib = Zlib { compress: true };
        let long = b"persistent.mapping persistent.mapping persistent.mapping".as_slice();
        let kept = zlib.encode(long);
        assert!(kept.starts_with(b".z\x78") && kept.len() < long.len());
        assert_eq!(zlib.decode(&kept, MAX).unwrap(), long);
        for as_it_is in [b"short".as_slice(), &[0; 20], b"0123456789abcdefghijklmnopqrstuvwxyz", &kept] {
            assert_eq!(zlib.encode(as_it_is), as_it_is);
        }
        assert!(zlib.encode(&[0; 21]).starts_with(MARK));
        assert_eq!(Zlib { compress: false }.encode(long), long);
        assert_eq!(Zlib { compress: false }.decode(&kept, MAX).unwrap(), long);
    }

    #[test]
    fn reads_what_python_wrote() {
        // b'.z' + zlib.compress(b'x' * 30)
        let kept = b".z\x78\x9c\xab\xa8\xc0\x07\x00\xda\x16\x0e\x11";
        assert_eq!(Zlib { compress: true }.decode(kept, MAX).unwrap(), vec![b'x'; 30]);
        assert!(Zlib { compress: true }.decode(b".z no stream", MAX).is_err());
        assert!(Zlib { compress: true }.decode(&kept[..8], MAX).is_err());
    }

    /// A record of some kilobytes used to be decompressed to a gigabyte, for each client that loaded it.
    #[test]
    fn no_more_is_decompressed_than_a_message_may_have() {
        let zlib = Zlib { compress: true };
        for len in [1, 300, 5000, MAX - 1, MAX, MAX + 1, 5 * MAX] {
            let record = vec![b'x'; len];
            let kept = compressed(&record).unwrap();
            let decoded = zlib.decode(&kept, MAX);
            assert_eq!(zlib.is_longer(&kept, MAX), len > MAX, "{len}");
            assert!(zlib.decoded_len_max(kept.len()) >= len, "{len}");
            match decoded {
                Ok(decoded) => assert!(len <= MAX && decoded == record, "{len}"),
                Err(error) => assert!(len > MAX && error.to_string().contains("max-message-size"), "{error}"),
            }
            assert_eq!(zlib.decode(&kept, len).unwrap(), record);
        }
        let kept = compressed(&vec![0; 4 * MAX]).unwrap();
        let error = within(MAX, || zlib.decode(&kept, 4 * MAX)).unwrap_err();
        assert!(not_granted(&error).is_some_and(|wanted| wanted <= 2 * MAX), "{error}");
        assert!(!zlib.is_longer(&kept[..kept.len() / 2], MAX * 8) && !zlib.is_longer(b".z no stream", 1));
    }
}
