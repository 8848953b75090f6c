//! What operators see and do of a cluster: `zeoadmin role` and its like, `/primary` and `/replica`, metrics, the page.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use crate::commit_states::world::World;
use crate::http::{FILE, Served, ask, get};
use crate::pack_cancel::{filled, text};
use crate::support::process::free_address;
use crate::zeoadmin::{asked, zeoadmin};
use runzeo::internal::base::address::Address;
use runzeo::internal::net::listen::listen;
use runzeo::internal::server::http::{HttpServer, Rules, Site};
use runzeo::internal::server::status::cluster::{
    ClusterRole, ClusterStatus, ClusterStorage, Following, LagStatus, ReplicaStatus,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// A primary whose name is `a`, and the address for its replicas.
fn primary(zeo: &str, more: &str) -> Served {
    let listen = free_address();
    let section =
        format!("{FILE}\n<replication>\nname a\nlisten {listen}\nrole primary\n</replication>\n{more}");
    Served::with(&format!("admin-socket admin\n{zeo}"), &section)
}

/// The status of a path, and the body.
fn said(address: SocketAddr, path: &str) -> (u16, String) {
    let answer = get(address, path);
    (answer.status, answer.body)
}

#[test]
fn a_primary_on_its_own() {
    let served = primary("", "<audit>\npath audit.log\nevents admin\n</audit>");
    let server = &served.server;
    let deadline = Instant::now() + PATIENCE;
    while served.get("/primary").status != 200 || zeoadmin(server, &["role"]).status.code() != Some(0) {
        assert!(Instant::now() < deadline, "{:?} {:?}", served.get("/primary"), zeoadmin(server, &["role"]));
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(said(served.address, "/primary"), (200, "ok\n".into()));
    assert_eq!(said(served.address, "/replica"), (503, "the primary\n".into()));
    assert_eq!(served.get("/ready").status, 200);
    let head = ask(served.address, "HEAD /primary HTTP/1.0\r\n\r\n");
    assert_eq!((head.status, &*head.body), (200, ""));
    // Probes may ask under any name.
    let other = ask(served.address, "GET /replica HTTP/1.1\r\nHost: balancer.example.com\r\n\r\n");
    assert_eq!((other.status, &*other.body), (503, "the primary\n"));
    filled(server);

    let role = zeoadmin(server, &["role"]);
    assert!(text(&role.stdout).starts_with("cluster: primary a\n  timeline "), "{role:?}");
    let role = asked(server, &["role"]);
    assert_eq!((&role["role"], &role["name"], &role["held"]), (&"primary".into(), &"a".into(), &Json::Null));
    assert!(text(&zeoadmin(server, &["status"]).stdout).contains("\ncluster: primary a\n"));
    let status = &asked(server, &["status"])["cluster"];
    assert_eq!(
        (&status["role"], &status["synchronous_replicas"]),
        (&"primary".into(), &0.into()),
        "{status}"
    );
    let metrics = served.metrics();
    assert_eq!((metrics["zeo_replication_primary"], metrics["zeo_replication_held"]), (1.0, 0.0));
    assert!(served.get("/").body.contains("This server is a, the primary."));

    // It is the primary already.
    let promoted = zeoadmin(server, &["promote", "--wait", "1.5"]);
    assert_eq!(promoted.status.code(), Some(1), "{promoted:?}");
    server.wait_for_log("promotion: asked for by user ");
    server.wait_for_log("promotion: not done: ");
    let lines = fs::read_to_string(server.directory().join("audit.log")).unwrap();
    assert_eq!(lines.lines().count(), 1, "looking at it has no line: {lines}");
    assert!(lines.contains("\\\"wait\\\":1.5") && lines.contains("promote"), "{lines}");
    for mistake in [
        &["role", "1"][..],
        &["promote", "1"],
        &["promote", "--wait", "-1"],
        &["promote", "--wait", "inf"],
        &["demote", "1"],
        &["follow"],
        &["follow", "a:1", "b:1"],
    ] {
        assert_eq!(zeoadmin(server, mistake).status.code(), Some(2), "{mistake:?}");
    }
    let output = zeoadmin(server, &["follow", "b.example.com"]);
    assert!(text(&output.stderr).contains("'b.example.com' has no port"), "{output:?}");
}

/// A replica, and a change of roles by `zeoadmin`, as probes and scripts see them.
#[test]
fn probes_follow_a_change_of_roles() {
    let [one, other] = [free_address(), free_address()];
    let member = |name: &str, listen: SocketAddr, peer: SocketAddr, role: &str| {
        let keys = format!("name {name}\nlisten {listen}\npeer {peer}\nrole {role}");
        Served::with("admin-socket admin", &format!("{FILE}\n<replication>\n{keys}\n</replication>"))
    };
    let a = member("a", one, other, "primary");
    let b = member("b", other, one, "replica");
    let wait_for = |served: &Served, path: &str, status: Option<i32>| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (probe, role) = (served.get(path), zeoadmin(&served.server, &["role"]));
            if probe.status == 200 && role.status.code() == status {
                return text(&role.stdout);
            }
            assert!(Instant::now() < deadline, "{probe:?} {role:?} {}", served.server.log());
            thread::sleep(Duration::from_millis(20));
        }
    };
    wait_for(&a, "/primary", Some(0));
    wait_for(&b, "/replica", Some(10));
    let deadline = Instant::now() + PATIENCE;
    while said(b.address, "/primary") != (503, "a replica, which follows a\n".into()) {
        assert!(Instant::now() < deadline, "{:?}", said(b.address, "/primary"));
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(b.metrics()["zeo_replication_connected{storage=\"1\"}"], 1.0);

    let demoted = zeoadmin(&a.server, &["demote"]);
    assert_eq!(demoted.status.code(), Some(0), "{demoted:?}");
    assert_eq!(said(a.address, "/primary").0, 503);
    let promoted = zeoadmin(&b.server, &["promote"]);
    assert_eq!(promoted.status.code(), Some(0), "{promoted:?}");
    let role = wait_for(&b, "/primary", Some(0));
    assert!(role.starts_with("cluster: primary b\n") && role.contains(", promotions: 1\n"), "{role}");
    wait_for(&a, "/replica", Some(10));
    assert_eq!(b.metrics()["zeo_replication_promotions_total"], 1.0);
}

#[test]
fn the_role_is_kept() {
    let mut served = primary("", "");
    filled(&served.server);
    assert!(served.server.stop().success());
    served.server.start_again();
    let deadline = Instant::now() + PATIENCE;
    while zeoadmin(&served.server, &["role"]).status.code() != Some(0) {
        assert!(Instant::now() < deadline, "{:?}", zeoadmin(&served.server, &["role"]));
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_server_in_no_cluster() {
    let served = Served::with("admin-socket admin", FILE);
    assert_eq!(said(served.address, "/primary"), (200, "ok\n".into()));
    let why = "in no cluster: there is no <replication>\n";
    assert_eq!(said(served.address, "/replica"), (503, why.into()));
    for command in [&["role"][..], &["promote"], &["demote"], &["follow", "a:1"]] {
        let output = zeoadmin(&served.server, command);
        let why = "Error: this server is in no cluster: its configuration has no <replication>\n";
        assert_eq!((output.status.code(), &*text(&output.stderr)), (Some(1), why), "{command:?}");
    }
    assert_eq!(asked(&served.server, &["status"])["cluster"], Json::Null);
    assert!(!served.metrics().keys().any(|name| name.contains("replication")));
    assert!(!served.get("/").body.contains("Cluster"));
    let read_only = Served::with("read-only true", FILE);
    assert_eq!(said(read_only.address, "/primary"), (503, "read-only\n".into()));
}

fn replica(name: &str, seconds: f64) -> ReplicaStatus {
    ReplicaStatus {
        name: name.into(),
        peer: "10.0.0.3:5000".into(),
        since: 1e9,
        sent: "1".into(),
        received: "1".into(),
        synced: "1".into(),
        published: "1".into(),
        behind: LagStatus { bytes: 700, transactions: 3, seconds },
        synchronous: true,
    }
}

fn cluster(role: ClusterRole) -> ClusterStatus {
    let following = Following {
        failure: None,
        primary_last: "2".into(),
        behind: Some(LagStatus { bytes: 4096, transactions: 2, seconds: 5.5 }),
        staleness_seconds: Some(5.5),
    };
    let storage = ClusterStorage {
        storage: "1".into(),
        last: "1".into(),
        following: Some(following),
        replicas: vec![replica("c", 0.0), replica("c", 9.0), replica("<d>", 0.5)],
        degraded_since: None,
        degradations: 4,
    };
    ClusterStatus {
        name: "b".into(),
        role,
        held: None,
        fenced: None,
        promotions: 2,
        timeline: "3".into(),
        since: 1e9,
        primary: Some("a:8200".into()),
        synchronous_replicas: 1,
        on_timeout: "degrade",
        max_staleness_seconds: Some(30.0),
        storages: vec![storage],
    }
}

/// Answers one request at a socket, as a server does, and returns it.
fn answer_once(socket: &Path, answer: &str) -> thread::JoinHandle<String> {
    let _ = fs::remove_file(socket);
    let listener = UnixListener::bind(socket).unwrap();
    let answer = format!("{answer}\n");
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut request = String::new();
        BufReader::new(&stream).read_line(&mut request).unwrap();
        (&stream).write_all(answer.as_bytes()).unwrap();
        request
    })
}

/// What `zeoadmin` sends, and what it makes of the answer: exit status and output.
fn at_a_server_that_says(answer: &str, arguments: &[&str]) -> (Json, Option<i32>, String) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin");
    let server = answer_once(&socket, answer);
    let mut command = Command::new(env!("CARGO_BIN_EXE_zeoadmin"));
    let output = command.args(arguments).arg("-s").arg(&socket).output().expect("it runs");
    let request = serde_json::from_str(&server.join().unwrap()).expect("JSON");
    (request, output.status.code(), text(&output.stdout))
}

