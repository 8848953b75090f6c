//! Reloads under a service manager: what it is told, and that its sockets stay.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use super::{FILE, Manager, with_sockets};
use crate::support::client::{RawClient, Speaks};
use crate::support::pickle::{Value, text};
use crate::support::process::free_address;

/// The manager knows when a reload begins and when it has ended, also if it fails.
#[test]
fn a_reload_is_told() {
    let mut manager = Manager::new("admin-socket admin", FILE);
    manager.child = Some(manager.server().spawn().unwrap());
    manager.until_ready();
    for mistake in ["", "max-conections 1\n"] {
        let path = manager.path("zeo.conf");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("</zeo>", &format!("{mistake}</zeo>"))).unwrap();
        let mut zeoadmin = Command::new(env!("CARGO_BIN_EXE_zeoadmin"));
        let status =
            zeoadmin.args(["reload", "-s"]).arg(manager.path("admin")).stdout(Stdio::null()).status();
        assert_eq!(status.unwrap().code(), Some(if mistake.is_empty() { 0 } else { 4 }));
        let begun = manager.until(|line| line == "RELOADING=1");
        let begun = begun.last().unwrap();
        let micros = begun.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
        assert!(micros.unwrap().parse::<u64>().unwrap() > 0, "{begun}");
        let ended = manager.until_ready();
        assert!(ended.last().unwrap().contains("STATUS=serving "), "{ended:?}");
    }
    assert!(manager.stop().success());
}

/// Where the manager has passed sockets, addresses wait for a restart, and what holds there does not.
#[test]
fn a_reload_keeps_the_sockets_of_the_manager() {
    let mut manager = Manager::new("admin-socket admin", FILE);
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    with_sockets(&mut manager, "zeo", socket.into(), None);
    manager.until_ready();
    let more = free_address();
    let path = manager.path("zeo.conf");
    let before = fs::read_to_string(&path).unwrap();
    let listen =
        format!("<listen more>\naddress {more}\n</listen>\n<access>\nrule read everyone\n</access>\n");
    fs::write(&path, before + &listen).unwrap();
    let mut zeoadmin = Command::new(env!("CARGO_BIN_EXE_zeoadmin"));
    let output = zeoadmin.args(["reload", "-s"]).arg(manager.path("admin")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("waits for a restart:\n  <listen more> has come: "), "{said}");
    assert!(TcpStream::connect(more).is_err());
    let mut client = RawClient::connect(address, Speaks::Z5).unwrap();
    let answer = client.call("register", vec![text("1"), Value::Bool(false)]).unwrap();
    answer.expect_err("it may only read");
    assert!(manager.stop().success());
}
