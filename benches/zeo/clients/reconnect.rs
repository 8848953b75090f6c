//! From the moment a connection is made again until it is usable: verification of a large cache.

use super::library::{self, connect};
use super::proxy::{self, Proxy};
use super::python::{self, Task};
use super::{Kind, Missed};
use crate::client::{Client, Result, transaction_id};
use crate::outcome::Outcome;
use crate::records;
use crate::wire::Id8;
use crate::workloads::Setting;
use runzeo::storage::prelude::*;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_micros(500);

/// `cache`: the directory of the client's cache file, `client-1.zec`, which has all of `setting.oids`.
pub fn reconnect(
    setting: &Setting<'_>,
    kind: &Kind,
    missed: Missed,
    cache: &Path,
    cache_len: u64,
    outcome: &mut Outcome,
) -> Result<()> {
    let mut proxy = Proxy::open(&setting.target().address)?;
    let mut client: Box<dyn Watched> = match kind {
        Kind::Raw => return Err("it has no cache".into()),
        Kind::Ours => Box::new(connect(&proxy.address, Some(&cache.join("client-1.zec")), cache_len)?),
        Kind::Python(python) => Box::new(PythonClient::start(python, &proxy.address, cache, cache_len)?),
    };
    let (_, cached) = client.wait_connected()?;
    proxy.close();
    client.wait_lost()?;
    change(setting, missed)?;
    proxy.reopen()?;
    let (connected, kept) = client.wait_connected()?;
    let accepted = proxy.accepted_before(connected).ok_or("connected without a connection")?;
    outcome.set("verified_ms", (connected - accepted) * 1e3);
    outcome.set("kept", kept as f64 / (cached.max(1)) as f64);
    Ok(())
}

/// Commits what the client misses.
fn change(setting: &Setting<'_>, missed: Missed) -> Result<()> {
    // A server remembers 100 transactions.
    let (transactions, objects) = match missed {
        Missed::Nothing => return Ok(()),
        Missed::Few => (50, 20),
        Missed::Many | Missed::ManyAtOldServer => (150, 7),
    };
    let mut client = Client::open(setting.target())?;
    let is_python2 = client.dialect.is_python2();
    let mut oids: Vec<Id8> = setting.oids.iter().copied().take(transactions * objects).collect();
    for (number, part) in oids.chunks_mut(objects).enumerate() {
        let transaction = transaction_id(number as u64 + 1);
        let serials: Vec<Option<Id8>> =
            part.iter().map(|oid| client.load_serial(oid)).collect::<Result<_>>()?;
        client.queue_begin(transaction);
        for (oid, serial) in part.iter().zip(serials) {
            let record = records::mapping(is_python2, setting.object_len, number as u64 + 99);
            client.queue_store(oid, &serial.ok_or("an object has gone")?, &record, transaction);
        }
        if !client.vote(transaction)? {
            return Err("a conflict with nobody".into());
        }
        client.finish(transaction)?;
    }
    Ok(())
}

/// A client whose connection is watched.
trait Watched {
    /// When it was connected, in seconds since 1970, and how many revisions its cache had.
    fn wait_connected(&mut self) -> Result<(f64, u64)>;
    fn wait_lost(&mut self) -> Result<()>;
}

impl Watched for runzeo::client::Client {
    fn wait_connected(&mut self) -> Result<(f64, u64)> {
        wait_until(|| self.name().ends_with("(connected)"))?;
        Ok((proxy::now(), self.cache_stats().revisions))
    }

    fn wait_lost(&mut self) -> Result<()> {
        wait_until(|| !self.name().ends_with("(connected)"))
    }
}

fn wait_until(is: impl Fn() -> bool) -> Result<()> {
    let begun = Instant::now();
    while !is() {
        if begun.elapsed() > TIMEOUT {
            return Err("nothing happens".into());
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

struct PythonClient {
    child: Child,
    lines: Receiver<String>,
}

impl PythonClient {
    fn start(python: &Path, address: &str, cache: &Path, cache_len: u64) -> Result<PythonClient> {
        let task = Task {
            workload: "reconnect",
            address,
            path: cache,
            threads: 1,
            measured: Duration::ZERO,
            cache_len,
            object_len: 0,
        };
        let mut command = python::command(python, &task);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|e| format!("{}: {e}", python.display()))?;
        let out = child.stdout.take().ok_or("no output")?;
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(std::io::Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(PythonClient { child, lines })
    }

    fn line(&self) -> Result<String> {
        self.lines.recv_timeout(TIMEOUT).map_err(|_| "Python's client says nothing".into())
    }
}

impl Watched for PythonClient {
    fn wait_connected(&mut self) -> Result<(f64, u64)> {
        loop {
            let line = self.line()?;
            let mut words = line.split(' ');
            if words.next() == Some("connected")
                && let (Some(Ok(at)), Some(Ok(count))) =
                    (words.next().map(str::parse), words.next().map(str::parse))
            {
                return Ok((at, count));
            }
        }
    }

    fn wait_lost(&mut self) -> Result<()> {
        while self.line()? != "lost" {}
        Ok(())
    }
}

impl Drop for PythonClient {
    fn drop(&mut self) {
        // Both fail if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes the file of a cache that has all objects, with this program's client.
pub fn fill_cache(address: &str, oids: &[Id8], path: &Path, cache_len: u64) -> Result<()> {
    let client = connect(address, Some(path), cache_len)?;
    library::load_all(&client, oids)?;
    client.close().map_err(|e| e.to_string())
}
