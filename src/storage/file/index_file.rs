//! `Data.fs.index`: the index as Python's `fsIndex` saves it, so that either can start from what the other left.
//!
//! A sequence of pickles: the position up to which the index is true; then for each 6-byte oid prefix the pair
//! (prefix, all 2-byte suffixes followed by all 6-byte positions); then None. Behind the None, where Python does not
//! look, we may add the highest oid that was given out. Older layouts are in `index_legacy.rs`.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::format::FileFormat;
use super::index::Index;
use super::index_legacy;
use super::index_saved::{SavedIndex, fill};
use super::media::{Access, Media, MediaFile};
use crate::base::bytes::Reader;
use crate::base::fs::{dir_of, with_suffix};
use crate::base::ids::Oid;

/// Reads the file beside the database `path`. `None`: there is none.
pub fn load(media: &dyn Media, path: &Path) -> io::Result<Option<SavedIndex>> {
    let path = with_suffix(path, ".index");
    if !media.exists(&path) {
        return Ok(None);
    }
    let file = media.open(&path, Access::Read)?;
    let mut bytes = vec![0; usize::try_from(file.len()?).map_err(|_| io::ErrorKind::FileTooLarge)?];
    let len = file.read_at(&mut bytes, 0)?;
    bytes.truncate(len);
    parse(&bytes).map(Some).map_err(|what| io::Error::new(io::ErrorKind::InvalidData, what))
}

/// Reads the bytes of an index file.
pub fn parse(bytes: &[u8]) -> Result<SavedIndex, String> {
    let mut r = Reader::new(bytes);
    let Some(Item::Int(pos)) = item(&mut r) else {
        return index_legacy::parse(bytes);
    };
    let index = Index::new();
    loop {
        match item(&mut r) {
            Some(Item::Nothing) => break,
            Some(Item::Bucket { prefix, bucket }) => fill(&index, prefix, bucket, pos)?,
            _ => return Err(format!("not an index: at {}", r.pos())),
        }
    }
    let oid_mark = match item(&mut r) {
        Some(Item::Int(mark)) => Some(Oid(mark)),
        _ => None,
    };
    Ok(SavedIndex { pos, index, oid_mark })
}

/// One pickle of the file.
enum Item<'a> {
    Nothing,
    Int(u64),
    Bucket { prefix: &'a [u8], bucket: &'a [u8] },
}

/// The next pickle, if it is one of the three that an index file is made of, in any protocol.
fn item<'a>(r: &mut Reader<'a>) -> Option<Item<'a>> {
    let mut ints = None;
    let mut nothing = false;
    let mut strings: [&[u8]; 2] = [b"", b""];
    let mut string_count = 0;
    let mut is_tuple = false;
    loop {
        let mut string = None;
        match r.u8()? {
            // PROTO, FRAME, MARK, MEMOIZE, BINPUT, LONG_BINPUT, PUT: nothing to do
            0x80 => _ = r.u8()?,
            0x95 => _ = r.take(8)?,
            b'(' | 0x94 => {}
            b'q' => _ = r.u8()?,
            b'r' => _ = r.take(4)?,
            b'p' => _ = r.line()?,
            b'N' => nothing = true,
            b'K' => ints = Some(u64::from(r.u8()?)),
            b'M' => ints = Some(u64::from(r.u16_le()?)),
            b'J' => ints = Some(u64::from(r.u32_le()?)),
            b'I' | b'L' => {
                let digits = std::str::from_utf8(r.line()?).ok()?;
                ints = Some(digits.trim_end_matches('L').parse().ok()?);
            }
            0x8a => {
                let len = usize::from(r.u8()?);
                let mut number = [0; 8];
                let (digits, zeros) = r.take(len)?.split_at_checked(len.min(8))?;
                if zeros.iter().any(|&byte| byte != 0) {
                    return None;
                }
                number.get_mut(..digits.len())?.copy_from_slice(digits);
                ints = Some(u64::from_le_bytes(number));
            }
            // SHORT_BINSTRING, SHORT_BINBYTES; BINSTRING, BINBYTES
            b'U' | b'C' => {
                let len = usize::from(r.u8()?);
                string = Some(r.take(len)?);
            }
            b'T' | b'B' => {
                let len = r.u32_le()? as usize;
                string = Some(r.take(len)?);
            }
            b't' | 0x86 => is_tuple = true,
            b'.' => break,
            _ => return None,
        }
        if let Some(string) = string {
            *strings.get_mut(string_count)? = string;
            string_count += 1;
        }
    }
    match (nothing, ints, string_count, is_tuple) {
        (true, None, 0, false) => Some(Item::Nothing),
        (false, Some(int), 0, false) => Some(Item::Int(int)),
        (false, None, 2, true) => Some(Item::Bucket { prefix: strings[0], bucket: strings[1] }),
        _ => None,
    }
}

