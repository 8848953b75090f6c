//! Requests that take longer than `slow-request-time`: a line in the log, reports, and what the time has gone into.

use std::fs;
use std::thread;
use std::time::Duration;

use serde_json::Value as Json;

use crate::cold_reads::World;
use crate::pack_cancel::{register, text};
use crate::slow_merge;
use crate::support::client::{RawClient, Speaks, record};
use crate::support::pickle::Value;
use crate::support::process::Server;
use crate::zeoadmin::{asked, holder_and_waiter, queue_vote, with_socket_and, zeoadmin};
use runzeo::internal::server::limits::Limits;
use runzeo::internal::server::slow::{SlowRequest, Step};

/// `slow-request-time` here, and a time that is longer.
const LEAST: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_millis(80);

/// The requests that were slow, the newest first.
fn slow_requests(server: &Server) -> Vec<Json> {
    asked(server, &["slow"])[0]["slow_requests"].as_array().expect("a list").clone()
}

fn step(request: &Json, name: &str) -> f64 {
    let steps = request["steps"].as_array().expect("a list");
    let of = |step: &&Json| step["step"] == name;
    steps
        .iter()
        .find(of)
        .and_then(|step| step["seconds"].as_f64())
        .unwrap_or_else(|| panic!("{name}: {request}"))
}

#[test]
fn a_vote_that_waited_for_locks_names_their_holder() {
    let server = with_socket_and("slow-request-time 50ms");
    assert_eq!(text(&zeoadmin(&server, &["slow"]).stdout), "no request took longer than slow-request-time\n");
    let (mut holder, mut waiter, vote) = holder_and_waiter(&server);
    thread::sleep(LONG);
    holder.call("tpc_abort", vec![Value::Int(7)]).expect("connected").expect("no error");
    waiter.answer(vote).expect("an answer").expect("the locks");

    server.wait_for_log("slow vote: ");
    let slow = slow_requests(&server);
    let request = slow.iter().find(|request| request["method"] == "vote").expect("the vote");
    assert!(step(request, "locks") >= LONG.as_secs_f64(), "{request}");
    assert_eq!((&request["user"], &request["description"]), (&"user".into(), &"".into()));
    let clients = asked(&server, &["clients"]);
    let of = |at: usize| clients.as_array().expect("a list")[at]["id"].clone();
    assert_eq!((&request["client"], &request["behind"]["client"]), (&of(1), &of(0)), "{request} {clients}");
    assert_eq!(request["behind"]["oid"], "0x0");
    let line = server.log();
    let line = line.lines().find(|line| line.contains("slow vote: ")).expect("the line");
    for part in [
        " WARNING ZEO.StorageServer (",
        " s (locks 0.",
        &format!(", behind client {} (", of(0)),
        ") for object 0x0000000000000000, user 'user', description ''",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    let table = text(&zeoadmin(&server, &["slow"]).stdout);
    assert!(table.lines().any(|row| row.contains(" vote ") && row.ends_with(" user")), "{table}");
    assert!(text(&zeoadmin(&server, &["status"]).stdout).contains(" slow requests\n"));
}

#[test]
fn a_merge_has_its_own_step() {
    if !slow_merge::has_python() {
        return;
    }
    let site = slow_merge::site();
    let resolver = site.path().join("python");
    let server =
        with_socket_and(&format!("slow-request-time 50ms\nconflict-resolver {}", resolver.display()));
    let mut client = register(&server, Speaks::Z5);
    let shelf = client.new_oids(1).unwrap()[0];
    let first = client.commit(&[(shelf, 0, &record(b"old!"))]).unwrap().unwrap();
    client.commit(&[(shelf, first, &record(b"hers"))]).unwrap().unwrap();
    client.queue_begin(1);
    client.queue_store(shelf, first, &record(b"mine"), 1);
    let vote = client.queue_call("vote", vec![Value::Int(1)]);
    client.flush().unwrap();
    slow_merge::wait_for(&site.path().join("ZODB/asked"));
    thread::sleep(LONG);
    fs::write(site.path().join("ZODB/go"), "").unwrap();
    client.answer(vote).unwrap().unwrap();
    server.wait_for_log("slow vote: ");
    let slow = slow_requests(&server);
    let request = slow.iter().find(|request| request["method"] == "vote").expect("the vote");
    assert!(step(request, "merge") >= LONG.as_secs_f64(), "{request}");
    assert_eq!(request["behind"], Json::Null);
}

/// The slow requests of a method, once there is one.
fn noted(world: &World, method: &str) -> Vec<SlowRequest> {
    loop {
        let mut slow = world.server.hosted("1").expect("a storage").slow_requests.list();
        slow.retain(|request| request.method == method);
        if !slow.is_empty() {
            return slow;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn took(request: &SlowRequest, wanted: Step) -> Duration {
    let found = request.steps.iter().find(|(step, _)| *step == wanted);
    found.unwrap_or_else(|| panic!("{wanted:?} in {request:?}")).1
}

#[test]
fn the_disk_is_seen_in_loads_and_commits() {
    let world = World::with(Limits { slow_request_time: Some(LEAST), ..Limits::default() });
    let hold = |client: &mut RawClient, call: i64| {
        client.flush().unwrap();
        world.hand.wait_for_held();
        thread::sleep(LONG);
        world.let_go();
        world.hand.order(|orders| orders.hold_syncs = false);
        client.answer(call).unwrap().unwrap();
    };
    let (mut client, _) = RawClient::register(world.address, Speaks::Z5).unwrap();
    let load = client.queue_load(3);
    hold(&mut client, load);
    let request = &noted(&world, "loadBefore")[0];
    assert!(took(request, Step::Read) >= LONG, "{request:?}");
    assert_eq!(request.oid.map(|oid| oid.0), Some(3));

    let vote = queue_vote(&mut client, 0, b"data");
    client.flush().unwrap();
    client.answer(vote).unwrap().expect_err("the object is there already");
    client.call("tpc_abort", vec![Value::Int(7)]).unwrap().unwrap();
    let vote = queue_vote(&mut client, world.tid, b"data");
    client.flush().unwrap();
    client.answer(vote).unwrap().unwrap();
    world.hand.order(|orders| orders.hold_syncs = true);
    let finish = client.queue_call("tpc_finish", vec![Value::Int(7)]);
    hold(&mut client, finish);
    let hosted = world.server.hosted("1").expect("a storage");
    let request = &noted(&world, "tpc_finish")[0];
    assert!(took(request, Step::Sync) >= LONG && request.tid.is_some(), "{request:?}");
    assert!(request.transaction.is_some(), "{request:?}");
    let read = hosted.call_histograms.read();
    let counts = read.map(|(kind, counts)| (kind.name(), counts.counts.iter().sum::<u64>()));
    assert_eq!(counts, [("vote", 4), ("tpc_finish", 3), ("load-from-disk", 1)]);
    // What was not slow is not there.
    assert!(hosted.slow_requests.list().iter().all(|one| one.took >= LEAST));
}

#[test]
fn nothing_is_slow_where_that_is_not_wanted() {
    let world = World::with(Limits { slow_request_time: None, ..Limits::default() });
    let (mut client, _) = RawClient::register(world.address, Speaks::Z5).unwrap();
    let load = client.queue_load(3);
    client.flush().unwrap();
    world.hand.wait_for_held();
    thread::sleep(LONG);
    world.let_go();
    client.answer(load).unwrap().unwrap();
    client.call("ping", vec![]).unwrap().unwrap();
    assert_eq!(world.server.hosted("1").expect("a storage").slow_requests.total(), 0);
}
