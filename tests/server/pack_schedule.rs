//! `pack-schedule`: packs that the server makes by itself, with a clock that the test moves.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use crate::support::client::{Incoming, RawClient, Speaks, record};
use crate::support::process;
use runzeo::internal::base::address::Address;
use runzeo::internal::base::clock::TimeSource;
use runzeo::internal::net::listen::listen;
use runzeo::internal::server::Server;
use runzeo::internal::server::hosted::{Hosted, HostedOptions};
use runzeo::internal::server::limits::Limits;
use runzeo::internal::server::pack_schedule::PackSchedule;
use runzeo::internal::server::record_memory::RecordMemory;
use runzeo::internal::server::workers::Pools;
use runzeo::internal::storage::mapping::MappingStorage;

use runzeo::internal::wire::protocol::Greeting;
use runzeo::storage::Storage;
use runzeo::storage::file::{FileStorage, FileStorageOptions};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

struct World {
    server: Arc<Server>,
    clock: TimeSource,
    client: RawClient,
    file: Arc<FileStorage>,
    /// When the last pack began that `packed` has waited for.
    last_began: Option<f64>,
    _directory: tempfile::TempDir,
}

impl World {
    /// A server of a file with five revisions of one object; and of a second storage without a schedule.
    fn new(schedule: &str, days: u32) -> World {
        let (clock, directory) = (TimeSource::manual(), tempfile::tempdir().unwrap());
        let pools = Pools::start(RecordMemory::default(), &clock).unwrap();
        let host = |name: &str, storage: Arc<dyn Storage>| {
            let options = HostedOptions {
                read_only: false,
                invalidation_queue_size: 100,
                invalidation_age: None,
                transaction_timeout: None,
                client_conflict_resolution: false,
                transaction_objects: None,
            };
            Hosted::new(name.into(), storage, options, pools.clone(), clock.clone()).unwrap()
        };
        let options = FileStorageOptions::new(directory.path().join("Data.fs"));
        let file = Arc::new(FileStorage::open(options).unwrap());
        let hosted = vec![host("1", file.clone()), host("2", Arc::new(MappingStorage::new("memory".into())))];
        let limits = Limits::default();
        let server = Server::new(hosted, Greeting::new(false), limits, 1000, clock.clone()).unwrap();
        let any = Address::Tcp { host: Some("127.0.0.1".into()), port: Some(0) };
        let listener = listen(&any, Default::default()).unwrap().pop().unwrap();
        let address = listener.socket.local_addr().unwrap().as_socket().unwrap();
        server.accept_on(listener, Default::default()).unwrap();
        let (mut client, _) = RawClient::register(address, Speaks::Z5).unwrap();
        let mut serial = 0;
        for _ in 0..5 {
            serial = client.commit(&[(0, serial, &record(&[b'x'; 1000]))]).unwrap().unwrap();
        }
        let plan = PackSchedule { schedule: schedule.parse().unwrap(), days };
        server.pack_by_schedule(vec![(server.hosted("1").unwrap(), plan)]).unwrap();
        World { server, clock, client, file, last_began: None, _directory: directory }
    }

    /// Waits until the clients are told of the end of one more pack. Returns the size of the file.
    fn packed(&mut self) -> u64 {
        loop {
            next_info(&mut self.client);
            let began = self.status("1")["last-pack"]["began"].as_f64();
            if began != self.last_began {
                self.last_began = began;
                return self.file.size();
            }
        }
    }

    fn status(&self, storage: &str) -> serde_json::Value {
        serde_json::from_str::<serde_json::Value>(&self.server.ruok()).unwrap()[storage].clone()
    }

    /// Time until the next pack.
    fn left(&self) -> Duration {
        let now = self.clock.system_time().duration_since(UNIX_EPOCH).unwrap();
        let next = self.status("1")["next-pack"].as_f64().expect("a next time");
        Duration::from_secs_f64(next).checked_sub(now).expect("a time to come")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.server.stop();
        self.file.close().unwrap();
    }
}

