//! `max-connections` and `max-connections-per-address`.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::{
    MB, beside_an_honest_client, client, closed_after, commit_something, connect, greeted, is_closed,
    refusal, wait_until, words,
};
use crate::support::client::{RawClient, Speaks};
use crate::support::pickle::{Value, text};

#[test]
fn one_client_too_many_is_told_so() {
    // Three with the honest client.
    beside_an_honest_client("max-connections 3", 64 * MB, |server| {
        let mut clients = [client(server), client(server)];
        for speaks in [Speaks::Z4, Speaks::Z5] {
            for _ in 0..20 {
                let (mut refused, reason) = refusal(server, speaks);
                assert!(reason.contains("max-connections (3)"), "{reason}");
                // It may call again at once, on the same connection, with the same answer.
                let again = refused.call("register", vec![text("1"), Value::Bool(false)]).expect("an answer");
                assert!(again.is_err());
            }
        }
        // Monitoring still works.
        let mut probe = connect(server);
        probe.read_exact(&mut [0; 6]).expect("greeting");
        probe.write_all(b"\0\0\0\x04ruok").expect("send");
        let mut status = Vec::new();
        probe.read_to_end(&mut status).expect("an answer");
        let status = String::from_utf8_lossy(&status);
        assert!(status.contains("\"connections\":3"), "{status}");
        assert_eq!(server.count_in_log("refused: max-connections (3) clients are connected"), 1);
        assert_eq!(server.count_in_log("call raised"), 0);
        // Registered clients continue, and when one leaves another can register.
        clients.iter_mut().for_each(commit_something);
        let [first, second] = clients;
        drop(first);
        let mut waiting = RawClient::connect(server.address, Speaks::Z5).expect("greeted");
        wait_until("a place is free", || {
            waiting.call("register", vec![text("1"), Value::Bool(false)]).expect("an answer").is_ok()
        });
        commit_something(&mut waiting);
        drop(second);
    });
}

#[test]
fn one_address_may_have_so_many_clients() {
    beside_an_honest_client("max-connections-per-address 2", 64 * MB, |server| {
        let mut second = client(server);
        let (third, reason) = refusal(server, Speaks::Z5);
        assert!(reason.contains("max-connections-per-address (2)"), "{reason}");
        // The same number may be unregistered: `third` and one more. The next is closed.
        let fourth = greeted(server);
        closed_after(&mut connect(server));
        assert!(!is_closed(&fourth));
        assert_eq!(server.count_in_log("refused: max-connections-per-address (2)"), 1);
        commit_something(&mut second);
        drop((second, third, fourth));
        wait_until("a place is free", || RawClient::connect(server.address, Speaks::Z5).is_ok());
        wait_until("a place is free", || {
            let client = RawClient::connect(server.address, Speaks::Z5);
            let register =
                |mut client: RawClient| client.call("register", vec![text("1"), Value::Bool(false)]);
            client.and_then(register).is_ok_and(|answer| answer.is_ok())
        });
    });
}

/// With few descriptors fewer clients are allowed, and the server continues.
#[test]
fn descriptors_do_not_run_out() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join("zeo.log");
    let probe = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = probe.local_addr().expect("an address");
    drop(probe);
    let config = format!(
        "<zeo>\naddress {address}\nmax-connections 1000\n</zeo>\n<filestorage>\npath Data.fs\n</filestorage>\n\
         <eventlog>\n<logfile>\npath {}\n</logfile>\n</eventlog>\n",
        log.display()
    );
    std::fs::write(directory.path().join("zeo.conf"), config).expect("write");
    let mut server = std::process::Command::new("sh")
        .args(["-c", "ulimit -n 200 && exec \"$0\" -C zeo.conf", env!("CARGO_BIN_EXE_runzeo")])
        .current_dir(directory.path())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("start");
    wait_until("it serves", || TcpStream::connect(address).is_ok());
    // 200 less 50 for unregistered connections, 64 for the storages, and a fourth of the rest for files that clients
    // keep open.
    let mut clients: Vec<_> = (0..65)
        .map(|n| RawClient::register(address, Speaks::Z5).unwrap_or_else(|e| panic!("client {n}: {e}")).0)
        .collect();
    let mut unregistered: Vec<_> = (0..60).map(|_| TcpStream::connect(address).expect("connect")).collect();
    let mut refused = RawClient::connect(address, Speaks::Z5).expect("greeted");
    let answer = refused.call("register", vec![text("1"), Value::Bool(false)]).expect("an answer");
    assert!(words(&answer.expect_err("no place").1).contains("max-connections (65)"));
    for client in clients.iter_mut().step_by(10) {
        commit_something(client);
    }
    unregistered.clear();
    let said = std::fs::read_to_string(&log).expect("a log");
    assert!(
        said.contains(
            "max-connections 1000 is more than the limit of open files (200) permits: 65 is used instead"
        ),
        "{said}"
    );
    assert!(said.contains("permits no more"), "{said}");
    assert!(!said.contains("Can't accept") && !said.contains("ERROR"), "{said}");
    server.kill().expect("kill");
    server.wait().expect("end");
}
