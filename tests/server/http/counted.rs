//! What is counted seldom: caches of clients that return, clients that do not read, certificates, checks of files,
//! backups.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use super::{FILE, Served, section};
use crate::backups::zeobackup;
use crate::limits::messages::flood_with_invalidations;
use crate::support::client::{LATEST, RawClient, Speaks, record};
use crate::support::pickle::id;
use crate::support::process::{Server, free_address};
use crate::tls::identities::{Identity, params};

#[test]
fn clients_that_return_are_counted_by_what_they_are_told() {
    let served = Served::with("invalidation-queue-size 2", FILE);
    let (mut client, _) = RawClient::register(served.server.address, Speaks::Z5).expect("a connection");
    let mut tids = vec![0];
    for _ in 0..5 {
        let last = tids[tids.len() - 1];
        tids.push(client.commit(&[(0, last, &record(b"a state"))]).expect("connected").expect("a commit"));
    }
    let newest = tids[tids.len() - 1];
    // It has all, lacks one, lacks too many, and has seen what never was.
    for since in [newest, tids[tids.len() - 2], tids[1], newest + 1, newest - 1] {
        client.call("getInvalidations", vec![id(since)]).expect("connected").expect("an answer");
    }
    let told = ["quick", "too-old", "unknown"].map(|result| {
        served.metrics()[&format!("zeo_cache_verifications_total{{storage=\"1\",result=\"{result}\"}}")]
    });
    assert_eq!(told, [2.0, 1.0, 2.0]);
}

/// By today's names, whatever the client's protocol calls them, and also when the clients have gone.
#[test]
fn requests_are_counted_by_method() {
    let served = Served::start();
    let (mut new, _) = RawClient::register(served.server.address, Speaks::Z5).expect("a connection");
    let (mut old, _) = RawClient::register(served.server.address, Speaks::Z3101).expect("a connection");
    let tid = new.commit(&[(0, 0, &record(b"a state"))]).expect("connected").expect("a commit");
    for _ in 0..3 {
        new.call("loadBefore", vec![id(0), id(LATEST)]).expect("connected").expect("a record");
    }
    new.call("loadSerial", vec![id(0), id(tid)]).expect("connected").expect("a record");
    old.call("loadEx", vec![id(0)]).expect("connected").expect("a record");
    old.call("lastTransaction", vec![]).expect("connected").expect("a tid");
    // What does not exist, and what is refused.
    new.call("nonsense", vec![]).expect_err("the connection is closed");
    old.call("loadSerial", vec![id(7), id(tid)]).expect("connected").expect_err("no such object");
    let requests = || {
        let metrics = served.metrics();
        let of = |(series, number): (&String, &f64)| {
            let method =
                series.strip_prefix("zeo_requests_total{storage=\"1\",method=\"")?.strip_suffix("\"}")?;
            (*number > 0.0).then(|| (method.to_string(), *number))
        };
        metrics.iter().filter_map(of).collect::<BTreeMap<_, _>>()
    };
    let expected = [
        ("info", 1.0),
        ("load", 4.0),
        ("loadSerial", 2.0),
        ("other", 1.0),
        ("store", 1.0),
        ("tpc_begin", 1.0),
        ("tpc_finish", 1.0),
        ("vote", 1.0),
    ]
    .map(|(method, number)| (method.to_string(), number));
    assert_eq!(requests(), BTreeMap::from(expected.clone()));
    drop((new, old));
    until(&served, |of| of("zeo_clients{storage=\"1\",protocol=\"Z3101\",state=\"registered\"}").is_none());
    assert_eq!(requests(), BTreeMap::from(expected));
    let status: serde_json::Value = serde_json::from_str(&served.get("/status.json").body).expect("JSON");
    assert_eq!(status["storages"][0]["requests"]["load"], 4);
    assert_eq!(status["storages"][0]["requests"]["undo"], 0);
}

#[test]
fn a_client_that_does_not_read_is_seen_until_it_is_closed_and_counted_then() {
    let served = Served::with("max-unsent 2MB", FILE);
    let (silent, _) = RawClient::register(served.server.address, Speaks::Z5).expect("a connection");
    let of = |name: &str| served.metrics()[&format!("{name}{{storage=\"1\"}}")];
    let queued = Cell::new(0.0_f64);
    flood_with_invalidations(&served.server, || {
        queued.set(queued.get().max(of("zeo_outbox_bytes")));
        of("zeo_outbox_overflows_total") > 0.0
    });
    drop(silent);
    let queued = queued.get();
    assert!(queued > 100_000.0 && queued < 4e6, "{queued}");
}

#[test]
fn a_certificate_has_a_date() {
    let files = tempfile::tempdir().expect("a directory");
    fs::write(files.path().join("server.pem"), Identity::self_signed(params("server")).pem_with_key())
        .expect("written");
    fs::write(files.path().join("clients.pem"), Identity::self_signed(params("client")).pem())
        .expect("written");
    let directory = files.path().display();
    let ssl =
        format!("<ssl>\ncertificate {directory}/server.pem\nauthenticate {directory}/clients.pem\n</ssl>");
    let address = free_address();
    let server = Server::start_any(&ssl, &section(FILE, address), |_| ());
    let served = Served { server, address };
    served.wait_for_start();
    let listener = format!("('127.0.0.1', {})", served.server.address.port());
    let series = format!("zeo_tls_certificate_expiry_timestamp_seconds{{listener=\"{listener}\"}}");
    // The first of January 2999.
    assert_eq!(served.metrics()[&series], 32_472_144_000.0);
    let status: serde_json::Value = serde_json::from_str(&served.get("/status.json").body).expect("JSON");
    assert_eq!(status["listeners"][0]["address"], listener);
    assert_eq!(status["listeners"][0]["certificate_expires"], 32_472_144_000_u64);
}

