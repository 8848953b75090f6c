//! What the probes say of a server that starts, whose disk has failed, and that stops.

use std::fs;
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::{Answer, PATIENCE, Served, get, section};
use crate::commit_states::world::World;
use crate::pack_cancel::text;
use crate::support::client::{RawClient, Speaks, record};
use crate::support::faults::{Faults, Kind};
use crate::support::process::{Server, free_address};
use crate::support::storage as helpers;
use crate::zeoadmin::zeoadmin;
use runzeo::ids::Tid;
use runzeo::internal::base::address::Address;
use runzeo::internal::net::listen::listen;
use runzeo::internal::server::http::{HttpServer, Rules, Site};
use runzeo::storage::prelude::*;

/// Asks until the answer is the expected one.
fn until(address: std::net::SocketAddr, path: &str, is_right: impl Fn(&Answer) -> bool) -> Answer {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = get(address, path);
        if is_right(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "{answer:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn status(address: std::net::SocketAddr) -> serde_json::Value {
    serde_json::from_str(&get(address, "/status.json").body).expect("JSON")
}

/// The file is scanned up to its zeros, and then cut off, which hangs: a long start.
#[test]
fn a_long_start_is_alive_and_not_ready() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("Data.fs");
    let storage = helpers::open(&path);
    let mut serial = Tid::ZERO;
    for _ in 0..10 {
        serial = helpers::commit(&storage, &[(0, serial, b"root")]).expect("a commit");
    }
    storage.close().expect("closed");
    let mut bytes = fs::read(&path).expect("the file");
    for name in ["Data.fs.index", "Data.fs.tmp"] {
        let _ = fs::remove_file(directory.path().join(name));
    }
    bytes.resize(bytes.len() * 100 / 43 - 1, 0);
    fs::write(&path, bytes).expect("written");

    let (faults, address) = (Faults::default(), free_address());
    // The first one empties the lock file.
    faults.order_to_hang(Kind::Disk, 2);
    let storages = format!("<filestorage 1>\npath {}\n</filestorage>", path.display());
    let Some(server) = Server::start_failing(&faults, "", &section(&storages, address)) else { return };
    let opening = until(address, "/startup", |answer| answer.body.contains("43 %"));
    assert_eq!((opening.status, &*opening.body), (503, "opening 1: 43 % of Data.fs\n"));
    let ready = get(address, "/ready");
    assert_eq!((ready.status, &*ready.body), (503, "opening 1: 43 % of Data.fs\n"));
    assert_eq!(get(address, "/live").status, 200);
    assert!(get(address, "/metrics").body.contains("\nzeo_ready 0\n"));
    let seen = status(address);
    assert_eq!((&seen["phase"], &seen["opening"]), (&"opening".into(), &"opening 1: 43 % of Data.fs".into()));

    faults.end();
    until(address, "/ready", |answer| answer.status == 200);
    assert_eq!(get(address, "/startup").status, 200);
    assert_eq!(status(address)["phase"], "serving");
    assert!(RawClient::register(server.address, Speaks::Z5).is_ok());
}

#[test]
fn a_failed_disk_is_alive_and_not_ready() {
    let (faults, address) = (Faults::default(), free_address());
    let storages = "<filestorage main>\npath Data.fs\n</filestorage>\n<mappingstorage 1>\n</mappingstorage>";
    let Some(server) = Server::start_failing(&faults, "", &section(storages, address)) else { return };
    until(address, "/ready", |answer| answer.status == 200);
    let mut client = RawClient::connect(server.address, Speaks::Z5).expect("a connection");
    let args = vec![crate::support::pickle::text("main"), crate::support::pickle::Value::Bool(false)];
    client.call("register", args).expect("an answer").expect("registered");
    // One of the calls of a commit is the sync.
    for first in 1..100 {
        faults.order(Kind::Disk, first, 1);
        let _ = client.commit(&[(first, 0, &record(b"a state"))]).expect("an answer");
        faults.end();
        if get(address, "/ready").status != 200 {
            break;
        }
    }
    let ready = get(address, "/ready");
    assert_eq!(ready.status, 503);
    assert!(
        ready.body.starts_with("storage main: a sync failed at ") && ready.body.lines().count() == 1,
        "{}",
        ready.body
    );
    assert_eq!((get(address, "/live").status, get(address, "/startup").status), (200, 200));
    let metrics = get(address, "/metrics").body;
    for line in
        ["zeo_ready 0", "zeo_storage_failed{storage=\"main\"} 1", "zeo_storage_failed{storage=\"1\"} 0"]
    {
        assert!(metrics.contains(&format!("\n{line}\n")), "{line}: {metrics}");
    }
    let seen = status(address);
    let main = &seen["storages"][1];
    assert_eq!((&main["name"], &main["state"]), (&"main".into(), &"failed".into()));
    assert!(ready.body.contains(main["failure"].as_str().expect("a reason")));
}

