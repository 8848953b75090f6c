//! Commits to few objects: clients conflict, reload and try again.

use super::Setting;
use super::commit::Writer;
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

pub fn contend(setting: &Setting<'_>, outcome: &mut Outcome) -> Result<()> {
    let mut writer = Writer::new(Client::open(setting.target())?, HOT_OBJECTS, setting.object_len, 99)?;
    writer.commit()?;
    let hot: Vec<Id8> = writer.objects.iter().map(|object| object.oid).collect();
    let prepare = |client: Client, _, number| {
        let record = records::mapping(client.dialect.is_python2(), setting.object_len, number);
        Ok(Contender { client, hot: &hot, record, random: Random::new(number), sequence: number << 24 })
    };
    let (mut tallies, usage) = workers::run(setting, &[CLIENTS], prepare, Contender::run)?;
    let tally = tallies.remove(0);
    outcome.set("commits_s", tally.operations as f64 / usage.elapsed);
    outcome.set("fair", tally.fairness());
    outcome.set("longest_ms", tally.longest.as_secs_f64() * 1e3);
    outcome.set("conflicts", tally.conflicts as f64 / (tally.operations as f64).max(1.0));
    usage.report(outcome, tally.operations);
    tally.latencies.report(outcome, "");
    Ok(())
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

    /// Reload the serials and commit; false: conflict.
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
