//! The call for an undo page.

use super::Setting;
use super::workers::{self, Clock, Phase, Tally};
use crate::client::{Client, Result};
use crate::outcome::Outcome;
use std::time::Instant;

const ENTRIES: usize = 20;

pub fn undolog(setting: &Setting<'_>, outcome: &mut Outcome) -> Result<()> {
    let (mut tallies, usage) = workers::run(setting, &[1], |client, _, _| Ok(client), ask)?;
    let tally = tallies.remove(0);
    outcome.set("calls_s", tally.operations as f64 / usage.elapsed);
    usage.report(outcome, tally.operations);
    tally.latencies.report(outcome, "");
    Ok(())
}

fn ask(mut client: Client, clock: &Clock) -> Result<Tally> {
    let mut tally = Tally::default();
    loop {
        let (phase, started) = (clock.phase(), Instant::now());
        if phase == Phase::Stop {
            return Ok(tally);
        }
        let id = client.begin("undoLog", 2);
        client.out.int(0);
        client.out.int(ENTRIES as i64);
        client.out.end();
        client.flush()?;
        let found = client.wait_ok(id, "undoLog")?.items().len();
        if found != ENTRIES {
            return Err(format!("undoLog returned {found} transactions"));
        }
        tally.add(started, phase, clock);
    }
}
