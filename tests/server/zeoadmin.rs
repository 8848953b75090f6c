//! `zeoadmin` and the admin socket.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::pack_cancel::{SLOW, filled, register, text};
use crate::support::client::{RawClient, Speaks, record};
use crate::support::pickle::Value;
use crate::support::process::Server;

/// The class of the records.
const CLASS: &str = "persistent.mapping.PersistentMapping";
const PATIENCE: Duration = Duration::from_secs(60);

pub fn zeoadmin(server: &Server, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zeoadmin"));
    command.args(arguments).arg("-C").arg(server.directory().join("zeo.conf"));
    command.current_dir(server.directory()).env_remove("RUNZEO_ADMIN_SOCKET").output().expect("it runs")
}

/// The answer as JSON.
pub fn asked(server: &Server, arguments: &[&str]) -> Json {
    let output = zeoadmin(server, &[arguments, &["--json"]].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// A server whose storages are open: it answers before.
fn with_socket() -> Server {
    with_socket_and("")
}

/// The same with more keys of `<zeo>`.
pub fn with_socket_and(keys: &str) -> Server {
    let server = Server::start_with(&format!("admin-socket admin\n{keys}"));
    let deadline = Instant::now() + PATIENCE;
    while sent(&server, b"{\"command\": \"kill\"}\n").contains("is not ready") {
        assert!(Instant::now() < deadline, "{}", server.talk());
    }
    server
}

/// Sends bytes to the socket, and returns the answer.
fn sent(server: &Server, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(server.directory().join("admin")).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // The server may refuse before it has read all.
    let _ = stream.write_all(bytes);
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

/// Begins a transaction with one store, and asks for its vote.
pub fn queue_vote(client: &mut RawClient, serial: u64, data: &[u8]) -> i64 {
    client.queue_begin(7);
    client.queue_store(0, serial, &record(data), 7);
    client.queue_call("vote", vec![Value::Int(7)])
}

/// A client that holds the lock of the root, one that waits for it, and the number of its call.
pub fn holder_and_waiter(server: &Server) -> (RawClient, RawClient, i64) {
    let (mut holder, serial) = filled(server);
    let vote = queue_vote(&mut holder, serial, b"held");
    holder.flush().expect("connected");
    holder.answer(vote).expect("an answer").expect("the locks");
    let mut waiter = register(server, Speaks::Z5);
    let vote = queue_vote(&mut waiter, serial, b"waits");
    waiter.flush().expect("connected");
    while server.ruok()["1"]["waiting"] != 1 {}
    (holder, waiter, vote)
}

#[test]
fn a_client_that_holds_locks_is_killed() {
    let server = with_socket();
    let (mut holder, mut waiter, vote) = holder_and_waiter(&server);

    let locks = &asked(&server, &["locks"])[0];
    let (held, waits) = (&locks["holders"][0], &locks["waiters"][0]);
    assert_eq!((&held["objects"], &waits["waits_for"][0]), (&Json::from(1), &held["client"]), "{locks}");
    let number = held["client"].to_string();
    let table = text(&zeoadmin(&server, &["locks"]).stdout);
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows.len(), 3, "{table}");
    assert_eq!((rows[1][1], rows[1][2], rows[2][1]), ("holds", number.as_str(), "waits"), "{table}");
    let transactions = asked(&server, &["transactions", "1"]);
    let states: Vec<&Json> =
        transactions.as_array().unwrap().iter().map(|one| &one["transaction"]["state"]).collect();
    assert_eq!(states, ["voted", "waiting"], "the oldest first: {transactions}");
    let table = text(&zeoadmin(&server, &["transactions"]).stdout);
    assert!(table.lines().nth(2).unwrap().contains("  waiting "), "{table}");

    let output = zeoadmin(&server, &["kill", "99"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("no client has the number 99"), "{output:?}");
    let killed = zeoadmin(&server, &["kill", &number]);
    assert!(text(&killed.stdout).contains(") is disconnected\n"), "{killed:?}");

    waiter.answer(vote).expect("an answer").expect("the locks");
    assert!(holder.next().is_err(), "it is disconnected");
    server.wait_for_log("is ended for user ");
    server.wait_for_log("disconnected during locked transaction: ended by zeoadmin");
}

#[test]
fn a_server_says_what_it_does() {
    let storages = "<filestorage 1>\npath Data.fs\n</filestorage>\n<mappingstorage 2>\n</mappingstorage>";
    let server = Server::start_any("admin-socket admin\nmax-connections 3", storages, |_| ());
    assert_eq!(text(&zeoadmin(&server, &["clients"]).stdout), "no clients are connected\n");
    assert_eq!(text(&zeoadmin(&server, &["transactions"]).stdout), "no transactions are open\n");
    assert_eq!(text(&zeoadmin(&server, &["locks"]).stdout), "no locks are held\n");
    let (_writer, serial) = filled(&server);
    let _other = RawClient::connect(server.address, Speaks::Z4).expect("a connection");
    let clients = asked(&server, &["clients"]);
    let clients = clients.as_array().unwrap();
    assert_eq!(clients.len(), 2, "{clients:?}");
    assert_eq!((&clients[0]["storage"], &clients[0]["protocol"]), (&"1".into(), &"Z5".into()), "{clients:?}");
    assert_eq!((&clients[0]["commits"], &clients[1]["storage"]), (&2.into(), &Json::Null), "{clients:?}");
    let table = text(&zeoadmin(&server, &["clients", "1"]).stdout);
    assert_eq!(table.lines().count(), 2, "{table}");
    assert_eq!(zeoadmin(&server, &["clients", "3"]).status.code(), Some(1));

    let status = asked(&server, &["status"]);
    let storage = &status["storages"][0];
    assert_eq!(storage["last_transaction"], format!("{serial:016x}"));
    assert_eq!((&storage["counters"]["commits"], &storage["state"]), (&2.into(), &"writable".into()));
    let output = zeoadmin(&server, &["status"]);
    let said = text(&output.stdout);
    // The disk of the tests may be nearly full.
    let mut warnings = said.lines().filter(|line| line.starts_with("WARNING ")).peekable();
    let expected = if warnings.peek().is_some() { 4 } else { 0 };
    assert!(warnings.all(|line| line.ends_with(" MB left")), "{said}");
    assert_eq!(output.status.code(), Some(expected), "{said}");
    for line in
        ["storage 1: writable, ", "storage 2: writable, ", "  1 clients, 0 transactions, no locks held\n"]
    {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert!(said.contains(" 2 commits (0 of them undos), "), "{said}");
    let (_second, _third) = (register(&server, Speaks::Z5), register(&server, Speaks::Z309));
    let output = zeoadmin(&server, &["status"]);
    assert_eq!(output.status.code(), Some(4));
    let said = text(&output.stdout);
    assert!(
        said.contains("\nWARNING 3 clients are registered, and at most 3 can be\n        Look for clients"),
        "{said}"
    );

    let output = zeoadmin(&server, &["top", "-n", "2", "-i", "0.1", "-r", "1"]);
    let said = text(&output.stdout);
    assert_eq!((output.status.code(), said.matches("LOADS/s").count()), (Some(0), 4), "{said}");
    assert!(said.contains("... and 3 more\n"), "{said}");
    for mistake in [&["top", "-i", "0"][..], &["top", "-n", "x"], &["status", "1"]] {
        assert_eq!(zeoadmin(&server, mistake).status.code(), Some(2), "{mistake:?}");
    }
}

#[test]
fn refused_conflicts_are_listed() {
    let server = with_socket();
    assert_eq!(text(&zeoadmin(&server, &["conflicts"]).stdout), "no conflicts were refused\n");
    let (mut client, serial) = filled(&server);
    let current = client.commit(&[(0, serial, &record(b"now"))]).expect("connected").expect("a commit");
    for _ in 0..102 {
        let stale = client.commit(&[(0, serial, &record(b"stale"))]).expect("connected");
        stale.expect_err("a conflict");
    }
    let conflicts = &asked(&server, &["conflicts", "1"])[0]["conflicts"];
    assert_eq!(conflicts.as_array().unwrap().len(), 100, "the last ones");
    let last = &conflicts[0];
    assert_eq!((&last["oid"], &last["class"]), (&"0x0".into(), &CLASS.into()), "{last}");
    let serials = [&last["read"], &last["committed"]].map(|hex| hex.as_str().unwrap().to_string());
    assert_eq!(serials, [serial, current].map(|tid| format!("{tid:016x}")));
    let said = text(&zeoadmin(&server, &["conflicts"]).stdout);
    assert_eq!(said.lines().nth(1), Some(format!("      100  1        {CLASS}").as_str()), "{said}");
    assert_eq!(said.lines().count(), 104, "{said}");
    assert_eq!(zeoadmin(&server, &["conflicts", "2"]).status.code(), Some(1));
}

#[test]
fn storages_are_packed_and_packs_cancelled() {
    let server = with_socket();
    filled(&server);
    let packed = asked(&server, &["pack"]);
    assert_eq!(packed["storage"], "1");
    assert!(packed["size_after"].as_u64() < packed["size_before"].as_u64(), "{packed}");
    server.wait_for_log(") complete");
    let output = zeoadmin(&server, &["pack", "other"]);
    assert_eq!(text(&output.stderr), "Error: there is no storage 'other', but 1\n");
    assert_eq!(output.status.code(), Some(1));
    let output = zeoadmin(&server, &["pack", "--cancel"]);
    assert_eq!((text(&output.stdout).as_str(), output.status.code()), ("1: no pack is running\n", Some(0)));

    let slow = Server::start_storage("admin-socket admin", SLOW);
    filled(&slow);
    thread::scope(|threads| {
        let pack = threads.spawn(|| zeoadmin(&slow, &["pack"]));
        while slow.ruok()["1"].get("pack").is_none() {}
        let output = zeoadmin(&slow, &["pack", "--cancel"]);
        assert_eq!(text(&output.stdout), "1: the pack is cancelled\n", "{output:?}");
        let output = pack.join().expect("no panic");
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains("the pack was cancelled"), "{output:?}");
    });
}

#[test]
fn indexes_are_saved() {
    let storages = "<filestorage 1>\npath Data.fs\n</filestorage>\n<mappingstorage 2>\n</mappingstorage>";
    let server = Server::start_any("admin-socket admin", storages, |_| ());
    filled(&server);
    fs::remove_file(server.directory().join("Data.fs.index")).expect("the one of the start");
    let output = zeoadmin(&server, &["save-index"]);
    assert_eq!(text(&output.stdout), "1: the index is saved\n2: this storage keeps no index\n", "{output:?}");
    assert!(server.directory().join("Data.fs.index").exists());
    // In the place of the file is a directory, which cannot be replaced.
    fs::remove_file(server.directory().join("Data.fs.index")).unwrap();
    fs::create_dir_all(server.directory().join("Data.fs.index/in the way")).unwrap();
    let output = zeoadmin(&server, &["save-index", "1"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stdout).starts_with("1: saving Data.fs.index: "), "{output:?}");
}

#[test]
fn the_log_has_another_level() {
    let server = with_socket();
    assert_eq!(text(&zeoadmin(&server, &["log-level"]).stdout), "INFO\n");
    register(&server, Speaks::Z5);
    assert_eq!(server.count_in_log("DEBUG"), 0);
    assert_eq!(text(&zeoadmin(&server, &["log-level", "Debug"]).stdout), "DEBUG (configured: INFO)\n");
    register(&server, Speaks::Z5);
    server.wait_for_log("DEBUG ZEO.StorageServer new connection");
    assert_eq!(asked(&server, &["log-level", "error"])["level"], "ERROR");
    let lines = server.count_in_log("------");
    register(&server, Speaks::Z5);
    let output = zeoadmin(&server, &["log-level", "loud"]);
    assert!(text(&output.stderr).contains("'loud' is not a level; use critical"), "{output:?}");
    assert_eq!(server.count_in_log("------"), lines, "{}", server.log());
    assert_eq!(text(&zeoadmin(&server, &["log-level", "default"]).stdout), "INFO\n");
    register(&server, Speaks::Z5);
    server.wait_for_log("the level of the log is set from ERROR to INFO for user ");
    assert!(server.count_in_log("------") > lines);
}

#[test]
fn the_configuration_is_read_again() {
    let server = with_socket();
    let output = zeoadmin(&server, &["check"]);
    let same = "the configuration is the one that the server runs with\n";
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), same), "{output:?}");
    let path = server.directory().join("zeo.conf");
    let before = fs::read_to_string(&path).unwrap();
    fs::write(&path, before.replace("admin-socket admin", "admin-socket admin\nmax-connections 7")).unwrap();
    let output = zeoadmin(&server, &["check"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stdout), "a restart changes\n+ limit:    max-connections 7\n");
    assert_eq!(asked(&server, &["check"])["removed"], Json::Array(vec![]));
    fs::write(&path, before.replace("admin-socket admin", "admin-socket admin\nmax-conections 7")).unwrap();
    // zeoadmin itself cannot use the file.
    let socket = server.directory().join("admin").display().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_zeoadmin"));
    let output = command.args(["check", "-s", &socket]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(4));
    let said = text(&output.stdout);
    assert!(said.starts_with("a restart would fail: "), "{said}");
    assert!(said.contains("max-conections") && said.contains("zeo.conf:"), "{said}");
}

