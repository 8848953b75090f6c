//! This program's client: loads and commits.

use crate::client::Result;
use crate::outcome::Outcome;
use crate::random::Random;
use crate::records;
use crate::wire::Id8;
use crate::workloads::Setting;
use crate::workloads::workers::{self, Clock, Phase, Tally};
use runzeo::client::{Client, ClientOptions, View};
use runzeo::ids::{Oid, Tid};
use runzeo::storage::TransactionMeta;
use runzeo::storage::prelude::*;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

/// Cached loads between two looks at the clock.
const LOADS_AT_ONCE: usize = 64;
/// Loads that are sent together.
const MANY: usize = 8;
const COMMIT_OBJECTS: usize = 10;

/// A connected client. Without `cache_path` its cache is temporary.
pub fn connect(address: &str, cache_path: Option<&Path>, cache_len: u64) -> Result<Client> {
    Client::open(options(address, cache_path, cache_len)?).map_err(|e| format!("{address}: {e}"))
}

fn options(address: &str, cache_path: Option<&Path>, cache_len: u64) -> Result<ClientOptions> {
    let section = format!("<zeoclient>\n server {address}\n min-disconnect-poll 1\n</zeoclient>");
    let mut options = ClientOptions::from_zconfig(&section).map_err(|e| e.to_string())?;
    options.cache_size = cache_len;
    options.cache_path = cache_path.map(Path::to_path_buf);
    Ok(options)
}

pub fn oid(id: &Id8) -> Oid {
    Oid(u64::from_be_bytes(*id))
}

/// Loads all objects, so that they are cached.
pub fn load_all(client: &Client, oids: &[Id8]) -> Result<()> {
    let view = client.view();
    for part in oids.chunks(500) {
        let part: Vec<Oid> = part.iter().map(oid).collect();
        for loaded in view.load_many(&part) {
            loaded.map_err(|e| e.to_string())?.ok_or("an object has gone")?;
        }
    }
    Ok(())
}

/// Loads of cached objects. `from_file`: none of them is in memory.
pub fn warm(
    setting: &Setting<'_>,
    threads: usize,
    from_file: bool,
    cache_len: u64,
    outcome: &mut Outcome,
) -> Result<()> {
    let address = &setting.target().address;
    let mut options = options(address, None, cache_len)?;
    if from_file {
        options.memory_size = 0;
    }
    let client = Client::open(options).map_err(|e| format!("{address}: {e}"))?;
    load_all(&client, setting.oids)?;
    let before = client.cache_stats();
    let prepare = |_, number| Ok((client.view(), Random::new(number)));
    let work = |(view, mut random): (View, Random), clock: &Clock| {
        let mut tally = Tally::default();
        loop {
            let phase = clock.phase();
            if phase == Phase::Stop {
                return Ok(tally);
            }
            for _ in 0..LOADS_AT_ONCE {
                load(&view, oid(&setting.oids[random.below(setting.oids.len())]))?;
            }
            tally.add_many(LOADS_AT_ONCE as u64, phase, clock);
        }
    };
    let (tallies, usage) = workers::run_threads(setting, &[threads], prepare, work)?;
    outcome.set("loads_s", tallies[0].operations as f64 / usage.elapsed);
    usage.report(outcome, tallies[0].operations);
    let after = client.cache_stats();
    if after.misses() > before.misses() {
        return Err(format!("{} loads were no hits", after.misses() - before.misses()));
    }
    Ok(())
}

fn load(view: &View, oid: Oid) -> Result<()> {
    let revision = view.load(oid).map_err(|e| e.to_string())?.ok_or("an object has gone")?;
    if revision.data.is_empty() { Err("no data".into()) } else { Ok(()) }
}

/// Each object in turn: the cache, which is smaller, never has it. `many`: several at a time.
pub fn cold(
    setting: &Setting<'_>,
    threads: usize,
    many: bool,
    cache_len: u64,
    outcome: &mut Outcome,
) -> Result<()> {
    let client = connect(&setting.target().address, None, cache_len)?;
    let mut oids: Vec<Oid> = setting.oids.iter().map(oid).collect();
    let mut random = Random::new(1);
    for i in (1..oids.len()).rev() {
        oids.swap(i, random.below(i + 1));
    }
    let next = AtomicUsize::new(0);
    let at_once = if many { MANY } else { 1 };
    let work = |view: View, clock: &Clock| {
        let mut tally = Tally::default();
        let mut some = Vec::with_capacity(at_once);
        loop {
            let (phase, started) = (clock.phase(), Instant::now());
            if phase == Phase::Stop {
                return Ok(tally);
            }
            if many {
                let first = next.fetch_add(at_once, Relaxed);
                some.clear();
                some.extend((first..first + at_once).map(|at| oids[at % oids.len()]));
                for loaded in view.load_many(&some) {
                    loaded.map_err(|e| e.to_string())?.ok_or("an object has gone")?;
                }
                tally.add_many(at_once as u64, phase, clock);
            } else {
                load(&view, oids[next.fetch_add(1, Relaxed) % oids.len()])?;
                tally.add(started, phase, clock);
            }
        }
    };
    let (mut tallies, usage) = workers::run_threads(setting, &[threads], |_, _| Ok(client.view()), work)?;
    let tally = tallies.remove(0);
    outcome.set("loads_s", tally.operations as f64 / usage.elapsed);
    usage.report(outcome, tally.operations);
    tally.latencies.report(outcome, "");
    let stats = client.cache_stats();
    outcome.set("hits", stats.hit_rate().unwrap_or(0.0));
    Ok(())
}

pub fn commits(setting: &Setting<'_>, threads: usize, cache_len: u64, outcome: &mut Outcome) -> Result<()> {
    let client = connect(&setting.target().address, None, cache_len)?;
    let prepare = |_, number: u64| {
        let oids = client.new_oids(COMMIT_OBJECTS).map_err(|e| e.to_string())?;
        let record = |i| records::mapping(false, setting.object_len, number * 1000 + i);
        Ok((oids.into_iter().zip((0..).map(record)).collect::<Vec<_>>(), number << 24))
    };
    let work = |(mut objects, mut sequence): (Vec<(Oid, Vec<u8>)>, u64), clock: &Clock| {
        let mut tally = Tally::default();
        let mut serial = Tid::ZERO;
        loop {
            let (phase, started) = (clock.phase(), Instant::now());
            if phase == Phase::Stop {
                return Ok(tally);
            }
            sequence += 1;
            let mut transaction = client.transaction(TransactionMeta::default());
            for (oid, record) in &mut objects {
                records::retag(record, sequence);
                transaction.store(*oid, serial, record).map_err(|e| e.to_string())?;
            }
            serial = client.commit(transaction).map_err(|e| e.to_string())?.tid;
            tally.add(started, phase, clock);
        }
    };
    let (mut tallies, usage) = workers::run_threads(setting, &[threads], prepare, work)?;
    let tally = tallies.remove(0);
    outcome.set("commits_s", tally.operations as f64 / usage.elapsed);
    usage.report(outcome, tally.operations);
    tally.latencies.report(outcome, "");
    Ok(())
}
