//! `zeocache simulate`: the hit rates that caches of other sizes would have had.
//!
//! For one size the output is that of ZEO's `cache_simul`; for several it is one line for each.

use std::io::{self, Write};

use getopts::{Matches, Options};

use super::input::TraceInput;
use super::interval::interval_argument;
use super::model::CacheModel;
use super::simulation::{Period, Simulation, TraceFacts, replay};
use super::text::{duration, hit_rate, percent, to_minute, to_second};
use crate::base::numbers::grouped;
use crate::commands::subcommand::{Subcommand, Trouble, file_argument};

pub(super) const COMMAND: Subcommand = Subcommand { name: "simulate", options, help: HELP, run };

const HELP: &str = "\
[options] FILE

Replays the trace of a cache through caches of other sizes, all empty at the
beginning. FILE may be compressed with gzip, or - for the standard input.

  -s, --size MB[,MB...]   size of the cache (default 20). With several sizes the
                          output is one line for each, for the whole trace
  -a, --advise            chooses the sizes: powers of two up to one in which
                          all that was loaded has room. Reads FILE twice
  -i, --interval MINUTES  with one size: length of an interval, 1 to 60
                          (default 15)
  -r, --rearrange FACTOR  a current revision that is loaded when it is more
                          than this part of the size behind the newest one is
                          written again (default 0.8, as ZEO's clients since
                          ZODB 3.10.3; 1: never, as older ones)
      --help              print this

Columns: INVALS invalidations of cached revisions, WRITES stores, EVICTS
evictions, INUSE percentage that is used. With one size, the last line counts
from the first interval with an eviction: before, the cache is not full.
A megabyte is 1,048,576 bytes. Times are local.

Options and output for one size are those of ZEO's cache_simul. Some of its
numbers are wrong; here they are not:
- A revision that is written again keeps its length. In cache_simul it grows by
  43 bytes each time, so that hit rates come out too low.
- Loads of former revisions (codes 24 and 26) can hit. In cache_simul nearly all
  of them miss, with traces of clients of ZEO 4.2 and later half of the misses.
- Two records of one miss (codes 20 and 24) are one load.
- What an invalidation leaves as a former revision stays; a revision that is too
  large is not stored; damage in the trace is skipped.
So a simulation of the size that the traced cache has gives the hits that are in
the trace, if the traced cache was empty at its beginning. Traces of ZODB 3.8
and 3.9 are of no use here: their lengths are in units of 256 bytes.
Exit status: 0 done; 1 FILE has no record or cannot be read (to the end);
2 the command line is wrong.
";

const MB: f64 = 1_048_576.0;
/// Sizes that `--advise` tries.
const ADVISED: u32 = 8;
/// A size is as good as no limit if its hit rate is this close, in percent points.
const CLOSE: f64 = 1.0;

fn options(options: &mut Options) {
    options.optmulti("s", "size", "", "").optopt("i", "interval", "", "");
    options.optopt("r", "rearrange", "", "").optflag("a", "advise", "");
}

fn run(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    let interval = interval_argument(matches)?;
    let rearrange = match matches.opt_str("rearrange") {
        None => 0.8,
        Some(text) => match text.parse::<f64>() {
            Ok(factor) if factor >= 0.0 => factor,
            _ => return Err(Trouble::Usage(format!("-r: '{text}' is not a factor"))),
        },
    };
    let name = file_argument(matches)?;
    let sizes = sizes(&matches.opt_strs("size"))?;
    if matches.opt_present("advise") {
        if !sizes.is_empty() || name == "-" {
            return Err(Trouble::Usage("-a chooses the sizes of a file that can be read twice".into()));
        }
        return advise(out, name, rearrange);
    }
    match sizes.as_slice() {
        [] => one_size(out, name, (20.0 * MB) as u64, rearrange, interval),
        [size] => one_size(out, name, *size, rearrange, interval),
        sizes => table(out, name, sizes, rearrange),
    }
}

