//! A pack with garbage collection: its speed, how long it delays a commit, and its resources.

use super::Setting;
use super::commit::Writer;
use crate::client::{Client, Result};
use crate::latencies::Latencies;
use crate::meter::{Meter, process_kb};
use crate::outcome::Outcome;
use crate::random::Random;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub const TIMEOUT: Duration = Duration::from_secs(900);
/// Pause between two commits of the other client: it should detect the delay, not fill the file.
const COMMIT_PAUSE: Duration = Duration::from_millis(2);

pub fn pack(setting: &Setting<'_>, beside: bool, outcome: &mut Outcome) -> Result<()> {
    let mut client = Client::open(setting.target())?;
    client.set_timeout(TIMEOUT)?;
    let memory_mb = |key| process_kb(setting.server.pid, key) / 1024.0;
    let (len_before, memory_before) = (file_len(setting)?, memory_mb("VmRSS"));
    let stop = AtomicBool::new(false);
    let started = Instant::now();
    let meter = Meter::start(setting.server.pid);
    let packed = std::thread::scope(|scope| {
        let others = beside.then(|| {
            let reader = scope.spawn(|| read(setting, &stop));
            let writer = scope.spawn(|| commit(setting, &stop));
            (reader, writer)
        });
        let packed = pack_now(&mut client);
        let seconds = started.elapsed().as_secs_f64();
        stop.store(true, Relaxed);
        if let Some((reader, writer)) = others {
            reader.join().map_err(|_| "the reader panicked")??.report(outcome, "load_");
            outcome.set("longest_ms", writer.join().map_err(|_| "the writer panicked")??.as_secs_f64() * 1e3);
        }
        packed.map(|()| seconds)
    })?;
    meter.read().report(outcome, 0);
    outcome.set("mb_s", len_before as f64 / 1e6 / packed);
    outcome.set("more_mb", memory_mb("VmHWM") - memory_before);
    outcome.set("kept", file_len(setting)? as f64 / len_before as f64);
    if let Some(held) = held(setting) {
        outcome.set("held_ms", held.as_secs_f64() * 1e3);
    }
    Ok(())
}

/// How long the pack blocked all commits, if the server logs it.
fn held(setting: &Setting<'_>) -> Option<Duration> {
    let log = std::fs::read_to_string(setting.dir.join("log")).ok()?;
    let (_, rest) = log.rsplit_once("commits were held for ")?;
    let text = rest.lines().next()?;
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(unit_at);
    let unit = match unit {
        "s" => 1.0,
        "ms" => 1e-3,
        "µs" => 1e-6,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * unit).ok()
}

/// Packs with garbage collection, up to now.
pub fn pack_now(client: &mut Client) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|e| e.to_string())?;
    let id = client.begin("pack", 2);
    client.out.float(now.as_secs_f64());
    client.out.boolean(true);
    client.out.end();
    client.flush()?;
    client.wait_ok(id, "pack").map(drop)
}

fn file_len(setting: &Setting<'_>) -> Result<u64> {
    let path: PathBuf = setting.dir.join("Data.fs");
    std::fs::metadata(&path).map(|data| data.len()).map_err(|e| format!("{}: {e}", path.display()))
}

/// Loads one after the other.
fn read(setting: &Setting<'_>, stop: &AtomicBool) -> Result<Latencies> {
    let mut client = Client::open(setting.target())?;
    let (mut random, mut latencies) = (Random::new(3), Latencies::default());
    while !stop.load(Relaxed) {
        let oid = setting.oids.get(random.below(setting.oids.len())).ok_or("no objects")?;
        let started = Instant::now();
        client.load_serial(oid)?.ok_or("an object has gone")?;
        latencies.add(started.elapsed());
    }
    Ok(latencies)
}

/// Commits one after the other; returns the longest duration.
fn commit(setting: &Setting<'_>, stop: &AtomicBool) -> Result<Duration> {
    let client = Client::open(setting.target())?;
    client.set_timeout(TIMEOUT)?;
    let mut writer = Writer::new(client, 1, 100, 1)?;
    let mut longest = Duration::ZERO;
    while !stop.load(Relaxed) {
        let started = Instant::now();
        writer.commit()?;
        longest = longest.max(started.elapsed());
        std::thread::sleep(COMMIT_PAUSE);
    }
    Ok(longest)
}
