//! `zeobackup prune`

use std::io::Write;

use getopts::{Matches, Options};
use serde_json::json;

use super::super::subcommand::{Subcommand, Trouble};
use super::repository::{self, Opening, Reporter, counted};
use crate::backup::repository::manifest::Stamp;
use crate::backup::repository::prune::prune;
use crate::backup::repository::retention::Retention;
use crate::base::numbers::grouped;

pub(super) const COMMAND: Subcommand = Subcommand { name: "prune", options, help: HELP, run };

const HELP: &str = "\
-r REPOSITORY --keep-last N [options]

Remove backups that are not to be kept, and what no other backup needs. A backup
is kept if one of the options keeps it. The newest backup is read first; if that
is damaged, nothing is removed.

  -r, --repository DIR    where backups are
      --keep-last N       the last N backups
      --keep-daily N      the last backup of each of the last N days with one
      --keep-weekly N     the same, for weeks that begin on Monday
      --keep-monthly N    the same, for months
  -n, --dry-run           only print what would be removed
      --json              a JSON object
      --help              print this

Days are those of UTC. Exit status: 0 done; 1 not done, or not all; 2 the
command line is wrong.
";

const KINDS: [&str; 4] = ["keep-last", "keep-daily", "keep-weekly", "keep-monthly"];

fn options(options: &mut Options) {
    repository::options(options);
    for kind in KINDS {
        options.optopt("", kind, "", "");
    }
    options.optflag("n", "dry-run", "").optflag("", "json", "");
}

fn run(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    if let Some(free) = matches.free.first() {
        return Err(Trouble::Usage(format!("'{free}' is not an option")));
    }
    let count = |kind: &str| match matches.opt_str(kind) {
        None => Ok(0),
        Some(text) => text.parse().map_err(|_| Trouble::Usage(format!("--{kind}: '{text}' is not a number"))),
    };
    let [last, daily, weekly, monthly] = KINDS.map(count);
    let retention = Retention { last: last?, daily: daily?, weekly: weekly?, monthly: monthly? };
    if retention == Retention::default() {
        return Err(Trouble::Usage(
            "say what to keep: --keep-last, --keep-daily, --keep-weekly, --keep-monthly".into(),
        ));
    }
    let is_trial = matches.opt_present("dry-run");
    let opened = repository::open(matches, Opening::Change)?;
    let reporter = Reporter::new("verify", None);
    let pruned = prune(&opened.repository, &retention, is_trial, &reporter);
    reporter.end();
    let pruned = pruned?;
    if matches.opt_present("json") {
        let names =
            |stamps: &[Stamp]| stamps.iter().map(|stamp| stamp.as_str().to_owned()).collect::<Vec<_>>();
        let value = json!({
            "dry_run": is_trial,
            "kept": names(&pruned.kept),
            "removed": names(&pruned.removed),
            "objects": pruned.objects,
            "bytes": pruned.len,
        });
        writeln!(out, "{value}")?;
        return Ok(0);
    }
    for stamp in &pruned.kept {
        writeln!(out, "keep    {stamp}")?;
    }
    let verb = if is_trial { "would remove" } else { "removed" };
    for stamp in &pruned.removed {
        writeln!(out, "{} {stamp}", if is_trial { "remove " } else { "removed" })?;
    }
    let backups = counted(pruned.removed.len() as u64, "backup");
    writeln!(
        out,
        "{verb} {backups} and {} of {} bytes",
        counted(pruned.objects, "object"),
        grouped(pruned.len)
    )?;
    Ok(0)
}
