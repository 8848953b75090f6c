//! Records as zc.zlibstorage keeps them: `.z` and a zlib stream, where that is shorter than the record.

use std::borrow::Cow;
use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;

use super::Codec;

const MARK: &[u8] = b".z";
/// Records up to this length are kept as they are.
const SHORT: usize = 20;
/// No record is longer once it is decompressed: no message could carry it.
const RECORD_LEN_MAX: u64 = 1 << 30;

/// See the module.
pub struct Zlib {
    /// Else records are only decompressed.
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

    fn decode<'a>(&self, kept: &'a [u8]) -> Result<Cow<'a, [u8]>, String> {
        let Some(stream) = kept.strip_prefix(MARK) else { return Ok(Cow::Borrowed(kept)) };
        let mut record = Vec::with_capacity(stream.len().saturating_mul(3));
        let mut decoder = ZlibDecoder::new(stream);
        let result = (&mut decoder).take(RECORD_LEN_MAX).read_to_end(&mut record);
        result.map_err(|error| format!("no zlib stream: {error}"))?;
        if record.len() as u64 == RECORD_LEN_MAX {
            return Err("it is longer than 1 GB when it is decompressed".into());
        }
        // An empty stream stands for itself, in Python too.
        Ok(if record.is_empty() { Cow::Borrowed(kept) } else { Cow::Owned(record) })
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

    #[test]
    fn compresses_what_becomes_shorter() {
        let zlib = Zlib { compress: true };
        let long = b"persistent.mapping persistent.mapping persistent.mapping".as_slice();
        let kept = zlib.encode(long);
        assert!(kept.starts_with(b".z\x78") && kept.len() < long.len());
        assert_eq!(zlib.decode(&kept).unwrap(), long);
        for as_it_is in [b"short".as_slice(), &[0; 20], b"0123456789abcdefghijklmnopqrstuvwxyz", &kept] {
            assert_eq!(zlib.encode(as_it_is), as_it_is);
        }
        assert!(zlib.encode(&[0; 21]).starts_with(MARK));
        assert_eq!(Zlib { compress: false }.encode(long), long);
        assert_eq!(Zlib { compress: false }.decode(&kept).unwrap(), long);
    }

    #[test]
    fn reads_what_python_wrote() {
        // b'.z' + zlib.compress(b'x' * 30)
        let kept = b".z\x78\x9c\xab\xa8\xc0\x07\x00\xda\x16\x0e\x11";
        assert_eq!(Zlib { compress: true }.decode(kept).unwrap(), vec![b'x'; 30]);
        assert!(Zlib { compress: true }.decode(b".z no stream").is_err());
        assert!(Zlib { compress: true }.decode(&kept[..8]).is_err());
    }
}