/// Waits until the metrics are as expected.
fn until(served: &Served, is_there: impl Fn(&dyn Fn(&str) -> Option<f64>) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let metrics = served.metrics();
        if is_there(&|series| metrics.get(series).copied()) {
            return;
        }
        assert!(Instant::now() < deadline, "{metrics:?}\n{}", served.server.talk());
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_check_of_the_file_is_seen_while_it_runs_and_afterwards() {
    const LAST: &str = "zeo_scrub_last_timestamp_seconds{storage=\"1\"}";
    let section = "scrub-schedule every 1s\nscrub-max-rate 4MB";
    let served = Served::with("", &format!("<filestorage 1>\npath Data.fs\n{section}\n</filestorage>"));
    let (mut client, _) = RawClient::register(served.server.address, Speaks::Z5).expect("a connection");
    let text = [b"the text ".as_slice(), &[b'x'; 2 << 20]].concat();
    let first = client.commit(&[(0, 0, &record(&text))]).expect("connected").expect("a commit");
    client.commit(&[(0, first, &record(b"later"))]).expect("connected").expect("a commit");
    until(&served, |of| of("zeo_scrub_running{storage=\"1\"}") == Some(1.0));
    // A pass that began with all of it is over.
    for _ in 0..2 {
        let before = served.metrics().get(LAST).copied();
        until(&served, |of| of(LAST).is_some() && of(LAST) > before);
    }
    let findings = |kind: &str| format!("zeo_scrub_findings{{storage=\"1\",kind=\"{kind}\"}}");
    let metrics = served.metrics();
    assert_eq!((metrics[&findings("damage")], metrics[&findings("blob")]), (0.0, 0.0));
    assert!(metrics["zeo_scrub_last_duration_seconds{storage=\"1\"}"] > 0.1);
    assert!(metrics["zeo_scrub_next_timestamp_seconds{storage=\"1\"}"] > metrics[LAST] - 2.0);

    // A disk that changes a bit.
    let path = served.server.directory().join("Data.fs");
    let bytes = fs::read(&path).expect("the file");
    let at = bytes.windows(8).position(|part| part == b"the text").expect("the text");
    let file = fs::OpenOptions::new().write(true).open(path).expect("the file");
    file.write_all_at(b"T", at as u64).expect("written");
    until(&served, |of| of(&findings("damage")) > Some(0.0));
    assert_eq!(served.metrics()[&findings("blob")], 0.0);
    assert_eq!(served.metrics()["zeo_scrub_failures_total{storage=\"1\"}"], 0.0);
}

#[test]
fn backups_that_fail_are_counted_and_so_is_the_one_that_works_again() {
    let section = format!("{FILE}\n<backup>\n  repository repo\n  continuous 1s\n</backup>");
    let served = Served::with("", &section);
    let of = |name: &str| format!("{name}{{repository=\"repo\",stage=\"make\"}}");
    let (mut client, _) = RawClient::register(served.server.address, Speaks::Z5).expect("a connection");
    let first = client.commit(&[(0, 0, &record(b"a state"))]).expect("connected").expect("a commit");
    // There is no repository, and the server makes none.
    let failures = of("zeo_backup_failures_total");
    until(&served, |value| value(&failures) > Some(0.0));
    let metrics = served.metrics();
    assert_eq!(metrics[&of("zeo_backup_successes_total")], 0.0);
    assert!(!metrics.contains_key(&of("zeo_backup_last_success_timestamp_seconds")));
    let status: serde_json::Value = serde_json::from_str(&served.get("/status.json").body).expect("JSON");
    let making = &status["backups"][0]["making"];
    assert_eq!(making["is_failing"], true);
    assert!(
        making["last_error"].as_str().is_some_and(|error| error.contains("it is no repository")),
        "{making}"
    );

    let made = zeobackup(served.server.directory(), &["create", "-q", "-r", "repo", "-f", "Data.fs"]);
    assert_eq!(made.0, 0, "{made:?}");
    client.commit(&[(0, first, &record(b"another"))]).expect("connected").expect("a commit");
    until(&served, |value| value(&of("zeo_backup_successes_total")) > Some(0.0));
    let metrics = served.metrics();
    let (success, failure) =
        (of("zeo_backup_last_success_timestamp_seconds"), of("zeo_backup_last_failure_timestamp_seconds"));
    assert!(metrics[&success] > metrics[&failure], "{metrics:?}");
    assert!(
        metrics[&of("zeo_backup_last_bytes")] > 0.0 && metrics[&of("zeo_backup_last_duration_seconds")] > 0.0
    );
    let status: serde_json::Value = serde_json::from_str(&served.get("/status.json").body).expect("JSON");
    assert_eq!(status["backups"][0]["making"]["is_failing"], false);
}
