//! The metrics: their form, read by a parser here and by those of Prometheus' own client; their numbers, compared with
//! those of `ruok`; and their table in the documents.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{FILE, Served, ask};
use crate::backups::{with_repository, zeobackup};
use crate::support::client::{LATEST, RawClient, Speaks, record, undo_id};
use crate::support::pickle::{Value, id, text};
use crate::support::process::{Server, free_address};
use crate::support::pythons::python;

const OPENMETRICS: &str = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;\
                           q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

/// A family as announced, and its samples: name and labels as written, and the value.
#[derive(Debug)]
struct Family {
    kind: String,
    samples: Vec<(String, f64)>,
}

/// Reads the text strictly: each family once and whole, with a help and a type, names that fit the type.
fn parse(text: &str, is_openmetrics: bool) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let text = match is_openmetrics {
        true => text.strip_suffix("# EOF\n").expect("the end"),
        false => text,
    };
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let (name, help) = line.strip_prefix("# HELP ").expect(line).split_once(' ').expect(line);
        assert!(help.ends_with('.') && !help.contains('\\'), "{line}");
        let line = lines.next().expect("a type");
        let (typed, kind) = line.strip_prefix("# TYPE ").expect(line).split_once(' ').expect(line);
        assert_eq!(typed, name);
        let mut samples = Vec::new();
        while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').expect(line);
            samples.push((series.to_string(), value.parse().expect(line)));
            let (sample, labels) = series.split_once('{').unwrap_or((series, "}"));
            let suffix = sample.strip_prefix(name).expect(line);
            let fits: &[&str] = match (kind, is_openmetrics) {
                ("counter", true) => &["_total"],
                ("info", true) => &["_info"],
                ("histogram", _) => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            assert!(fits.contains(&suffix), "{line}");
            assert!(kind != "counter" || name.ends_with("_total") != is_openmetrics, "{line}");
            let labels = labels.strip_suffix('}').expect(line).replace("\\\"", "'");
            for label in labels.split("\",").filter(|label| !label.is_empty()) {
                let (key, value) = label.split_once("=\"").expect(line);
                assert!(key.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{line}");
                assert!(!value.trim_end_matches('"').contains('"'), "{line}");
            }
        }
        check_histogram(kind, name, &samples);
        let family = Family { kind: kind.into(), samples };
        assert!(families.insert(name.into(), family).is_none(), "{name} twice");
    }
    families
}

/// The buckets of each series grow, and the last one is the count.
fn check_histogram(kind: &str, name: &str, samples: &[(String, f64)]) {
    if kind != "histogram" {
        return;
    }
    for series in samples.chunk_by(|(one, _), _| !one.starts_with(&format!("{name}_count"))) {
        let buckets: Vec<f64> =
            series.iter().filter(|(key, _)| key.contains("_bucket{")).map(|(_, n)| *n).collect();
        assert!(buckets.is_sorted() && buckets.len() > 2, "{series:?}");
        let [.., (last, all), (sum, _), (count, number)] = series else { panic!("{series:?}") };
        assert!(
            last.contains("le=\"+Inf\"") && sum.contains("_sum") && count.contains("_count"),
            "{series:?}"
        );
        assert_eq!(all, number);
    }
}

