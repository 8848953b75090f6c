//! `runzeo_pack_plan` and `zeopack --dry-run`: what a pack would remove, beside commits, packs and clients that go.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::pack_cancel::{SLOW, filled, register, text, zeopack};
use crate::support::client::{RawClient, Speaks, record};
use crate::support::pickle::Value;
use crate::support::process::Server;
use crate::support::pythons::python;
use crate::support::storage::referring_to;

/// The plan that `zeopack --dry-run` prints, its dangling references, and the exit status.
fn planned(server: &Server) -> (Json, Vec<Json>, Option<i32>) {
    let output = zeopack(server, &["--dry-run", "--json"]);
    let lines: Vec<Json> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let (plan, rest) = lines.split_first().unwrap_or_else(|| panic!("{output:?}"));
    (plan.clone(), rest.to_vec(), output.status.code())
}

/// A root that refers to `referred`, and other objects, each with two revisions.
fn store(server: &Server, referred: &[u64], others: &[u64]) -> RawClient {
    let mut client = register(server, Speaks::Z5);
    let root = referring_to(referred);
    let mut serials = vec![0; others.len()];
    let mut root_serial = 0;
    for _ in 0..2 {
        let objects = others.iter().zip(&serials).map(|(oid, serial)| (*oid, *serial, &b"cm\nD\n.N."[..]));
        let stores: Vec<_> = [(0, root_serial, &root[..])].into_iter().chain(objects).collect();
        root_serial = client.commit(&stores).expect("connected").expect("a commit");
        serials.fill(root_serial);
    }
    client
}

/// Waits until the status of the storage has this key, or has it no more.
fn wait_for_status(server: &Server, key: &str, is_there: bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while server.ruok()["1"].get(key).is_some() != is_there {
        assert!(Instant::now() < deadline, "{key} is not {is_there}: {}", server.talk());
        thread::sleep(Duration::from_millis(5));
    }
}

fn begin_plan(client: &mut RawClient) -> i64 {
    let call = client.queue_call("runzeo_pack_plan", vec![Value::Float(4e9)]);
    client.flush().expect("connected");
    call
}

fn error_of(answer: Result<Value, (String, Value)>) -> String {
    let (class, detail) = answer.expect_err("an error");
    format!("{class} {detail:?}")
}

#[test]
fn a_pack_does_what_was_planned() {
    for options in ["", "pack-gc false"] {
        let server = Server::start_storage("", options);
        let mut client = store(&server, &[1, 2], &[1, 2, 3, 4]);
        let path = server.directory().join("Data.fs");
        let before = fs::metadata(&path).unwrap().len();
        let (plan, dangling, status) = planned(&server);
        assert_eq!((dangling.len(), status), (0, Some(0)), "{plan}");
        assert_eq!(fs::metadata(&path).unwrap().len(), before, "nothing is changed");
        let gc = options.is_empty();
        assert_eq!((plan["gc"].as_bool(), plan["size"].as_u64()), (Some(gc), Some(before)), "{plan}");
        assert!(plan["free"].as_u64() > Some(0) && plan["refusal"].is_null(), "{plan}");
        let removed = |name: &str| plan[name]["removed"].as_u64().unwrap();
        assert_eq!([removed("objects"), removed("revisions")], if gc { [2, 7] } else { [0, 5] }, "{plan}");

        // The file says the same without the server.
        let zeofs =
            Command::new(env!("CARGO_BIN_EXE_zeofs")).args(["pack-plan", "--json"]).arg(&path).output();
        let lines = text(&zeofs.unwrap().stdout);
        let mut of_file = lines.lines().map(|line| serde_json::from_str::<Json>(line).unwrap());
        let mut of_file = of_file.find(|line| line["gc"] == gc).unwrap();
        for name in ["stop", "free"] {
            of_file[name] = plan[name].clone();
        }
        assert_eq!(of_file, plan);

        let output = zeopack(&server, &["--dry-run"]);
        let report = text(&output.stdout);
        let gc = if gc { "with" } else { "without" };
        assert!(report.starts_with(&format!("{} 1\na pack to 2", server.address)), "{report}");
        assert!(report.contains(&format!(" UTC, {gc} garbage collection, would remove\n")), "{report}");
        assert!(zeopack(&server, &[]).status.success());
        assert_eq!(plan["size_after"].as_u64(), Some(fs::metadata(&path).unwrap().len()), "{plan}");
        // As in Python, zero: a pack has been made to a later time.
        assert_eq!(planned(&server).0["revisions"]["removed"], 0);
        client.call("lastTransaction", vec![]).expect("connected").expect("a tid");
    }
}

