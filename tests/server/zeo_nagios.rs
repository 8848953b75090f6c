//! `zeo-nagios`: beside Python's program, at servers of both; limits, TLS, servers that do not answer.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Command, Output};

use crate::pack_cancel::{filled, text};
use crate::support::client::{RawClient, Speaks};
use crate::support::process::{Server, free_address};
use crate::support::pythons::python;
use crate::tls::identities::{Identity, Secured, params};

const TWO: &str = "<filestorage 1>\npath Data.fs\n</filestorage>\n<mappingstorage temp>\n</mappingstorage>";

fn nagios(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zeo-nagios"));
    command.args(arguments).output().expect("it runs")
}

fn said(arguments: &[&str]) -> (Option<i32>, String) {
    let output = nagios(arguments);
    (output.status.code(), text(&output.stdout))
}

/// The same call of Python's program. `None`: there is no such Python.
fn pythons(arguments: &[&str]) -> Option<(Option<i32>, String)> {
    let script = "import sys, ZEO.nagios; sys.exit(ZEO.nagios.main())";
    let Some(python) = python("zeo6-py311") else {
        let _ = writeln!(std::io::stderr(), "\nSKIPPED: no Python");
        return None;
    };
    let output = Command::new(python).args(["-c", script]).args(arguments).output().expect("it runs");
    Some((output.status.code(), text(&output.stdout)))
}

/// Digits behind a point are times.
fn without_times(said: &(Option<i32>, String)) -> (Option<i32>, String) {
    let line = |line: &str| line.split_once('.').map_or(line.to_string(), |(number, _)| format!("{number}."));
    (said.0, said.1.lines().map(line).collect::<Vec<_>>().join("\n"))
}

#[test]
fn the_output_is_pythons() {
    let server = Server::start_any("", TWO, |_| ());
    let address = server.address.to_string();
    let socket = server.directory().join("none").display().to_string();
    let refused = free_address().to_string();
    let compare = |arguments: &[&str]| {
        let Some(expected) = pythons(arguments) else { return };
        assert_eq!(said(arguments), expected, "{arguments:?}");
    };
    compare(&[&address]);
    compare(&["-m", &address]);
    let _client = filled(&server);
    compare(&[&address]);
    compare(&["-m", &address]);
    compare(&[&refused]);
    compare(&[&socket]);
    // The files of both are one.
    let status = server.directory().join("status").display().to_string();
    let arguments = ["-m", "-s", &status, "-u", "days", &address];
    for ours_first in [true, false] {
        let _ = fs::remove_file(&status);
        if ours_first {
            assert_eq!(said(&arguments), said(&["-m", &address]), "no rates at first");
        } else if pythons(&arguments).is_none() {
            return;
        }
        let ours = said(&arguments);
        let Some(theirs) = pythons(&arguments) else { return };
        assert_eq!(without_times(&ours), without_times(&theirs));
        assert!(ours.1.contains("\n temp:loads=0.0"), "{ours:?}");
    }
}

#[test]
fn limits_make_warnings_and_alarms() {
    let server = Server::start();
    let address = server.address.to_string();
    let _client = filled(&server);
    assert_eq!(
        said(&["-w", "waiting=0", "-c", "connections=5", "-w", "lock=1", &address]),
        (Some(0), "OK\n".into())
    );
    let (code, line) = said(&["-m", "-w", "connections=0", "-c", "connections=5", &address]);
    assert_eq!(code, Some(1));
    assert!(
        line.starts_with("WARNING: storage '1': connections is 1, more than 0|active_txns=0\n"),
        "{line}"
    );
    assert!(line.contains("connections=1;0;5\n"), "{line}");
    let (code, line) = said(&["-w", "connections=0", "-c", "idle=-1", &address]);
    assert_eq!(code, Some(2), "{line}");
    // Seconds since the client's last call.
    assert!(line.contains("CRITICAL: storage '1': idle is "), "{line}");
    assert!(line.contains(", more than -1"), "{line}");
    let mistakes: [&[&str]; 8] = [
        &[],
        &["a:1", "b:2"],
        &["-w", "waiting", "a:1"],
        &["-w", "speed=1", "a:1"],
        &["-c", "waiting=many", "a:1"],
        &["-u", "years", "a:1"],
        &["--timeout", "0", "a:1"],
        &["--config", "/nowhere"],
    ];
    for mistake in mistakes {
        let (code, line) = said(mistake);
        assert_eq!((code, line.starts_with("UNKNOWN: ")), (Some(3), true), "{mistake:?}: {line}");
    }
}

/// Python's program waits for ever.
#[test]
fn a_server_that_does_not_answer_is_critical() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let (code, line) = said(&["--timeout", "0.3", &address]);
    assert_eq!(code, Some(2));
    assert!(line.starts_with("no answer: timed out waiting for the greeting"), "{line}");
    let other = std::thread::spawn(move || {
        let (mut stream, _) = silent.accept().unwrap();
        let (mut second, _) = silent.accept().unwrap();
        for stream in [&mut stream, &mut second] {
            let _ = stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n");
        }
    });
    let (code, line) = said(&["--timeout", "5", &address]);
    assert_eq!((code, line.contains("is it a ZEO server?")), (Some(2), true), "{line}");
    other.join().unwrap();
}

#[test]
fn any_generation_may_be_asked_and_no_client_is_counted() {
    let server = Server::start();
    let mut client = RawClient::register(server.address, Speaks::Z309).expect("a connection").0;
    let line = said(&["-m", &server.address.to_string()]).1;
    assert!(line.contains("connections=1\n"), "{line}");
    client.call("lastTransaction", vec![]).expect("an answer").expect("no error");
    assert_eq!(server.count_in_log("ruok"), 0);
}

#[test]
fn servers_with_tls_are_asked_with_a_certificate() {
    let client = Identity::self_signed(params("monitor"));
    let secured = Secured::start(&client.pem());
    let mine = secured.file("monitor.pem");
    fs::write(&mine, client.pem_with_key()).unwrap();
    let config = |ssl: &str| {
        let path = secured.file("client.conf");
        let address = secured.server.address;
        fs::write(&path, format!("<zeoclient>\nserver {address}\n{ssl}\n</zeoclient>\n")).unwrap();
        path.display().to_string()
    };
    let server_certificate = secured.file("server.pem");
    let ssl = format!(
        "<ssl>\ncertificate {}\nauthenticate {}\ncheck-hostname false\n</ssl>",
        mine.display(),
        server_certificate.display()
    );
    assert_eq!(said(&["--config", &config(&ssl)]), (Some(1), "Empty storage '1'\n".into()));
    let (code, line) = said(&["--config", &config(""), "--timeout", "0.5"]);
    assert_eq!((code, line.starts_with("no answer: ")), (Some(2), true), "{line}");
}