/// A server that is read-only because it is configured so is as it should be.
#[test]
fn a_read_only_server_is_ready() {
    let served = Served::with("read-only true", "<mappingstorage 1>\n</mappingstorage>");
    assert_eq!(served.get("/ready").status, 200);
    assert!(served.get("/metrics").body.contains("zeo_storage_read_only{storage=\"1\"} 1\n"));
    assert_eq!(status(served.address)["storages"][0]["state"], "read-only");
}

/// A server whose server is away cannot serve much.
#[test]
fn a_server_in_the_middle_is_ready_while_its_server_is_there() {
    let mut root = Server::start();
    let client = |name: &str| {
        format!("<zeoclient {name}>\nserver {}\nmax-disconnect-poll 1\n</zeoclient>\n", root.address)
    };
    let changes = "<mappingstorage changes>\n</mappingstorage>";
    let storage = format!("{}<demostorage demo>\n{}{changes}\n</demostorage>", client("1"), client("base"));
    let served = Served::with("admin-socket admin", &storage);
    until(served.address, "/ready", |answer| answer.status == 200);
    let told = || text(&zeoadmin(&served.server, &["status"]).stdout);
    assert!(!told().contains("lost"), "{}", told());
    root.kill();
    let ready = until(served.address, "/ready", |answer| answer.status != 200);
    assert_eq!((ready.status, &*ready.body), (503, "storage 1: its server cannot be reached\n"));
    let metrics = served.get("/metrics").body;
    until(served.address, "/metrics", |answer| {
        answer.body.contains("\nzeo_remote_connected{storage=\"demo\"} 0\n")
    });
    for line in ["zeo_remote_connected{storage=\"1\"} 0", "zeo_remote_interruptions_total{storage=\"1\"} 1"] {
        assert!(metrics.contains(&format!("\n{line}\n")), "{line}: {metrics}");
    }
    let remote = &status(served.address)["storages"][0]["remote"];
    assert_eq!((&remote["connected"], &remote["interruptions"]), (&false.into(), &1.into()));
    assert!(remote["error"].is_string());
    let line = "\n  the connection to its server was lost once; since ";
    assert!(told().contains(line) && told().contains("its server cannot be reached"), "{}", told());
    root.start_again();
    until(served.address, "/ready", |answer| answer.status == 200);
    assert!(told().contains("connected again"), "{}", told());
}

/// From the signal on, also while helpers and backups are still being ended.
#[test]
fn a_server_that_is_about_to_stop_is_not_ready() {
    let world = World::new(None, None);
    let site = Site::new(Box::new(|| "opening 1".into()));
    let address = Address::Tcp { host: Some("127.0.0.1".into()), port: Some(0) };
    let listeners = listen(&address, Default::default()).expect("a socket");
    let address = listeners[0].socket.local_addr().expect("an address").as_socket().expect("of IP");
    let http = HttpServer::start(listeners, Rules::default(), &site).expect("threads");
    assert_eq!(get(address, "/ready").body, "opening 1\n");
    site.serves(&world.server);
    assert_eq!((get(address, "/ready").status, &status(address)["phase"]), (200, &"serving".into()));
    site.stops();
    assert_eq!(
        (&*get(address, "/ready").body, &status(address)["phase"]),
        ("stopping\n", &"stopping".into())
    );
    drop(http);
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn a_server_that_stops_is_alive_and_not_ready() {
    let (faults, address) = (Faults::default(), free_address());
    let Some(mut server) = Server::start_failing(&faults, "", &section(super::FILE, address)) else { return };
    until(address, "/ready", |answer| answer.status == 200);
    let (mut client, _) = RawClient::register(server.address, Speaks::Z5).expect("a connection");
    client.commit(&[(0, 0, &record(b"a state"))]).expect("connected").expect("a commit");
    // Saving the index hangs.
    faults.order_to_hang(Kind::Disk, 1);
    assert!(Command::new("kill").arg(server.pid().to_string()).status().expect("kill").success());
    let ready = until(address, "/ready", |answer| answer.status != 200);
    assert_eq!((ready.status, &*ready.body), (503, "stopping\n"));
    assert_eq!((get(address, "/live").status, get(address, "/startup").status), (200, 200));
    assert_eq!(status(address)["phase"], "stopping");
    faults.end();
    assert!(server.stop().success());
}
