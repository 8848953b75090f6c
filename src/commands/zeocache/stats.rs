//! `zeocache stats`: counts the events of a trace. Here they are counted; `stats_report.rs` prints the totals.
//!
//! The output is that of ZEO's `cache_stats`, with these differences: a miss that has two records is one load; nothing
//! behind damage is misread; a trace without data has totals too.

use std::io::Write;

use getopts::{Matches, Options};

use crate::base::clock::Stopwatch;
use crate::base::ids::Oid;
use crate::client::cache::trace::{TraceCode, TraceItem, TraceRecord};

use super::input::TraceInput;
use super::interval::interval_argument;
use super::stats_report::{self, TraceTotals};
use super::text::{hit_rate, minute, to_minute, to_second};
use crate::commands::subcommand::{Subcommand, Trouble, file_argument};

pub(super) const COMMAND: Subcommand = Subcommand { name: "stats", options, help: HELP, run };

const HELP: &str = "\
[options] FILE

Counts the loads, hits, invalidations and stores in the trace of a cache. FILE
may be compressed with gzip, or - for the standard input.

Output:
  -i, --interval MINUTES  length of an interval, 1 to 60 (default 15)
  -q, --quiet             no line for each interval
  -v, --verbose           a line for each record: time, code, oid, two tids,
                          V for a version, length of the data
  -S, --no-stats          no totals

Further tables:
  -h, --load-histogram    how many objects were loaded once, twice, ...
  -s, --sizes             how often data of each length was stored and loaded

  -X, --check             no effect: damage is always looked for
  --help                  print this

Options and output are those of ZEO's cache_stats. The differences:
- Clients of ZEO 4.2 and later write two records for most misses, codes 20 and
  24. They count as one load, so hit rates are higher than those of cache_stats
  and are right. The table of codes has all records.
- Damage, as a killed client leaves it, is skipped to the next record, with a
  line that says where. cache_stats misreads what comes behind it.
- 26 has the start of the revision as its second tid; 20 and 24 have the time
  of the view there.

Columns: inv(h) is invalidations of what was cached. ZODB 3.8 and 3.9 write
lengths in units of 256 bytes. Times are local.
Exit status: 0 done; 1 FILE has no record or cannot be read (to the end);
2 the command line is wrong.
";

fn options(options: &mut Options) {
    options.optflag("v", "verbose", "").optflag("q", "quiet", "").optflag("S", "no-stats", "");
    options.optflag("s", "sizes", "").optflag("h", "load-histogram", "").optflag("X", "check", "");
    options.optopt("i", "interval", "", "");
}

/// What the command line asks for.
struct Wanted {
    interval: u32,
    records: bool,
    intervals: bool,
    totals: bool,
    load_histogram: bool,
    sizes: bool,
}

fn run(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    let wanted = Wanted {
        interval: interval_argument(matches)?,
        records: matches.opt_present("verbose"),
        intervals: !matches.opt_present("quiet"),
        totals: !matches.opt_present("no-stats"),
        load_histogram: matches.opt_present("load-histogram"),
        sizes: matches.opt_present("sizes"),
    };
    if wanted.records && !wanted.intervals {
        return Err(Trouble::Usage("use either -v or -q".into()));
    }
    let mut input = TraceInput::open(file_argument(matches)?, !wanted.intervals)?;
    let begun = Stopwatch::start();
    let mut counting = Counting::new(&wanted, out);
    counting.read(&mut input)?;
    let totals = counting.totals;
    if totals.records == 0 {
        out.flush()?;
        input.finish()?;
        eprintln!("No records processed");
        return Ok(1);
    }
    if wanted.totals {
        stats_report::totals(out, &totals, begun.passed())?;
    }
    if wanted.load_histogram {
        stats_report::load_histogram(out, &totals)?;
    }
    if wanted.sizes {
        stats_report::sizes(out, &totals)?;
    }
    input.finish()?;
    Ok(0)
}

/// The counts since the last line.
#[derive(Default)]
struct IntervalCounts {
    /// Times of the first and the last record.
    first: u32,
    last: u32,
    /// The number of the interval since 1970.
    number: u32,
    loads: u64,
    hits: u64,
    invalidations: u64,
    stores: u64,
}

struct Counting<'a> {
    wanted: &'a Wanted,
    out: &'a mut dyn Write,
    totals: TraceTotals,
    interval: IntervalCounts,
    /// The object of a miss, if that was the last record.
    missed: Option<Oid>,
}

