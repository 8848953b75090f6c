//! Timeouts of the server, with a clock that the test moves instead of waiting.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::client::{RawClient, Speaks, record};
use crate::support::pickle::Value;
use runzeo::internal::base::address::Address;
use runzeo::internal::base::clock::TimeSource;
use runzeo::internal::net::listen::listen;
use runzeo::internal::server::Server;
use runzeo::internal::server::hosted::{Hosted, HostedOptions};
use runzeo::internal::server::limits::Limits;
use runzeo::internal::server::record_memory::RecordMemory;
use runzeo::internal::server::workers::Pools;
use runzeo::internal::storage::mapping::MappingStorage;
use runzeo::internal::wire::protocol::Greeting;

const HOUR: Duration = Duration::from_secs(3600);
/// Time limit of a wait for a connection that should be closed.
const CLOSED_MAX: Duration = Duration::from_secs(60);
const TXN: i64 = 7;

struct World {
    server: Arc<Server>,
    clock: TimeSource,
    address: SocketAddr,
}

impl World {
    fn new() -> World {
        let limits = Limits { handshake_timeout: Some(HOUR), ..Limits::default() };
        World::with(Some(HOUR), limits)
    }

    fn with(transaction_timeout: Option<Duration>, limits: Limits) -> World {
        let clock = TimeSource::manual();
        let options = HostedOptions {
            read_only: false,
            invalidation_queue_size: 100,
            invalidation_age: None,
            transaction_timeout,
            client_conflict_resolution: false,
            transaction_objects: None,
        };
        let pools = Pools::start(RecordMemory::default(), &clock).unwrap();
        let storage = Arc::new(MappingStorage::new("memory".into()));
        let hosted = Hosted::new("1".into(), storage, options, pools, clock.clone()).unwrap();
        let server = Server::new(vec![hosted], Greeting::new(false), limits, 1000, clock.clone()).unwrap();
        let mut address = None;
        for listener in
            listen(&Address::Tcp { host: Some("127.0.0.1".into()), port: Some(0) }, Default::default())
                .unwrap()
        {
            address = listener.socket.local_addr().unwrap().as_socket();
            server.accept_on(listener, Default::default()).unwrap();
        }
        World { server, clock, address: address.unwrap() }
    }

    fn registered(&self) -> RawClient {
        RawClient::register(self.address, Speaks::Z5).unwrap().0
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.server.stop();
    }
}

fn assert_closed(mut client: RawClient) {
    client.set_read_timeout(CLOSED_MAX);
    let end = client.frame().expect_err("a connection that is closed");
    assert_eq!(end.kind(), std::io::ErrorKind::UnexpectedEof, "{end}");
}

#[test]
fn a_connection_must_register_in_time() {
    let world = World::new();
    let mut registered = world.registered();
    let unregistered = RawClient::connect(world.address, Speaks::Z5).unwrap();
    world.clock.advance(HOUR - Duration::from_secs(1));
    let mut in_time = RawClient::connect(world.address, Speaks::Z5).unwrap();
    world.clock.advance(Duration::from_secs(2));
    assert_closed(unregistered);
    in_time.register_now().unwrap();
    registered.call("ping", vec![]).unwrap().unwrap();
}

#[test]
fn a_transaction_that_holds_locks_too_long_loses_its_connection() {
    let world = World::new();
    let [mut first, mut second] = [(); 2].map(|()| world.registered());
    let vote = |client: &mut RawClient, oid: u64| {
        client.queue_begin(TXN);
        client.queue_store(oid, 0, &record(b"data"), TXN);
        let call = client.queue_call("vote", vec![Value::Int(TXN)]);
        client.flush().unwrap();
        call
    };
    let voted = vote(&mut first, 1);
    first.answer(voted).unwrap().unwrap();
    world.clock.advance(HOUR / 2);
    // It waits for the locks of the first, so its timeout has not begun.
    let waiting = vote(&mut second, 1);
    world.clock.advance(HOUR / 2);
    assert_closed(first);
    second.answer(waiting).unwrap().unwrap();
    let finish = second.queue_call("tpc_finish", vec![Value::Int(TXN)]);
    second.flush().unwrap();
    second.answer(finish).unwrap().unwrap();
}

/// A registered client may be slow without limit, within a message or not.
#[test]
fn a_registered_client_has_time() {
    let world = World::new();
    let [mut slow, mut idle] = [(); 2].map(|()| world.registered());
    slow.queue_call("lastTransaction", vec![]);
    let bytes = slow.queued();
    let (beginning, rest) = bytes.split_at(bytes.len() / 2);
    slow.stream().write_all(beginning).unwrap();
    for _ in 0..4 {
        world.clock.advance(HOUR);
        idle.call("ping", vec![]).unwrap().unwrap();
    }
    slow.stream().write_all(rest).unwrap();
    slow.frame().unwrap();
}

#[test]
fn without_a_limit_unregistered_connections_may_stay() {
    let world = World::with(None, Limits { handshake_timeout: None, ..Limits::default() });
    let mut unregistered = RawClient::connect(world.address, Speaks::Z5).unwrap();
    world.clock.advance(100 * HOUR);
    // The server has noticed the time when it has accepted and served another client.
    world.registered().call("ping", vec![]).unwrap().unwrap();
    unregistered.register_now().unwrap();
}

/// Stores are progress, loads by other threads of the same client are not. From the vote on `transaction-timeout`
/// counts.
#[test]
fn a_transaction_for_which_nothing_comes_loses_its_connection() {
    let world = World::with(None, Limits { idle_transaction_timeout: Some(HOUR), ..Limits::default() });
    let [mut loading, mut storing] = [(); 2].map(|()| world.registered());
    let store = |client: &mut RawClient, oid: u64| client.queue_store(oid, 0, &record(b"data"), TXN);
    for client in [&mut loading, &mut storing] {
        client.queue_begin(TXN);
        store(client, 1);
        // All before has arrived.
        client.call("ping", vec![]).unwrap().unwrap();
    }
    // The server looks at transactions at intervals: steps that are much shorter than the limit, until it has looked
    // often enough.
    let deadline = Instant::now() + CLOSED_MAX;
    while loading.call("lastTransaction", vec![]).is_ok() {
        assert!(Instant::now() < deadline, "a transaction without stores stays open");
        store(&mut storing, 2);
        storing.call("ping", vec![]).unwrap().unwrap();
        world.clock.advance(HOUR / 8);
        thread::sleep(Duration::from_millis(5));
    }
    store(&mut storing, 3);
    storing.call("vote", vec![Value::Int(TXN)]).unwrap().unwrap();
    world.clock.advance(2 * HOUR);
    storing.call("ping", vec![]).unwrap().unwrap();
    storing.call("tpc_finish", vec![Value::Int(TXN)]).unwrap().unwrap();
}
