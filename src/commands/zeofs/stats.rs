//! `zeofs stats`: what the file consists of, and what makes it grow.

use std::io::{self, Write};
use std::path::Path;

use getopts::{Matches, Options};
use serde_json::{Value, json};

use super::selection::{self, OpenedFile, Selection};
use super::served::names;
use super::text::{file_line, oid_repr, shown, timestamp};
use crate::base::numbers::grouped;
use crate::base::untrusted::one_line;
use crate::commands::progress::Progress;
use crate::commands::subcommand::{Subcommand, Trouble};
use crate::inspect::show;
use crate::inspect::stats::{Count, Stats, Sum};
use crate::storage::BlobDir;

pub(super) const COMMAND: Subcommand = Subcommand { name: "stats", options, help: HELP, run };

const HELP: &str = "\
[options] FILE

What the file consists of, and what makes it grow: the classes, the objects that
are written most, the users and the descriptions (of Zope: the URL) with the
most bytes, and what a pack would take out.

      --since TIME  count only transactions from TIME on: 2026-11-28T03:13 in
                    UTC, 7d, 12h, 30m or 90s ago, or a tid of 16 hexadecimal
                    digits
      --until TIME  count only transactions up to TIME
  -n, --top N       lines of each table (default: 20)
  -b, --blobs DIR   the number and size of blobs, too, which are in DIR
  -C, --configure CONF  FILE is a storage of this configuration
      --json        a JSON object with the sums, then one for each line
      --help        print this

Bytes are those in the file: data, and 42 of each record. CURRENT counts the
newest record of each object, as of the last transaction that is counted. FILE
may be a server, zeo://HOST:PORT?storage=NAME, or with -C the name of a
<zeoclient>.
Exit status: 0 done; 1 FILE cannot be read; 2 the command line is wrong.
";

fn options(options: &mut Options) {
    selection::time_options(options);
    names::options(options);
    options.optopt("b", "blobs", "", "").optopt("n", "top", "", "").optflag("", "json", "");
}

fn run(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    let Selection { since, until, .. } = Selection::of_time(matches)?;
    let top = matches.opt_str("top").map_or(Ok(20), |text| {
        text.parse().map_err(|_| Trouble::Usage(format!("-n: '{text}' is not a number of lines")))
    })?;
    let blobs = matches.opt_str("blobs").map(|dir| BlobDir::open(Path::new(&dir), true)).transpose()?;
    let file = OpenedFile::fetched(names::source(matches)?, until)?;
    let mut count = Count::new(&file.data, since, until, blobs.as_deref());
    let mut progress = Progress::on_terminal(&file.name, Some(file.data.end()), true);
    while count.next_part()? {
        if let Some(progress) = &mut progress {
            progress.show(count.pos());
        }
    }
    if let Some(progress) = &mut progress {
        progress.end();
    }
    let stats = count.finish(top);
    if matches.opt_present("json") {
        print_json(out, &file, &stats, top)?;
    } else {
        writeln!(out, "{}", file_line(&file))?;
        print_sums(out, &stats, blobs.is_some())?;
        print_tables(out, &stats, top)?;
    }
    Ok(0)
}

fn print_sums(out: &mut dyn Write, stats: &Stats, with_blobs: bool) -> io::Result<()> {
    if stats.transactions.count > 0 {
        writeln!(out, "from {} to {}", timestamp(stats.first), timestamp(stats.last))?;
    }
    writeln!(out, "\n{:<32} {:>14} {:>16}", "", "COUNT", "BYTES")?;
    let mut line = |name: &str, sum: Sum| {
        writeln!(out, "{name:<32} {:>14} {:>16}", grouped(sum.count), grouped(sum.bytes))
    };
    line("transactions", stats.transactions)?;
    line("records", stats.records)?;
    line("  of new objects", stats.new_objects)?;
    line("  undone, copied, deleted", stats.pointers)?;
    line("current records", stats.current)?;
    if with_blobs {
        line("blobs (files)", stats.blobs)?;
    }
    writeln!(out, "{:<32} {:>14} {:>16}", "a pack without GC would free", "", grouped(stats.packable))?;
    if stats.unreadable > 0 {
        writeln!(out, "{:<32} {:>14} {:>16}", "damaged or unfinished", "", grouped(stats.unreadable))?;
    }
    Ok(())
}

