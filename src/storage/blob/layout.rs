//! The path of a revision's file in a blob directory: the layouts of Python's ZODB.

#![cfg_attr(not(test), deny(clippy::cast_possible_truncation))]

use std::path::PathBuf;

use crate::base::ids::{Oid, Tid};

/// The suffix of every committed blob.
pub const BLOB_SUFFIX: &str = ".blob";
/// The file that names the layout of its directory.
pub const MARKER: &str = ".layout";

/// How blobs are distributed over directories.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Layout {
    /// Eight levels of directories, one for each byte of the oid, most significant first.
    Bushy,
    /// One directory for each object. Slow on some file systems. The layout of directories without a marker.
    Lawn,
}

impl Layout {
    /// The name in the marker.
    pub fn name(self) -> &'static str {
        match self {
            Layout::Bushy => "bushy",
            Layout::Lawn => "lawn",
        }
    }

    /// The layout with this name.
    pub fn from_name(name: &str) -> Option<Layout> {
        [Layout::Bushy, Layout::Lawn].into_iter().find(|layout| layout.name() == name)
    }

    /// The directory of an object, relative to the blob directory.
    pub fn oid_path(self, oid: Oid) -> PathBuf {
        match self {
            Layout::Bushy => oid.to_bytes().iter().map(|byte| format!("0x{byte:02x}")).collect(),
            Layout::Lawn => stripped(oid.0).into(),
        }
    }

    /// The object whose directory this is, relative to the blob directory.
    pub fn oid_of(self, path: &str) -> Option<Oid> {
        let mut oid = 0u64;
        match self {
            Layout::Bushy => {
                let mut levels = 0;
                for level in path.split('/') {
                    oid = oid.checked_shl(8)? | u64::from(u8::try_from(from_stripped(level)?).ok()?);
                    levels += 1;
                }
                (levels == 8).then_some(Oid(oid))
            }
            Layout::Lawn => from_stripped(path).map(Oid),
        }
    }
}

/// The name of the file that an object has in transaction `tid`.
pub fn file_name(tid: Tid) -> String {
    format!("{}{BLOB_SUFFIX}", stripped(tid.0))
}

/// The transaction in the name of a committed blob.
pub fn tid_of(name: &str) -> Option<Tid> {
    from_stripped(name.strip_suffix(BLOB_SUFFIX)?).map(Tid)
}

/// Hex digits without leading zeros, but of even number.
fn stripped(number: u64) -> String {
    let digits = format!("{number:x}");
    if digits.len() % 2 == 1 { format!("0x0{digits}") } else { format!("0x{digits}") }
}

fn from_stripped(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x")?;
    // `from_str_radix` would accept a sign.
    if digits.is_empty() || !digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Paths as Python's ZODB 6 gives them.
    #[test]
    fn paths_as_in_python() {
        let check = |oid: u64, bushy: &str, lawn: &str| {
            assert_eq!(Layout::Bushy.oid_path(Oid(oid)).to_str(), Some(bushy));
            assert_eq!(Layout::Lawn.oid_path(Oid(oid)).to_str(), Some(lawn));
            assert_eq!(Layout::Bushy.oid_of(bushy), Some(Oid(oid)));
            assert_eq!(Layout::Lawn.oid_of(lawn), Some(Oid(oid)));
        };
        check(0, "0x00/0x00/0x00/0x00/0x00/0x00/0x00/0x00", "0x00");
        check(0x123, "0x00/0x00/0x00/0x00/0x00/0x00/0x01/0x23", "0x0123");
        check(u64::MAX, "0xff/0xff/0xff/0xff/0xff/0xff/0xff/0xff", "0xffffffffffffffff");
        assert_eq!(file_name(Tid(0x03a7_e9fd_12bb_ccdd)), "0x03a7e9fd12bbccdd.blob");
        assert_eq!(file_name(Tid(0)), "0x00.blob");
        assert_eq!(tid_of("0x03a7e9fd12bbccdd.blob"), Some(Tid(0x03a7_e9fd_12bb_ccdd)));
        for bad in ["0x.blob", "0x+1.blob", "0xAB.blob", "x.blob", "0x01.tmp", "0x11111111111111111.blob"] {
            assert_eq!(tid_of(bad), None, "{bad}");
        }
        for bad in ["", "0x00", "tmp", "0x00/0x00/0x00/0x00/0x00/0x00/0x00/0x00/0x00", "0x00/0x0100"] {
            assert_eq!(Layout::Bushy.oid_of(bad), None, "{bad}");
        }
        assert_eq!(Layout::Lawn.oid_of("tmp"), None);
    }
}