/// The sizes in bytes.
fn sizes(arguments: &[String]) -> Result<Vec<u64>, Trouble> {
    let parts = arguments.iter().flat_map(|argument| argument.split(','));
    parts
        .map(|part| match part.trim().parse::<f64>() {
            Ok(size) if size * MB >= CacheModel::LEN_MIN as f64 && size * MB < (1_u64 << 48) as f64 => {
                Ok((size * MB) as u64)
            }
            _ => Err(Trouble::Usage(format!("-s: '{part}' is not a size in megabytes"))),
        })
        .collect()
}

fn one_size(
    out: &mut dyn Write,
    name: &str,
    size: u64,
    rearrange: f64,
    interval: u32,
) -> Result<u8, Trouble> {
    let mut input = TraceInput::open(name, false)?;
    let mut simulations = [Simulation::new(CacheModel::new(size, rearrange))];
    writeln!(out, "CircularCacheSimulation, cache size {} bytes", grouped(size))?;
    let head = ["START TIME", "DUR.", "LOADS", "HITS", "INVALS", "WRITES", "HITRATE", "EVICTS", "INUSE"];
    line(out, head)?;
    let facts = replay(&mut input, &mut simulations, interval, |simulations| {
        simulations.iter().try_for_each(|simulation| period(out, simulation.interval()))
    })?;
    if facts.records > 0 {
        writeln!(out, "{}", "-".repeat(74))?;
        simulations.iter().try_for_each(|simulation| period(out, simulation.warm()))?;
    }
    end(out, input, facts)
}

fn period(out: &mut dyn Write, period: Period) -> io::Result<()> {
    let Period { first, last, happened, in_use } = period;
    let columns = [
        to_minute(first),
        duration(last.saturating_sub(first)),
        happened.loads.to_string(),
        happened.hits.to_string(),
        happened.invalidations.to_string(),
        happened.stores.to_string(),
        hit_rate(happened.loads, happened.hits),
        happened.evictions.to_string(),
        format!("{in_use:.1}"),
    ];
    line(out, columns.each_ref().map(String::as_str))
}

fn line(out: &mut dyn Write, columns: [&str; 9]) -> io::Result<()> {
    let [start, time, loads, hits, invalidations, stores, rate, evictions, in_use] = columns;
    writeln!(
        out,
        "{start:>12} {time:>6} {loads:>7} {hits:>7} {invalidations:>6} {stores:>6} {rate:>7} {evictions:>7} {in_use:>7}"
    )
}

/// What both forms of the report have at the end.
fn end(out: &mut dyn Write, input: TraceInput, facts: TraceFacts) -> Result<u8, Trouble> {
    out.flush()?;
    input.finish()?;
    if facts.unknown > 0 {
        eprintln!("{} records of unknown codes were left out", grouped(facts.unknown));
    }
    if facts.records == 0 {
        eprintln!("No records processed");
        return Ok(1);
    }
    Ok(0)
}

/// A cache in which everything has room.
fn without_limit() -> Simulation {
    Simulation::new(CacheModel::new(1 << 60, 2.0))
}

/// Chooses sizes by what the trace needs.
fn advise(out: &mut dyn Write, name: &str, rearrange: f64) -> Result<u8, Trouble> {
    let mut input = TraceInput::open(name, true)?;
    let mut simulations = [without_limit()];
    let nothing_to_do = |_: &[Simulation]| Ok::<(), Trouble>(());
    replay(&mut input, &mut simulations, u32::MAX, nothing_to_do)?;
    let needed = simulations.iter().map(|simulation| simulation.model().len_needed()).max().unwrap_or(1);
    let mut largest = MB as u64;
    while largest < needed {
        largest *= 2;
    }
    let sizes: Vec<u64> =
        (0..ADVISED).rev().map(|step| largest >> step).filter(|size| *size >= (MB / 8.0) as u64).collect();
    table(out, name, &sizes, rearrange)
}