/// Writes the index file beside the database `path`: whole and durable under its name, or not at all. `entries` calls
/// back for each object in oid order.
pub fn save(
    media: &dyn Media,
    path: &Path,
    format: FileFormat,
    pos: u64,
    oid_mark: Option<Oid>,
    entries: impl FnOnce(&mut dyn FnMut(Oid, u64) -> io::Result<()>) -> io::Result<()>,
) -> io::Result<()> {
    let path = with_suffix(path, ".index");
    let tmp = with_suffix(&path, ".index_tmp");
    let file = media.open(&tmp, Access::Truncate)?;
    let mut out = BufWriter::with_capacity(256 * 1024, Appending { file: &*file, pos: 0 });
    write(&mut out, format, pos, oid_mark, entries)?;
    out.flush()?;
    drop(out);
    file.sync()?;
    media.rename(&tmp, &path)?;
    media.sync_dir(dir_of(&path))
}

/// Writes the pickles as the Python that reads this format of `Data.fs` would.
pub fn write(
    out: &mut dyn Write,
    format: FileFormat,
    pos: u64,
    oid_mark: Option<Oid>,
    entries: impl FnOnce(&mut dyn FnMut(Oid, u64) -> io::Result<()>) -> io::Result<()>,
) -> io::Result<()> {
    write_int(out, format, pos)?;
    let mut bucket = Bucket { prefix: 0, suffixes: Vec::new(), positions: Vec::new() };
    entries(&mut |oid, pos| {
        if oid.0 >> 16 != bucket.prefix {
            bucket.write(out, format)?;
            bucket.prefix = oid.0 >> 16;
        }
        let [_, _, _, _, _, _, high, low] = oid.to_bytes();
        bucket.suffixes.extend_from_slice(&[high, low]);
        let [_, _, position @ ..] = pos.to_be_bytes();
        bucket.positions.extend_from_slice(&position);
        Ok(())
    })?;
    bucket.write(out, format)?;
    out.write_all(match format {
        FileFormat::FS21 => b"N.",
        FileFormat::FS30 => b"\x80\x03N.",
    })?;
    if let Some(oid) = oid_mark {
        write_int(out, format, oid.0)?;
    }
    Ok(())
}

/// Objects that share the first six bytes of their oids.
struct Bucket {
    prefix: u64,
    suffixes: Vec<u8>,
    positions: Vec<u8>,
}

impl Bucket {
    fn write(&mut self, out: &mut dyn Write, format: FileFormat) -> io::Result<()> {
        if self.suffixes.is_empty() {
            return Ok(());
        }
        let [_, _, prefix @ ..] = self.prefix.to_be_bytes();
        let (short, long, begin, end): (u8, u8, &[u8], &[u8]) = match format {
            FileFormat::FS21 => (b'U', b'T', b"(", b"t."),
            FileFormat::FS30 => (b'C', b'B', b"\x80\x03", b"\x86."),
        };
        out.write_all(begin)?;
        out.write_all(&[short, 6])?;
        out.write_all(&prefix)?;
        let len = self.suffixes.len() + self.positions.len();
        match u8::try_from(len) {
            Ok(len) => out.write_all(&[short, len])?,
            // At most 65536 objects: it fits into 32 bits.
            Err(_) => {
                out.write_all(&[long])?;
                out.write_all(&(len as u32).to_le_bytes())?;
            }
        }
        out.write_all(&self.suffixes)?;
        out.write_all(&self.positions)?;
        out.write_all(end)?;
        self.suffixes.clear();
        self.positions.clear();
        Ok(())
    }
}

fn write_int(out: &mut dyn Write, format: FileFormat, number: u64) -> io::Result<()> {
    if format == FileFormat::FS30 {
        out.write_all(b"\x80\x03")?;
    }
    let bytes = number.to_le_bytes();
    match number {
        0..=0xff => out.write_all(&[b'K', bytes[0]])?,
        0x100..=0xffff => out.write_all(&[b'M', bytes[0], bytes[1]])?,
        0x1_0000..=0x7fff_ffff => out.write_all(&[b'J', bytes[0], bytes[1], bytes[2], bytes[3]])?,
        _ if format == FileFormat::FS21 => {
            // Python 2 writes what does not fit into its 63-bit int as a long.
            let long = if i64::try_from(number).is_err() { "L" } else { "" };
            let opcode = if long.is_empty() { 'I' } else { 'L' };
            out.write_all(format!("{opcode}{number}{long}\n").as_bytes())?;
        }
        _ => {
            // Little endian, as few bytes as keep the sign bit clear.
            let len = (64 - number.leading_zeros() as usize) / 8 + 1;
            out.write_all(&[0x8a, len as u8])?;
            out.write_all(&bytes[..len.min(8)])?;
            if len > 8 {
                out.write_all(&[0])?;
            }
        }
    }
    out.write_all(b".")
}

/// Appends to a file that has positioned writes only.
struct Appending<'a> {
    file: &'a dyn MediaFile,
    pos: u64,
}