impl<'a> Counting<'a> {
    fn new(wanted: &'a Wanted, out: &'a mut dyn Write) -> Counting<'a> {
        Counting {
            wanted,
            out,
            totals: TraceTotals::default(),
            interval: IntervalCounts::default(),
            missed: None,
        }
    }

    fn read(&mut self, input: &mut TraceInput) -> Result<(), Trouble> {
        writeln!(self.out, "{:16} {:>7} {:>7} {:>7} {:>7} hitrate", "", "loads", "hits", "inv(h)", "writes")?;
        while let Some(item) = input.next_item() {
            match item {
                TraceItem::Record(record) => self.record(&record)?,
                TraceItem::Damage { pos, len } if self.wanted.intervals => {
                    writeln!(self.out, "Skipping {len} bytes at offset {pos}")?;
                }
                TraceItem::Damage { .. } => {}
            }
        }
        self.totals.bytes = input.pos();
        if self.totals.records > 0 {
            self.end_interval(0)?;
        }
        Ok(())
    }

    fn record(&mut self, record: &TraceRecord) -> Result<(), Trouble> {
        if self.totals.records == 0 {
            self.totals.first = record.time;
            self.begin_interval(record.time);
        }
        self.totals.last = record.time;
        if record.time / self.wanted.interval != self.interval.number {
            self.end_interval(record.time)?;
        }
        self.interval.last = record.time;
        self.count(record);
        if self.wanted.records {
            self.show(record)?;
        }
        if record.code == TraceCode::OPENED {
            self.end_interval(record.time)?;
            if self.wanted.intervals {
                let rule = "=".repeat(20);
                writeln!(self.out, "{} {rule} Restart {rule}", to_second(record.time))?;
            }
        }
        Ok(())
    }

    fn count(&mut self, record: &TraceRecord) {
        let (totals, interval) = (&mut self.totals, &mut self.interval);
        totals.records += 1;
        totals.in_versions += u64::from(record.in_version);
        *totals.codes.entry(record.code).or_default() += 1;
        if record.len > 0 {
            totals.with_data += 1;
            totals.data_bytes += u64::from(record.len);
        }
        let is_second =
            record.code == TraceCode::FORMER_MISS && self.missed.is_some_and(|oid| record.oid == Some(oid));
        self.missed = record.oid.filter(|_| record.code == TraceCode::MISS);
        if record.code.is_load() && is_second {
            totals.doubled += 1;
        } else if record.code.is_load() {
            let hit = u64::from(record.code.is_hit());
            totals.loads += 1;
            totals.hits += hit;
            interval.loads += 1;
            interval.hits += hit;
            if self.wanted.load_histogram {
                *totals.loads_of.entry(record.oid).or_default() += 1;
            }
        } else if record.code.is_store() {
            interval.stores += 1;
        } else if record.code.is_invalidation() && record.code != TraceCode::INVALIDATED_NOTHING {
            interval.invalidations += 1;
        }
        if self.wanted.sizes && record.len > 0 {
            let sizes = if record.code.is_load() {
                &mut totals.sizes_loaded
            } else if record.code.is_store() {
                &mut totals.sizes_stored
            } else {
                return;
            };
            *sizes.entry(record.len).or_default().entry(record.oid).or_default() += 1;
        }
    }

    fn show(&mut self, record: &TraceRecord) -> Result<(), Trouble> {
        // As Python prints the empty oid of code 00.
        let oid = record.oid.map_or_else(|| "b''".to_string(), |oid| format!("{:16x}", oid.0));
        let version = if record.in_version { 'V' } else { '-' };
        let len = if record.len > 0 { format!(" {}", record.len) } else { String::new() };
        let TraceRecord { time, code, start, end, .. } = record;
        writeln!(self.out, "{} {:02x} {oid} {start} {end} {version}{len}", to_second(*time), code.0)?;
        Ok(())
    }

    fn begin_interval(&mut self, time: u32) {
        let number = time / self.wanted.interval;
        self.interval = IntervalCounts { first: time, last: time, number, ..IntervalCounts::default() };
    }

    /// Prints the line of the interval and begins the next one at `time`.
    fn end_interval(&mut self, time: u32) -> Result<(), Trouble> {
        let IntervalCounts { first, last, loads, hits, invalidations, stores, .. } = self.interval;
        if self.wanted.intervals {
            let times = format!("{}-{}", to_minute(first), minute(last));
            let rate = hit_rate(loads, hits);
            writeln!(self.out, "{times} {loads:>7} {hits:>7} {invalidations:>7} {stores:>7} {rate:>7}")?;
        }
        self.begin_interval(time);
        Ok(())
    }
}