#[test]
fn requests_that_are_none_are_refused() {
    let server = with_socket();
    let mode = fs::metadata(server.directory().join("admin")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    for (request, answer) in [
        ("\n", "the request is not JSON"),
        ("[1]\n", "the request is not a JSON object"),
        ("{}\n", "the request has no command"),
        ("{\"command\": 1}\n", "'command' of the request is not text"),
        ("{\"command\": \"dance\"}\n", "has no command 'dance'"),
        ("{\"command\": \"kill\"}\n", "name a client"),
        ("{\"command\": \"kill\", \"client\": -1}\n", "no client has the number -1"),
        ("{\"command\": \"kill\", \"client\": 1e300}\n", "no client has the number 1"),
        ("{\"command\": \"kill\", \"client\": 1.5}\n", "no client has the number 1.5"),
        ("{\"command\": \"kill\", \"client\": \"1\"}\n", "'client' of the request is no number"),
        ("{\"command\": \"pack\", \"time\": \"now\"}\n", "'time' of the request is no number"),
    ] {
        let got = sent(&server, request.as_bytes());
        let got: Json =
            serde_json::from_str(&got).unwrap_or_else(|error| panic!("{request}: {error}: {got}"));
        assert!(got["error"].as_str().unwrap().contains(answer), "{request}: {got}");
    }
    assert!(sent(&server, &[b'x'; 100_000]).contains("longer than"), "too long");
    let nested = [vec![b'['; 60_000], b"\n".to_vec()].concat();
    assert!(sent(&server, &nested).contains("is not JSON"), "too deep");
    assert!(sent(&server, b"\xff\xfe\0\n").contains("is not JSON"));
    // Callers that say nothing do not keep others from being answered; too many are refused.
    let silent: Vec<_> =
        (0..16).map(|_| UnixStream::connect(server.directory().join("admin")).unwrap()).collect();
    assert!(sent(&server, b"{\"command\": \"log-level\"}\n").contains("try again"));
    drop(silent);
    while !sent(&server, b"{\"command\": \"log-level\"}\n").contains("INFO") {}
    assert!(!server.log().contains("panic"), "{}", server.log());
}

/// Another user is refused, even if the mode of the socket lets it in.
#[test]
fn other_users_are_refused() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can be another user");
        return;
    }
    let server = with_socket();
    let socket = server.directory().join("admin");
    fs::set_permissions(server.directory(), Permissions::from_mode(0o755)).unwrap();
    let as_another_user = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_zeoadmin"));
        command.args(["log-level", "debug", "-s"]).arg(&socket).uid(65534).output().expect("it runs")
    };
    let output = as_another_user();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("Only root and the user of the server"), "{output:?}");
    fs::set_permissions(&socket, Permissions::from_mode(0o666)).unwrap();
    let output = as_another_user();
    assert_eq!(text(&output.stderr), "Error: only root and user 0 may steer this server, not user 65534\n");
    server.wait_for_log("may not steer this server, and is refused");
    assert_eq!(text(&zeoadmin(&server, &["log-level"]).stdout), "INFO\n");
}

