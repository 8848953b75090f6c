//! `zeofs recover`: a copy of all that can be read of a damaged file, and a report of what is lost.

use std::io::{self, Write};

use getopts::{Matches, Options};
use serde_json::json;

use super::new_file::NewFile;
use super::selection::OpenedFile;
use super::text::{file_line, oid_repr, timestamp};
use crate::base::ids::Tid;
use crate::base::numbers::grouped;
use crate::base::untrusted::one_line;
use crate::commands::progress::Progress;
use crate::commands::subcommand::{FINDINGS, Subcommand, Trouble};
use crate::commands::time_argument::point_in_time;
use crate::inspect::recover::{Left, LostPart, LostRevision, RecoverOptions, Recovery, Step};

pub(super) const COMMAND: Subcommand = Subcommand { name: "recover", options, help: HELP, run };

const HELP: &str = "\
[options] FILE NEWFILE

Copies all that can be read of a damaged FILE to NEWFILE, and says which
transactions are lost, which objects have lost their newest revision, and what
became current again. Of a file that is whole NEWFILE is a copy.

      --to-time TIME  copy transactions up to TIME: 2026-11-28T03:13 in UTC, 7d,
                      12h, 30m or 90s ago, or a tid of 16 hexadecimal digits
  -p, --partial       copy what can be read of a damaged transaction, too,
                      marked as packed. Objects may then not fit together
  -f, --force         replace NEWFILE if it exists
  -n, --max N         lines of each list (default: 100)
      --json          a JSON object for each line
      --help          print this

FILE is not changed, and may be in use. Blobs are not copied: they stay where
they are. Check NEWFILE with test and refs before it is used.
Exit status: 0 all is copied; 1 FILE cannot be read, or NEWFILE not written;
2 the command line is wrong; 4 NEWFILE is made, something is lost or mended.
";

fn options(options: &mut Options) {
    options.optopt("", "to-time", "", "").optflag("p", "partial", "").optflag("f", "force", "");
    options.optopt("n", "max", "", "").optflag("", "json", "");
}

fn run(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    let max = matches.opt_str("max").map_or(Ok(100), |text| {
        text.parse().map_err(|_| Trouble::Usage(format!("-n: '{text}' is not a number of lines")))
    })?;
    let to = matches.opt_str("to-time").map(|text| point_in_time(&text)).transpose();
    let to = to.map_err(|what| Trouble::Usage(format!("--to-time: {what}")))?.unwrap_or(Tid(u64::MAX));
    let [name, new_name] = matches.free.as_slice() else {
        return Err(Trouble::Usage("give a file and the name of the new one".into()));
    };
    let file = OpenedFile::open(name)?;
    let new_file = NewFile::create(new_name, name, matches.opt_present("force"))?;
    let mut report = Report { out, is_json: matches.opt_present("json"), max, sums: Sums::default() };
    if !report.is_json {
        writeln!(report.out, "{}", file_line(&file))?;
    }
    let partial = matches.opt_present("partial");
    let options = RecoverOptions { to, partial, now: Tid::now(), is_in_use: file.holder.is_some() };
    let doing = format!("writing {new_name}");
    let mut recovery = Recovery::new(&file.data, new_file.media()?, doing, options)?;
    let mut progress = Progress::on_terminal(&file.name, Some(file.data.end()), true);
    while let Some(step) = recovery.next_step()? {
        report.step(&step)?;
        if let (Some(progress), Step::Copied { next, .. }) = (&mut progress, &step) {
            progress.show(*next);
        }
    }
    if let Some(progress) = &mut progress {
        progress.end();
    }
    let lost = recovery.lost_objects()?;
    new_file.finish()?;
    report.objects(&lost)?;
    report.end(new_name, recovery.len(), file.data.end())?;
    Ok(if report.sums.mended > 0 || report.sums.lost > 0 { FINDINGS } else { 0 })
}

#[derive(Default)]
struct Sums {
    copied: u64,
    mended: u64,
    /// Parts.
    lost: u64,
    lost_bytes: u64,
    undone_bytes: u64,
    unfinished_bytes: u64,
}

struct Report<'a> {
    out: &'a mut dyn Write,
    is_json: bool,
    max: u64,
    sums: Sums,
}

