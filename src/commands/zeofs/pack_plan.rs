//! `zeofs pack-plan`: what a pack would remove.

use std::io::Write;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use getopts::{Matches, Options};

use super::pack_report::{has_findings, print, print_json};
use super::selection::OpenedFile;
use super::text::file_line;
use crate::base::ids::Oid;
use crate::commands::pack_time::PackTime;
use crate::commands::progress::Progress;
use crate::commands::subcommand::{FINDINGS, Subcommand, Trouble};
use crate::inspect::record::plain;
use crate::pickle::refs::references;
use crate::storage::file::{FileStorage, FileStorageOptions};
use crate::storage::{PackProgress, PackRequest, Storage};

pub(super) const COMMAND: Subcommand = Subcommand { name: "pack-plan", options, help: HELP, run };

/// Interval of progress updates on a terminal.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

const HELP: &str = "\
[options] FILE

What a pack would remove, with and without garbage collection, and how long the
file would be. Nothing is written, and a server may be using the file.

  -d, --days N      a pack that keeps what was current N days ago and since
                    (default: 0, a pack up to now)
  -t, --time HH[:MM[:SS]]
                    at this time of the day, local
  -b, --blobs DIR   the blobs that it would remove, too, which are in DIR
  -n, --max N       print at most N dangling references, and their number
                    (default: 20)
      --json        a JSON object for each of the two packs, then one for each
                    dangling reference
      --help        print this

Dangling references are those to objects that did not exist at that time: a pack
with garbage collection that meets one ends with a KeyError. FILE is read up to
six times, as by two packs.
Exit status: 0 done; 1 FILE cannot be read or not be packed; 2 the command line
is wrong; 4 the pack would fail, or be refused.
";

fn options(options: &mut Options) {
    options.optopt("d", "days", "", "").optopt("t", "time", "", "").optopt("b", "blobs", "", "");
    options.optopt("n", "max", "", "").optflag("", "json", "");
}

fn run(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    let time = PackTime::of(matches.opt_str("days").as_deref(), matches.opt_str("time").as_deref());
    let time = time.map_err(Trouble::Usage)?.seconds();
    let max = matches.opt_str("max").map_or(Ok(20), |text| {
        text.parse().map_err(|_| Trouble::Usage(format!("-n: '{text}' is not a number of references")))
    })?;
    let file = OpenedFile::of(matches)?;
    let storage = FileStorage::open(FileStorageOptions {
        read_only: true,
        blob_dir: matches.opt_str("blobs").map(Into::into),
        ..FileStorageOptions::new(&file.name)
    })?;
    let plan = |gc: bool| {
        let progress = PackProgress::default();
        let references = |data: &[u8], oids: &mut Vec<Oid>| references(&plain(data)?, oids);
        let request =
            PackRequest { time, gc: Some(gc), references: &references, progress: &progress, removals: None };
        with_progress(&file.name, 3 * storage.size(), &progress, || storage.plan_pack(&request))
    };
    let plans = [plan(true)?, plan(false)?];
    if matches.opt_present("json") {
        print_json(out, &plans, max)?;
    } else {
        writeln!(out, "{}", file_line(&file))?;
        print(out, &plans, matches.opt_present("blobs"), max)?;
    }
    Ok(if has_findings(&plans) { FINDINGS } else { 0 })
}

/// Shows the progress on a terminal while `run` runs.
fn with_progress<T>(name: &str, total: u64, progress: &PackProgress, run: impl FnOnce() -> T) -> T {
    let Some(mut shown) = Progress::on_terminal(name, Some(total), true) else { return run() };
    thread::scope(|scope| {
        let (running, ended) = mpsc::channel::<()>();
        scope.spawn(move || {
            while ended.recv_timeout(PROGRESS_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                shown.show(progress.done.load(Ordering::Relaxed));
            }
            shown.end();
        });
        let result = run();
        drop(running);
        result
    })
}
