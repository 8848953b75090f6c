//! What `zeocache stats` counts in a whole trace, and the tables of it.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::time::Duration;

use crate::base::ids::Oid;
use crate::client::cache::trace::TraceCode;

use super::text::{date_and_time, grouped_signed, percent};
use crate::base::numbers::grouped;

/// How often each object was stored or loaded with data of each length.
pub(super) type BySize = BTreeMap<u32, HashMap<Option<Oid>, u64>>;

/// What is counted from the beginning to the end.
#[derive(Default)]
pub(super) struct TraceTotals {
    pub(super) records: u64,
    /// Bytes of the trace.
    pub(super) bytes: u64,
    pub(super) in_versions: u64,
    /// Records with a length.
    pub(super) with_data: u64,
    pub(super) data_bytes: u64,
    /// Times of the first and the last record.
    pub(super) first: u32,
    pub(super) last: u32,
    pub(super) codes: BTreeMap<TraceCode, u64>,
    pub(super) loads: u64,
    pub(super) hits: u64,
    /// Misses with two records.
    pub(super) doubled: u64,
    pub(super) loads_of: HashMap<Option<Oid>, u64>,
    pub(super) sizes_stored: BySize,
    pub(super) sizes_loaded: BySize,
}

/// The names of the codes in ZEO's `cache_stats`.
fn name(code: TraceCode) -> &'static str {
    match code.0 {
        0x00 => "_setup_trace (initialization)",
        0x10 => "invalidate (miss)",
        0x1a => "invalidate (hit, version)",
        0x1c => "invalidate (hit, saving non-current)",
        0x1e => "invalidate (hit, discarding current or non-current)",
        0x20 => "load (miss)",
        0x22 => "load (hit)",
        0x24 => "load (non-current, miss)",
        0x26 => "load (non-current, hit)",
        0x50 => "store (version)",
        0x52 => "store (current, non-version)",
        0x54 => "store (non-current)",
        _ => "*** unknown code ***",
    }
}

pub(super) fn totals(out: &mut dyn Write, totals: &TraceTotals, time: Duration) -> io::Result<()> {
    let TraceTotals { records, with_data, first, last, .. } = *totals;
    let (bytes, seconds) = (grouped(totals.bytes), time.as_secs_f64());
    writeln!(out, "\nRead {} trace records ({bytes} bytes) in {seconds:.1} seconds", grouped(records))?;
    writeln!(out, "Versions:   {} records used a version", grouped(totals.in_versions))?;
    writeln!(out, "First time: {}", date_and_time(first))?;
    writeln!(out, "Last time:  {}", date_and_time(last))?;
    let duration = i64::from(last) - i64::from(first);
    writeln!(out, "Duration:   {} seconds", grouped_signed(duration))?;
    let average = totals.data_bytes.checked_div(with_data).unwrap_or(0);
    let share = percent(with_data, records);
    writeln!(out, "Data recs:  {} ({share:.1}%), average size {average} bytes", grouped(with_data))?;
    let rate = if totals.loads == 0 { 0.0 } else { percent(totals.hits, totals.loads) };
    writeln!(out, "Hit rate:   {rate:.1}% (load hits / loads)")?;
    if totals.doubled > 0 {
        writeln!(out, "Misses:     {} have two records and count once", grouped(totals.doubled))?;
    }
    writeln!(out, "\n{:>13} {:>4} Function (action)", "Count", "Code")?;
    for (code, count) in &totals.codes {
        writeln!(out, "{:>13}  {:02x}  {}", grouped(*count), code.0, name(*code))?;
    }
    Ok(())
}

/// How many objects were loaded how often.
pub(super) fn load_histogram(out: &mut dyn Write, totals: &TraceTotals) -> io::Result<()> {
    let objects = totals.loads_of.len() as u64;
    let mut bins: BTreeMap<u64, u64> = BTreeMap::new();
    for loads in totals.loads_of.values() {
        *bins.entry(*loads).or_default() += 1;
    }
    writeln!(out, "\nHistogram of object load frequency")?;
    writeln!(out, "Unique oids: {}", grouped(objects))?;
    writeln!(out, "Total loads: {}", grouped(totals.loads))?;
    let width = grouped(objects).len().max("objects".len());
    writeln!(out, "{:>5} {:>width$} {:>6} {:>6} {:>6}", "loads", "objects", "%obj", "%load", "%cum")?;
    let mut sum = 0.0;
    for (loads, count) in bins {
        let of_objects = percent(count, objects);
        let of_loads = percent(count * loads, totals.loads);
        sum += of_loads;
        let count = grouped(count);
        writeln!(out, "{loads:>5} {count:>width$} {of_objects:5.1}% {of_loads:5.1}% {sum:5.1}%")?;
    }
    Ok(())
}

/// How often data of each length was stored and loaded.
pub(super) fn sizes(out: &mut dyn Write, totals: &TraceTotals) -> io::Result<()> {
    writeln!(out, "\nHistograms of object sizes\n")?;
    by_size(out, &totals.sizes_stored, "written", "writes")?;
    by_size(out, &totals.sizes_loaded, "loaded", "loads")
}

fn by_size(out: &mut dyn Write, sizes: &BySize, done: &str, column: &str) -> io::Result<()> {
    writeln!(out, "\nUnique sizes {done}: {}", grouped(sizes.len() as u64))?;
    writeln!(out, "{:>10} {:>6} {:>6}", "size", "objs", column)?;
    for (size, objects) in sizes {
        let count: u64 = objects.values().sum();
        writeln!(out, "{:>10} {:>6} {count:>6}", grouped(u64::from(*size)), objects.len())?;
    }
    Ok(())
}
