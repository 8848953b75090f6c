//! `runzeo_cancel_pack` and `zeopack --cancel`: packs of clients, by schedule, and of a server behind a server.

use std::process::{Command, Output};

use crate::support::client::{RawClient, Speaks, record};
use crate::support::pickle::Value;
use crate::support::process::Server;

/// Packs would take years.
pub const SLOW: &str = "pack-max-rate 1";

pub fn register(server: &Server, speaks: Speaks) -> RawClient {
    RawClient::register(server.address, speaks).expect("a connection").0
}

/// A client with two revisions of the root. Returns the serial.
pub fn filled(server: &Server) -> (RawClient, u64) {
    let mut client = register(server, Speaks::Z5);
    let mut serial = 0;
    for _ in 0..2 {
        serial = client.commit(&[(0, serial, &record(&[b'x'; 1000]))]).expect("connected").expect("a commit");
    }
    (client, serial)
}

pub fn zeopack(server: &Server, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zeopack"));
    command.arg(server.address.to_string()).args(arguments).output().expect("it runs")
}

pub fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

#[test]
fn a_pack_is_cancelled_by_another_client() {
    let server = Server::start_storage("", SLOW);
    let (mut writer, serial) = filled(&server);
    for speaks in [Speaks::Z5, Speaks::Z4, Speaks::Z308] {
        let mut canceller = register(&server, speaks);
        let answer = canceller.call("runzeo_cancel_pack", vec![]).expect("an answer").expect("no error");
        assert!(answer.is_none(), "no pack is running: {answer:?}");

        let packs = server.count_in_log("started...");
        let mut packer = register(&server, Speaks::Z5);
        let pack = packer.queue_call("pack", vec![Value::Float(4e9), Value::Bool(true)]);
        packer.flush().expect("connected");
        server.wait_for_log_count("started...", packs + 1);
        while server.ruok()["1"].get("pack").is_none() {}

        let answer = canceller.call("runzeo_cancel_pack", vec![]).expect("an answer").expect("no error");
        assert!(matches!(answer, Value::Bool(true) | Value::Int(1)), "{answer:?}");
        let (class, detail) = packer.answer(pack).expect("an answer").expect_err("it is cancelled");
        assert!(class.ends_with("StorageError"), "{class}");
        let last = &server.ruok()["1"]["last-pack"];
        assert_eq!(last["error"], "the pack was cancelled. The database is unchanged", "{detail:?}");
        assert_eq!(last["size-before"], last["size-after"]);
    }
    writer.commit(&[(0, serial, &record(b"later"))]).expect("connected").expect("a commit");
    let log = server.log();
    assert!(log.contains("WARNING ZEO.StorageServer") && log.contains("cancels the pack"), "{log}");
    assert!(!log.contains(" ERROR "), "{log}");
    assert!(!server.directory().join("Data.fs.pack").exists());
}

#[test]
fn zeopack_cancels_a_pack_by_schedule() {
    let server = Server::start_storage("", &format!("{SLOW}\npack-schedule every 1s"));
    filled(&server);
    server.wait_for_log("by pack-schedule 'every 1s'");
    while server.ruok()["1"].get("pack").is_none() {}
    let output = zeopack(&server, &["--cancel"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text(&output.stdout), format!("{} 1: the pack is cancelled\n", server.address));
    server.wait_for_log("by pack-schedule ended with an error: the pack was cancelled");
    // It is tried again at its next time.
    server.wait_for_log_count("by pack-schedule 'every 1s'", 2);

    let idle = Server::start();
    let output = zeopack(&idle, &["--cancel"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text(&output.stdout), format!("{} 1: no pack is running\n", idle.address));
    let output = zeopack(&idle, &["--cancel", "-d", "3"]);
    assert_eq!(output.status.code(), Some(2));
    let output = zeopack(&idle, &[&format!("{}:other", idle.address), "--cancel"]);
    assert_eq!(output.status.code(), Some(1), "there is no such storage: {output:?}");
}

/// The pack runs in the server behind.
#[test]
fn a_middle_cancels_the_pack_of_the_server_behind_it() {
    let root = Server::start_storage("", SLOW);
    filled(&root);
    let section = format!("<zeoclient 1>\nserver {}\n</zeoclient>", root.address);
    let middle = Server::start_any("", &section, |_| ());
    let mut packer = register(&middle, Speaks::Z5);
    let pack = packer.queue_call("pack", vec![Value::Float(4e9), Value::Bool(true)]);
    packer.flush().expect("connected");
    while root.ruok()["1"].get("pack").is_none() {}
    let output = zeopack(&middle, &["--cancel"]);
    assert_eq!(text(&output.stdout), format!("{} 1: the pack is cancelled\n", middle.address), "{output:?}");
    packer.answer(pack).expect("an answer").expect_err("it is cancelled");
    assert!(root.ruok()["1"].get("pack").is_none());
}