#[test]
fn the_exit_status_says_which_role_it_is() {
    let says =
        |cluster: &ClusterStatus| format!("{{\"result\": {}}}", serde_json::to_string(cluster).unwrap());
    let mut status = cluster(ClusterRole::Replica);
    status.fenced = Some("c is".into());
    let (request, code, said) = at_a_server_that_says(&says(&status), &["role"]);
    assert_eq!((request, code), (json!({ "command": "role" }), Some(10)));
    let lines: Vec<&str> = said.lines().collect();
    for line in [
        "cluster: replica b, which follows a:8200",
        "  not the primary any more: c is",
        "  a commit waits for 1 replica, or goes on without them after a time",
        "  storage 1: last transaction 1",
        "    connected; 4.1 KB, 2 transactions, 5.5 s behind",
    ] {
        assert!(lines.contains(&line), "{line}: {said}");
    }
    assert!(said.contains("\n    replica c (10.0.0.3:5000) since 2001-09-0"), "{said}");
    status.primary = None;
    let following = status.storages[0].following.as_mut().expect("a replica");
    (following.behind, following.failure) = (None, Some("refused\u{1b}[2J".into()));
    let (_, code, said) = at_a_server_that_says(&says(&status), &["role", "--json"]);
    assert_eq!((code, said.lines().count()), (Some(10), 1), "{said}");
    let (_, _, said) = at_a_server_that_says(&says(&status), &["role"]);
    assert!(said.contains("cluster: replica b, which has found no primary\n"), "{said}");
    assert!(said.contains("not connected: refused\\u{1b}[2J; how far behind is not known\n"), "{said}");
    let primary = ClusterStatus { synchronous_replicas: 0, ..cluster(ClusterRole::Primary) };
    let (_, code, said) = at_a_server_that_says(&says(&primary), &["role"]);
    assert_eq!(
        (code, said.starts_with("cluster: primary b\n  timeline 3 since ")),
        (Some(0), true),
        "{said}"
    );
    let (_, code, _) = at_a_server_that_says("{\"result\": {}}", &["role"]);
    assert_eq!(code, Some(1));
    let (_, code, _) = at_a_server_that_says("{\"error\": \"no\"}", &["role"]);
    assert_eq!(code, Some(1));
}

