//! Many connections: whether all are served, how soon, and the cost of each.

use super::Setting;
use crate::client::{Client, Result};
use crate::latencies::Latencies;
use crate::meter::{Meter, process_kb};
use crate::outcome::Outcome;
use socket2::{Domain, Socket, Type};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Time limit of a client. A connection request that the server drops costs a second, the next one two more.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Returns the clients that are served.
pub fn connect(
    setting: &Setting<'_>,
    count: usize,
    at_once: bool,
    outcome: &mut Outcome,
) -> Result<Vec<Client>> {
    let memory_kb = || process_kb(setting.server.pid, "VmRSS");
    let before_kb = memory_kb();
    let meter = Meter::start(setting.server.pid);
    let started = Instant::now();
    let (clients, latencies) =
        if at_once { all_at_once(setting, count)? } else { one_by_one(setting, count) };
    let elapsed = started.elapsed().as_secs_f64();
    let usage = meter.read();
    // Each client must still be served when all are connected.
    let mut clients = clients;
    clients.retain_mut(|client| client.set_timeout(TIMEOUT).and_then(|()| client.last_transaction()).is_ok());
    outcome.set("served", clients.len() as f64);
    outcome.set("all_s", elapsed);
    outcome.set("kb_each", (memory_kb() - before_kb) / clients.len().max(1) as f64);
    usage.report(outcome, clients.len() as u64);
    latencies.report(outcome, "");
    Ok(clients)
}

fn one_by_one(setting: &Setting<'_>, count: usize) -> (Vec<Client>, Latencies) {
    let (mut clients, mut latencies) = (vec![], Latencies::default());
    while clients.len() < count {
        let started = Instant::now();
        let mut target = setting.target().clone();
        target.timeout = TIMEOUT;
        match Client::open(&target) {
            Ok(client) => clients.push(client),
            // Further ones would fail too, each after the whole time limit.
            Err(_) => break,
        }
        latencies.add(started.elapsed());
    }
    (clients, latencies)
}

/// Sends every connection request before reading any answer.
fn all_at_once(setting: &Setting<'_>, count: usize) -> Result<(Vec<Client>, Latencies)> {
    let target = setting.target();
    let address: SocketAddr = target.address.parse().map_err(|e| format!("{}: {e}", target.address))?;
    let started = Instant::now();
    let mut sockets = vec![];
    for _ in 0..count {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).map_err(|e| format!("socket: {e}"))?;
        socket.set_nonblocking(true).map_err(|e| format!("socket: {e}"))?;
        match socket.connect(&address.into()) {
            Err(e) if e.raw_os_error() != Some(libc::EINPROGRESS) => return Err(format!("connect: {e}")),
            _ => sockets.push(socket),
        }
    }
    let left = || TIMEOUT.saturating_sub(started.elapsed());
    let mut greeted = vec![];
    for socket in sockets {
        // A pending connect ends during the wait for the greeting.
        socket.set_nonblocking(false).map_err(|e| format!("socket: {e}"))?;
        let mut client = Client::from_stream(socket.into(), left())?;
        if client.greet(target).is_ok() {
            greeted.push(client);
        }
    }
    let (mut clients, mut latencies) = (vec![], Latencies::default());
    for mut client in greeted {
        client.set_timeout(left())?;
        if client.wait_registered().is_ok() {
            latencies.add(started.elapsed());
            clients.push(client);
        }
    }
    Ok((clients, latencies))
}
