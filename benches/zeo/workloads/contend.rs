//! Commits to a few objects: clients conflict, reload and try again.

use super::Setting;
use super::workers::{self, Clock, Phase, Tally};
use crate::client::{Client, Result, transaction_id};
use crate::outcome::Outcome;
use crate::random::Random;
use crate::records;
use crate::wire::Id8;
use std::time::Instant;

const CLIENTS: usize = 8;
const HOT_OBJECTS: usize = 10;
const OBJECTS_PER_COMMIT: usize = 2;

/// With `mergeable` objects the server merges the conflicts.
pub fn contend(setting: &Setting<'_>, mergeable: bool, outcome: &mut Outcome) -> Result<()> {
    let record = |client: &Client, number: u64| {
        let is_python2 = client.dialect.is_python2();
        if mergeable {
            records::length(is_python2, number as i64)
        } else {
            records::mapping(is_python2, setting.object_len, number)
        }
    };
    let hot = hot_objects(Client::open(setting.target())?, record)?;
    let prepare = |client: Client, _, number| {
        let record = record(&client, number);
        Ok(Contender { client, hot: &hot, record, random: Random::new(number), sequence: number << 24 })
    };
    let (mut tallies, usage) = workers::run(setting, &[CLIENTS], prepare, Contender::run)?;
    let tally = tallies.remove(0);
    outcome.set("commits_s", tally.operations as f64 / usage.elapsed);
    outcome.set("fair", tally.fairness());
    outcome.set("longest_ms", tally.longest.as_secs_f64() * 1e3);
    outcome.set("conflicts", tally.conflicts as f64 / (tally.operations as f64).max(1.0));
    usage.report(outcome, tally.operations);
    let longest_us = tally.longest.as_secs_f64() * 1e6;
    tally.latencies.report(outcome, "");
    if let Some(median_us) = outcome.figures.get("p50_us") {
        outcome.set("longest_medians", longest_us / median_us);
    }
    Ok(())
}

fn hot_objects(mut client: Client, record: impl Fn(&Client, u64) -> Vec<u8>) -> Result<Vec<Id8>> {
    let hot = client.new_oids(HOT_OBJECTS)?;
    let (record, transaction) = (record(&client, 0), transaction_id(99 << 24));
    client.queue_begin(transaction);
    for oid in &hot {
        client.queue_store(oid, &[0; 8], &record, transaction);
    }
    if !client.vote(transaction)? {
        return Err("a conflict on new objects".into());
    }
    client.finish(transaction)?;
    Ok(hot)
}

struct Contender<'a> {
    client: Client,
    hot: &'a [Id8],
    record: Vec<u8>,
    random: Random,
    sequence: u64,
}

impl Contender<'_> {
    fn run(mut self, clock: &Clock) -> Result<Tally> {
        let mut tally = Tally::default();
        loop {
            let (phase, started) = (clock.phase(), Instant::now());
            if phase == Phase::Stop {
                return Ok(tally);
            }
            let chosen = self.choose();
            while !self.try_commit(&chosen)? {
                match clock.phase() {
                    Phase::WarmUp => {}
                    Phase::Measure => tally.conflicts += 1,
                    Phase::Stop => return Ok(tally),
                }
            }
            tally.add(started, phase, clock);
        }
    }

    fn choose(&mut self) -> [Id8; OBJECTS_PER_COMMIT] {
        let first = self.random.below(self.hot.len());
        let second = (first + 1 + self.random.below(self.hot.len() - 1)) % self.hot.len();
        [self.hot[first], self.hot[second]]
    }

    /// Reloads the serials and commits. `false`: conflict.
    fn try_commit(&mut self, chosen: &[Id8]) -> Result<bool> {
        let mut serials = vec![];
        for oid in chosen {
            serials.push(self.client.load_serial(oid)?.ok_or("a hot object has gone")?);
        }
        self.sequence += 1;
        let transaction = transaction_id(self.sequence);
        self.client.queue_begin(transaction);
        for (oid, serial) in chosen.iter().zip(&serials) {
            self.client.queue_store(oid, serial, &self.record, transaction);
        }
        if !self.client.vote(transaction)? {
            self.client.abort(transaction)?;
            return Ok(false);
        }
        let tid = self.client.finish(transaction)?;
        if serials.iter().any(|serial| *serial >= tid) {
            return Err("a commit is not later than what it replaced".into());
        }
        Ok(true)
    }
}
