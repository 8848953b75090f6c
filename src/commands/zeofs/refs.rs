//! `zeofs refs`: references to objects that are not there.

use std::io::Write;

use getopts::{Matches, Options};
use serde_json::json;

use super::selection::OpenedFile;
use super::served::names;
use super::text::{file_line, oid_repr, timestamp};
use crate::base::ids::{Oid, Tid};
use crate::base::numbers::grouped;
use crate::base::untrusted::one_line;
use crate::commands::progress::Progress;
use crate::commands::subcommand::{FINDINGS, Subcommand, Trouble};
use crate::inspect::objects::{Newest, NotThere, RecordWalk};
use crate::inspect::record::class_of;
use crate::inspect::walk::FoundRecord;

pub(super) const COMMAND: Subcommand = Subcommand { name: "refs", options, help: HELP, run };

const HELP: &str = "\
[options] FILE

References of the newest record of each object to objects that are not there:
never stored, deleted, with an undone creation, or unreadable. An application
that follows one gets a POSKeyError.

  -n, --max N       print at most N objects, and their number (default: 100)
  -C, --configure CONF  FILE is a storage of this configuration
      --json        a JSON object for each object with such references, then one
                    with the sums
      --help        print this

Weak references and references to other databases are not looked at. FILE may be
a server, zeo://HOST:PORT?storage=NAME, or with -C the name of a <zeoclient>.
Exit status: 0 all are there; 1 FILE cannot be read; 2 the command line is
wrong; 4 some are not.
";

fn options(options: &mut Options) {
    names::options(options);
    options.optopt("n", "max", "", "").optflag("", "json", "");
}

fn run(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    let max = matches.opt_str("max").map_or(Ok(100), |text| {
        text.parse().map_err(|_| Trouble::Usage(format!("-n: '{text}' is not a number of objects")))
    })?;
    let file = OpenedFile::fetched(names::source(matches)?, Tid(u64::MAX))?;
    let is_json = matches.opt_present("json");
    if !is_json {
        writeln!(out, "{}", file_line(&file))?;
    }
    // The file is read twice.
    let end = file.data.end();
    let mut progress = Progress::on_terminal(&file.name, Some(end * 2), true);
    let mut at = |pos: u64| {
        if let Some(progress) = &mut progress {
            progress.show(pos);
        }
    };
    let newest = Newest::read(&file.data, &mut at)?;
    let mut records = RecordWalk::new(&file.data);
    let (mut references, mut dangling, mut objects) = (0_u64, 0_u64, 0_u64);
    let mut oids = Vec::new();
    while let Some((_, record)) = records.next_record()? {
        if !newest.is_current(&record) {
            continue;
        }
        oids.clear();
        let flaw = records.references(&record, &mut oids)?.err();
        references += oids.len() as u64;
        oids.sort_unstable();
        oids.dedup();
        let missing: Vec<_> = oids.iter().filter_map(|oid| Some((*oid, newest.not_there(*oid)?))).collect();
        if !missing.is_empty() || flaw.is_some() {
            objects += 1;
            dangling += missing.len() as u64;
            if objects <= max {
                let class = class_of(records.data(&record)?);
                print(out, is_json, &record, file.shown_pos(record.pos), &class, &missing, flaw.as_deref())?;
            }
        }
        at(end + records.pos());
    }
    if let Some(progress) = &mut progress {
        progress.end();
    }
    if is_json {
        let sums = json!({
            "kind": "sums", "objects": newest.len(), "references": references, "dangling": dangling, "from": objects,
        });
        writeln!(out, "{sums}")?;
    } else {
        if objects > max {
            writeln!(out, "... and {} more", grouped(objects - max))?;
        }
        writeln!(out, "objects: {}, references: {}", grouped(newest.len()), grouped(references))?;
        match objects {
            0 => writeln!(out, "all are there")?,
            _ => writeln!(out, "dangling: {}, from {} objects", grouped(dangling), grouped(objects))?,
        }
    }
    Ok(if objects > 0 { FINDINGS } else { 0 })
}

/// In words.
pub(super) fn why(reason: NotThere) -> &'static str {
    match reason {
        NotThere::Missing => "does not exist",
        NotThere::Gone => "was deleted, or its creation undone",
        NotThere::Unreadable => "cannot be read",
    }
}

fn print(
    out: &mut dyn Write,
    is_json: bool,
    record: &FoundRecord,
    pos: Option<u64>,
    class: &str,
    missing: &[(Oid, NotThere)],
    flaw: Option<&str>,
) -> Result<(), Trouble> {
    let header = &record.header;
    if is_json {
        let reason = |reason: NotThere| match reason {
            NotThere::Missing => "missing",
            NotThere::Gone => "gone",
            NotThere::Unreadable => "unreadable",
        };
        let missing: Vec<_> =
            missing.iter().map(|(oid, why)| json!({"oid": oid.to_string(), "why": reason(*why)})).collect();
        let mut value = json!({
            "kind": "object",
            "oid": header.oid.to_string(),
            "class": class,
            "tid": header.tid.to_string(),
            "refs": missing,
            "damage": flaw,
        });
        if let (Some(pos), Some(fields)) = (pos, value.as_object_mut()) {
            fields.insert("pos".into(), pos.into());
        }
        writeln!(out, "{value}")?;
        return Ok(());
    }
    let class = one_line(200, format_args!("{class}"));
    writeln!(
        out,
        "{} {class}, written {} in transaction {}",
        oid_repr(header.oid),
        timestamp(header.tid),
        header.tid
    )?;
    for (oid, reason) in missing {
        writeln!(out, "    refers to {}, which {}", oid_repr(*oid), why(*reason))?;
    }
    if let Some(flaw) = flaw {
        writeln!(out, "    DAMAGED: {}", one_line(500, format_args!("{flaw}")))?;
    }
    Ok(())
}
