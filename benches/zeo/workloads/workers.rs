//! Threads that load a server together: warm up, measure, stop.

use super::Setting;
use crate::client::{Client, Result};
use crate::latencies::Latencies;
use crate::meter::{Meter, Usage};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::{Duration, Instant};

const WARM_UP: Duration = Duration::from_millis(300);
/// Stack size: a thousand clients must not need gigabytes.
const STACK_LEN: usize = 256 << 10;

/// The phase of a run. It only advances.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    WarmUp,
    Measure,
    Stop,
}

pub struct Clock(AtomicU8);

impl Clock {
    pub fn phase(&self) -> Phase {
        match self.0.load(Relaxed) {
            0 => Phase::WarmUp,
            1 => Phase::Measure,
            _ => Phase::Stop,
        }
    }

    fn set(&self, phase: Phase) {
        self.0.store(phase as u8, Relaxed);
    }
}

/// The operations of one worker, or of a group, during the measurement.
#[derive(Default)]
pub struct Tally {
    pub operations: u64,
    pub latencies: Latencies,
    pub conflicts: u64,
    /// The longest operation that overlaps the measurement, including its time after the end.
    pub longest: Duration,
    /// Number of operations of each worker.
    each: Vec<u64>,
}

impl Tally {
    /// Counts an operation that ends now.
    pub fn add(&mut self, started: Instant, phase_at_start: Phase, clock: &Clock) {
        let (latency, phase) = (started.elapsed(), clock.phase());
        if phase_at_start == Phase::Measure && phase == Phase::Measure {
            self.operations += 1;
            self.latencies.add(latency);
        }
        if phase_at_start != Phase::Stop && phase != Phase::WarmUp {
            self.longest = self.longest.max(latency);
        }
    }

    /// Counts operations of a group that ends now, without their latencies: for those that take less than the clock.
    pub fn add_many(&mut self, operations: u64, phase_at_start: Phase, clock: &Clock) {
        if phase_at_start == Phase::Measure && clock.phase() == Phase::Measure {
            self.operations += operations;
        }
    }

    /// The share of the slowest worker: 1 is fair, 0 is starved.
    pub fn fairness(&self) -> f64 {
        let least = self.each.iter().min().copied().unwrap_or(0);
        least as f64 * self.each.len() as f64 / (self.operations as f64).max(1.0)
    }

    fn merge(&mut self, worker: Tally) {
        self.operations += worker.operations;
        self.latencies.merge(worker.latencies);
        self.conflicts += worker.conflicts;
        self.longest = self.longest.max(worker.longest);
        self.each.push(worker.operations);
    }
}

/// Runs groups of workers, `groups[g]` of them in group `g`. Each first calls `prepare` with a connection, waits for
/// the others, then calls `work` until the end of the measurement. Returns a tally per group.
pub fn run<P, W, T>(
    setting: &Setting<'_>,
    groups: &[usize],
    prepare: P,
    work: W,
) -> Result<(Vec<Tally>, Usage)>
where
    P: Fn(Client, usize, u64) -> Result<T> + Sync,
    W: Fn(T, &Clock) -> Result<Tally> + Sync,
{
    let connected = |group, number| {
        Client::open(setting.target_of(number)).and_then(|client| prepare(client, group, number))
    };
    run_threads(setting, groups, connected, work)
}

/// As [`run`], with workers that connect themselves, or share a connection.
pub fn run_threads<P, W, T>(
    setting: &Setting<'_>,
    groups: &[usize],
    prepare: P,
    work: W,
) -> Result<(Vec<Tally>, Usage)>
where
    P: Fn(usize, u64) -> Result<T> + Sync,
    W: Fn(T, &Clock) -> Result<Tally> + Sync,
{
    let clock = Clock(AtomicU8::new(Phase::WarmUp as u8));
    let everyone_ready = Barrier::new(groups.iter().sum::<usize>() + 1);
    std::thread::scope(|scope| {
        let mut workers = vec![];
        let numbered = groups.iter().enumerate().flat_map(|(group, count)| (0..*count).map(move |_| group));
        for (number, group) in numbered.enumerate() {
            let (clock, everyone_ready, prepare, work) = (&clock, &everyone_ready, &prepare, &work);
            let body = move || {
                let prepared = prepare(group, number as u64 + 1);
                // A worker that failed waits too, or the others would wait for ever.
                everyone_ready.wait();
                work(prepared?, clock)
            };
            let spawned = std::thread::Builder::new().stack_size(STACK_LEN).spawn_scoped(scope, body);
            workers.push((group, spawned.expect("a thread")));
        }
        everyone_ready.wait();
        std::thread::sleep(WARM_UP);
        let meter = Meter::start_all(&setting.pids());
        clock.set(Phase::Measure);
        std::thread::sleep(setting.measured);
        clock.set(Phase::Stop);
        let usage = meter.read();
        let mut tallies: Vec<Tally> = groups.iter().map(|_| Tally::default()).collect();
        for (group, worker) in workers {
            tallies[group].merge(worker.join().map_err(|_| "a worker of the benchmark panicked")??);
        }
        Ok((tallies, usage))
    })
}