/// One line for each size, for the whole trace.
fn table(out: &mut dyn Write, name: &str, sizes: &[u64], rearrange: f64) -> Result<u8, Trouble> {
    let mut input = TraceInput::open(name, true)?;
    let models = sizes.iter().map(|size| Simulation::new(CacheModel::new(*size, rearrange)));
    let mut simulations: Vec<Simulation> = models.chain([without_limit()]).collect();
    let nothing_to_do = |_: &[Simulation]| Ok::<(), Trouble>(());
    let facts = replay(&mut input, &mut simulations, u32::MAX, nothing_to_do)?;
    if facts.records > 0 {
        let loads = simulations.first().map_or(0, |simulation| simulation.model().happened().loads);
        let (first, last) = (to_second(facts.first), to_second(facts.last));
        writeln!(out, "{} records, {} loads, {first} to {last}\n", grouped(facts.records), grouped(loads))?;
        let head = ("SIZE MB", "HITS", "HITRATE", "WRITES", "EVICTS", "INUSE");
        size_line(out, head.0, [head.1, head.2, head.3, head.4, head.5])?;
        for (simulation, size) in simulations.iter().zip(sizes.iter().map(Some).chain([None])) {
            let happened = simulation.model().happened();
            let in_use = size.map_or_else(String::new, |_| format!("{:.1}", simulation.model().in_use()));
            let columns = [
                &happened.hits.to_string(),
                &hit_rate(happened.loads, happened.hits),
                &happened.stores.to_string(),
                &happened.evictions.to_string(),
                &in_use,
            ];
            let size = size.map_or_else(|| "no limit".to_string(), |size| megabytes(*size));
            size_line(out, &size, columns.map(String::as_str))?;
        }
        advice(out, &simulations)?;
    }
    end(out, input, facts)
}

fn size_line(out: &mut dyn Write, size: &str, columns: [&str; 5]) -> io::Result<()> {
    let [hits, rate, stores, evictions, in_use] = columns;
    let text = format!("{size:>10} {hits:>10} {rate:>7} {stores:>10} {evictions:>10} {in_use:>7}");
    writeln!(out, "{}", text.trim_end())
}

/// The size from which on more space is of little use.
fn advice(out: &mut dyn Write, simulations: &[Simulation]) -> io::Result<()> {
    let rate = |simulation: &Simulation| {
        let happened = simulation.model().happened();
        if happened.loads == 0 { 0.0 } else { percent(happened.hits, happened.loads) }
    };
    let Some((best, limited)) = simulations.split_last() else { return Ok(()) };
    let needed = megabytes(best.model().len_needed().max(1));
    writeln!(
        out,
        "\nWithout limit the cache has {needed} MB at the end. More hits than that no cache can have."
    )?;
    let close = limited
        .iter()
        .filter(|simulation| rate(simulation) + CLOSE >= rate(best))
        .map(|simulation| simulation.model().len_max())
        .min();
    match close {
        Some(size) => writeln!(
            out,
            "{} MB is the smallest of these sizes whose hit rate is within {CLOSE} percent point of that.",
            megabytes(size)
        ),
        None => writeln!(out, "None of these sizes has a hit rate within {CLOSE} percent point of that."),
    }
}

/// `20`, `0.125`, `1.34`: up to three decimals.
fn megabytes(bytes: u64) -> String {
    let text = format!("{:.3}", bytes as f64 / MB);
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_megabytes() {
        let bytes = |text: &str| sizes(&[text.to_string()]).ok();
        assert_eq!(bytes("1,2.5, 20"), Some(vec![1 << 20, 5 << 19, 20 << 20]));
        for wrong in ["", "x", "0", "-1", "nan", "inf", "1,", "1e12"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
        assert_eq!((megabytes(1 << 17), megabytes(20 << 20)), ("0.125".into(), "20".into()));
    }
}
