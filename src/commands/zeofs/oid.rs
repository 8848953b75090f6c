//! `zeofs oid`: one object: its revisions, what it refers to, what refers to it, and a way to it from the root.

use std::collections::BTreeMap;
use std::io::Write;

use getopts::{Matches, Options};
use serde_json::{Value, json};

use super::dump::view::{insert_state, print_state};
use super::refs::why;
use super::selection::{OpenedFile, oid_argument};
use super::served::names::{self, Names};
use super::text::{file_line, oid_repr, shown, timestamp};
use crate::base::ids::{Oid, Tid};
use crate::base::numbers::grouped;
use crate::base::untrusted::one_line;
use crate::commands::progress::Progress;
use crate::commands::subcommand::{FINDINGS, Subcommand, Trouble};
use crate::inspect::objects::{Newest, RecordWalk};
use crate::inspect::path::from_root;
use crate::inspect::record::{class_of, plain};
use crate::inspect::show;
use crate::inspect::walk::{FoundRecord, Walk};
use crate::storage::StorageError;

pub(super) const COMMAND: Subcommand = Subcommand { name: "oid", options, help: HELP, run };

const HELP: &str = "\
[options] FILE OID

One object (OID in hexadecimal): its revisions with their transactions, what its
newest record refers to, which objects refer to it, and the shortest way to it
from the root object.

  -s, --state       the state of each revision, too, as data, cut if it is large
  -n, --max N       print at most N of each, and their number (default: 100)
      --no-path     do not look for a way from the root, which reads the file
                    once for each step
  -C, --configure CONF  FILE is a storage of this configuration
      --json        a JSON object for each line
      --help        print this

FILE may be a server, zeo://HOST:PORT?storage=NAME, or with -C the name of a
<zeoclient>.
Exit status: 0 the object is there and reachable (with --no-path: is there);
1 FILE cannot be read; 2 the command line is wrong; 4 it is not.
";

fn options(options: &mut Options) {
    names::options(options);
    options
        .optopt("n", "max", "", "")
        .optflag("s", "state", "")
        .optflag("", "no-path", "")
        .optflag("", "json", "");
}

/// What is found of the object.
#[derive(Default)]
struct Traces {
    revisions: Vec<FoundRecord>,
    /// Of the newest record.
    refers_to: Vec<Oid>,
    referred_by: BTreeMap<Oid, FoundRecord>,
}

fn run(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    let max = matches.opt_str("max").map_or(Ok(100), |text| {
        text.parse().map_err(|_| Trouble::Usage(format!("-n: '{text}' is not a number of lines")))
    })?;
    let [name, oid] = matches.free.as_slice() else {
        return Err(Trouble::Usage("give a file and an object id".into()));
    };
    let oid = oid_argument(oid)?;
    let file = OpenedFile::fetched(Names::of(matches)?.source(name)?, Tid(u64::MAX))?;
    let mut progress = Progress::on_terminal(&file.name, Some(file.data.end()), true);
    let mut at = |pos: u64| {
        if let Some(progress) = &mut progress {
            progress.show(pos);
        }
    };
    let newest = Newest::read(&file.data, &mut at)?;
    let mut found = Traces::default();
    let mut records = RecordWalk::new(&file.data);
    let mut oids = Vec::new();
    while let Some((_, record)) = records.next_record()? {
        if record.header.oid == oid {
            found.revisions.push(record);
        }
        if newest.is_current(&record) {
            oids.clear();
            // What can be read up to damage counts, too.
            _ = records.references(&record, &mut oids)?;
            if oids.contains(&oid) {
                found.referred_by.insert(record.header.oid, record);
            }
            if record.header.oid == oid {
                found.refers_to.clone_from(&oids);
            }
        }
        at(records.pos());
    }
    let with_path = !matches.opt_present("no-path");
    let is_there = newest.not_there(oid).is_none();
    let path = match with_path && is_there {
        true => from_root(&file.data, &newest, oid, &mut |_, pos| at(pos))?,
        false => None,
    };
    if let Some(progress) = &mut progress {
        progress.end();
    }
    let (is_json, with_states) = (matches.opt_present("json"), matches.opt_present("state"));
    let report = Report { file: &file, newest: &newest, oid, max, is_json, with_states };
    if !report.is_json {
        writeln!(out, "{}", file_line(&file))?;
    }
    report.revisions(out, &found.revisions)?;
    report.references(out, &found)?;
    if with_path {
        report.path(out, path.as_deref())?;
    }
    Ok(if is_there && (path.is_some() || !with_path) { 0 } else { FINDINGS })
}

struct Report<'a> {
    file: &'a OpenedFile,
    newest: &'a Newest,
    oid: Oid,
    max: usize,
    is_json: bool,
    with_states: bool,
}

