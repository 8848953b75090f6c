//! Loads. The clients have no cache: every load reaches the server.

use super::Setting;
use super::workers::{self, Clock, Phase, Tally};
use crate::client::{Client, Result};
use crate::meter::Usage;
use crate::outcome::Outcome;
use crate::random::Random;
use crate::wire::{Id8, MessageId};
use std::time::Instant;

pub fn read(setting: &Setting<'_>, clients: usize, depth: usize, outcome: &mut Outcome) -> Result<()> {
    let (tally, usage) = run(setting, clients, depth)?;
    outcome.set("loads_s", tally.operations as f64 / usage.elapsed);
    usage.report(outcome, tally.operations);
    tally.latencies.report(outcome, "");
    Ok(())
}

pub fn run(setting: &Setting<'_>, clients: usize, depth: usize) -> Result<(Tally, Usage)> {
    let prepare = |client, _, seed| Ok(Reader::new(client, setting.oids, depth, seed));
    let (mut tallies, usage) = workers::run(setting, &[clients], prepare, Reader::run)?;
    Ok((tallies.remove(0), usage))
}

/// Loads every object once, so that a server that keeps records has them.
pub fn touch(setting: &Setting<'_>) -> Result<()> {
    let mut client = Client::open(setting.target())?;
    for oid in setting.oids {
        client.load_serial(oid)?.ok_or("an object has gone")?;
    }
    Ok(())
}

/// A client that keeps `depth` loads of random objects outstanding.
pub struct Reader<'a> {
    client: Client,
    oids: &'a [Id8],
    depth: usize,
    random: Random,
    outstanding: Vec<Load>,
}

struct Load {
    oid: Id8,
    /// 0 if the message id is the oid.
    message_id: u32,
    sent: Instant,
    phase: Phase,
}

impl<'a> Reader<'a> {
    pub fn new(client: Client, oids: &'a [Id8], depth: usize, seed: u64) -> Reader<'a> {
        Reader { client, oids, depth, random: Random::new(seed), outstanding: Vec::with_capacity(depth) }
    }

    pub fn run(mut self, clock: &Clock) -> Result<Tally> {
        let mut tally = Tally::default();
        while self.outstanding.len() < self.depth {
            self.ask(Phase::WarmUp);
        }
        while !self.outstanding.is_empty() {
            // Requests are collected while replies are available; so neither side waits for the other.
            if !self.client.is_ready() {
                self.client.flush()?;
            }
            let frame = self.client.receive()?;
            let message = self.client.message(frame.clone())?;
            if !message.is_reply() {
                self.client.handle_pushed(frame)?;
                continue;
            }
            let (data, serial) = message.loaded()?;
            if data.is_empty() || serial == [0; 8] {
                return Err("load: no data, or no serial".into());
            }
            let asked = self.outstanding.iter().position(|load| match message.id {
                MessageId::Load(oid) => load.message_id == 0 && load.oid == oid,
                MessageId::Int(id) => i64::from(load.message_id) == id,
            });
            let load = self.outstanding.swap_remove(asked.ok_or("a reply to a load that was not asked for")?);
            tally.add(load.sent, load.phase, clock);
            let phase = clock.phase();
            if phase != Phase::Stop {
                self.ask(phase);
            }
        }
        Ok(tally)
    }

    fn ask(&mut self, phase: Phase) {
        // No object twice at a time, as in real clients.
        let oid = loop {
            let oid = self.oids[self.random.below(self.oids.len())];
            if self.depth >= self.oids.len() || self.outstanding.iter().all(|load| load.oid != oid) {
                break oid;
            }
        };
        let message_id = self.client.queue_load(&oid);
        self.outstanding.push(Load { oid, message_id, sent: Instant::now(), phase });
    }
}