impl Served {
    /// All samples by name and labels.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let families = parse(&self.openmetrics(), true);
        families.into_values().flat_map(|family| family.samples).collect()
    }

    fn openmetrics(&self) -> String {
        let request = format!("GET /metrics HTTP/1.1\r\nHost: zeo\r\nAccept: {OPENMETRICS}\r\n\r\n");
        let answer = ask(self.address, &request);
        let content_type = answer.field("Content-Type").expect("a type");
        assert_eq!(content_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
        answer.body
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

#[test]
fn both_forms_have_the_same_samples() {
    let served = Served::start();
    let plain_form = || {
        let plain = served.get("/metrics");
        assert_eq!(plain.field("Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        parse(&plain.body, false)
    };
    let series = |families: &BTreeMap<String, Family>| -> BTreeSet<String> {
        families.values().flat_map(|family| &family.samples).map(|(series, _)| series.clone()).collect()
    };
    // The file systems have samples once they were looked at, after the start.
    let (openmetrics, plain) = loop {
        let (before, openmetrics, plain) = (plain_form(), parse(&served.openmetrics(), true), plain_form());
        if series(&before) == series(&plain) {
            break (openmetrics, plain);
        }
    };
    assert_eq!(series(&openmetrics), series(&plain));
    assert_eq!(openmetrics["zeo_loads"].kind, "counter");
    assert_eq!(plain["zeo_loads_total"].kind, "counter");
    assert_eq!((&*openmetrics["zeo_build"].kind, &*plain["zeo_build_info"].kind), ("info", "gauge"));
}

#[test]
fn numbers_are_those_of_ruok() {
    let begun = now();
    let served = Served::start();
    let (mut client, _) = RawClient::register(served.server.address, Speaks::Z5).expect("a connection");
    let (mut old, _) = RawClient::register(served.server.address, Speaks::Z4).expect("a connection");
    let _unregistered = RawClient::connect(served.server.address, Speaks::Z5).expect("a connection");
    let data = record(b"a state");
    let first = client.commit(&[(0, 0, &data), (1, 0, &data)]).expect("connected").expect("a commit");
    let second = client.commit(&[(0, first, &data)]).expect("connected").expect("a commit");
    client.commit(&[(0, first, &data)]).expect("connected").expect_err("a conflict");
    for _ in 0..3 {
        client.call("loadBefore", vec![id(0), id(LATEST)]).expect("connected").expect("a load");
    }
    // An undo, and a transaction that is aborted.
    client.queue_begin(50);
    client.queue_async("undoa", vec![text(&undo_id(second)), Value::Int(50)]);
    client.call("vote", vec![Value::Int(50)]).expect("connected").expect("a vote");
    client.call("tpc_finish", vec![Value::Int(50)]).expect("connected").expect("a finish");
    client.queue_begin(51);
    client.call("tpc_abort", vec![Value::Int(51)]).expect("connected").expect("an abort");
    old.queue_begin(7);
    old.call("get_size_info", vec![]).expect("connected").expect("an answer");

    let ruok = &served.server.ruok()["1"];
    // The connection of ruok may not have ended yet.
    let until = Instant::now() + Duration::from_secs(60);
    let mut metrics = served.metrics();
    while metrics["zeo_clients{state=\"unregistered\"}"] > 1.0 && Instant::now() < until {
        metrics = served.metrics();
    }
    let of = |name: &str, labels: &str| {
        let series = format!("{name}{{storage=\"1\"{labels}}}");
        *metrics.get(&series).unwrap_or_else(|| panic!("{series} in {metrics:?}"))
    };
    for (name, labels, key) in [
        ("zeo_loads_total", "", "loads"),
        ("zeo_stores_total", "", "stores"),
        ("zeo_commits_total", "", "commits"),
        ("zeo_aborts_total", "", "aborts"),
        ("zeo_conflicts_total", ",outcome=\"refused\"", "conflicts"),
        ("zeo_conflicts_total", ",outcome=\"resolved\"", "conflicts_resolved"),
        ("zeo_active_transactions", "", "active_txns"),
        ("zeo_lock_waiters", "", "waiting"),
    ] {
        assert_eq!(Some(of(name, labels)), ruok[key].as_f64(), "{name}");
    }
    assert_eq!(
        (of("zeo_loads_total", ""), of("zeo_commits_total", ""), of("zeo_undos_total", "")),
        (3.0, 3.0, 1.0)
    );
    assert_eq!((of("zeo_stores_total", ""), of("zeo_aborts_total", "")), (4.0, 1.0));
    // One vote has met a conflict.
    for (method, count) in [("vote", 4.0), ("tpc_finish", 3.0)] {
        let method = format!(",method=\"{method}\"");
        assert_eq!(of("zeo_request_duration_seconds_count", &method), count, "{method}");
        assert!(of("zeo_request_duration_seconds_sum", &method) > 0.0, "{method}");
    }
    assert_eq!(of("zeo_bytes_stored_total", ""), 4.0 * data.len() as f64);
    let clients =
        |protocol: &str| of("zeo_clients", &format!(",protocol=\"{protocol}\",state=\"registered\""));
    assert_eq!((clients("Z5"), clients("Z4")), (1.0, 1.0));
    assert_eq!(metrics["zeo_clients{state=\"unregistered\"}"], 1.0);
    // The first one asked whether the server listens; ruok was the last.
    assert_eq!(metrics["zeo_connections_accepted_total"], 5.0);
    assert_eq!(of("zeo_storage_objects", ""), 2.0);
    let size = fs::metadata(served.server.directory().join("Data.fs")).expect("the file").len();
    assert!(of("zeo_storage_size_bytes", "") > 200.0 && of("zeo_storage_size_bytes", "") <= size as f64);
    let sums = ["zeo_commit_group_size_sum", "zeo_fsync_duration_seconds_count"].map(|name| of(name, ""));
    assert_eq!(sums, [3.0, 3.0]);
    assert!(of("zeo_fsync_duration_seconds_sum", "") > 0.0);
    // With the vote that was refused.
    assert_eq!((of("zeo_lock_wait_seconds_count", ""), of("zeo_lock_hold_seconds_count", "")), (4.0, 4.0));
    assert!(
        of("zeo_network_receive_bytes_total", "") > 1000.0
            && of("zeo_network_transmit_bytes_total", "") > 500.0
    );
    let last = of("zeo_last_transaction_timestamp_seconds", "");
    assert!((begun - 1.0..=now()).contains(&last), "{last}");
}

#[test]
fn the_process_and_its_file_systems_are_seen() {
    let begun = now();
    let served = Served::start();
    // The file systems are asked by a thread of its own, at first when the server serves.
    let free = "zeo_filesystem_free_bytes{storage=\"1\",what=\"data\"}";
    let deadline = Instant::now() + Duration::from_secs(60);
    let metrics = loop {
        let metrics = served.metrics();
        if metrics.contains_key(free) {
            break metrics;
        }
        assert!(Instant::now() < deadline, "{metrics:?}");
    };
    for name in ["zeo_start_time_seconds", "process_start_time_seconds"] {
        assert!((begun - 1.0..=now()).contains(&metrics[name]), "{name}");
    }
    assert!(metrics["process_resident_memory_bytes"] > 1e6 && metrics["process_open_fds"] > 5.0);
    assert!(metrics["process_max_fds"] >= metrics["process_open_fds"] && metrics["process_threads"] > 2.0);
    assert!(metrics.contains_key("process_cpu_seconds_total"));
    let room = fs2::available_space(served.server.directory()).expect("the space") as f64;
    assert!(metrics[free] > 0.5 * room && metrics[free] < 2.0 * room, "{room} {metrics:?}");
    let zeros = ["zeo_panics_total", "zeo_log_lines_lost_total"].map(|name| metrics[name]);
    assert_eq!((zeros, metrics["zeo_ready"]), ([0.0, 0.0], 1.0));
}

#[test]
fn locks_that_are_held_are_seen() {
    let served = Served::start();
    let (mut holder, _) = RawClient::register(served.server.address, Speaks::Z5).expect("a connection");
    let (mut waiter, _) = RawClient::register(served.server.address, Speaks::Z5).expect("a connection");
    let vote = |client: &mut RawClient| {
        client.queue_begin(7);
        client.queue_store(0, 0, &record(b"a state"), 7);
        let vote = client.queue_call("vote", vec![Value::Int(7)]);
        client.flush().expect("sent");
        vote
    };
    let voted = vote(&mut holder);
    holder.answer(voted).expect("connected").expect("a vote");
    vote(&mut waiter);
    let of = |name: &str| served.metrics()[&format!("{name}{{storage=\"1\"}}")];
    let deadline = Instant::now() + Duration::from_secs(60);
    while of("zeo_lock_waiters") < 1.0 {
        assert!(Instant::now() < deadline);
    }
    assert_eq!((of("zeo_lock_holders"), of("zeo_active_transactions")), (1.0, 2.0));
    let held = of("zeo_lock_oldest_hold_seconds");
    thread::sleep(Duration::from_millis(300));
    assert!(of("zeo_lock_oldest_hold_seconds") >= held + 0.3);
    drop(holder);
    while of("zeo_lock_waiters") > 0.0 {
        assert!(Instant::now() < deadline);
    }
    assert!(of("zeo_lock_wait_seconds_sum") >= 0.3);
}

#[test]
fn refused_connections_are_counted_by_reason() {
    let zeo = "max-connections 1\nmax-connections-per-address 2\nhandshake-timeout 1\nmax-unregistered 3";
    let served = Served::with(zeo, FILE);
    let (_client, _) = RawClient::register(served.server.address, Speaks::Z5).expect("a connection");
    let mut second = RawClient::connect(served.server.address, Speaks::Z5).expect("a connection");
    second.call("register", vec![text("1"), Value::Bool(false)]).expect("an answer").expect_err("too many");
    let refused =
        |reason: &str| served.metrics()[&format!("zeo_connections_refused_total{{reason=\"{reason}\"}}")];
    let deadline = Instant::now() + Duration::from_secs(60);
    // It has not registered in time.
    while refused("handshake-timeout") < 1.0 {
        assert!(Instant::now() < deadline);
    }
    let _others: Vec<_> =
        (0..3).filter_map(|_| RawClient::connect(served.server.address, Speaks::Z5).ok()).collect();
    while refused("max-connections-per-address") < 1.0 {
        assert!(Instant::now() < deadline, "{:?}", served.metrics());
    }
    assert_eq!(refused("max-connections"), 1.0);
    assert_eq!(refused("resources"), 0.0);
}

#[test]
fn packs_are_seen() {
    let served = Served::start();
    let (mut client, _) = RawClient::register(served.server.address, Speaks::Z5).expect("a connection");
    let mut serial = 0;
    for _ in 0..3 {
        serial = client.commit(&[(0, serial, &record(&[b'x'; 1000]))]).expect("connected").expect("a commit");
    }
    let of = |name: &str| served.metrics().get(&format!("{name}{{storage=\"1\"}}")).copied();
    assert_eq!((of("zeo_pack_running"), of("zeo_pack_last_success_timestamp_seconds")), (Some(0.0), None));
    client.call("pack", vec![Value::Float(4e9), Value::Bool(true)]).expect("connected").expect("a pack");
    client
        .call("pack", vec![Value::Float(-1e12), Value::Bool(true)])
        .expect("connected")
        .expect_err("no time");
    assert_eq!((of("zeo_packs_total"), of("zeo_pack_failures_total")), (Some(1.0), Some(1.0)));
    assert!((now() - of("zeo_pack_last_success_timestamp_seconds").expect("a time")).abs() < 60.0);
    // Of the last one, which has failed.
    assert_eq!(of("zeo_pack_last_bytes_freed"), Some(0.0));
}

/// The parsers that Prometheus' own client has for both forms.
#[test]
fn the_parsers_of_prometheus_read_them() {
    let Some(python) = python("prometheus-py311") else { return };
    let served = Served::with("", "<filestorage \"main\">\npath Data.fs\n</filestorage>");
    let (mut client, _) = {
        let mut client = RawClient::connect(served.server.address, Speaks::Z5).expect("a connection");
        let name = vec![text("\"main\""), Value::Bool(false)];
        let registered = client.call("register", name).expect("an answer");
        (client, registered)
    };
    let _ = client.call("ping", vec![]);
    for (form, metrics) in
        [("openmetrics", served.openmetrics()), ("prometheus", served.get("/metrics").body)]
    {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/server/http/metrics.py");
        let mut child = Command::new(&python)
            .arg(script)
            .arg(form)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it runs");
        child.stdin.take().expect("its input").write_all(metrics.as_bytes()).expect("written");
        let output = child.wait_with_output().expect("its end");
        assert!(output.status.success(), "{metrics}");
        let read = String::from_utf8(output.stdout).expect("text");
        let ours: usize =
            parse(&metrics, form == "openmetrics").values().map(|family| family.samples.len()).sum();
        assert_eq!(read.lines().count(), ours, "{read}");
        assert!(read.contains("counter zeo_panics_total{} 0.0\n"), "{read}");
    }
}

/// What has no value before something has happened has one afterwards, and each row of the table is there.
#[test]
fn the_table_in_the_documents_is_complete() {
    let address = free_address();
    let storages = "<filestorage 1>\npath Data.fs\nblob-dir blobs\npack-schedule daily 03:00\nscrub-schedule daily 04:00\n\
                    </filestorage>\n<backup>\nrepository repo\nschedule daily 02:00\ncommand cat >/dev/null\n</backup>";
    let server = Server::start_any("", &super::section(storages, address), with_repository);
    let served = Served { server, address };
    served.wait_for_start();
    let (mut client, _) = RawClient::register(served.server.address, Speaks::Z5).expect("a connection");
    client.commit(&[(0, 0, &record(b"a state"))]).expect("connected").expect("a commit");
    client.call("pack", vec![Value::Float(4e9), Value::Bool(true)]).expect("connected").expect("a pack");
    let deadline = Instant::now() + Duration::from_secs(60);
    // One was there before, and it is sent.
    let sent = "zeo_backup_successes_total{repository=\"repo\",stage=\"send\"}";
    while served.metrics()[sent] < 1.0 {
        assert!(Instant::now() < deadline, "{}", served.server.log());
    }
    let metrics = served.metrics();
    for stage in ["make", "send"] {
        let series =
            format!("zeo_backup_last_success_timestamp_seconds{{repository=\"repo\",stage=\"{stage}\"}}");
        assert!((now() - metrics[&series]).abs() < 120.0, "{series}");
    }
    assert_eq!(zeobackup(served.server.directory(), &["list", "-r", "repo"]).0, 0);

    let families = parse(&served.get("/metrics").body, false);
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/monitoring.md"))
        .expect("the page");
    let rows: BTreeMap<&str, (&str, BTreeSet<&str>)> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |"))
        .filter_map(|line| {
            let cells: Vec<&str> = line.split(" | ").collect();
            let [name, kind, labels, meaning] = cells[..] else { return None };
            assert!(!meaning.is_empty(), "{line}");
            let labels =
                labels.split(", ").map(|label| label.trim_matches('`')).filter(|label| *label != "-");
            Some((name.trim_end_matches('`'), (kind, labels.collect())))
        })
        .filter(|(name, _)| name.starts_with("zeo_") || name.starts_with("process_"))
        .collect();
    let told: BTreeSet<&str> = families.keys().map(String::as_str).collect();
    assert_eq!(rows.keys().copied().collect::<BTreeSet<_>>(), told);
    for (name, family) in &families {
        let (kind, labels) = &rows[name.as_str()];
        assert_eq!(*kind, family.kind, "{name}");
        for (series, _) in &family.samples {
            let written = series.split_once('{').map_or("", |(_, labels)| labels.trim_end_matches('}'));
            let seen = written.split("\",").filter_map(|label| Some(label.split_once('=')?.0));
            for label in seen.filter(|label| *label != "le") {
                assert!(labels.contains(label), "{name}: {label}");
            }
        }
    }
}
