//! A hundred clients with full caches return at once after a restart: all get what they missed, within bounded memory.
//!
//! New clients ask for the changes since their last transaction, which is a moment or a day old; old ones verify each
//! object of their cache. `RUNZEO_VERIFY_OBJECTS` sets the size of the caches: 20 000 by hand, fewer in CI.

use std::collections::BTreeSet;
use std::env;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::client::{Incoming, RawClient, Speaks, record};
use crate::support::pickle::{Value, id};
use crate::support::process::Server;

const CLIENTS: usize = 100;
/// Memory besides the answers themselves: sessions, buffers, the index.
const MEMORY_MAX: u64 = 64 << 20;
/// Number of verifications between two checks for answers.
const BURST: usize = 500;

/// The changes that clients have missed.
#[derive(Clone, Copy)]
struct Missed<'a> {
    /// All objects; those that changed last are at the end.
    oids: &'a [u64],
    /// All of them were written up to here; then the second half again.
    old: u64,
    last: u64,
}

#[test]
fn a_hundred_clients_return_at_once() {
    let objects = env::var("RUNZEO_VERIFY_OBJECTS").ok().and_then(|n| n.parse().ok()).unwrap_or(2000);
    let mut server = Server::start_with("invalidation-queue-size 10\ninvalidation-age 86400");
    let (mut writer, _) = RawClient::register(server.address, Speaks::Z5).expect("connect");
    let before = writer.commit(&[(0, 0, &record(b"root"))]).expect("connection").expect("commit");
    let oids = writer.new_oids(objects).expect("oids");
    let data = record(&[b'x'; 200]);
    let mut commit = |oids: &[u64], serials: &mut Vec<u64>| {
        for (chunk, serials) in oids.chunks(100).zip(serials.chunks_mut(100)) {
            let stores: Vec<_> =
                chunk.iter().zip(serials.iter()).map(|(oid, s)| (*oid, *s, &data[..])).collect();
            let tid = writer.commit(&stores).expect("connection").expect("commit");
            serials.fill(tid);
        }
    };
    let mut serials = vec![0; objects];
    commit(&oids, &mut serials);
    let old_serials = serials.clone();
    let mut newer = serials.split_off(objects / 2);
    let old = *serials.last().expect("objects");
    let after_all = *newer.last().expect("objects");
    commit(&oids[objects / 2..], &mut newer);
    let last = *newer.last().expect("objects");
    assert!(before < old && old < after_all && after_all < last);
    drop(writer);

    server.restart();
    // The file is in the system's cache, as after the restart of a server; the server's own memory is empty.
    let (mut watcher, _) = RawClient::register(server.address, Speaks::Z5).expect("connect");
    watcher.call("lastTransaction", vec![]).expect("connection").expect("lastTransaction");
    server.reset_peak();
    let rss = server.rss();
    let missed = Missed { oids: &oids, old: after_all, last };
    let started = Instant::now();
    let times: Vec<(&str, Duration)> = thread::scope(|scope| {
        let (address, serials) = (server.address, &old_serials);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                scope.spawn(move || {
                    let name = match number % 3 {
                        0 => return_of_a_moment(address, missed),
                        1 => return_of_long_ago(address, missed, before),
                        _ => verify_each(address, missed, serials),
                    };
                    (name, started.elapsed())
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().expect("a client failed")).collect()
    });
    let peak = server.peak_rss().saturating_sub(rss);
    for kind in ["a moment", "long ago", "each object"] {
        let slowest = times.iter().filter(|(name, _)| *name == kind).map(|(_, time)| *time).max();
        println!("{kind}: the last after {:.2} s", slowest.expect("one").as_secs_f64());
    }
    println!("{objects} objects, {CLIENTS} clients: {} MB more memory", peak >> 20);
    // A third of them get all oids; each may have its answer in memory, twice while it is composed.
    let answers = (CLIENTS / 3 * objects * 48) as u64;
    assert!(peak < MEMORY_MAX + answers, "{} MB more memory", peak >> 20);
    assert!(server.stop().success());
}

fn get_invalidations(client: &mut RawClient, since: u64) -> Option<(u64, BTreeSet<u64>)> {
    let answer =
        client.call("getInvalidations", vec![id(since)]).expect("connection").expect("getInvalidations");
    let parts = (!answer.is_none()).then(|| answer.tuple())?;
    Some((parts[0].id(), parts[1].tuple().iter().map(Value::id).collect()))
}

fn return_of_a_moment(address: SocketAddr, missed: Missed<'_>) -> &'static str {
    let (mut client, tid) = RawClient::register(address, Speaks::Z5).expect("register");
    assert_eq!(tid, Some(missed.last));
    assert_eq!(get_invalidations(&mut client, missed.last), Some((missed.last, BTreeSet::new())));
    "a moment"
}

/// The last transaction differs between these clients.
fn return_of_long_ago(address: SocketAddr, missed: Missed<'_>, before: u64) -> &'static str {
    let (mut client, _) = RawClient::register(address, Speaks::M5).expect("register");
    let all: BTreeSet<u64> = missed.oids.iter().copied().collect();
    assert_eq!(get_invalidations(&mut client, before), Some((missed.last, all)));
    let newer = missed.oids[missed.oids.len() / 2..].iter().copied().collect();
    assert_eq!(get_invalidations(&mut client, missed.old), Some((missed.last, newer)));
    "long ago"
}

fn verify_each(address: SocketAddr, missed: Missed<'_>, serials: &[u64]) -> &'static str {
    let (mut client, _) = RawClient::register(address, Speaks::Z4).expect("register");
    let mut outdated = BTreeSet::new();
    let mut receive_until = |client: &mut RawClient, wanted: Option<i64>| {
        loop {
            match client.next().expect("the connection") {
                Incoming::Push { method, args } if method == "invalidateVerify" => {
                    assert!(outdated.insert(args[0].id()), "told twice");
                }
                Incoming::Push { method, .. } if method == "endVerify" => return outdated.len(),
                Incoming::Reply { id, .. } if Some(id) == wanted => return outdated.len(),
                other => panic!("{other:?}"),
            }
        }
    };
    for (oids, serials) in missed.oids.chunks(BURST).zip(serials.chunks(BURST)) {
        for (oid, serial) in oids.iter().zip(serials) {
            client.queue_async("zeoVerify", vec![id(*oid), id(*serial)]);
        }
        let ping = client.queue_call("lastTransaction", vec![]);
        client.flush().expect("send");
        receive_until(&mut client, Some(ping));
    }
    client.queue_async("endZeoVerify", vec![]);
    client.flush().expect("send");
    assert_eq!(receive_until(&mut client, None), missed.oids.len() / 2);
    "each object"
}
