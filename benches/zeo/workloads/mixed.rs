//! Readers and writers at the same time.

use super::commit::Writer;
use super::read::Reader;
use super::workers::{self, Tally};
use super::{COMMIT_OBJECTS, Setting};
use crate::client::Result;
use crate::meter::Usage;
use crate::outcome::Outcome;

pub const READERS: usize = 8;
pub const WRITERS: usize = 2;

enum Role<'a> {
    Read(Box<Reader<'a>>),
    Write(Box<Writer>),
}

pub fn mixed(setting: &Setting<'_>, outcome: &mut Outcome) -> Result<()> {
    let (reads, writes, usage) = run(setting)?;
    outcome.set("loads_s", reads.operations as f64 / usage.elapsed);
    outcome.set("commits_s", writes.operations as f64 / usage.elapsed);
    outcome.set("longest_ms", writes.longest.as_secs_f64() * 1e3);
    usage.report(outcome, 0);
    reads.latencies.report(outcome, "");
    writes.latencies.report(outcome, "commit_");
    Ok(())
}

/// Returns the tallies of readers and writers, and the CPU usage.
pub fn run(setting: &Setting<'_>) -> Result<(Tally, Tally, Usage)> {
    let prepare = |client, group, number| {
        Ok(if group == 0 {
            Role::Read(Box::new(Reader::new(client, setting.oids, 1, number)))
        } else {
            Role::Write(Box::new(Writer::new(client, COMMIT_OBJECTS, setting.object_len, number)?))
        })
    };
    let work = |role: Role<'_>, clock: &workers::Clock| match role {
        Role::Read(reader) => reader.run(clock),
        Role::Write(writer) => writer.run(clock),
    };
    let (mut tallies, usage) = workers::run(setting, &[READERS, WRITERS], prepare, work)?;
    let (writes, reads) = (tallies.remove(1), tallies.remove(0));
    Ok((reads, writes, usage))
}
