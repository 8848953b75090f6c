//! What is counted seldom: caches of clients that return, clients that do not read, certificates.

use std::cell::Cell;
use std::fs;

use super::{FILE, Served, section};
use crate::limits::messages::flood_with_invalidations;
use crate::support::client::{RawClient, Speaks, record};
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
