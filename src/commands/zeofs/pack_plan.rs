//! `zeofs pack-plan`: what a pack would remove.

use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use getopts::{Matches, Options};
use serde_json::json;

use super::selection::OpenedFile;
use super::text::{file_line, oid_repr, timestamp};
use crate::base::fs::dir_of;
use crate::base::ids::Oid;
use crate::commands::numbers::grouped;
use crate::commands::pack_time::PackTime;
use crate::commands::progress::Progress;
use crate::commands::subcommand::{FINDINGS, Subcommand, Trouble};
use crate::inspect::record::plain;
use crate::pickle::refs::references;
use crate::storage::file::{Dangling, FileStorage, FileStorageOptions, PackPlan};
use crate::storage::media::{Media, RealMedia};
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
is wrong; 4 there are dangling references.
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
        print(out, &plans, matches.opt_present("blobs"))?;
        print_free(out, &file.name, &plans)?;
        print_dangling(out, &plans, max)?;
    }
    Ok(if plans.iter().any(|plan| plan.dangling_count > 0) { FINDINGS } else { 0 })
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

fn print(out: &mut dyn Write, plans: &[PackPlan; 2], with_blobs: bool) -> io::Result<()> {
    let [gc, all] = plans;
    writeln!(out, "a pack to {} UTC would remove", timestamp(gc.stop))?;
    writeln!(out, "\n{:<16} {:>18} {:>18} {:>18}", "", "OF NOW", "REMOVED", "WITHOUT GC")?;
    let mut line = |name: &str, now: String, removed: String, without_gc: String| {
        writeln!(out, "{name:<16} {now:>18} {removed:>18} {without_gc:>18}")
    };
    for (name, of, without) in [
        ("objects", gc.objects, all.objects),
        ("revisions", gc.revisions, all.revisions),
        ("transactions", gc.transactions, all.transactions),
    ] {
        line(name, grouped(of.before), grouped(of.removed), grouped(without.removed))?;
    }
    // A file can get longer: data takes the place of a back-pointer.
    let freed = |plan: &PackPlan| match plan.size.checked_sub(plan.size_after) {
        Some(freed) => grouped(freed),
        None => format!("-{}", grouped(plan.size_after - plan.size)),
    };
    line("bytes", grouped(gc.size), freed(gc), freed(all))?;
    if with_blobs {
        line("blobs (files)", String::new(), grouped(gc.blobs), grouped(all.blobs))?;
        line("bytes of blobs", String::new(), grouped(gc.blob_bytes), grouped(all.blob_bytes))?;
    }
    Ok(())
}

/// What the pack needs beside the file.
fn print_free(out: &mut dyn Write, name: &str, plans: &[PackPlan; 2]) -> io::Result<()> {
    let [gc, all] = plans;
    let (with, without) = (grouped(gc.size_after), grouped(all.size_after));
    writeln!(out, "\nthe packed file has {with} bytes, without GC {without}")?;
    match RealMedia.free_space(dir_of(Path::new(name))) {
        Ok(free) => writeln!(out, "on the disk of the file {} bytes are free", grouped(free)),
        Err(error) => writeln!(out, "how many bytes are free beside the file is not known: {error}"),
    }
}

fn print_dangling(out: &mut dyn Write, plans: &[PackPlan; 2], max: usize) -> io::Result<()> {
    let Some(plan) = plans.iter().find(|plan| plan.dangling_count > 0) else { return Ok(()) };
    writeln!(
        out,
        "\nthe pack with GC would FAIL, and remove nothing: {} references to objects that do not exist",
        grouped(plan.dangling_count)
    )?;
    for Dangling { from, to } in plan.dangling.iter().take(max) {
        match from {
            Some(from) => writeln!(out, "    {} refers to {}", oid_repr(*from), oid_repr(*to))?,
            None => writeln!(out, "    there is no root object")?,
        }
    }
    match plan.dangling_count.saturating_sub(max as u64) {
        0 => Ok(()),
        more => writeln!(out, "    ... and {} more (-n N)", grouped(more)),
    }
}

fn print_json(out: &mut dyn Write, plans: &[PackPlan; 2], max: usize) -> io::Result<()> {
    for (gc, plan) in [true, false].into_iter().zip(plans) {
        let of = |of: crate::storage::file::Removal| json!({"before": of.before, "removed": of.removed});
        let value = json!({
            "kind": "plan",
            "gc": gc,
            "stop": plan.stop.to_string(),
            "objects": of(plan.objects),
            "revisions": of(plan.revisions),
            "transactions": of(plan.transactions),
            "size": plan.size,
            "size_after": plan.size_after,
            "blobs": plan.blobs,
            "blob_bytes": plan.blob_bytes,
            "dangling": plan.dangling_count,
        });
        writeln!(out, "{value}")?;
    }
    for Dangling { from, to } in plans.iter().flat_map(|plan| plan.dangling.iter().take(max)) {
        let from = from.map(|from| from.to_string());
        writeln!(out, "{}", json!({"kind": "dangling", "from": from, "to": to.to_string()}))?;
    }
    Ok(())
}