/// Waits for the message that a pack sends when it is complete. One's own commits send it too.
fn next_info(client: &mut RawClient) {
    loop {
        match client.next().unwrap() {
            Incoming::Push { method, .. } if method == "info" => return,
            _ => {}
        }
    }
}

#[test]
fn a_storage_is_packed_at_each_of_its_times() {
    let mut world = World::new("every 1h", 0);
    let before = world.file.size();
    assert!(world.left() <= HOUR, "{:?}", world.left());
    let status = world.status("1");
    assert!(status.get("last-pack").is_none(), "{status}");
    world.clock.advance(HOUR);
    let after = world.packed();
    assert!(after + 4000 < before, "{after} of {before} bytes");
    let status = world.status("1");
    assert!(status["last-pack"]["error"].is_null(), "{status}");
    assert_eq!(
        (status["last-pack"]["size-before"].as_u64(), status["last-pack"]["size-after"].as_u64()),
        (Some(before), Some(after))
    );
    let other = world.status("2");
    assert!(other.get("next-pack").is_none() && other.get("last-pack").is_none(), "{other}");
    // Again, and once for the five hours that pass at once. Afterwards the next time is one to come.
    for hours in [1, 5, 1] {
        world.clock.advance(HOUR * hours);
        world.packed();
    }
}

#[test]
fn what_is_younger_than_pack_days_is_kept() {
    let mut world = World::new("every 1d", 1);
    let before = world.file.size();
    world.clock.advance(world.left());
    assert_eq!(world.packed(), before);
    world.clock.advance(DAY + HOUR);
    assert!(world.packed() + 4000 < before);
}

#[test]
fn a_pack_that_fails_is_tried_again_at_the_next_time() {
    let mut world = World::new("every 1h", 0);
    // A root that refers to an object that is not there.
    let dangling = crate::support::storage::referring_to(&[77]);
    let serial = world.client.call("lastTransaction", vec![]).unwrap().unwrap();
    let serial = u64::from_be_bytes(serial.bytes().try_into().unwrap());
    let serial = world.client.commit(&[(0, serial, &dangling)]).unwrap().unwrap();
    let before = world.file.size();
    world.clock.advance(HOUR);
    while world.status("1").get("last-pack").is_none() {
        world.client.call("ping", vec![]).unwrap().unwrap();
    }
    assert!(world.status("1")["last-pack"]["error"].is_string(), "{}", world.status("1"));
    assert_eq!(world.file.size(), before);
    world.client.commit(&[(0, serial, &record(b"mended"))]).unwrap().unwrap();
    world.clock.advance(HOUR);
    assert!(world.packed() < before);
}

#[test]
fn a_server_that_stops_does_not_wait_for_the_next_time() {
    let world = World::new("monthly 1 03:00", 0);
    assert!(world.left() <= DAY * 32);
    drop(world);
}

/// The whole program, with a clock that goes.
#[test]
fn the_keys_of_a_configuration_file() {
    let server =
        process::Server::start_storage("", "pack-schedule every 2s\npack-days 0\npack-keep-old false");
    let (mut client, _) = RawClient::register(server.address, Speaks::Z5).unwrap();
    let mut serial = 0;
    for _ in 0..5 {
        serial = client.commit(&[(0, serial, &record(&[b'x'; 1000]))]).unwrap().unwrap();
    }
    let file = server.directory().join("Data.fs");
    while fs::metadata(&file).unwrap().len() > 4000 {
        next_info(&mut client);
    }
    let log = server.log();
    let line = log.lines().find(|line| line.contains("by pack-schedule 'every 2s'")).expect("a line");
    assert!(line.contains("INFO ZEO.StorageServer storage '1': pack(time="), "{line}");
    assert!(line.ends_with("by pack-schedule 'every 2s', which keeps no history, started..."), "{line}");
    assert!(log.contains("by pack-schedule complete"), "{log}");
}