#[test]
fn a_pack_that_would_fail_or_be_refused_is_a_finding() {
    let server = Server::start();
    store(&server, &[1, 77], &[1]);
    let (plan, dangling, status) = planned(&server);
    assert_eq!((plan["dangling"].as_u64(), status), (Some(1), Some(4)), "{plan}");
    assert_eq!(
        (dangling[0]["from"].as_str(), dangling[0]["to"].as_str()),
        (Some("0000000000000000"), Some("000000000000004d"))
    );
    let output = zeopack(&server, &["--dry-run"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(
        text(&output.stdout)
            .ends_with("1 references to objects that do not exist\n    0x00 refers to 0x4d\n"),
        "{output:?}"
    );
    assert!(!zeopack(&server, &[]).status.success());

    let server = Server::start_storage("", "pack-refuse-large-removals true");
    store(&server, &[], &(1..1200).collect::<Vec<_>>());
    let (plan, _, status) = planned(&server);
    assert_eq!(status, Some(4));
    assert!(
        plan["refusal"].as_str().unwrap().contains("the pack would remove 1199 of 1200 objects"),
        "{plan}"
    );
    let output = zeopack(&server, &["--dry-run"]);
    assert!(
        text(&output.stdout).contains("\nthe pack with GC would be REFUSED, and remove nothing: "),
        "{output:?}"
    );
    let packed = zeopack(&server, &[]);
    assert!(text(&packed.stderr).contains(plan["refusal"].as_str().unwrap()), "{packed:?}");
    // It is no pack, so the log has no line of one before.
    assert_eq!(server.count_in_log("pack-refuse-large-removals"), 1, "{}", server.log());
}

#[test]
fn commits_go_on_beside_and_there_is_one_at_a_time() {
    let server = Server::start_storage("", SLOW);
    let (mut writer, mut serial) = filled(&server);
    let mut planner = register(&server, Speaks::Z4);
    let plan = begin_plan(&mut planner);
    wait_for_status(&server, "pack-plan", true);
    assert!(server.ruok()["1"].get("pack").is_none());
    for number in 0..20 {
        serial = writer.commit(&[(0, serial, &record(&[number]))]).expect("connected").expect("a commit");
    }
    let second = error_of(writer.call("runzeo_pack_plan", vec![Value::Float(4e9)]).expect("connected"));
    assert!(second.contains("another dry run of a pack is running"), "{second}");
    let output = zeopack(&server, &["--cancel"]);
    assert!(output.status.success(), "{output:?}");
    let error = error_of(planner.answer(plan).expect("an answer"));
    assert!(error.contains("the pack was cancelled"), "{error}");
    wait_for_status(&server, "pack-plan", false);

    // One that belongs to another connection stays.
    let plan = begin_plan(&mut planner);
    wait_for_status(&server, "pack-plan", true);
    writer.call("runzeo_cancel_pack", vec![Value::Bool(true)]).expect("connected").expect("no error");
    thread::sleep(Duration::from_millis(300));
    assert!(server.ruok()["1"].get("pack-plan").is_some());
    planner.call("runzeo_cancel_pack", vec![Value::Bool(true)]).expect("connected").expect("no error");
    error_of(planner.answer(plan).expect("an answer"));
    let log = server.log();
    assert!(log.contains("cancels the dry run of a pack") && !log.contains(" ERROR "), "{log}");
}

#[test]
fn a_dry_run_gives_way_to_a_pack() {
    let server = Server::start_storage("", SLOW);
    filled(&server);
    let mut planner = register(&server, Speaks::Z5);
    let plan = begin_plan(&mut planner);
    wait_for_status(&server, "pack-plan", true);
    let mut packer = register(&server, Speaks::Z5);
    let pack = packer.queue_call("pack", vec![Value::Float(4e9), Value::Bool(true)]);
    packer.flush().expect("connected");
    error_of(planner.answer(plan).expect("an answer"));
    wait_for_status(&server, "pack", true);
    let plan = error_of(planner.call("runzeo_pack_plan", vec![Value::Float(4e9)]).expect("connected"));
    assert!(plan.contains("a pack is running"), "{plan}");
    // It ends the connection's dry run, and no pack.
    packer.call("runzeo_cancel_pack", vec![Value::Bool(true)]).expect("connected").expect("no error");
    thread::sleep(Duration::from_millis(300));
    assert!(server.ruok()["1"].get("pack").is_some());
    assert!(zeopack(&server, &["--cancel"]).status.success());
    error_of(packer.answer(pack).expect("an answer"));
}

#[test]
fn a_dry_run_ends_with_its_client() {
    let server = Server::start_storage("", SLOW);
    filled(&server);
    for _ in 0..20 {
        let mut planner = register(&server, Speaks::Z5);
        begin_plan(&mut planner);
        drop(planner);
        wait_for_status(&server, "pack-plan", false);
    }
    let mut planner = register(&server, Speaks::Z5);
    begin_plan(&mut planner);
    wait_for_status(&server, "pack-plan", true);
    drop(planner);
    wait_for_status(&server, "pack-plan", false);
}

/// The plan is that of the server behind; it ends with the client of the middle, and a pack there is not touched.
#[test]
fn a_middle_passes_it_on() {
    let root = Server::start();
    store(&root, &[1, 77], &[1, 2]);
    let section = |root: &Server| format!("<zeoclient 1>\nserver {}\n</zeoclient>", root.address);
    let middle = Server::start_any("", &section(&root), |_| ());
    let [(mut through, dangling, status), (plan, expected, _)] = [planned(&middle), planned(&root)];
    assert_eq!(status, Some(4));
    assert_eq!(dangling, expected);
    for name in ["stop", "free"] {
        through[name] = plan[name].clone();
    }
    assert_eq!(through, plan);

    let root = Server::start_storage("", SLOW);
    filled(&root);
    let middle = Server::start_any("", &section(&root), |_| ());
    let mut planner = register(&middle, Speaks::Z5);
    begin_plan(&mut planner);
    wait_for_status(&root, "pack-plan", true);
    drop(planner);
    wait_for_status(&root, "pack-plan", false);
    let mut packer = register(&root, Speaks::Z5);
    let pack = packer.queue_call("pack", vec![Value::Float(4e9), Value::Bool(true)]);
    packer.flush().expect("connected");
    wait_for_status(&root, "pack", true);
    let mut planner = register(&middle, Speaks::Z5);
    begin_plan(&mut planner);
    drop(planner);
    wait_for_status(&middle, "pack-plan", false);
    assert!(root.ruok()["1"].get("pack").is_some());
    assert!(zeopack(&middle, &["--cancel"]).status.success(), "there is nothing to cancel at the middle");
    assert!(root.ruok()["1"].get("pack").is_some());
    assert!(zeopack(&root, &["--cancel"]).status.success());
    error_of(packer.answer(pack).expect("an answer"));
}

#[test]
fn servers_and_storages_that_cannot_tell() {
    let memory = Server::start_any("", "<mappingstorage 1>\n</mappingstorage>", |_| ());
    let output = zeopack(&memory, &["--dry-run"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("this storage cannot tell what a pack would remove"), "{output:?}");
    for (arguments, expected) in
        [(&["--dry-run", "--cancel"][..], 2), (&["--json"], 2), (&["--dry-run", "-d", "x"], 2)]
    {
        assert_eq!(zeopack(&memory, arguments).status.code(), Some(expected), "{arguments:?}");
    }
    // A compressed storage, and a demo storage, which collects no garbage because of its base.
    let compressed = "%import zc.zlibstorage\n<zlibstorage 1>\n<filestorage>\npath Data.fs\n</filestorage>\n</zlibstorage>";
    let server = Server::start_any("", compressed, |_| ());
    store(&server, &[1], &[1, 2]);
    let (plan, _, _) = planned(&server);
    assert_eq!(plan["objects"]["removed"], 1);
    let path = server.directory().join("Data.fs");
    let zeofs = Command::new(env!("CARGO_BIN_EXE_zeofs")).args(["pack-plan", "--json"]).arg(&path).output();
    let of_file: Json = serde_json::from_str(text(&zeofs.unwrap().stdout).lines().next().unwrap()).unwrap();
    assert_eq!((&of_file["objects"], &of_file["size_after"]), (&plan["objects"], &plan["size_after"]));
    let demo = "<demostorage 1>\n<mappingstorage base>\n</mappingstorage>\n<filestorage changes>\npath Data.fs\n</filestorage>\n</demostorage>";
    let server = Server::start_any("", demo, |_| ());
    store(&server, &[1], &[1, 2]);
    let (plan, _, status) = planned(&server);
    assert_eq!(
        (plan["gc"].as_bool(), plan["objects"]["removed"].as_u64(), status),
        (Some(false), Some(0), Some(0)),
        "{plan}"
    );

    let Some(python) = python("zeo6-py311") else { return };
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let mut child = Command::new(python.with_file_name("runzeo"))
        .args(["-a", socket.to_str().unwrap(), "-f", "Data.fs"])
        .current_dir(dir.path())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_zeopack"))
        .args(["-u", socket.to_str().unwrap(), "--dry-run"])
        .output()
        .unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("Python's servers cannot tell"), "{output:?}");
}
