//! What a backup consists of: a line of JSON, and a second one with its SHA-256 sum, as a JSON text.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::object::ObjectId;
use crate::base::ids::{Oid, Tid};
use crate::base::timestamp::Civil;
use crate::storage::file::format::MAGIC_LEN;

/// The format of this text.
const FORMAT: u32 = 1;

/// A backup: when it was made, in UTC. Backups are compared by their times.
#[derive(Clone, Debug)]
pub struct Stamp {
    time: String,
    stay: Stay,
}

/// How long a backup stays.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Stay {
    /// Until it is pruned.
    #[default]
    Kept,
    /// Until there is a later one.
    UntilNext,
}

const SUFFIX: &str = ".json";
const SUFFIX_UNTIL_NEXT: &str = ".until-next.json";

impl Stamp {
    /// `2026-11-29T09-45-00.123Z`
    pub fn of_unix_millis(millis: u64, stay: Stay) -> Stamp {
        let Civil { year, month, day, hour, minute, .. } = Civil::from_unix((millis / 1000) as f64);
        let (second, milli) = (millis / 1000 % 60, millis % 1000);
        let time = format!("{year:04}-{month:02}-{day:02}T{hour:02}-{minute:02}-{second:02}.{milli:03}Z");
        Stamp { time, stay }
    }

    /// Only texts of this form.
    pub fn parse(text: &str) -> Option<Stamp> {
        const FORM: &[u8] = b"0000-00-00T00-00-00.000Z";
        let fits =
            |(byte, form): (u8, &u8)| if *form == b'0' { byte.is_ascii_digit() } else { byte == *form };
        let is_stamp = text.len() == FORM.len() && text.bytes().zip(FORM).all(fits);
        is_stamp.then(|| Stamp { time: text.into(), stay: Stay::Kept })
    }

    /// The backup whose file has this name.
    pub fn of_file_name(name: &str) -> Option<Stamp> {
        match name.strip_suffix(SUFFIX_UNTIL_NEXT) {
            Some(time) => Stamp::parse(time).map(|stamp| Stamp { stay: Stay::UntilNext, ..stamp }),
            None => Stamp::parse(name.strip_suffix(SUFFIX)?),
        }
    }

    /// The name of its file.
    pub fn file_name(&self) -> String {
        match self.stay {
            Stay::Kept => format!("{}{SUFFIX}", self.time),
            Stay::UntilNext => format!("{}{SUFFIX_UNTIL_NEXT}", self.time),
        }
    }

    /// How long it stays.
    pub fn stay(&self) -> Stay {
        self.stay
    }

    /// The time, in milliseconds.
    pub fn to_unix_millis(&self) -> u64 {
        // 2026-11-29T09-45-00.123Z as 2026-11-29T09:45:00.123. Not all digits make a date: there is no 13th month.
        let (date, time) = self.time.trim_end_matches('Z').split_at(10);
        let seconds = Tid::from_iso(&format!("{date}{}", time.replace('-', ":"))).map_or(0.0, Tid::to_unix);
        (seconds * 1000.0).round() as u64
    }

    /// The time as a text.
    pub fn as_str(&self) -> &str {
        &self.time
    }
}

impl PartialEq for Stamp {
    fn eq(&self, other: &Stamp) -> bool {
        self.time == other.time
    }
}

impl Eq for Stamp {}

impl PartialOrd for Stamp {
    fn partial_cmp(&self, other: &Stamp) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Stamp {
    fn cmp(&self, other: &Stamp) -> Ordering {
        self.time.cmp(&other.time)
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.time)
    }
}

/// A backup.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Manifest {
    pub format: u32,
    /// As the name of the backup.
    pub made: String,
    /// The program and its version.
    pub by: String,
    pub databases: Vec<Database>,
}

/// One `Data.fs` at one transaction.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Database {
    /// As in the configuration, or as given.
    pub name: String,
    /// Where the file was, for people.
    pub path: String,
    /// `FS21` or `FS30`.
    pub magic: String,
    /// Bytes of the file up to the end of the last transaction.
    pub len: u64,
    #[serde(with = "hex_tid")]
    pub last_tid: Tid,
    /// The last transaction before which a pack has removed revisions: no state before it can be restored. Zero if the
    /// file was never packed.
    #[serde(with = "hex_tid")]
    pub packed_tid: Tid,
    /// Ids up to this one may have been given out.
    #[serde(with = "hex_oid")]
    pub oid_mark: Oid,
    /// Whether blobs are in this backup.
    pub has_blobs: bool,
    pub file: FileId,
    pub segments: Vec<Segment>,
}