impl Report<'_> {
    fn class(&self, record: &FoundRecord) -> Result<String, Trouble> {
        Ok(self.data(record)?.map_or_else(|_| "?".into(), |data| class_of(&data)))
    }

    /// The data of a record, or why it cannot be read.
    fn data(&self, record: &FoundRecord) -> Result<Result<Vec<u8>, String>, Trouble> {
        let mut data = Vec::new();
        match self.file.data.data_of(record.pos, &record.header, record.back, &mut data) {
            Ok(_) => Ok(Ok(data)),
            Err(StorageError::Corrupt { what, .. }) => Ok(Err(what)),
            Err(error) => Err(error.into()),
        }
    }

    /// The state of a revision, or why it cannot be read. `None`: it is not wanted, or there is none.
    fn state(&self, record: &FoundRecord) -> Result<Option<Result<Value, String>>, Trouble> {
        if !self.with_states || record.is_gone() {
            return Ok(None);
        }
        let state = |data: Vec<u8>| plain(&data).and_then(|data| show::state(&data));
        Ok(Some(self.data(record)?.and_then(state)))
    }

    fn revisions(&self, out: &mut dyn Write, revisions: &[FoundRecord]) -> Result<(), Trouble> {
        let count = revisions.len();
        if !self.is_json {
            writeln!(out, "\n{}: revisions: {}", oid_repr(self.oid), grouped(count as u64))?;
        }
        for record in revisions.iter().rev().take(self.max) {
            let FoundRecord { pos, header, back } = record;
            let mut walk = Walk::from(&self.file.data, header.tloc);
            let meta = match walk.next_part()? {
                Some(crate::inspect::walk::Part::Transaction(txn)) => walk.meta(&txn)?,
                _ => Default::default(),
            };
            let shown_pos = self.file.shown_pos(*pos);
            let kind = match (header.data_len, back) {
                (0, 0) => "deleted, or its creation undone".to_string(),
                (0, back) if shown_pos.is_some() => format!("as at {back}"),
                (0, _) => "as an earlier one".into(),
                (len, _) => format!("{} bytes", grouped(len)),
            };
            let class = if record.is_gone() { String::new() } else { self.class(record)? };
            let state = self.state(record)?;
            if self.is_json {
                let mut value = json!({
                    "kind": "revision",
                    "oid": self.oid.to_string(),
                    "tid": header.tid.to_string(),
                    "time": header.tid.to_iso(),
                    "len": header.data_len,
                    "class": class,
                    "user": show::text(&meta.user),
                    "description": show::text(&meta.description),
                });
                if let (Some(pos), Some(fields)) = (shown_pos, value.as_object_mut()) {
                    fields.insert("pos".into(), pos.into());
                    fields.insert("back".into(), (*back).into());
                }
                if let (Some(state), Some(fields)) = (&state, value.as_object_mut()) {
                    insert_state(fields, state);
                }
                writeln!(out, "{value}")?;
                continue;
            }
            let class = one_line(200, format_args!("{class}"));
            let (user, description) = (shown(&meta.user), shown(&meta.description));
            let time = timestamp(header.tid);
            let place = shown_pos.map_or_else(String::new, |pos| format!("  at {pos}"));
            write!(out, "    {time}  {}{place}  {kind}  {class}", header.tid)?;
            writeln!(out, "  user \"{user}\", description \"{description}\"")?;
            if let Some(state) = &state {
                print_state(out, state)?;
            }
        }
        self.more(out, count)
    }

    fn references(&self, out: &mut dyn Write, found: &Traces) -> Result<(), Trouble> {
        if !self.is_json {
            writeln!(out, "\nrefers to: {}", grouped(found.refers_to.len() as u64))?;
        }
        for oid in found.refers_to.iter().take(self.max) {
            let reason = self.newest.not_there(*oid).map(why);
            if self.is_json {
                writeln!(out, "{}", json!({"kind": "refers_to", "oid": oid.to_string(), "damage": reason}))?;
                continue;
            }
            let reason = reason.map_or_else(String::new, |reason| format!(", which {reason}"));
            writeln!(out, "    {}{reason}", oid_repr(*oid))?;
        }
        self.more(out, found.refers_to.len())?;
        if !self.is_json {
            writeln!(out, "\nreferred to by: {}", grouped(found.referred_by.len() as u64))?;
        }
        for (oid, record) in found.referred_by.iter().take(self.max) {
            let class = self.class(record)?;
            if self.is_json {
                writeln!(out, "{}", json!({"kind": "referred_by", "oid": oid.to_string(), "class": class}))?;
            } else {
                writeln!(out, "    {}  {}", oid_repr(*oid), one_line(200, format_args!("{class}")))?;
            }
        }
        self.more(out, found.referred_by.len())
    }

    fn path(&self, out: &mut dyn Write, path: Option<&[Oid]>) -> Result<(), Trouble> {
        if self.is_json {
            let path = path.map(|path| path.iter().map(Oid::to_string).collect::<Vec<_>>());
            writeln!(out, "{}", json!({"kind": "path", "oids": path}))?;
            return Ok(());
        }
        match (path, self.newest.not_there(self.oid)) {
            (Some(path), _) => {
                let path: Vec<String> = path.iter().map(|oid| oid_repr(*oid)).collect();
                writeln!(out, "\nfrom the root: {}", path.join(" > "))?;
            }
            (None, Some(reason)) => writeln!(out, "\nthe object {}", why(reason))?,
            (None, None) => writeln!(out, "\nno way from the root: it is garbage")?,
        }
        Ok(())
    }

    fn more(&self, out: &mut dyn Write, count: usize) -> Result<(), Trouble> {
        let more = count.saturating_sub(self.max);
        if more > 0 && !self.is_json {
            writeln!(out, "    ... and {} more (-n N)", grouped(more as u64))?;
        }
        Ok(())
    }
}
