//! The audit log.

use std::fs;

use serde_json::Value as Json;

use crate::pack_cancel::{filled, register, zeopack};
use crate::support::client::{RawClient, Speaks, record, undo_id};
use crate::support::pickle::{Value, text};
use crate::support::process::Server;
use crate::zeoadmin::zeoadmin;

const STORAGES: &str =
    "<filestorage 1>\npath Data.fs\npack-gc false\n</filestorage>\n<mappingstorage 2>\n</mappingstorage>";

fn with_audit(events: &str, zeo: &str) -> Server {
    let sections = format!("{STORAGES}\n<audit>\npath audit.log\n{events}\n</audit>");
    Server::start_any(&format!("admin-socket admin\n{zeo}"), &sections, |_| ())
}

/// The lines, each a JSON object with a time.
fn lines(server: &Server) -> Vec<Json> {
    let text = fs::read_to_string(server.directory().join("audit.log")).expect("the audit log");
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let lines: Vec<Json> = text.lines().map(parse).collect();
    for line in &lines {
        let time = line["time"].as_str().expect("a time");
        assert!(time.len() == 24 && time.ends_with('Z'), "{line}");
    }
    lines
}

/// The lines about an event, once there are as many.
fn wait_for(server: &Server, event: &str, count: usize) -> Vec<Json> {
    loop {
        let mut found = lines(server);
        found.retain(|line| line["event"] == event);
        if found.len() >= count {
            assert_eq!(found.len(), count, "{found:?}");
            return found;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn what_clients_do_has_lines() {
    let server = with_audit("", "");
    let (mut client, serial) = filled(&server);
    let commits = wait_for(&server, "commit", 2);
    let (first, last) = (&commits[0], &commits[1]);
    assert_eq!(
        (&first["storage"], &first["user"], &first["changes"]),
        (&"1".into(), &"user".into(), &1.into())
    );
    assert_eq!(last["tid"], format!("{serial:016x}"));
    assert!(
        first["tid"].as_str() < last["tid"].as_str() && first["began"].as_str() <= first["time"].as_str()
    );
    assert_eq!(last["objects"][0]["oid"], "0x0");
    assert_eq!(last["objects"][0]["class"], "persistent.mapping.PersistentMapping");
    let registered = wait_for(&server, "register", 1);
    assert_eq!(registered[0]["client"], last["client"], "the same client");
    assert_eq!((&registered[0]["protocol"], &registered[0]["can_write"]), (&"Z5".into(), &true.into()));

    // What is not committed has no line, nor has a check.
    client.queue_begin(7);
    client.queue_store(0, serial, &record(b"aborted"), 7);
    client.call("tpc_abort", vec![Value::Int(7)]).unwrap().unwrap();
    // A hostile name is one line, and text.
    let mut forger = register(&server, Speaks::Z5);
    forger.call("set_client_label", vec![text("\"}\n{\u{202e}")]).unwrap().unwrap();
    let many: Vec<_> = (100..150).map(|oid| (oid, 0, record(b"many"))).collect();
    let many: Vec<(u64, u64, &[u8])> =
        many.iter().map(|(oid, serial, data)| (*oid, *serial, &data[..])).collect();
    forger.commit(&many).unwrap().unwrap();
    let forged = &wait_for(&server, "commit", 3)[2];
    assert!(forged["client"]["label"].as_str().expect("text").contains("{\\u{202e}"), "{forged}");
    assert_eq!(
        (forged["changes"].as_u64(), forged["objects"].as_array().map(Vec::len)),
        (Some(50), Some(20))
    );

    client.queue_begin(8);
    client.queue_async("undoa", vec![text(&undo_id(serial)), Value::Int(8)]);
    client.call("vote", vec![Value::Int(8)]).unwrap().unwrap();
    client.call("tpc_finish", vec![Value::Int(8)]).unwrap().unwrap();
    let undo = &wait_for(&server, "commit", 4)[3];
    assert_eq!(undo["undone"][0], format!("{serial:016x}"), "{undo}");

    drop(forger);
    let gone = &wait_for(&server, "disconnect", 1)[0];
    assert_eq!(gone["client"]["id"], forged["client"]["id"]);
}

#[test]
fn packs_refusals_and_commands_have_lines() {
    let server = with_audit("", "");
    let (_client, _) = filled(&server);
    assert!(zeopack(&server, &[]).status.success());
    assert!(zeoadmin(&server, &["pack", "1"]).status.success());
    let packs = wait_for(&server, "pack", 2);
    assert_eq!((&packs[0]["by"], &packs[0]["error"]), (&Json::Null, &Json::Null));
    assert!(packs[0]["client"]["id"].as_u64().is_some(), "{packs:?}");
    assert!(packs[0]["packed_to"].as_str() <= packs[0]["time"].as_str(), "{packs:?}");
    assert!(packs[1]["by"].as_str().expect("text").starts_with("user "), "{packs:?}");
    assert!(zeoadmin(&server, &["log-level", "debug"]).status.success());
    let status = zeoadmin(&server, &["status"]);
    assert!(status.status.success(), "{status:?}");
    assert!(!zeoadmin(&server, &["kill", "99"]).status.success());
    let commands = wait_for(&server, "admin", 2);
    assert!(commands[0]["request"].as_str().expect("text").contains("log-level"), "{commands:?}");
    assert!(commands[1]["error"].as_str().expect("text").contains("99"), "{commands:?}");
    let mut lost = RawClient::connect(server.address, Speaks::Z5).expect("a connection");
    lost.call("register", vec![text("3"), Value::Bool(false)]).unwrap().unwrap_err();
    let refused = &wait_for(&server, "refused", 1)[0];
    assert!(refused["why"].as_str().expect("text").contains("unknown storage_id: 3"), "{refused}");
}

#[test]
fn only_the_named_events_have_lines_and_the_file_is_reopened() {
    let server = with_audit("events pack commit", "");
    let (mut client, serial) = filled(&server);
    wait_for(&server, "commit", 2);
    let path = server.directory().join("audit.log");
    fs::rename(&path, server.directory().join("audit.log.1")).unwrap();
    server.signal("USR2");
    server.wait_for_log("Log files reopened successfully");
    client.commit(&[(0, serial, &record(b"later"))]).unwrap().unwrap();
    wait_for(&server, "commit", 1);
    assert!(lines(&server).iter().all(|line| line["event"] == "commit"));
}

/// Without the section nothing is gathered; one that cannot be opened keeps the server from starting.
#[test]
fn a_file_that_cannot_be_opened_is_an_error_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let config = format!(
        "<zeo>\naddress {}\n</zeo>\n{STORAGES}\n<audit>\npath missing/audit.log\n</audit>\n",
        directory.path().join("sock").display()
    );
    fs::write(directory.path().join("zeo.conf"), config).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_runzeo"));
    let output =
        command.args(["-C", "zeo.conf", "--test"]).current_dir(directory.path()).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("<audit>: log file missing/audit.log cannot be opened: "), "{text}");
}
