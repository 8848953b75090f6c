//! The path of a revision's file in a blob directory: the layouts of Python's ZODB and ZEO.

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
    /// A fixed number of directories, each with blobs of many objects: a client's cache.
    Zeocache,
}

/// Directories of a client's cache.
pub const CACHE_DIRS: u64 = 997;

impl Layout {
    /// The name in the marker.
    pub fn name(self) -> &'static str {
        match self {
            Layout::Bushy => "bushy",
            Layout::Lawn => "lawn",
            Layout::Zeocache => "zeocache",
        }
    }

    /// The layout with this name.
    pub fn from_name(name: &str) -> Option<Layout> {
        [Layout::Bushy, Layout::Lawn, Layout::Zeocache].into_iter().find(|layout| layout.name() == name)
    }

    /// The directory with the blobs of an object, relative to the blob directory.
    pub fn oid_path(self, oid: Oid) -> PathBuf {
        match self {
            Layout::Bushy => oid.to_bytes().iter().map(|byte| format!("0x{byte:02x}")).collect(),
            Layout::Lawn => stripped(oid.0).into(),
            Layout::Zeocache => (oid.0 % CACHE_DIRS).to_string().into(),
        }
    }

    /// The name of the file that an object has in transaction `tid`.
    pub fn file_name(self, oid: Oid, tid: Tid) -> String {
        match self {
            Layout::Bushy | Layout::Lawn => format!("{}{BLOB_SUFFIX}", stripped(tid.0)),
            Layout::Zeocache => format!("{}.{tid}{BLOB_SUFFIX}", oid.0 / CACHE_DIRS),
        }
    }

    /// The revision whose file has this name in directory `number` of a cache.
    pub fn blob_of_cached(number: u64, name: &str) -> Option<(Oid, Tid)> {
        let (quotient, tid) = name.strip_suffix(BLOB_SUFFIX)?.split_once('.')?;
        let oid = Oid(quotient.parse::<u64>().ok()?.checked_mul(CACHE_DIRS)?.checked_add(number)?);
        let tid = Tid(u64::from_str_radix(tid, 16).ok()?);
        // Not every number that can be read is written like this.
        (Layout::Zeocache.file_name(oid, tid) == name).then_some((oid, tid))
    }

    /// The object whose directory this is, relative to the blob directory. `None` if it is no directory of one object.
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
            Layout::Zeocache => None,
        }
    }
}

/// The transaction in the name of a committed blob of a storage.
pub fn tid_of(name: &str) -> Option<Tid> {
    from_stripped(name.strip_suffix(BLOB_SUFFIX)?).map(Tid)
}

/// Hex digits without leading zeros, but of even number.
pub fn stripped(number: u64) -> String {
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
        for layout in [Layout::Bushy, Layout::Lawn] {
            assert_eq!(layout.file_name(Oid(7), Tid(0x03a7_e9fd_12bb_ccdd)), "0x03a7e9fd12bbccdd.blob");
            assert_eq!(layout.file_name(Oid(7), Tid(0)), "0x00.blob");
        }
        assert_eq!(tid_of("0x03a7e9fd12bbccdd.blob"), Some(Tid(0x03a7_e9fd_12bb_ccdd)));
        for bad in ["0x.blob", "0x+1.blob", "0xAB.blob", "x.blob", "0x01.tmp", "0x11111111111111111.blob"] {
            assert_eq!(tid_of(bad), None, "{bad}");
        }
        for bad in ["", "0x00", "tmp", "0x00/0x00/0x00/0x00/0x00/0x00/0x00/0x00/0x00", "0x00/0x0100"] {
            assert_eq!(Layout::Bushy.oid_of(bad), None, "{bad}");
        }
        assert_eq!(Layout::Lawn.oid_of("tmp"), None);
    }

    /// Paths as the `BlobCacheLayout` of Python's ZEO 6 gives them.
    #[test]
    fn paths_in_a_cache_as_in_python() {
        let check = |oid: u64, dir: &str, name: &str| {
            assert_eq!(Layout::Zeocache.oid_path(Oid(oid)).to_str(), Some(dir));
            let tid = Tid(0x03a7_e9fd_12bb_ccdd);
            assert_eq!(Layout::Zeocache.file_name(Oid(oid), tid), name);
            assert_eq!(Layout::blob_of_cached(dir.parse().unwrap(), name), Some((Oid(oid), tid)));
        };
        check(0, "0", "0.03a7e9fd12bbccdd.blob");
        check(996, "996", "0.03a7e9fd12bbccdd.blob");
        check(997, "0", "1.03a7e9fd12bbccdd.blob");
        for bad in [
            "+1.03a7e9fd12bbccdd.blob",
            "01.03a7e9fd12bbccdd.blob",
            "1.3a7.blob",
            "1.blob",
            "99999999999999999999.03a7e9fd12bbccdd.blob",
        ] {
            assert_eq!(Layout::blob_of_cached(0, bad), None, "{bad}");
        }
        check(u64::MAX, "960", "18502250826188115.03a7e9fd12bbccdd.blob");
    }
}
