//! Names of files in a repository: a time in UTC with seconds, and a kind.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::base::timestamp::Civil;

/// `YYYY-MM-DD-hh-mm-ss`, in UTC. The order of stamps is the order of their texts, as in Python.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Stamp(String);

/// Characters of a stamp.
const STAMP_LEN: usize = 19;

impl Stamp {
    /// The stamp of a time.
    pub fn of(time: SystemTime) -> Stamp {
        let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let Civil { year, month, day, hour, minute, second } = Civil::from_unix(seconds as f64);
        Stamp(format!("{year:04}-{month:02}-{day:02}-{hour:02}-{minute:02}-{second:02.0}"))
    }

    /// A text of the form of a stamp; the numbers are not checked, as in Python.
    pub fn parse(text: &str) -> Option<Stamp> {
        let fits = |(at, byte): (usize, u8)| match at {
            4 | 7 | 10 | 13 | 16 => byte == b'-',
            _ => byte.is_ascii_digit(),
        };
        (text.len() == STAMP_LEN && text.bytes().enumerate().all(fits)).then(|| Stamp(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the index of this moment.
    pub fn index(&self) -> String {
        format!("{}.index", self.0)
    }

    /// The name of the dat file of the chain that begins here.
    pub fn dat(&self) -> String {
        format!("{}.dat", self.0)
    }
}

/// What a data file has. They sort as the names do: `.deltafs` before `.fs`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Extent {
    /// What was appended since the backup before.
    Delta,
    /// Everything.
    Full,
}

/// The name of a full or a delta.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct DataFile {
    pub stamp: Stamp,
    pub extent: Extent,
    pub gzip: bool,
}

impl DataFile {
    /// `None`: it is another file.
    pub fn parse(name: &str) -> Option<DataFile> {
        let (stamp, kind) = name.split_once('.')?;
        let (extent, gzip) = match kind {
            "fs" => (Extent::Full, false),
            "fsz" => (Extent::Full, true),
            "deltafs" => (Extent::Delta, false),
            "deltafsz" => (Extent::Delta, true),
            _ => return None,
        };
        Some(DataFile { stamp: Stamp::parse(stamp)?, extent, gzip })
    }

    pub fn is_full(&self) -> bool {
        self.extent == Extent::Full
    }
}

impl fmt::Display for DataFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.extent {
            Extent::Full => "fs",
            Extent::Delta => "deltafs",
        };
        write!(f, "{}.{kind}{}", self.stamp.0, if self.gzip { "z" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn names_as_python_makes_them() {
        let time = UNIX_EPOCH + Duration::from_millis(1_795_835_689_999);
        assert_eq!(Stamp::of(time).as_str(), "2026-11-28-03-14-49");
        for name in [
            "2026-11-28-03-14-49.fs",
            "2026-11-28-03-14-49.fsz",
            "2026-11-28-03-14-49.deltafs",
            "9999-99-99-99-99-99.deltafsz",
        ] {
            assert_eq!(DataFile::parse(name).unwrap().to_string(), name);
        }
        for other in [
            "2026-11-28-03-14-49.dat",
            "2026-11-28-03-14-49.index",
            "2026-11-28-03-14-49.fs.part",
            "2026-11-28-03-14-4.fs",
            "2026-11-28-03-14-4x.fs",
            "x2026-11-28-03-14-49.fs",
            "2026-11-28-03-14\u{e9}9.fs",
            "tmp.tmp",
        ] {
            assert_eq!(DataFile::parse(other), None, "{other}");
        }
    }
}