impl Write for Appending<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_at(bytes, self.pos)?;
        self.pos += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(format: FileFormat, pos: u64, mark: Option<Oid>, objects: &[(u64, u64)]) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out, format, pos, mark, |each| objects.iter().try_for_each(|&(o, p)| each(Oid(o), p)))
            .unwrap();
        out
    }

    const OBJECTS: [(u64, u64); 5] = [(1, 7), (2, 10), (300, 904), (70000, 210_004), (1 << 40, 3 << 20)];

    #[test]
    fn as_fsindex_of_python_3_writes_it() {
        let expected = b"\x80\x03J@\xe2\x01\x00.\
            \x80\x03C\x06\0\0\0\0\0\0C\x18\0\x01\0\x02\x01,\0\0\0\0\0\x07\0\0\0\0\0\n\0\0\0\0\x03\x88\x86.\
            \x80\x03C\x06\0\0\0\0\0\x01C\x08\x11p\0\0\0\x034T\x86.\
            \x80\x03C\x06\0\0\x01\0\0\0C\x08\0\0\0\0\x000\0\0\x86.\x80\x03N.";
        assert_eq!(bytes_of(FileFormat::FS30, 123_456, None, &OBJECTS), expected);
    }

    #[test]
    fn as_fsindex_of_python_2_writes_it() {
        let expected = b"J@\xe2\x01\x00.(U\x06\0\0\0\0\0\0U\x18\0\x01\0\x02\x01,\0\0\0\0\0\x07\0\0\0\0\0\n\0\0\0\0\x03\x88t.\
            (U\x06\0\0\0\0\0\x01U\x08\x11p\0\0\0\x034Tt.(U\x06\0\0\x01\0\0\0U\x08\0\0\0\0\x000\0\0t.N.";
        assert_eq!(bytes_of(FileFormat::FS21, 123_456, None, &OBJECTS), expected);
    }

    #[test]
    fn positions_as_python_pickles_them() {
        let of = |format, pos| {
            let mut out = Vec::new();
            write_int(&mut out, format, pos).unwrap();
            out
        };
        assert_eq!(of(FileFormat::FS30, 1 << 33), b"\x80\x03\x8a\x05\0\0\0\0\x02.");
        assert_eq!(of(FileFormat::FS30, 0x8000_0000), b"\x80\x03\x8a\x05\0\0\0\x80\0.");
        assert_eq!(of(FileFormat::FS30, u64::MAX), b"\x80\x03\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\0.");
        assert_eq!(of(FileFormat::FS30, 200), b"\x80\x03K\xc8.");
        assert_eq!(of(FileFormat::FS30, 606), b"\x80\x03M^\x02.");
        assert_eq!(of(FileFormat::FS21, 1 << 33), b"I8589934592\n.");
        for format in [FileFormat::FS21, FileFormat::FS30] {
            for number in [0, 255, 256, 65535, 65536, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff_ffff, u64::MAX] {
                let bytes = of(format, number);
                assert!(
                    matches!(item(&mut Reader::new(&bytes)), Some(Item::Int(n)) if n == number),
                    "{number}"
                );
            }
        }
    }

    #[test]
    fn reads_what_it_wrote() {
        let objects: Vec<_> = (0..200_000u64).step_by(3).map(|i| (i, i * 2 + 4)).collect();
        for format in [FileFormat::FS21, FileFormat::FS30] {
            let bytes = bytes_of(format, 1 << 34, Some(Oid(1 << 20)), &objects);
            let loaded = parse(&bytes).unwrap();
            assert_eq!(loaded.pos, 1 << 34);
            assert_eq!(loaded.oid_mark, Some(Oid(1 << 20)));
            let mut all = Vec::new();
            let done: Result<(), ()> = loaded.index.for_each(|oid, pos| {
                all.push((oid.0, pos));
                Ok(())
            });
            done.unwrap();
            assert_eq!(all, objects);
        }
    }

    #[test]
    fn reads_what_zodb_3_10_wrote() {
        let loaded = parse(b"L581L\n.(U\x06\0\0\0\0\0\0U\x08\0\0\0\0\0\0\x01\xcct.N.").unwrap();
        assert_eq!((loaded.pos, loaded.index.pos(Oid(0)), loaded.index.len()), (581, 460, 1));
    }

    #[test]
    fn nonsense_is_refused() {
        for bytes in [
            &b""[..],
            b"\x80\x03N.",
            b"K\x05.",
            b"K\x05.(U\x06\0\0\0\0\0\0U\x07\0\0\0\0\0\0\x01t.N.",
            b"K\x05.(U\x05\0\0\0\0\0U\x08\0\0\0\0\0\0\0\x04t.N.",
            // beyond the position
            b"K\x05.(U\x06\0\0\0\0\0\0U\x08\0\0\0\0\0\0\0\x05t.N.",
            b"K\x05.(T\xff\xff\xff\x7f",
        ] {
            assert!(parse(bytes).is_err(), "{bytes:?}");
        }
    }
}
