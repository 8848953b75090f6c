//! The loss of readers to committers, or to a pack, beyond the processor time of these: readers that use all cores must
//! lose that time, but not more.

use super::{COMMIT_OBJECTS, Setting, commit, fill, mixed, pack, read};
use crate::client::{Client, Result};
use crate::meter::Meter;
use crate::outcome::Outcome;
use crate::random::Random;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Time until the readers run at full speed.
const WARM_UP: Duration = Duration::from_millis(300);

/// The readers without other load.
struct Alone {
    loads_s: f64,
    /// Cores that the readers and the server keep busy.
    cores: f64,
}

impl Alone {
    /// Reports the readers' rate while others take `cores` of the machine.
    fn report(&self, loads_s: f64, cores: f64, outcome: &mut Outcome) {
        let due = self.loads_s * (1.0 - cores / self.cores);
        outcome.set("alone_s", self.loads_s);
        outcome.set("loads_s", loads_s);
        outcome.set("taken", cores / self.cores);
        outcome.set("kept", loads_s / due);
    }
}

/// Measures one after the other: readers, committers, both.
pub fn commits(setting: &Setting<'_>, outcome: &mut Outcome) -> Result<()> {
    let (reads, usage) = read::run(setting, mixed::READERS, 1)?;
    let alone = Alone { loads_s: reads.operations as f64 / usage.elapsed, cores: usage.machine_cores() };
    let (writes, usage) = commit::run(setting, mixed::WRITERS, COMMIT_OBJECTS)?;
    let seconds_each = usage.machine_cores() * usage.elapsed / (writes.operations as f64).max(1.0);
    let (reads, writes, usage) = mixed::run(setting)?;
    let commits_s = writes.operations as f64 / usage.elapsed;
    outcome.set("commits_s", commits_s);
    alone.report(reads.operations as f64 / usage.elapsed, commits_s * seconds_each, outcome);
    Ok(())
}

/// Measures a pack; restores the file; measures readers, and a pack beside them.
pub fn pack(setting: &Setting<'_>, outcome: &mut Outcome) -> Result<()> {
    let mut packer = Client::open(setting.target())?;
    packer.set_timeout(pack::TIMEOUT)?;
    let meter = Meter::start(setting.server.pid);
    pack::pack_now(&mut packer)?;
    let usage = meter.read();
    let pack_seconds = usage.machine_cores() * usage.elapsed;
    fill::age(setting.target(), setting.oids, setting.object_len)?;

    let (loads, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let begin = || (loads.load(Relaxed), Meter::start(setting.server.pid));
    let end = |(before, meter): (u64, Meter)| {
        let usage = meter.read();
        ((loads.load(Relaxed) - before) as f64 / usage.elapsed, usage)
    };
    std::thread::scope(|scope| {
        let reader = |number| {
            let (loads, stop) = (&loads, &stop);
            scope.spawn(move || load(setting, number, loads, stop))
        };
        let readers: Vec<_> = (1..=mixed::READERS as u64).map(reader).collect();
        std::thread::sleep(WARM_UP);
        let begun = begin();
        std::thread::sleep(setting.measured);
        let (loads_s, usage) = end(begun);
        let alone = Alone { loads_s, cores: usage.machine_cores() };
        let begun = begin();
        let packed = pack::pack_now(&mut packer);
        let (loads_s, usage) = end(begun);
        stop.store(true, Relaxed);
        for reader in readers {
            reader.join().map_err(|_| "a reader panicked")??;
        }
        alone.report(loads_s, pack_seconds / usage.elapsed, outcome);
        packed
    })
}

/// Loads one after the other.
fn load(setting: &Setting<'_>, seed: u64, loads: &AtomicU64, stop: &AtomicBool) -> Result<()> {
    let mut client = Client::open(setting.target())?;
    let mut random = Random::new(seed);
    while !stop.load(Relaxed) {
        let oid = setting.oids.get(random.below(setting.oids.len())).ok_or("no objects")?;
        client.load_serial(oid)?.ok_or("an object has gone")?;
        loads.fetch_add(1, Relaxed);
    }
    Ok(())
}
