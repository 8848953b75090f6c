//! Clients cannot write lines of their own into the log; permissions of a Unix socket.

use std::io::{Read, Write};

use super::{MB, beside_an_honest_client, closed_after, connect, wait_until};
use crate::support::client::{RawClient, Speaks};
use crate::support::pickle::{Value, text};

#[test]
fn nobody_forges_lines_of_the_log() {
    beside_an_honest_client("", 64 * MB, |server| {
        let forged = "x\n------\n2026-11-26T00:00:00 CRITICAL ZEO forged\r\u{1b}[2J";
        let mut liar = RawClient::connect(server.address, Speaks::Z5).expect("greeted");
        let unknown = liar.call("register", vec![text(forged), Value::Bool(false)]).expect("an answer");
        assert!(unknown.is_err());
        liar.register_now().expect("registered");
        liar.call("set_client_label", vec![text(forged)]).expect("connected").expect("answer");
        liar.call("set_client_label", vec![text(&format!("{forged}{}", "x".repeat(1 << 20)))])
            .expect("connected")
            .expect("answer");
        liar.call("vote", vec![Value::Bytes(forged.repeat(1000).into_bytes())])
            .expect("connected")
            .expect_err("none");
        liar.queue_call(forged, vec![]);
        liar.flush().expect("send");
        closed_after(&mut liar.stream().try_clone().expect("clone"));
        server.wait_for_log("disconnected");
        let log = server.log();
        assert!(!log.contains("\n2026-11-26T00:00:00 CRITICAL ZEO forged"), "{log}");
        assert!(!log.contains(['\r', '\u{1b}']), "{log}");
        assert!(log.contains("CRITICAL ZEO forged"), "{log}");
        assert!(log.lines().all(|line| line.len() < 2000), "{}", server.talk());
    });
}

/// An unregistered client can cause log lines without limit, but only a part of them is written.
#[test]
fn unregistered_connections_do_not_fill_the_log() {
    beside_an_honest_client("", 64 * MB, |server| {
        let unknown = vec![text("other"), Value::Bool(false)];
        let mut liar = RawClient::connect(server.address, Speaks::Z5).expect("greeted");
        for _ in 0..1000 {
            liar.queue_call("register", unknown.clone());
        }
        let last = liar.queue_call("register", unknown);
        liar.flush().expect("send");
        liar.answer(last).expect("connected").expect_err("no such storage");
        for _ in 0..200 {
            let mut scanner = connect(server);
            scanner.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("send");
            closed_after(&mut scanner);
        }
        let lines = server
            .log()
            .lines()
            .filter(|line| line.contains("unknown") || line.contains("handshake"))
            .count();
        // One of each kind, and the handshakes.
        assert!((2..20).contains(&lines), "{lines} lines: {}", server.talk());
    });
}

#[test]
fn the_mode_of_a_unix_socket() {
    use std::os::unix::fs::PermissionsExt;
    for (umask, key, wanted) in
        [("022", "", 0o755), ("077", "socket-mode 660", 0o660), ("000", "socket-mode 0600", 0o600)]
    {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("zeo.sock");
        let config = format!("<zeo>\naddress {}\n{key}\n</zeo>\n<mappingstorage/>\n", socket.display());
        std::fs::write(directory.path().join("zeo.conf"), config).expect("write");
        let mut server = std::process::Command::new("sh")
            .args(["-c", &format!("umask {umask} && exec \"$0\" -C zeo.conf"), env!("CARGO_BIN_EXE_runzeo")])
            .current_dir(directory.path())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("start");
        // From the moment of its creation.
        let mut found = std::collections::BTreeSet::new();
        wait_until("it serves", || {
            found.extend(std::fs::metadata(&socket).map(|meta| meta.permissions().mode() & 0o777));
            let greeting = std::os::unix::net::UnixStream::connect(&socket);
            greeting.is_ok_and(|mut stream| stream.read_exact(&mut [0; 6]).is_ok())
        });
        found.extend(std::fs::metadata(&socket).map(|meta| meta.permissions().mode() & 0o777));
        assert_eq!(found.last(), Some(&wanted), "umask {umask}, {key}: {found:?}");
        assert!(found.iter().all(|mode| mode & !wanted == 0), "{found:?}");
        server.kill().expect("kill");
        server.wait().expect("end");
    }
}
