//! Which transactions and records a command is about: `--since`, `--until`, `--oid`, `--class`; and the file, or the
//! transactions of a server in a file.

use std::path::Path;

use getopts::{Matches, Options};

use super::served::address::is_address;
use super::served::connection::{Client, Served};
use super::served::fetch::fetch;
use super::served::names::Subject;
use crate::base::ids::{Oid, Tid};
use crate::commands::holder::holder;
use crate::commands::subcommand::{Trouble, file_argument};
use crate::commands::time_argument::point_in_time;
use crate::inspect::data_file::DataFile;
use crate::inspect::record::class_text;
use crate::inspect::walk::{Ending, EndingKind};
use crate::storage::StorageError;

/// Defines the options.
pub(super) fn options(options: &mut Options) {
    time_options(options);
    options.optmulti("o", "oid", "", "").optmulti("c", "class", "", "");
}

/// Defines `--since` and `--until` alone.
pub(super) fn time_options(options: &mut Options) {
    options.optopt("", "since", "", "").optopt("", "until", "", "");
}

/// The wanted transactions and records.
#[derive(Debug, PartialEq)]
pub(super) struct Selection {
    pub(super) since: Tid,
    pub(super) until: Tid,
    oids: Vec<Oid>,
    classes: Vec<String>,
}

impl Selection {
    pub(super) fn of(matches: &Matches) -> Result<Selection, Trouble> {
        let oids = matches.opt_strs("oid").iter().map(|text| oid_argument(text)).collect::<Result<_, _>>()?;
        Ok(Selection { classes: matches.opt_strs("class"), oids, ..Selection::of_time(matches)? })
    }

    /// `--since` and `--until` alone.
    pub(super) fn of_time(matches: &Matches) -> Result<Selection, Trouble> {
        let time = |name: &str| match matches.opt_str(name) {
            Some(text) => {
                point_in_time(&text).map(Some).map_err(|what| Trouble::Usage(format!("--{name}: {what}")))
            }
            None => Ok(None),
        };
        Ok(Selection {
            since: time("since")?.unwrap_or(Tid::ZERO),
            until: time("until")?.unwrap_or(Tid(u64::MAX)),
            oids: Vec::new(),
            classes: Vec::new(),
        })
    }

    pub(super) fn has_tid(&self, tid: Tid) -> bool {
        (self.since..=self.until).contains(&tid)
    }

    pub(super) fn has_oid(&self, oid: Oid) -> bool {
        self.oids.is_empty() || self.oids.contains(&oid)
    }