/// Which file it was. A pack makes another one.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct FileId {
    pub device: u64,
    pub inode: u64,
    pub born: u64,
}

/// A stretch of whole transactions.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Segment {
    /// Its position in the file.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    #[serde(with = "hex_tid")]
    pub first: Tid,
    #[serde(with = "hex_tid")]
    pub last: Tid,
    /// See [`Database::packed_tid`].
    #[serde(with = "hex_tid")]
    pub packed: Tid,
    /// The greatest id of its records.
    #[serde(with = "hex_oid")]
    pub oid_max: Oid,
    /// The content, of `len` bytes.
    pub data: ObjectId,
    pub pointers: ObjectId,
    /// Bytes of the pointers.
    pub pointers_len: u64,
    pub blobs: Blobs,
    /// Places in it that were damaged when it was read.
    pub damaged: u64,
}

/// The blobs of the records of a segment.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Blobs {
    /// Number of revisions.
    pub count: u64,
    /// How many of them had no file, and are therefore missing here.
    pub missing: u64,
    /// Bytes of the others.
    pub len: u64,
    /// The list. `None`: there are none, or they are not in this backup.
    pub list: Option<ObjectId>,
    /// Bytes of the list.
    pub list_len: u64,
}

impl Segment {
    /// The position behind it.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }

    /// Whether it has all that a backup with these blobs needs.
    pub fn is_complete(&self, with_blobs: bool) -> bool {
        !with_blobs || self.blobs.count == 0 || self.blobs.list.is_some()
    }
}

impl Database {
    /// What does not agree. `None`: the segments follow each other from the magic to the end.
    fn flaw(&self) -> Option<String> {
        let mut pos = MAGIC_LEN;
        for segment in &self.segments {
            if segment.start != pos || segment.len == 0 {
                return Some(format!(
                    "a segment of {} begins at {}, expected at {pos}",
                    self.name, segment.start
                ));
            }
            pos = segment.end();
        }
        (pos != self.len)
            .then(|| format!("the segments of {} end at {pos}, the file at {}", self.name, self.len))
    }

    /// Places that were damaged when they were read.
    pub fn damaged(&self) -> u64 {
        self.segments.iter().map(|segment| segment.damaged).sum()
    }

    /// Blobs that had no file.
    pub fn missing_blobs(&self) -> u64 {
        self.segments.iter().map(|segment| segment.blobs.missing).sum()
    }
}

/// A line of JSON, and a second one with its SHA-256 sum. The value has only what JSON has: numbers and texts.
pub fn with_sum(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(value).unwrap_or_default();
    let sum = ObjectId::of(&bytes);
    bytes.extend_from_slice(format!("\n\"{sum}\"\n").as_bytes());
    bytes
}

/// The first line, if the second one has its sum.
pub fn without_sum(bytes: &[u8]) -> Result<&[u8], String> {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let (Some(text), Some(sum), Some([]), None) = (lines.next(), lines.next(), lines.next(), lines.next())
    else {
        return Err("is damaged: it has not two lines".into());
    };
    if sum != format!("\"{}\"", ObjectId::of(text)).as_bytes() {
        return Err("is damaged: its sum in the second line is another one".into());
    }
    Ok(text)
}

impl Manifest {
    /// A backup of these databases.
    pub fn new(made: &Stamp, databases: Vec<Database>) -> Manifest {
        let by = concat!("zeobackup ", env!("CARGO_PKG_VERSION")).into();
        Manifest { format: FORMAT, made: made.to_string(), by, databases }
    }

    /// The file.
    pub fn to_bytes(&self) -> Vec<u8> {
        with_sum(self)
    }

