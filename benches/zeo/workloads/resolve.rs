//! Stores from a stale state, which the server merges with the committed state.
//!
//! One commit changes every object, and a second one, which started from the state before, makes another change to
//! each. Only the second, which the server has to merge, is measured, up to the reply to its vote: the sync is as in
//! any other commit.

use super::Setting;
use crate::client::{Client, Result, transaction_id};
use crate::latencies::Latencies;
use crate::meter::Meter;
use crate::outcome::Outcome;
use crate::plan::Mergeable;
use crate::records;
use crate::wire::Id8;
use std::time::{Duration, Instant};

const OBJECTS: usize = 1000;
/// Number of entries in a tree: few enough for one bucket.
const ENTRIES: usize = 30;

pub fn resolve(setting: &Setting<'_>, mergeable: Mergeable, outcome: &mut Outcome) -> Result<()> {
    let mut merger = Merger::new(Client::open(setting.target())?, mergeable)?;
    merger.turn()?;
    let (mut spent, mut turns, mut latencies) = (Duration::ZERO, 0u64, Latencies::default());
    let meter = Meter::start(setting.server.pid);
    let started = Instant::now();
    while started.elapsed() < setting.measured {
        let latency = merger.turn()?;
        latencies.add(latency);
        spent += latency;
        turns += 1;
    }
    meter.read().report(outcome, turns * OBJECTS as u64);
    outcome.set("resolutions_s", turns as f64 * OBJECTS as f64 / spent.as_secs_f64());
    latencies.report(outcome, "");
    Ok(())
}

struct Merger {
    client: Client,
    mergeable: Mergeable,
    oids: Vec<Id8>,
    serial: Id8,
    /// The committed state of every object.
    values: [i64; ENTRIES],
    sequence: u64,
}

impl Merger {
    fn new(mut client: Client, mergeable: Mergeable) -> Result<Merger> {
        let oids = client.new_oids(OBJECTS)?;
        let mut merger =
            Merger { client, mergeable, oids, serial: [0; 8], values: [0; ENTRIES], sequence: 9 << 40 };
        merger.serial = merger.commit(&merger.values.clone(), [0; 8])?;
        Ok(merger)
    }

    /// One conflicting commit, and the merged one; returns the time of the second.
    fn turn(&mut self) -> Result<Duration> {
        let (start, serial) = (self.values, self.serial);
        let (mut first, mut second) = (start, start);
        // A number is merged as a sum; in a tree, each commit changes another entry.
        first[0] += 1;
        second[if self.mergeable == Mergeable::BTree { 1 } else { 0 }] += 1;
        self.commit(&first, serial)?;
        let started = Instant::now();
        let transaction = self.vote(&second, serial)?;
        let latency = started.elapsed();
        self.serial = self.client.finish(transaction)?;
        self.values = first;
        self.values[if self.mergeable == Mergeable::BTree { 1 } else { 0 }] += 1;
        Ok(latency)
    }

    fn commit(&mut self, values: &[i64; ENTRIES], serial: Id8) -> Result<Id8> {
        let transaction = self.vote(values, serial)?;
        self.client.finish(transaction)
    }

    fn vote(&mut self, values: &[i64; ENTRIES], serial: Id8) -> Result<i64> {
        self.sequence += 1;
        let transaction = transaction_id(self.sequence);
        let is_python2 = self.client.dialect.is_python2();
        let record = match self.mergeable {
            Mergeable::Length => records::length(is_python2, values[0]),
            Mergeable::BTree => records::tree(is_python2, values),
            Mergeable::Application => records::counter(is_python2, values[0]),
        };
        self.client.queue_begin(transaction);
        for oid in &self.oids {
            self.client.queue_store(oid, &serial, &record, transaction);
            self.client.flush_if_large()?;
        }
        if !self.client.vote(transaction)? {
            return Err(format!("a conflict was not resolved: {}", self.client.conflict));
        }
        Ok(transaction)
    }
}