    /// Whether records of this class are wanted. `key`: see `class_key`; `None`: a record without data.
    pub(super) fn has_class(&self, key: Option<&[u8]>) -> bool {
        if self.classes.is_empty() {
            return true;
        }
        let Some(class) = key.map(class_text) else { return false };
        self.classes.iter().any(|wanted| {
            class.strip_prefix(wanted.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }

    /// Whether all records of a transaction are wanted.
    pub(super) fn has_all_records(&self) -> bool {
        self.oids.is_empty() && self.classes.is_empty()
    }
}

/// An object id in hexadecimal digits, with or without `0x`.
pub(super) fn oid_argument(text: &str) -> Result<Oid, Trouble> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let oid = u64::from_str_radix(digits, 16).map(Oid);
    oid.map_err(|_| Trouble::Usage(format!("'{text}' is not an object id; write it in hexadecimal digits")))
}

/// The file of a command, and whether a server uses it.
pub(super) struct OpenedFile {
    pub(super) name: String,
    pub(super) data: DataFile,
    /// The process that has the lock of the file.
    pub(super) holder: Option<u32>,
    /// It is a copy of what this server has: its positions are in no other file.
    pub(super) of_server: Option<OfServer>,
}

/// The server whose transactions are in a file.
pub(super) struct OfServer {
    /// Such as `Z5`.
    pub(super) protocol: String,
    /// Bytes of the storage, as the server says.
    pub(super) size: u64,
    /// Its last transaction when it was asked.
    pub(super) last: Tid,
}

impl OpenedFile {
    /// Opens the only free argument.
    pub(super) fn of(matches: &Matches) -> Result<OpenedFile, Trouble> {
        OpenedFile::open(file_argument(matches)?)
    }

    pub(super) fn open(name: &str) -> Result<OpenedFile, Trouble> {
        if is_address(name) {
            return Err(Trouble::Failed(format!(
                "{name} is a server, and this looks at a file: of servers there are dump, tail, stats, refs, trees, \
                 oid, diff, gc and copy"
            )));
        }
        let path = Path::new(name);
        // Before the file is opened: a server that ends in between has left it whole.
        let holder = holder(path);
        Ok(OpenedFile { name: name.into(), data: DataFile::open(path)?, holder, of_server: None })
    }

    /// Opens a file, or fetches the transactions of a server up to `until`.
    pub(super) fn fetched(source: Subject, until: Tid) -> Result<OpenedFile, Trouble> {
        let (name, options) = match source {
            Subject::File(name) => return OpenedFile::open(&name),
            Subject::Served { name, options } => (name, options),
        };
        let client = Client::open(&name, &options, true)?;
        OpenedFile::fetched_from(&client.require_served()?, until)
    }

    /// Fetches the transactions of a server up to `until`.
    pub(super) fn fetched_from(served: &Served<'_>, until: Tid) -> Result<OpenedFile, Trouble> {
        let data = fetch(served, Tid::ZERO, until)?;
        let of_server = OfServer { protocol: served.protocol(), size: served.size(), last: served.last };
        Ok(OpenedFile { name: served.name.into(), data, holder: None, of_server: Some(of_server) })
    }

    /// A position in the file. `None`: it would mislead, because the file is a copy.
    pub(super) fn shown_pos(&self, pos: u64) -> Option<u64> {
        self.of_server.is_none().then_some(pos)
    }

    /// Whether the last bytes are damage: they are not if they are reserved space, or if a server may be writing them.
    pub(super) fn is_ending_damage(&self, ending: &Ending) -> bool {
        self.holder.is_none() && ending.kind != EndingKind::Zeros
    }
}

impl From<StorageError> for Trouble {
    fn from(error: StorageError) -> Trouble {
        Trouble::Failed(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::since_1970;

    fn selection(arguments: &[&str]) -> Option<Selection> {
        let mut defined = Options::new();
        options(&mut defined);
        Selection::of(&defined.parse(arguments).ok()?).ok()
    }

    #[test]
    fn times() {
        let since = |text: &str| selection(&["--since", text]).map(|selection| selection.since);
        assert_eq!(since("03d5c1f0a0000001"), Some(Tid(0x03d5_c1f0_a000_0001)));
        assert_eq!(since("0x03d5c1f0a0000001"), Some(Tid(0x03d5_c1f0_a000_0001)));
        assert_eq!(since("2026-11-28T03:13"), Tid::from_iso("2026-11-28T03:13").ok());
        let hour = Tid::from_unix(since_1970().as_secs_f64() - 3600.0).to_unix();
        for text in ["1h", "60m", "3600s"] {
            assert!(since(text).is_some_and(|tid| (tid.to_unix() - hour).abs() < 60.0), "{text}");
        }
        assert!(since("1e9d").is_some());
        for wrong in ["", "d", "-1d", "nan", "yesterday", "7", "2026-02-30", "infinityx"] {
            assert_eq!(since(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn records() {
        let of = selection(&["-o", "0x1f", "--oid", "2", "-c", "BTrees", "-c", "m.C"]).unwrap();
        assert!(of.has_oid(Oid(31)) && of.has_oid(Oid(2)) && !of.has_oid(Oid(3)));
        for (key, expected) in [
            (Some(&b"BTrees.OOBTree\nOOBTree"[..]), true),
            (Some(b"BTreesX\nC"), false),
            (Some(b"m\nC"), true),
            (Some(b"m\nCD"), false),
            (None, false),
        ] {
            assert_eq!(of.has_class(key), expected, "{key:?}");
        }
        let all = selection(&[]).unwrap();
        assert!(all.has_all_records() && all.has_oid(Oid(3)) && all.has_class(None) && all.has_tid(Tid(7)));
        assert_eq!(selection(&["-o", "x"]), None);
    }
}
