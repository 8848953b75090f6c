//! `zeobackup restore`

use std::io::Write;

use getopts::{Matches, Options};
use serde_json::json;

use super::super::subcommand::{FINDINGS, Subcommand, Trouble};
use super::super::time_argument::point_in_time;
use super::databases;
use super::repository::{self, Opening, Reporter, counted, stamp_argument, state};
use crate::backup::repository::restore::{RestoreOptions, Restored, Target, restore};
use crate::base::numbers::grouped;
use crate::config::{Databases, NamedDatabase};

pub(super) const COMMAND: Subcommand = Subcommand { name: "restore", options, help: HELP, run };

const HELP: &str = "\
-r REPOSITORY (-C FILE | -f DATA_FS [-b BLOB_DIR]) [options] [BACKUP]

Restore databases and their blobs: as they were at a time, as in the backup that
is named, or else as in the newest one. No server may run. A file takes its
place only when it is complete, durable and checked, and the file that was there
is kept as DATA_FS.before-restore.

  -r, --repository DIR    where backups are
  -C, --configure FILE    all <filestorage>s of the configuration of the server
  -f, --filename DATA_FS  one file
  -b, --blob-dir DIR      its blobs; without it they are not restored
  -S, --storage NAME      with -C: this storage alone; with -f: the name of the
                          database in the repository (default: 1)
      --to-time TIME      up to this time in UTC (2026-11-29T09:45:00), or up to
                          90m, 12h, 2d ago
      --to-tid TID        up to this transaction, of 16 hexadecimal digits
      --json              a JSON object for each database
      --help              print this

Exit status: 0 done; 1 not done, and everything is as it was; 2 the command line
is wrong; 4 done, but blobs are missing because they were when it was backed up.
";

fn options(options: &mut Options) {
    repository::options(options);
    databases::options(options);
    options.optopt("", "to-time", "", "").optopt("", "to-tid", "", "").optflag("", "json", "");
}

fn run(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    let stamp = match matches.free.as_slice() {
        [] => None,
        [stamp] => Some(stamp_argument(stamp)?),
        _ => return Err(Trouble::Usage("give one backup".into())),
    };
    let until = match (matches.opt_str("to-time"), matches.opt_str("to-tid")) {
        (Some(_), Some(_)) => return Err(Trouble::Usage("give either --to-time or --to-tid".into())),
        (None, Some(text)) if text.trim_start_matches("0x").len() != 16 => {
            return Err(Trouble::Usage(format!(
                "--to-tid: '{text}' is not a transaction of 16 hexadecimal digits"
            )));
        }
        (Some(text), None) => Some(("--to-time", text)),
        (None, Some(text)) => Some(("--to-tid", text)),
        (None, None) => None,
    };
    let until = until.map(|(option, text)| {
        point_in_time(&text).map_err(|what| Trouble::Usage(format!("{option}: {what}")))
    });
    let Databases { databases, left_out } = databases::of(matches)?;
    let opened = repository::open(matches, Opening::Read)?;
    left_out.iter().for_each(|what| eprintln!("{what}"));
    let target = |NamedDatabase { name, path, blob_dir }| Target { name, path, blob_dir };
    let targets = databases.into_iter().map(target).collect();
    let options = RestoreOptions { stamp, until: until.transpose()?, targets };
    let reporter = Reporter::new("restore", None);
    let restored = restore(&opened.repository, &options, &reporter);
    reporter.end();
    let mut status = 0;
    for restored in &restored? {
        match matches.opt_present("json") {
            true => writeln!(out, "{}", as_json(restored))?,
            false => report(out, restored)?,
        }
        if restored.blobs_missing > 0 {
            status = FINDINGS;
        }
    }
    Ok(status)
}

fn as_json(restored: &Restored) -> serde_json::Value {
    json!({
        "backup": restored.stamp.as_str(),
        "database": restored.target.name,
        "path": restored.target.path.to_string_lossy(),
        "last_tid": restored.last_tid.to_string(),
        "bytes": restored.len,
        "former": restored.aside.as_ref().map(|aside| aside.to_string_lossy()),
        "blobs_added": restored.blobs_added,
        "blobs_kept": restored.blobs_kept,
        "missing_blobs": restored.blobs_missing,
    })
}

fn report(out: &mut dyn Write, restored: &Restored) -> Result<(), Trouble> {
    let Restored { target, stamp, last_tid, len, aside, blobs_added, blobs_kept, blobs_missing } = restored;
    let (path, len) = (target.path.display(), grouped(*len));
    writeln!(out, "{path}: {len} bytes up to {}, from backup {stamp}", state(*last_tid))?;
    if let Some(aside) = aside {
        writeln!(out, "  the file that was there is now {}", aside.display())?;
    }
    if let Some(dir) = target.blob_dir.as_ref().filter(|_| blobs_added + blobs_kept + blobs_missing > 0) {
        let (added, kept) = (counted(*blobs_added, "blob"), grouped(*blobs_kept));
        writeln!(out, "  {}: {added} added, {kept} there already", dir.display())?;
    }
    if *blobs_missing > 0 {
        writeln!(out, "  {} had no file when the backup was made", counted(*blobs_missing, "blob"))?;
    }
    Ok(())
}