/// The server does not see the number of the process that calls.
#[test]
fn a_server_in_a_container_is_steered_from_outside() {
    let Some(server) = Server::start_in_a_pid_namespace("admin-socket admin") else {
        eprintln!("SKIPPED: no PID namespaces");
        return;
    };
    assert_eq!(text(&zeoadmin(&server, &["log-level", "debug"]).stdout), "DEBUG (configured: INFO)\n");
    server.wait_for_log("(process outside)");
}

#[test]
fn the_server_is_found_or_not() {
    let mut server = with_socket();
    let run = |arguments: &[&str], variable: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_zeoadmin"));
        command.args(arguments).current_dir(server.directory()).env("RUNZEO_ADMIN_SOCKET", variable);
        command.output().expect("it runs")
    };
    assert_eq!(text(&run(&["log-level"], "admin").stdout), "INFO\n");
    assert_eq!(text(&run(&["log-level", "-s", "admin"], "elsewhere").stdout), "INFO\n");
    let output = run(&["log-level", "-s", "elsewhere"], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("elsewhere: No such file"), "{output:?}");
    assert!(text(&output.stderr).contains("Is the server running"), "{output:?}");
    let output = run(&["log-level", "-s", "admin", "-C", "zeo.conf"], "");
    assert_eq!(output.status.code(), Some(2));
    for mistake in [
        &["kill"][..],
        &["kill", "x"],
        &["kill", "1", "2"],
        &["dance"],
        &["pack", "-d", "x"],
        &["pack", "--cancel", "-d", "1"],
    ] {
        assert_eq!(run(mistake, "admin").status.code(), Some(2), "{mistake:?}");
    }

    let without = Server::start();
    let output = zeoadmin(&without, &["log-level"]);
    assert!(
        text(&output.stderr).contains("has no admin-socket: add 'admin-socket /run/zeo/admin'"),
        "{output:?}"
    );

    // The socket of a killed server is replaced; the one of a living server is not.
    server.kill();
    assert!(server.directory().join("admin").exists());
    server.start_again();
    assert_eq!(text(&zeoadmin(&server, &["log-level"]).stdout), "INFO\n");
    assert!(server.stop().success());
    assert!(!server.directory().join("admin").exists(), "the socket is removed");
}
