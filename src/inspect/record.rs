//! What the record of an object says without its application.

use std::borrow::Cow;

use crate::pickle::record::class_name;
use crate::storage::transform::Codec;
use crate::storage::transform::zlib::Zlib;

/// Longest record that is decompressed. Clients cannot store longer ones either, unless their server has a larger
/// `max-message-size`.
const DECOMPRESSED_MAX: usize = 256 << 20;

/// The record as the application's client has it: one of zc.zlibstorage is decompressed.
pub fn plain(data: &[u8]) -> Result<Cow<'_, [u8]>, String> {
    Zlib { compress: false }.decode(data, DECOMPRESSED_MAX).map_err(|error| error.to_string())
}

/// The class of a record as a key: module, line feed, name, as the record itself has them, so that nothing is copied in
/// the usual forms of a record. [`class_text`] makes a name of it. `None` if the record names no class.
pub fn class_key(data: &[u8]) -> Option<Cow<'_, [u8]>> {
    let pickle = match data {
        [0x80, _, rest @ ..] => rest,
        other => other,
    };
    if let [b'c', names @ ..] | [b'(', b'c', names @ ..] = pickle {
        let module = memchr::memchr(b'\n', names)?;
        let name = memchr::memchr(b'\n', names.get(module + 1..)?)?;
        return names.get(..module + 1 + name).map(Cow::Borrowed);
    }
    class_name(data).map(|name| Cow::Owned(name.into_string().into_bytes()))
}

/// `module.Class` of a key.
pub fn class_text(key: &[u8]) -> String {
    String::from_utf8_lossy(key).replacen('\n', ".", 1)
}

/// `module.Class` of a record, which may be compressed, or `?`.
pub fn class_of(data: &[u8]) -> String {
    let data = plain(data).unwrap_or_default();
    class_key(&data).map_or_else(|| "?".into(), |key| class_text(&key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_is_that_of_the_reader_of_pickles() {
        for record in [
            &b"\x80\x03cpersistent.mapping\nPersistentMapping\nq\x00.\x80\x03}."[..],
            b"cBTrees.OOBTree\nOOBTree\nq\x01.N.",
            b"(cpersistent.mapping\nPersistentMapping\nq\x01Ntq\x02.}q\x03.",
            b"((U\x01mq\x01U\x01Cq\x02tq\x03Nt.}.",
            b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00\x8c\x01m\x94\x8c\x01C\x94\x93\x94.",
            b"",
            b"garbage",
            b"cno line feed",
        ] {
            let expected = class_name(record).map(|name| name.into_string());
            assert_eq!(class_key(record).map(|key| class_text(&key)), expected, "{}", record.escape_ascii());
        }
    }
}
