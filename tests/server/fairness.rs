//! No client starves: old clients, which lock the whole storage, beside new ones with a common object, beside new ones
//! with an object each.
//!
//! All continue until the slowest has made its commits, so a starving client hangs the test. The server's log shows the
//! order of requests and grants: while a client waits, each conflicting other client is granted its locks at most once.
//! Times do not matter.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::support::client::{RawClient, Speaks, record};
use crate::support::process::Server;

/// What a client commits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Wants {
    /// Before Z5: no other client may be between vote and finish.
    WholeStorage,
    Hot,
    Own,
}

const CLIENTS: [Wants; 8] = [
    Wants::WholeStorage,
    Wants::Hot,
    Wants::Own,
    Wants::Hot,
    Wants::WholeStorage,
    Wants::Own,
    Wants::Hot,
    Wants::Own,
];
const COMMITS: usize = 15;

fn conflict(a: Wants, b: Wants) -> bool {
    a == Wants::WholeStorage || b == Wants::WholeStorage || a == Wants::Hot && b == Wants::Hot
}

#[test]
fn nobody_starves() {
    let storage = "<filestorage 1>\npath Data.fs\n</filestorage>";
    let mut server = Server::start_logging("debug", "", storage, |_| ());
    let mut clients: Vec<RawClient> = CLIENTS
        .iter()
        .map(|wants| {
            let speaks = if *wants == Wants::WholeStorage { Speaks::Z4 } else { Speaks::Z5 };
            RawClient::register(server.address, speaks).expect("register").0
        })
        .collect();
    let names: HashMap<SocketAddr, usize> =
        clients.iter().enumerate().map(|(n, c)| (c.stream().local_addr().expect("an address"), n)).collect();
    // Whole-storage clients and own ones each have an object; the hot ones share one.
    let oid_of = |number: usize| if CLIENTS[number] == Wants::Hot { 100 } else { number as u64 + 1 };
    let done: Vec<AtomicUsize> = CLIENTS.iter().map(|_| AtomicUsize::new(0)).collect();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for (number, client) in clients.iter_mut().enumerate() {
            let (done, over) = (&done, &over);
            scope.spawn(move || {
                let mut serial = 0;
                while !over.load(Ordering::Relaxed) {
                    match client.commit(&[(oid_of(number), serial, &record(b"x"))]) {
                        Ok(Ok(tid)) => {
                            serial = tid;
                            done[number].fetch_add(1, Ordering::Relaxed);
                        }
                        // Another client was faster: this counts as a turn.
                        Ok(Err(_)) => {
                            let load = client.queue_load(oid_of(number));
                            client.flush().expect("send");
                            let loaded = client.answer(load).expect("connection").expect("load");
                            serial = loaded.tuple()[1].id();
                            done[number].fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => panic!("client {number}: {error}"),
                    }
                    if done.iter().all(|done| done.load(Ordering::Relaxed) >= COMMITS) {
                        over.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert!(server.stop().success());
    let waits = check(&server.log(), &names);
    assert!(waits > COMMITS, "there was hardly any waiting: {waits}");
}

/// Checks the log; returns the number of waits in it.
fn check(log: &str, names: &HashMap<SocketAddr, usize>) -> usize {
    // The waiting clients, and how often each other client was granted its locks since.
    let mut waiting: BTreeMap<usize, [usize; CLIENTS.len()]> = BTreeMap::new();
    // Lines are written without a lock: the line of a request may follow the line of its grant, from another thread.
    let mut holding: HashSet<usize> = HashSet::new();
    let mut waits = 0;
    for line in log.lines() {
        let Some((label, what)) = line.split_once(" ('1') ") else { continue };
        let label = label.rsplit_once('(').map_or("", |(_, label)| label.trim_end_matches(')'));
        let address = label.parse().unwrap_or_else(|_| panic!("{label:?} is no address: {line}"));
        let Some(&number) = names.get(&address) else { continue };
        match what.split(':').next() {
            Some("queue lock") if holding.contains(&number) => {}
            Some("queue lock") => {
                waiting.insert(number, [0; CLIENTS.len()]);
            }
            Some("unlock" | "dequeue lock") => {
                holding.remove(&number);
            }
            Some("lock") => {
                holding.insert(number);
                waits += usize::from(waiting.remove(&number).is_some());
                for (waiter, passed) in &mut waiting {
                    passed[number] += 1;
                    // An earlier request may be granted, perhaps late in the log, but only once.
                    let limit = if conflict(CLIENTS[*waiter], CLIENTS[number]) { 1 } else { usize::MAX };
                    assert!(passed[number] <= limit, "client {number} passed {waiter}, which waited\n{log}");
                }
            }
            _ => {}
        }
    }
    waits
}