    /// From the file. The error says what is wrong, without its name.
    pub fn parse(bytes: &[u8]) -> Result<Manifest, String> {
        let text = without_sum(bytes)?;
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let unreadable = |error: serde_json::Error| format!("cannot be read: {error}");
        let Format { format } = serde_json::from_slice(text).map_err(unreadable)?;
        if format != FORMAT {
            return Err(format!("has format {format}: a newer program has made it"));
        }
        let manifest: Manifest = serde_json::from_slice(text).map_err(unreadable)?;
        match manifest.flaw() {
            Some(flaw) => Err(format!("contradicts itself: {flaw}")),
            None => Ok(manifest),
        }
    }

    /// What does not agree.
    pub fn flaw(&self) -> Option<String> {
        self.databases.iter().find_map(Database::flaw)
    }

    /// Of all databases.
    pub fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.databases.iter().flat_map(|database| &database.segments)
    }

    /// The database of this name.
    pub fn database(&self, name: &str) -> Option<&Database> {
        self.databases.iter().find(|database| database.name == name)
    }
}

macro_rules! hex_id {
    ($module:ident, $name:ident) => {
        /// As 16 hexadecimal digits.
        mod $module {
            use serde::{Deserialize, Deserializer, Serializer, de::Error};

            use crate::base::ids::$name;

            pub fn serialize<S: Serializer>(id: &$name, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(id)
            }

            pub fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<$name, D::Error> {
                let text = String::deserialize(from)?;
                let number = (text.len() == 16).then(|| u64::from_str_radix(&text, 16).ok()).flatten();
                number.map($name).ok_or_else(|| D::Error::custom(format!("'{text}' is no id")))
            }
        }
    };
}

hex_id!(hex_tid, Tid);
hex_id!(hex_oid, Oid);

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let segment = |start, len| Segment {
            start,
            len,
            first: Tid(7),
            last: Tid(9),
            packed: Tid::ZERO,
            oid_max: Oid(3),
            data: ObjectId::of(b"data"),
            pointers: ObjectId::of(b"pointers"),
            pointers_len: 3,
            blobs: Blobs::default(),
            damaged: 0,
        };
        let database = Database {
            name: "1".into(),
            path: "/srv/Data.fs".into(),
            magic: "FS30".into(),
            len: 304,
            last_tid: Tid(9),
            packed_tid: Tid::ZERO,
            oid_mark: Oid(12),
            has_blobs: false,
            file: FileId { device: 1, inode: 2, born: 3 },
            segments: vec![segment(4, 100), segment(104, 200)],
        };
        Manifest::new(&Stamp::of_unix_millis(1, Stay::Kept), vec![database])
    }

    #[test]
    fn stamps() {
        for (stay, name) in [
            (Stay::Kept, "2026-11-29T09-45-09.007Z.json"),
            (Stay::UntilNext, "2026-11-29T09-45-09.007Z.until-next.json"),
        ] {
            let stamp = Stamp::of_unix_millis(1_795_945_509_007, stay);
            assert_eq!((&*stamp.file_name(), stamp.to_unix_millis()), (name, 1_795_945_509_007));
            let found = Stamp::of_file_name(name).unwrap();
            assert_eq!((found.stay(), &found), (stay, &stamp));
        }
        assert!(Stamp::of_file_name("2026-11-29T09-45-09.007Z.json.part").is_none());
        assert!(Stamp::parse("2026-11-29T09-45-00.007Z").is_some());
        for wrong in ["", "2026-11-29T09-45-00.007", "2026-11-29T09-45-00.00xZ", "2026-11-29 09-45-00.007Z"] {
            assert_eq!(Stamp::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_changed_or_cut_manifest_is_noticed() {
        let bytes = manifest().to_bytes();
        assert_eq!(Manifest::parse(&bytes), Ok(manifest()));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(Manifest::parse(&changed).is_err(), "{at}");
            assert!(Manifest::parse(&bytes[..at]).is_err(), "{at}");
        }
    }

    #[test]
    fn segments_follow_each_other() {
        for change in [
            (|database: &mut Database| database.len += 1) as fn(&mut Database),
            |database| database.segments[1].start += 1,
            |database| database.segments[0].len = 0,
            |database| database.segments.truncate(1),
        ] {
            let mut manifest = manifest();
            change(&mut manifest.databases[0]);
            assert!(Manifest::parse(&manifest.to_bytes()).unwrap_err().starts_with("contradicts itself: "));
        }
    }
}
