//! The run of a trace through caches of one or more sizes, with counts of each interval.

use crate::client::cache::trace::{TraceCode, TraceItem, TraceRecord};

use super::input::TraceInput;
use super::model::{CacheModel, Happened};

/// What happened in a period.
#[derive(Clone, Copy, Debug)]
pub(super) struct Period {
    /// Times of the first and the last record.
    pub(super) first: u32,
    pub(super) last: u32,
    pub(super) happened: Happened,
    /// Percentage of the cache that has revisions at the end.
    pub(super) in_use: f64,
}

/// The beginning of a period.
#[derive(Clone, Copy, Default)]
struct Mark {
    /// `None` until its first record.
    first: Option<u32>,
    happened: Happened,
}

/// A cache of one size.
pub(super) struct Simulation {
    model: CacheModel,
    interval: Mark,
    /// The first interval in which something was evicted, or the last start of the client if that is later. Before, a
    /// cache is not full, so its hit rate is too low.
    warm: Mark,
    is_warm: bool,
    last: u32,
}

impl Simulation {
    pub(super) fn new(model: CacheModel) -> Simulation {
        Simulation { model, interval: Mark::default(), warm: Mark::default(), is_warm: false, last: 0 }
    }

    pub(super) fn model(&self) -> &CacheModel {
        &self.model
    }

    /// From the beginning of the interval to the last record.
    pub(super) fn interval(&self) -> Period {
        self.since(self.interval)
    }

    /// From the first eviction to the last record.
    pub(super) fn warm(&self) -> Period {
        self.since(self.warm)
    }

    fn since(&self, mark: Mark) -> Period {
        Period {
            first: mark.first.unwrap_or(self.last),
            last: self.last,
            happened: self.model.happened().since(mark.happened),
            in_use: self.model.in_use(),
        }
    }

    fn end_interval(&mut self) {
        self.is_warm |= self.model.happened().evictions > self.interval.happened.evictions;
        let mark = Mark { first: None, happened: self.model.happened() };
        self.interval = mark;
        if !self.is_warm {
            self.warm = mark;
        }
    }

    /// `false` if the code is not known.
    fn apply(&mut self, record: &TraceRecord) -> bool {
        self.last = record.time;
        for mark in [&mut self.interval, &mut self.warm] {
            mark.first.get_or_insert(record.time);
        }
        if record.code == TraceCode::OPENED {
            self.end_interval();
            self.warm = self.interval;
        }
        self.model.apply(record)
    }
}

/// What was in a trace that no cache can tell.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TraceFacts {
    pub(super) records: u64,
    /// Records whose code is not known, which were left out.
    pub(super) unknown: u64,
    /// Times of the first and the last record.
    pub(super) first: u32,
    pub(super) last: u32,
}

/// Reads the trace to its end. `at_end` is called with all caches at the end of each interval of `interval` seconds,
/// the last one included.
pub(super) fn replay<E>(
    input: &mut TraceInput,
    simulations: &mut [Simulation],
    interval: u32,
    mut at_end: impl FnMut(&[Simulation]) -> Result<(), E>,
) -> Result<TraceFacts, E> {
    let mut facts = TraceFacts::default();
    let mut number = None;
    let mut loads = Loads { held: None };
    let mut step = |record: &TraceRecord, facts: &mut TraceFacts| {
        match number.replace(record.time / interval) {
            None => facts.first = record.time,
            Some(last) if last == record.time / interval => {}
            Some(_) => {
                at_end(simulations)?;
                simulations.iter_mut().for_each(Simulation::end_interval);
            }
        }
        facts.last = record.time;
        let mut is_known = true;
        for simulation in simulations.iter_mut() {
            is_known &= simulation.apply(record);
        }
        facts.unknown += u64::from(!is_known);
        Ok(())
    };
    while let Some(item) = input.next_item() {
        let TraceItem::Record(record) = item else { continue };
        facts.records += 1;
        for record in loads.next(record).into_iter().flatten() {
            step(&record, &mut facts)?;
        }
    }
    if let Some(record) = loads.held.take() {
        step(&record, &mut facts)?;
    }
    if facts.records > 0 {
        at_end(simulations)?;
    }
    Ok(facts)
}

/// Joins the two records that clients of ZEO 4.2 and later write for a miss: the second one has the time of the view.
struct Loads {
    /// A miss whose second record may follow.
    held: Option<TraceRecord>,
}

impl Loads {
    fn next(&mut self, record: TraceRecord) -> [Option<TraceRecord>; 2] {
        let held = self.held.take();
        if record.code == TraceCode::MISS {
            self.held = Some(record);
            return [held, None];
        }
        match held {
            Some(miss) if record.code == TraceCode::FORMER_MISS && record.oid == miss.oid => {
                [Some(record), None]
            }
            _ => [held, Some(record)],
        }
    }
}
