//! Commits of objects that no other client touches.

use super::Setting;
use super::workers::{self, Clock, Phase, Tally};
use crate::client::{Client, Result, transaction_id};
use crate::meter::Usage;
use crate::outcome::Outcome;
use crate::records;
use crate::wire::Id8;
use std::time::Instant;

/// Each commit stores `objects` objects.
pub fn commit(setting: &Setting<'_>, clients: usize, objects: usize, outcome: &mut Outcome) -> Result<()> {
    let (tally, usage) = run(setting, clients, objects)?;
    outcome.set("commits_s", tally.operations as f64 / usage.elapsed);
    outcome.set("fair", tally.fairness());
    outcome.set("longest_ms", tally.longest.as_secs_f64() * 1e3);
    usage.report(outcome, tally.operations);
    let longest_us = tally.longest.as_secs_f64() * 1e6;
    tally.latencies.report(outcome, "");
    if let Some(median_us) = outcome.figures.get("p50_us") {
        outcome.set("longest_medians", longest_us / median_us);
    }
    Ok(())
}

pub fn run(setting: &Setting<'_>, clients: usize, objects: usize) -> Result<(Tally, Usage)> {
    let prepare = |client, _, number| Writer::new(client, objects, setting.object_len, number);
    let (mut tallies, usage) = workers::run(setting, &[clients], prepare, Writer::run)?;
    Ok((tallies.remove(0), usage))
}

/// A client that commits the same objects over and over.
pub struct Writer {
    pub client: Client,
    pub objects: Vec<Object>,
    sequence: u64,
}

pub struct Object {
    pub oid: Id8,
    serial: Id8,
    record: Vec<u8>,
}

impl Writer {
    /// `number` distinguishes the transaction ids and the data of several writers.
    pub fn new(mut client: Client, objects: usize, object_len: usize, number: u64) -> Result<Writer> {
        let is_python2 = client.dialect.is_python2();
        let object = |(i, oid)| Object {
            oid,
            serial: [0; 8],
            record: records::mapping(is_python2, object_len, number * 1000 + i as u64),
        };
        let objects = client.new_oids(objects)?.into_iter().enumerate().map(object).collect();
        Ok(Writer { client, objects, sequence: number << 24 })
    }

    pub fn run(mut self, clock: &Clock) -> Result<Tally> {
        let mut tally = Tally::default();
        loop {
            let (phase, started) = (clock.phase(), Instant::now());
            if phase == Phase::Stop {
                return Ok(tally);
            }
            self.commit()?;
            tally.add(started, phase, clock);
        }
    }

    pub fn commit(&mut self) -> Result<()> {
        let transaction = self.vote()?;
        let tid = self.client.finish(transaction)?;
        self.committed(tid);
        Ok(())
    }

    /// Changes every object, stores it, and waits for the vote.
    pub fn vote(&mut self) -> Result<i64> {
        self.sequence += 1;
        let transaction = transaction_id(self.sequence);
        self.client.queue_begin(transaction);
        for object in &mut self.objects {
            records::retag(&mut object.record, self.sequence);
            self.client.queue_store(&object.oid, &object.serial, &object.record, transaction);
            self.client.flush_if_large()?;
        }
        if self.client.vote(transaction)? {
            Ok(transaction)
        } else {
            Err(format!("a conflict on private objects: {}", self.client.conflict))
        }
    }

    pub fn committed(&mut self, tid: Id8) {
        for object in &mut self.objects {
            object.serial = tid;
        }
    }
}