#[test]
fn roles_are_changed() {
    let done = "{\"result\": {\"role\": \"primary\", \"done\": \"it is the primary\"}}";
    for (arguments, expected) in [
        (&["promote"][..], json!({ "command": "promote", "wait": null, "force": false })),
        (&["promote", "-f", "-w", "2"], json!({ "command": "promote", "wait": 2.0, "force": true })),
        (&["demote"], json!({ "command": "demote" })),
        (&["follow", "c:8200"], json!({ "command": "follow", "address": "c:8200" })),
    ] {
        let (request, code, said) = at_a_server_that_says(done, arguments);
        assert_eq!((request, code, &*said), (expected, Some(0), "it is the primary\n"), "{arguments:?}");
        let (_, code, _) = at_a_server_that_says("{\"error\": \"no\"}", arguments);
        assert_eq!(code, Some(1), "{arguments:?}");
    }
}

/// What a server shows of whatever its cluster is.
#[test]
fn a_replica_and_its_changes() {
    let world = World::new(None, None);
    let site = Site::new(Box::new(|| "opening 1".into()));
    let address = Address::Tcp { host: Some("127.0.0.1".into()), port: Some(0) };
    let listeners = listen(&address, Default::default()).expect("a socket");
    let address = listeners[0].socket.local_addr().expect("an address").as_socket().expect("of IP");
    let _http = HttpServer::start(listeners, Rules::default(), &site).expect("threads");
    for path in ["/primary", "/replica"] {
        assert_eq!(said(address, path), (503, "opening 1\n".into()), "{path}");
    }
    let shown = Arc::new(Mutex::new(cluster(ClusterRole::Replica)));
    let view = Arc::clone(&shown);
    world.server.show_cluster(Box::new(move || view.lock().unwrap().clone()));
    site.serves(&world.server);

    assert_eq!(said(address, "/replica"), (200, "ok\n".into()));
    assert_eq!(said(address, "/primary"), (503, "a replica, which follows a:8200\n".into()));
    let metrics = get(address, "/metrics").body;
    for line in [
        "zeo_replication_primary 0",
        "zeo_replication_promotions_total 2",
        "zeo_replication_connected{storage=\"1\"} 1",
        "zeo_replication_lag_bytes{storage=\"1\"} 4096",
        "zeo_replication_lag_transactions{storage=\"1\"} 2",
        "zeo_replication_lag_seconds{storage=\"1\"} 5.5",
        "zeo_replication_staleness_seconds{storage=\"1\"} 5.5",
        "zeo_replication_replicas{storage=\"1\"} 3",
        "zeo_replication_degraded{storage=\"1\"} 0",
        "zeo_replication_degradations_total{storage=\"1\"} 4",
        "zeo_replication_replica_lag_bytes{storage=\"1\",replica=\"c\"} 700",
        "zeo_replication_replica_lag_seconds{storage=\"1\",replica=\"c\"} 0",
        "zeo_replication_replica_lag_transactions{storage=\"1\",replica=\"<d>\"} 3",
        "zeo_replication_replica_synchronous{storage=\"1\",replica=\"<d>\"} 1",
    ] {
        assert_eq!(metrics.matches(&format!("\n{line}\n")).count(), 1, "{line}: {metrics}");
    }
    // Of two with the same name, one has samples.
    assert_eq!(metrics.matches("replica_lag_seconds{storage=\"1\",replica=\"c\"}").count(), 1, "{metrics}");
    let page = get(address, "/").body;
    assert!(page.contains("This server is b, a replica of a:8200. A commit waits for 1 replica."), "{page}");
    assert!(page.contains("&lt;d&gt;") && !page.contains("<d>"), "{page}");
    let status: Json = serde_json::from_str(&get(address, "/status.json").body).expect("JSON");
    assert_eq!(status["cluster"]["storages"][0]["replicas"][2]["behind"]["seconds"], 0.5);

    // Beyond its limit it is neither.
    let change = |change: &dyn Fn(&mut ClusterStatus)| change(&mut shown.lock().unwrap());
    change(&|cluster| {
        let following = cluster.storages[0].following.as_mut().expect("a replica");
        following.staleness_seconds = Some(75.0);
        following.failure = Some("connection refused".into());
        following.behind = None;
    });
    let why = "storage 1: 75 s behind, more than max-staleness\n";
    for path in ["/ready", "/replica"] {
        assert_eq!(said(address, path), (503, why.into()), "{path}");
    }
    assert_eq!(said(address, "/live").0, 200);
    let metrics = get(address, "/metrics").body;
    assert!(
        metrics.contains("\nzeo_ready 0\n") && metrics.contains("connected{storage=\"1\"} 0\n"),
        "{metrics}"
    );
    assert!(!metrics.contains("zeo_replication_lag_bytes{"), "not known: {metrics}");
    let status: Json = serde_json::from_str(&get(address, "/status.json").body).expect("JSON");
    let warnings = status["warnings"].to_string();
    assert!(warnings.contains("the replica is not connected to a primary: connection refused"), "{warnings}");

    // It is promoted, and asks the others first.
    change(&|cluster| {
        *cluster = self::cluster(ClusterRole::Primary);
        cluster.held = Some("it asks its peers".into());
    });
    let why = "the primary accepts no writes: it asks its peers\n";
    assert_eq!(said(address, "/primary"), (503, why.into()));
    assert_eq!(said(address, "/replica"), (503, "the primary\n".into()));
    change(&|cluster| cluster.held = None);
    assert_eq!(said(address, "/primary"), (200, "ok\n".into()));
}
