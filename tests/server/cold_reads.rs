//! Loads that wait for the disk are read in parallel, and no other call waits for them.
//!
//! The outstanding loads of a client's threads on one connection were answered in the order of arrival: sixteen loads
//! from a disk took as long as sixteen in a row, and a load from memory after them waited for all. Here the test holds
//! the disk: all loads are at the disk at the same time, loads from memory are answered before them, and commits keep
//! their place among the replies.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::support::client::{Incoming, RawClient, Speaks, content, record};
use crate::support::disk::{Disk, Hand};
use crate::support::pickle::{Value, text};
use runzeo::internal::base::address::Address;
use runzeo::internal::base::clock::TimeSource;
use runzeo::internal::net::listen::listen;
use runzeo::internal::server::Server;
use runzeo::internal::server::hosted::{Hosted, HostedOptions};
use runzeo::internal::server::limits::Limits;
use runzeo::internal::server::policy::{Policy, PolicyOptions};
use runzeo::internal::server::record_memory::RecordMemory;
use runzeo::internal::server::workers::Pools;
use runzeo::internal::wire::protocol::Greeting;
use runzeo::storage::file::{FileStorage, FileStorageOptions};

const COLD: u64 = 16;
/// Stored last, so it is in memory.
const WARM: u64 = 100;

pub struct World {
    pub server: Arc<Server>,
    pub address: SocketAddr,
    pub hand: Hand,
    _directory: tempfile::TempDir,
    /// Tid of the cold objects.
    pub tid: u64,
}

impl World {
    fn new() -> World {
        World::with(Limits::default())
    }

    pub fn with(limits: Limits) -> World {
        let directory = tempfile::tempdir().unwrap();
        let hand = Hand::default();
        let mut options = FileStorageOptions::new(directory.path().join("Data.fs"));
        options.media = Arc::new(Disk(hand.clone()));
        let storage = Arc::new(FileStorage::open(options).unwrap());
        let options = HostedOptions {
            read_only: false,
            invalidation_queue_size: 100,
            invalidation_age: None,
            transaction_timeout: None,
            client_conflict_resolution: false,
            transaction_objects: None,
        };
        let hosted = Hosted::new(
            "1".into(),
            storage,
            options,
            Pools::start(RecordMemory::default(), &TimeSource::default()).unwrap(),
            TimeSource::default(),
        )
        .unwrap();
        let server =
            Server::new(vec![hosted], Greeting::new(false), limits, 1000, TimeSource::default()).unwrap();
        let address = accept(&server, PolicyOptions::default());
        let (mut client, _) = RawClient::register(address, Speaks::Z5).unwrap();
        let datas: Vec<(u64, Vec<u8>)> =
            (0..COLD).map(|oid| (oid, record(format!("{oid} cold").as_bytes()))).collect();
        let stores: Vec<(u64, u64, &[u8])> = datas.iter().map(|(oid, data)| (*oid, 0, &data[..])).collect();
        let tid = client.commit(&stores).unwrap().unwrap();
        let cold_before = std::fs::metadata(directory.path().join("Data.fs")).unwrap().len();
        client.commit(&[(WARM, 0, &record(b"warm"))]).unwrap().unwrap();
        hand.order(|orders| orders.cold_before = cold_before);
        World { server, address, hand, _directory: directory, tid }
    }

    /// Another address, whose clients have low priority.
    fn low_address(&self) -> SocketAddr {
        accept(
            &self.server,
            PolicyOptions { read_only: true, low_priority: true, ..PolicyOptions::default() },
        )
    }

    /// A client that has requested all cold objects, all of which are at the disk: the call's id -> oid.
    fn asking(&self, speaks: Speaks) -> (RawClient, BTreeMap<i64, u64>) {
        self.asking_beside(speaks, 0)
    }

    /// The same while others have so many loads at the disk.
    fn asking_beside(&self, speaks: Speaks, held: usize) -> (RawClient, BTreeMap<i64, u64>) {
        let (mut client, _) = RawClient::register(self.address, speaks).unwrap();
        let calls = (0..COLD).map(|oid| (client.queue_load(oid), oid)).collect();
        client.flush().unwrap();
        self.hand.wait_for_so_many_held(held + COLD as usize);
        assert_eq!(self.hand.held(), held + COLD as usize);
        (client, calls)
    }

    pub fn let_go(&self) {
        self.hand.order(|orders| orders.cold_before = 0);
    }
}

fn accept(server: &Arc<Server>, policy: PolicyOptions) -> SocketAddr {
    let listen_on = Address::Tcp { host: Some("127.0.0.1".into()), port: Some(0) };
    let mut address = None;
    for listener in listen(&listen_on, Default::default()).unwrap() {
        address = listener.socket.local_addr().unwrap().as_socket();
        server.accept_on(listener, Policy::new(policy.clone())).unwrap();
    }
    address.unwrap()
}