fn print_tables(out: &mut dyn Write, stats: &Stats, top: usize) -> io::Result<()> {
    let share = |bytes: u64| 100.0 * bytes as f64 / stats.transactions.bytes.max(1) as f64;
    writeln!(out, "\n{:>10} {:>14} {:>6} {:>10} {:>14}  CLASS", "RECORDS", "BYTES", "%", "CURRENT", "BYTES")?;
    for (class, sums) in stats.classes.iter().take(top) {
        let [all, bytes] = [sums.all.count, sums.all.bytes].map(grouped);
        let [current, current_bytes] = [sums.current.count, sums.current.bytes].map(grouped);
        let class = one_line(200, format_args!("{class}"));
        let share = share(sums.all.bytes);
        writeln!(out, "{all:>10} {bytes:>14} {share:>6.1} {current:>10} {current_bytes:>14}  {class}")?;
    }
    more(out, stats.classes.len(), top, "classes")?;
    writeln!(out, "\n{:>10} {:>14} {:>6}  OBJECT", "RECORDS", "BYTES", "%")?;
    for (object, class) in &stats.objects {
        let [records, bytes] = [object.records, object.bytes].map(grouped);
        let (class, share) = (one_line(200, format_args!("{class}")), share(object.bytes));
        writeln!(out, "{records:>10} {bytes:>14} {share:>6.1}  {}  {class}", oid_repr(object.oid))?;
    }
    for (title, sums) in [("USER", &stats.users), ("DESCRIPTION", &stats.descriptions)] {
        writeln!(out, "\n{:>10} {:>14} {:>6}  {title}", "TXNS", "BYTES", "%")?;
        for (name, sum) in sums.iter().take(top) {
            let ([count, bytes], share) = ([sum.count, sum.bytes].map(grouped), share(sum.bytes));
            writeln!(out, "{count:>10} {bytes:>14} {share:>6.1}  \"{}\"", shown(name))?;
        }
        more(out, sums.len(), top, "lines")?;
    }
    Ok(())
}

fn more(out: &mut dyn Write, count: usize, top: usize, what: &str) -> io::Result<()> {
    match count.saturating_sub(top) {
        0 => Ok(()),
        more => writeln!(out, "... {} more {what} (-n N)", grouped(more as u64)),
    }
}

fn print_json(out: &mut dyn Write, file: &OpenedFile, stats: &Stats, top: usize) -> io::Result<()> {
    let sum = |sum: Sum| json!({"count": sum.count, "bytes": sum.bytes});
    let mut line = |value: Value| writeln!(out, "{value}");
    line(json!({
        "kind": "sums",
        "size": file.of_server.as_ref().map_or(file.data.end(), |server| server.size),
        "in_use_by": file.holder,
        "first": stats.first.to_string(),
        "last": stats.last.to_string(),
        "transactions": sum(stats.transactions),
        "records": sum(stats.records),
        "new_objects": sum(stats.new_objects),
        "pointers": sum(stats.pointers),
        "current": sum(stats.current),
        "blobs": sum(stats.blobs),
        "packable": stats.packable,
        "unreadable": stats.unreadable,
    }))?;
    for (class, sums) in stats.classes.iter().take(top) {
        line(json!({"kind": "class", "class": class, "all": sum(sums.all), "current": sum(sums.current)}))?;
    }
    for (object, class) in &stats.objects {
        let oid = object.oid.to_string();
        line(
            json!({"kind": "object", "oid": oid, "class": class, "count": object.records, "bytes": object.bytes}),
        )?;
    }
    for (kind, sums) in [("user", &stats.users), ("description", &stats.descriptions)] {
        for (name, sum) in sums.iter().take(top) {
            line(json!({"kind": kind, "name": show::text(name), "count": sum.count, "bytes": sum.bytes}))?;
        }
    }
    Ok(())
}
