//! `zeofs test`: whether all that is in the file agrees with all else in it.

use std::io::{self, Write};
use std::path::Path;

use getopts::{Matches, Options};
use serde_json::json;

use super::selection::{self, OpenedFile, Selection};
use super::text::{file_line, oid_repr, timestamp};
use crate::base::numbers::grouped;
use crate::base::untrusted::one_line;
use crate::commands::progress::Progress;
use crate::commands::subcommand::{FINDINGS, Subcommand, Trouble};
use crate::inspect::check::{Check, CheckOptions, Finding};
use crate::storage::BlobDir;

pub(super) const COMMAND: Subcommand = Subcommand { name: "test", options, help: HELP, run };

const HELP: &str = "\
[options] FILE

Checks the whole file: lengths, ascending tids, the pointers of each record to
its transaction, to the object's previous record and to the data of another one;
that each record is two pickles, and each extension one.

  -b, --blobs DIR   also that each revision of a blob has its file there
  -n, --max N       print at most N findings, and their number (default: 100)
      --since TIME  read the data of later transactions only, for a quick check
                    of what is new: 2026-11-28T03:13 in UTC, 7d, 12h, or a tid
      --json        a JSON object for each finding, then one with the sums
      --help        print this

Exit status: 0 nothing is wrong; 1 FILE cannot be read; 2 the command line is
wrong; 4 something is wrong with FILE.
";

fn options(options: &mut Options) {
    selection::time_options(options);
    options.optopt("b", "blobs", "", "").optopt("n", "max", "", "").optflag("", "json", "");
}

fn run(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    let since = Selection::of_time(matches)?.since;
    let max = matches.opt_str("max").map_or(Ok(100), |text| {
        text.parse().map_err(|_| Trouble::Usage(format!("-n: '{text}' is not a number of findings")))
    })?;
    let blobs = matches.opt_str("blobs").map(|dir| BlobDir::open(Path::new(&dir), true)).transpose()?;
    let is_json = matches.opt_present("json");
    let file = OpenedFile::of(matches)?;
    if !is_json {
        writeln!(out, "{}", file_line(&file))?;
    }
    let options = CheckOptions { since, blobs: blobs.as_deref(), is_in_use: file.holder.is_some() };
    let mut check = Check::new(&file.data, options);
    let mut progress = Progress::on_terminal(&file.name, Some(file.data.end()), true);
    let mut count = 0_u64;
    while let Some(findings) = check.next_findings()? {
        for finding in &findings {
            count += 1;
            if count <= max {
                print(out, finding, is_json)?;
            }
        }
        if let Some(progress) = &mut progress {
            progress.show(check.pos());
        }
    }
    if let Some(progress) = &mut progress {
        progress.end();
    }
    let (checked, objects) = (check.checked(), check.objects());
    if is_json {
        let sums = json!({
            "kind": "sums",
            "size": file.data.end(),
            "in_use_by": file.holder,
            "transactions": checked.transactions,
            "records": checked.records,
            "objects": objects,
            "blobs": checked.blobs,
            "unfinished": checked.unfinished,
            "findings": count,
        });
        writeln!(out, "{sums}")?;
    } else {
        if count > max {
            writeln!(out, "... and {} more", grouped(count - max))?;
        }
        let [transactions, records, objects] = [checked.transactions, checked.records, objects].map(grouped);
        writeln!(out, "transactions: {transactions}, records: {records}, objects: {objects}")?;
        if checked.blobs > 0 {
            let looked = if blobs.is_some() { "" } else { ", whose files were not looked for (-b DIR)" };
            writeln!(out, "revisions of blobs: {}{looked}", grouped(checked.blobs))?;
        }
        if checked.unfinished > 0 && count == 0 {
            writeln!(out, "the last {} bytes are no transaction yet", grouped(checked.unfinished))?;
        }
        match count {
            0 => writeln!(out, "nothing is wrong")?,
            count => writeln!(out, "findings: {}", grouped(count))?,
        }
    }
    Ok(if count > 0 { FINDINGS } else { 0 })
}

fn print(out: &mut dyn Write, finding: &Finding, is_json: bool) -> io::Result<()> {
    let Finding { pos, tid, oid, what, .. } = finding;
    if is_json {
        let (tid, oid) = (tid.map(|tid| tid.to_string()), oid.map(|oid| oid.to_string()));
        return writeln!(
            out,
            "{}",
            json!({"kind": "finding", "pos": pos, "tid": tid, "oid": oid, "what": what})
        );
    }
    write!(out, "at {pos}: ")?;
    if let Some(oid) = oid {
        write!(out, "object {}, ", oid_repr(*oid))?;
    }
    if let Some(tid) = tid {
        write!(out, "transaction {tid} of {}: ", timestamp(*tid))?;
    }
    writeln!(out, "{}", one_line(1000, format_args!("{what}")))
}