impl Drop for World {
    fn drop(&mut self) {
        self.let_go();
        self.server.stop();
    }
}

/// Data and serial of a reply to a load, for every generation.
fn loaded(value: &Value) -> (Vec<u8>, u64) {
    let parts = value.tuple();
    (content(parts[0].bytes()).to_vec(), parts[1].id())
}

#[test]
fn loads_that_wait_for_the_disk_wait_together() {
    let world = World::new();
    for speaks in [Speaks::Z308, Speaks::Z4, Speaks::Z5, Speaks::M5] {
        let (mut client, mut calls) = world.asking(speaks);
        let cold_before = world.hand.orders().cold_before;
        world.let_go();
        while !calls.is_empty() {
            if let Incoming::Reply { id, value } = client.next().unwrap() {
                let oid = calls.remove(&id).expect("one reply each");
                assert_eq!(loaded(&value), (format!("{oid} cold").into_bytes(), world.tid), "{speaks:?}");
            }
        }
        world.hand.order(|orders| orders.cold_before = cold_before);
    }
}

#[test]
fn what_is_in_memory_does_not_wait_behind_them() {
    let world = World::new();
    let (mut client, calls) = world.asking(Speaks::Z5);
    let warm = client.queue_load(WARM);
    client.flush().unwrap();
    let answer = client.answer(warm).unwrap().unwrap();
    assert_eq!(loaded(&answer).0, b"warm");
    // Other calls do not wait either.
    client.call("lastTransaction", vec![]).unwrap().unwrap();
    assert_eq!(calls.len() as u64, COLD);
}

/// An object is changed while it is read for another client (rule R2): the reply that is queued after the invalidation
/// has the new state.
#[test]
fn what_is_committed_meanwhile_keeps_its_place() {
    for speaks in [Speaks::Z4, Speaks::Z5] {
        let world = World::new();
        let (mut client, mut calls) = world.asking(speaks);
        let (mut writer, _) = RawClient::register(world.address, Speaks::Z5).unwrap();
        let new = record(b"changed meanwhile");
        let changed = writer.commit(&[(3, world.tid, &new)]).unwrap().expect("nobody else changed it");
        world.let_go();
        let mut told = false;
        while !calls.is_empty() {
            match client.next().unwrap() {
                Incoming::Push { method, .. } if method == "invalidateTransaction" => told = true,
                Incoming::Reply { id, value } => {
                    let oid = calls.remove(&id).expect("one reply each");
                    let (data, serial) = loaded(&value);
                    if oid == 3 {
                        assert!(told, "{speaks:?}: the new state before its invalidation");
                        assert_eq!((data, serial), (b"changed meanwhile".to_vec(), changed));
                    } else {
                        assert_eq!(serial, world.tid);
                    }
                }
                _ => {}
            }
        }
    }
}

/// Its loads are abandoned, and the next client is served.
#[test]
fn a_client_that_goes_meanwhile_leaves_nothing_behind() {
    let world = World::new();
    let (client, _) = world.asking(Speaks::Z5);
    drop(client);
    let (mut next, _) = RawClient::register(world.address, Speaks::Z5).unwrap();
    let warm = next.queue_load(WARM);
    next.flush().unwrap();
    assert_eq!(loaded(&next.answer(warm).unwrap().unwrap()).0, b"warm");
    world.let_go();
    let cold = next.queue_load(5);
    next.flush().unwrap();
    assert_eq!(loaded(&next.answer(cold).unwrap().unwrap()).0, b"5 cold");
}

/// One at a time, by its session, whose priority the threads of the pool do not have; others do not wait for it.
#[test]
fn a_client_with_low_priority_waits_for_the_disk_itself() {
    let world = World::new();
    let mut low = RawClient::connect(world.low_address(), Speaks::Z5).unwrap();
    low.call("register", vec![text("1"), Value::Bool(true)]).unwrap().unwrap();
    let mut calls: BTreeMap<i64, u64> = (0..COLD).map(|oid| (low.queue_load(oid), oid)).collect();
    low.flush().unwrap();
    world.hand.wait_for_held();
    // All of another client's are at the disk beside that one.
    let (mut other, others) = world.asking_beside(Speaks::Z5, 1);
    world.let_go();
    for _ in 0..COLD {
        let Incoming::Reply { id, value } = low.next().unwrap() else { panic!("a reply") };
        let oid = calls.remove(&id).expect("one reply each");
        assert_eq!(loaded(&value), (format!("{oid} cold").into_bytes(), world.tid));
    }
    for _ in 0..others.len() {
        assert!(matches!(other.next().unwrap(), Incoming::Reply { .. }));
    }
}
