//! `priority low` of `<listen>`: the sessions of its clients stand back, and nothing else does.

use std::fs;

use crate::limits::wait_until;
use crate::listeners::{connect, listen, register};
use crate::pack_cancel::filled;
use crate::support::client::{Incoming, Speaks};
use crate::support::pickle::Value;
use crate::support::process::{Server, free_address};

const STORAGE: &str = "<filestorage 1>\npath Data.fs\n</filestorage>\n";

/// The threads of a process: name and `nice`.
fn threads(pid: u32) -> Vec<(String, i32)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("tasks");
    let nice = |path: std::path::PathBuf| {
        let stat = fs::read_to_string(path.join("stat")).ok()?;
        let (before, after) = stat.rsplit_once(") ")?;
        let name = before.split_once('(')?.1.to_string();
        Some((name, after.split(' ').nth(16)?.parse().expect("a number")))
    };
    tasks.filter_map(|task| nice(task.expect("a task").path())).collect()
}

fn that_stand_back(pid: u32) -> Vec<String> {
    let threads = threads(pid);
    let of_process = threads.iter().find(|(name, _)| name == "runzeo").expect("the main thread").1;
    let nicer = (of_process + 10).min(19);
    assert!(nicer > of_process, "the tests run with the lowest priority");
    let others = threads.into_iter().filter(|(_, nice)| *nice != of_process);
    others.inspect(|(name, nice)| assert_eq!(*nice, nicer, "{name}")).map(|(name, _)| name).collect()
}

#[test]
fn only_sessions_of_a_low_address_stand_back() {
    let low = free_address();
    let section = listen("bulk", low, "read-only true\npriority low");
    let server = Server::start_any("", &format!("{STORAGE}{section}"), |_| ());
    let pid = server.pid();
    let (mut normal, _) = filled(&server);
    assert_eq!(that_stand_back(pid), [""; 0], "{:?}", threads(pid));
    let mut reader = connect(low, Speaks::Z5);
    register(&mut reader, "1", true).expect("registered");
    let names = that_stand_back(pid);
    assert!(
        matches!(&names[..], [name] if name.starts_with("zeo-") && name[4..].parse::<u64>().is_ok()),
        "{names:?}"
    );
    // What it asks for is done by threads of the pools, which others use as well.
    for _ in 0..30 {
        reader.queue_call("undoInfo", vec![Value::Int(0), Value::Int(-50), Value::None]);
    }
    reader.flush().expect("connected");
    for _ in 0..30 {
        assert!(matches!(reader.next().expect("connected"), Incoming::Reply { .. }));
    }
    normal
        .call("undoInfo", vec![Value::Int(0), Value::Int(-50), Value::None])
        .expect("connected")
        .expect("a list");
    assert_eq!(that_stand_back(pid), names, "{:?}", threads(pid));
    // Its locks would hold others up, so it can have none.
    let mut writer = connect(low, Speaks::Z5);
    register(&mut writer, "1", false).expect_err("read-only");
    drop((reader, writer));
    wait_until("they have gone", || that_stand_back(pid).is_empty());
}