impl Report<'_> {
    fn step(&mut self, step: &Step) -> io::Result<()> {
        match step {
            Step::Copied { tid, mended, .. } => {
                self.sums.copied += 1;
                self.sums.mended += u64::from(!mended.is_empty());
                if !mended.is_empty() && self.sums.mended <= self.max {
                    self.mended(*tid, mended)?;
                }
            }
            Step::Lost(lost) => {
                self.sums.lost += 1;
                self.sums.lost_bytes += lost.end - lost.pos;
                if self.sums.lost <= self.max {
                    self.lost(lost)?;
                }
            }
            Step::Undone { len } => self.sums.undone_bytes += len,
            Step::Unfinished { len } => self.sums.unfinished_bytes += len,
            Step::Later => {}
        }
        Ok(())
    }

    fn mended(&mut self, tid: Tid, mended: &[String]) -> io::Result<()> {
        let what = mended.join("; ");
        if self.is_json {
            return writeln!(self.out, "{}", json!({"kind": "mended", "tid": tid.to_string(), "what": what}));
        }
        let what = one_line(1000, format_args!("{what}"));
        writeln!(self.out, "mended: transaction {tid} of {}: {what}", timestamp(tid))
    }

    fn lost(&mut self, lost: &LostPart) -> io::Result<()> {
        let LostPart { pos, end, tid, what, records } = lost;
        if self.is_json {
            let tid = tid.map(|tid| tid.to_string());
            let value =
                json!({"kind": "lost", "pos": pos, "end": end, "tid": tid, "records": records, "what": what});
            return writeln!(self.out, "{value}");
        }
        write!(self.out, "lost: {} bytes at {pos}", grouped(end - pos))?;
        if let Some(tid) = tid {
            write!(self.out, ", transaction {tid} of {}", timestamp(*tid))?;
        }
        writeln!(self.out, ", {records} records found: {}", one_line(1000, format_args!("{what}")))
    }

    fn objects(&mut self, lost: &[(LostRevision, Left)]) -> io::Result<()> {
        let (mut shown, mut history) = (0, 0_u64);
        for (LostRevision { oid, tid }, left) in lost {
            let again = match left {
                Left::Later => {
                    history += 1;
                    continue;
                }
                Left::Earlier(earlier) => Some(*earlier),
                Left::Nothing => None,
            };
            shown += 1;
            if shown > self.max {
                continue;
            }
            if self.is_json {
                let (oid, tid) = (oid.to_string(), tid.to_string());
                let again = again.map(|tid| tid.to_string());
                writeln!(
                    self.out,
                    "{}",
                    json!({"kind": "object", "oid": oid, "lost": tid, "current": again})
                )?;
                continue;
            }
            let now = again.map_or_else(
                || "nothing is left".into(),
                |tid| format!("is as of transaction {tid} of {} again", timestamp(tid)),
            );
            writeln!(
                self.out,
                "object {}: has lost its revision of transaction {tid}, {now}",
                oid_repr(*oid)
            )?;
        }
        if self.is_json {
            return Ok(());
        }
        if shown > self.max {
            writeln!(self.out, "... and {} more objects (-n N)", grouped(shown - self.max))?;
        }
        if history > 0 {
            writeln!(self.out, "objects that have lost former revisions alone: {}", grouped(history))?;
        }
        Ok(())
    }

    fn end(&mut self, name: &str, len: u64, from: u64) -> io::Result<()> {
        let Sums { copied, mended, lost, lost_bytes, undone_bytes, unfinished_bytes } = self.sums;
        if self.is_json {
            let sums = json!({
                "kind": "sums", "file": name, "size": len, "from": from, "transactions": copied, "mended": mended,
                "lost": lost, "lost_bytes": lost_bytes, "undone_bytes": undone_bytes,
                "unfinished": unfinished_bytes,
            });
            return writeln!(self.out, "{sums}");
        }
        for (bytes, what) in [
            (undone_bytes, "of transactions that an old program has marked as undone"),
            (unfinished_bytes, "at the end that are no committed transaction"),
        ] {
            if bytes > 0 {
                writeln!(self.out, "left out: {} bytes {what}", grouped(bytes))?;
            }
        }
        let [copied, len] = [copied, len].map(grouped);
        writeln!(self.out, "{name}: {len} bytes, {copied} transactions")?;
        match (lost, mended) {
            (0, 0) => writeln!(self.out, "nothing is lost"),
            (0, mended) => writeln!(self.out, "nothing is lost, transactions mended: {}", grouped(mended)),
            _ => writeln!(
                self.out,
                "lost: {} bytes in {} places, transactions mended: {}",
                grouped(lost_bytes),
                grouped(lost),
                grouped(mended)
            ),
        }
    }
}
