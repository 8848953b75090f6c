//! The list of the blobs of a segment: a line for each revision, in the order of the file.
//!
//! ```text
//! OID TID LEN SUM      16 hexadecimal digits, 16, bytes, SHA-256 sum
//! OID TID -            the blob had no file
//! ```

use std::fmt::Write;

use super::object::ObjectId;
use crate::base::ids::{Oid, Tid};

/// A revision of an object that is a blob.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Revision {
    pub oid: Oid,
    pub tid: Tid,
}

/// The content of a blob.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Content {
    pub len: u64,
    pub id: ObjectId,
}

/// A blob, and its content unless that is missing.
pub type BlobEntry = (Revision, Option<Content>);

/// The text of a list.
pub fn to_text(entries: &[BlobEntry]) -> String {
    let mut text = String::with_capacity(entries.len() * 110);
    for (Revision { oid, tid }, content) in entries {
        // Writing to a string does not fail.
        let _ = match content {
            Some(Content { len, id }) => writeln!(text, "{oid} {tid} {len} {id}"),
            None => writeln!(text, "{oid} {tid} -"),
        };
    }
    text
}

/// The entry in a line, which has no line feed. `None`: it is none.
pub fn parse(line: &str) -> Option<BlobEntry> {
    let mut words = line.split(' ');
    let mut number = || {
        let digits = words.next().filter(|digits| digits.len() == 16)?;
        u64::from_str_radix(digits, 16).ok()
    };
    let revision = Revision { oid: Oid(number()?), tid: Tid(number()?) };
    let content = match (words.next()?, words.next()) {
        ("-", None) => None,
        (len, Some(id)) => Some(Content { len: len.parse().ok()?, id: ObjectId::from_hex(id)? }),
        _ => return None,
    };
    words.next().is_none().then_some((revision, content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_round_trip() {
        let revision = Revision { oid: Oid(0x12), tid: Tid(0x03d5_c1f0_a000_0001) };
        let content = Content { len: 900, id: ObjectId::of(b"content") };
        let entries = [(revision, Some(content)), (Revision { oid: Oid(u64::MAX), ..revision }, None)];
        let text = to_text(&entries);
        assert!(text.starts_with("0000000000000012 03d5c1f0a0000001 900 "), "{text}");
        assert_eq!(text.lines().map(|line| parse(line).unwrap()).collect::<Vec<_>>(), entries);
        for wrong in [
            "",
            "x",
            "12 03d5c1f0a0000001 -",
            "0000000000000012 03d5c1f0a0000001",
            "0000000000000012 03d5c1f0a0000001 - -",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
