//! `Data.fs.index`: the index as Python's `fsIndex` saves it, so that Python and this server can read each other's
//! files.
//!
//! A sequence of pickles: the position up to which the index is complete; then for each 6-byte oid prefix the pair
//! (prefix, all 2-byte suffixes followed by all 6-byte positions); then None. Behind the None, where Python does not
//! read, this server may add the highest oid that was given out. Older layouts are in `index_legacy.rs`.

#![cfg_attr(not(test), deny(clippy::cast_possible_truncation))]

use std::io::{self, Write};
use std::path::Path;

use super::format::FileFormat;
use super::index::Index;
use super::index_legacy;
use super::index_saved::{SavedIndex, fill};
use super::media::{Access, Media, write_whole};
use crate::base::fs::with_suffix;
use crate::base::ids::Oid;
use crate::pickle::lex::{Argument, Lexer};
use crate::pickle::opcode::*;
use crate::pickle::{Dialect, write as pickle};

/// Reads the index file of the database `path`. `None`: there is none.
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
    let mut lexer = Lexer::new(bytes);
    let Some(IndexPickle::Int(pos)) = index_pickle(&mut lexer) else {
        return index_legacy::parse(bytes);
    };
    let index = Index::new();
    loop {
        match index_pickle(&mut lexer) {
            Some(IndexPickle::End) => break,
            Some(IndexPickle::Bucket { prefix, bucket }) => fill(&index, prefix, bucket, pos)?,
            _ => return Err(format!("not an index: at {}", lexer.end())),
        }
    }
    let oid_mark = match index_pickle(&mut lexer) {
        Some(IndexPickle::Int(mark)) => Some(Oid(mark)),
        _ => None,
    };
    Ok(SavedIndex { pos, index, oid_mark })
}

/// One pickle of the file.
enum IndexPickle<'a> {
    End,
    Int(u64),
    Bucket { prefix: &'a [u8], bucket: &'a [u8] },
}

/// The next pickle, if it is one of the three kinds in an index file, in any pickle protocol.
fn index_pickle<'a>(lexer: &mut Lexer<'a>) -> Option<IndexPickle<'a>> {
    let mut int = None;
    let mut is_end = false;
    let mut strings: [&[u8]; 2] = [b"", b""];
    let mut string_count = 0;
    let mut is_tuple = false;
    loop {
        let token = lexer.token().ok()?;
        match token.argument {
            Argument::Int(_) | Argument::BigInt(_) | Argument::Digits(_) => {
                int = Some(token.argument.as_u64()?)
            }
            Argument::Str(string) | Argument::Bytes(string) => {
                *strings.get_mut(string_count)? = string;
                string_count += 1;
            }
            _ => match token.opcode {
                PROTO | FRAME | MARK | MEMOIZE | BINPUT | LONG_BINPUT | PUT => {}
                NONE => is_end = true,
                TUPLE | TUPLE2 => is_tuple = true,
                STOP => break,
                _ => return None,
            },
        }
    }
    match (is_end, int, string_count, is_tuple) {
        (true, None, 0, false) => Some(IndexPickle::End),
        (false, Some(int), 0, false) => Some(IndexPickle::Int(int)),
        (false, None, 2, true) => Some(IndexPickle::Bucket { prefix: strings[0], bucket: strings[1] }),
        _ => None,
    }
}

/// Writes the index file of the database `path`: whole and durable, or not at all. `entries` calls its argument for
/// each object in oid order.
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
    write_whole(media, &path, &tmp, |out| write(out, format, pos, oid_mark, entries))
}

/// Writes the pickles as the Python that reads this format of `Data.fs` would write them.
pub fn write(
    out: &mut dyn Write,
    format: FileFormat,
    pos: u64,
    oid_mark: Option<Oid>,
    entries: impl FnOnce(&mut dyn FnMut(Oid, u64) -> io::Result<()>) -> io::Result<()>,
) -> io::Result<()> {
    write_int(out, format, pos)?;
    let mut bucket = Bucket { prefix: 0, suffixes: Vec::new(), positions: Vec::new(), encoded: Vec::new() };
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
    let mut end = Vec::new();
    pickle::start(dialect_of(format), &mut end);
    end.extend_from_slice(&[NONE, STOP]);
    out.write_all(&end)?;
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
    /// The buffer for the pickle.
    encoded: Vec<u8>,
}

fn dialect_of(format: FileFormat) -> Dialect {
    match format {
        FileFormat::FS21 => Dialect::Python2,
        FileFormat::FS30 => Dialect::Python3,
    }
}

impl Bucket {
    fn write(&mut self, out: &mut dyn Write, format: FileFormat) -> io::Result<()> {
        if self.suffixes.is_empty() {
            return Ok(());
        }
        let [_, _, prefix @ ..] = self.prefix.to_be_bytes();
        self.suffixes.append(&mut self.positions);
        let dialect = dialect_of(format);
        self.encoded.clear();
        pickle::start(dialect, &mut self.encoded);
        pickle::begin_tuple(dialect, 2, &mut self.encoded);
        pickle::put_bytes(dialect, &prefix, &mut self.encoded);
        pickle::put_bytes(dialect, &self.suffixes, &mut self.encoded);
        pickle::end_tuple(dialect, 2, &mut self.encoded);
        self.encoded.push(STOP);
        out.write_all(&self.encoded)?;
        self.suffixes.clear();
        Ok(())
    }
}

/// Writes a number as Python pickles an int. For Python 2 a number of more than 63 bits is a long.
fn write_int(out: &mut dyn Write, format: FileFormat, number: u64) -> io::Result<()> {
    let dialect = dialect_of(format);
    let mut encoded = Vec::new();
    pickle::start(dialect, &mut encoded);
    match (i64::try_from(number), dialect) {
        (Ok(number), _) => pickle::put_int(dialect, number, &mut encoded),
        (Err(_), Dialect::Python2) => {
            encoded.push(LONG);
            encoded.extend_from_slice(format!("{number}L\n").as_bytes());
        }
        (Err(_), Dialect::Python3) => {
            let [a, b, c, d, e, f, g, h] = number.to_le_bytes();
            pickle::put_big_int(&[a, b, c, d, e, f, g, h, 0], &mut encoded);
        }
    }
    encoded.push(STOP);
    out.write_all(&encoded)
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
                    matches!(index_pickle(&mut Lexer::new(&bytes)), Some(IndexPickle::Int(n)) if n == number),
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
