//! Backups that the server sends to another place: `command` of `<backup>`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::backups::{FILE, wait_for, with_repository, zeobackup};
use crate::support::client::{RawClient, Speaks, record};
use crate::support::process::Server;

/// The command that receives, with something before it.
fn section(before: &str, keys: &str) -> String {
    let zeobackup = env!("CARGO_BIN_EXE_zeobackup");
    section_with(&format!("{before} {zeobackup} receive -r there"), keys)
}

fn section_with(command: &str, keys: &str) -> String {
    // As a configuration needs it.
    let command = command.replace('$', "$$");
    format!("{FILE}\n<backup>\n  repository repo\n  continuous 1s\n{keys}\n  command {command}\n</backup>")
}

/// A client that changes one object.
struct Writer {
    client: RawClient,
    serial: u64,
}

impl Writer {
    fn of(server: &Server) -> Writer {
        let (client, _) = RawClient::register(server.address, Speaks::Z5).expect("a connection");
        Writer { client, serial: 0 }
    }

    fn commit(&mut self, len: usize) {
        let data = record(&noise(self.serial, len));
        let committed = self.client.commit(&[(0, self.serial, &data)]);
        self.serial = committed.expect("connected").expect("a commit");
    }
}

/// Bytes that cannot be compressed.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(next).collect()
}

fn names(server: &Server, repository: &str) -> Vec<String> {
    let dir = server.directory().join(repository).join("backups");
    let entries = fs::read_dir(dir).map(|entries| entries.flatten().collect::<Vec<_>>()).unwrap_or_default();
    let mut names: Vec<String> =
        entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| !name.ends_with(".part"));
    names.sort();
    names
}

/// Whether everything that was committed is in the repository.
fn is_backed_up(server: &Server) -> bool {
    let len = fs::metadata(server.directory().join("Data.fs")).expect("the file").len();
    let newest = server.directory().join("repo/backups").join(names(server, "repo").pop().expect("one"));
    // It may have been replaced.
    fs::read_to_string(newest).unwrap_or_default().contains(&format!(",\"len\":{len},\"last_tid\":"))
}

/// Waits until everything that was committed has arrived, and restores it from there.
fn check_arrived(server: &Server) {
    wait_for(server, "a backup of all", || is_backed_up(server));
    wait_for(server, "its arrival", || names(server, "there").last() == names(server, "repo").last());
    of_there(server, &["restore", "-r", "there", "-f", "There.fs"]);
    let bytes = |name: &str| fs::read(server.directory().join(name)).expect("a file");
    assert!(bytes("There.fs") == bytes("Data.fs"));
    of_there(server, &["verify", "-r", "there"]);
}

/// Another stream may be arriving.
fn of_there(server: &Server, arguments: &[&str]) {
    wait_for(server, "the end of another run", || {
        let (code, out, error) = zeobackup(server.directory(), arguments);
        let is_in_use = error.contains("is in use by another run");
        assert!(code == 0 || is_in_use, "{out} {error}");
        !is_in_use
    });
}

fn number_in(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Each run has a stream of its own in `streams`.
const COUNTED: &str = "mkdir -p streams; tee streams/$$ |";

fn streams(server: &Server) -> Vec<u64> {
    let entries = fs::read_dir(server.directory().join("streams"));
    entries.map_or_else(
        |_| Vec::new(),
        |entries| entries.flatten().map(|e| e.metadata().unwrap().len()).collect(),
    )
}

#[test]
fn what_is_committed_arrives_and_only_what_is_new_is_sent() {
    let mut server = Server::start_any("", &section(COUNTED, ""), with_repository);
    let mut writer = Writer::of(&server);
    writer.commit(500_000);
    check_arrived(&server);
    for _ in 0..3 {
        writer.commit(1000);
        check_arrived(&server);
    }
    // The backup of before the server, and the last one of each place.
    assert_eq!(names(&server, "there"), names(&server, "repo"));
    let sent = streams(&server);
    assert_eq!(sent.iter().filter(|len| **len > 400_000).count(), 1, "{sent:?}");
    // What has arrived is remembered.
    server.restart();
    thread::sleep(Duration::from_secs(1));
    assert_eq!(streams(&server).len(), sent.len());
    Writer { serial: writer.serial, ..Writer::of(&server) }.commit(1000);
    check_arrived(&server);
    let sent = streams(&server);
    assert_eq!(sent.iter().filter(|len| **len > 400_000).count(), 1, "{sent:?}");
    assert_eq!(server.count_in_log("ERROR"), 0, "{}", server.log());
}

/// Streams that are kept as files, one of them cut off.
#[test]
fn any_command_will_do() {
    let command = "mkdir -p parts; cat >parts/$(date +%s.%N)";
    let mut server = Server::start_any("", &section_with(command, ""), with_repository);
    let dir = server.directory().to_owned();
    let parts = || {
        let entries = fs::read_dir(dir.join("parts")).map(|it| it.flatten().collect::<Vec<_>>());
        let mut parts: Vec<_> = entries.unwrap_or_default().iter().map(fs::DirEntry::path).collect();
        parts.sort();
        parts
    };
    let record = || fs::read_dir(dir.join("repo/sent")).map_or(0, |it| it.count());
    let mut writer = Writer::of(&server);
    for count in 1..5 {
        writer.commit(2000);
        wait_for(&server, "a part", || parts().len() >= count && record() == 1);
    }
    wait_for(&server, "a backup of all", || is_backed_up(&server));
    thread::sleep(Duration::from_secs(2));
    assert!(server.stop().success());
    let all = parts();
    let whole = fs::read(all.last().unwrap()).unwrap();
    fs::write(dir.join("parts/0"), &whole[..whole.len() / 2]).expect("a part that was cut off");
    for (part, is_whole) in parts().iter().zip([false].into_iter().chain(std::iter::repeat(true))) {
        let mut receive = Command::new(env!("CARGO_BIN_EXE_zeobackup"));
        receive
            .current_dir(&dir)
            .args(["receive", "-r", "there"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let status = receive.stdin(fs::File::open(part).unwrap()).status().unwrap();
        assert_eq!(status.success(), is_whole, "{part:?}");
    }
    check_arrived(&server);
}

#[test]
fn a_command_that_fails_is_reported_once_and_tried_again() {
    let before = "test -e broken && { echo what is not shown; cat >/dev/null; seq 1000 >&2; echo no route >&2; exit 7; };";
    let prepare = |dir: &Path| {
        with_repository(dir);
        fs::write(dir.join("broken"), "").expect("a file");
    };
    let server = Server::start_any("", &section(before, ""), prepare);
    let mut writer = Writer::of(&server);
    server.wait_for_log("failed: exit status: 7: 997; 998; 999; 1000; no route. It is tried again");
    for _ in 0..2 {
        let last = names(&server, "repo").pop();
        writer.commit(100);
        wait_for(&server, "a later backup", || names(&server, "repo").pop() != last);
    }
    thread::sleep(Duration::from_millis(500));
    assert_eq!(server.count_in_log("ERROR"), 1, "{}", server.log());
    assert!(names(&server, "there").is_empty());
    fs::remove_file(server.directory().join("broken")).expect("removed");
    writer.commit(100);
    server.wait_for_log("works again");
    check_arrived(&server);
}

/// One that ends well and has not read everything has not sent it.
#[test]
fn only_a_command_that_has_taken_everything_has_sent_it() {
    let server = Server::start_any("", &section("test -e there && exit 0;", ""), with_repository);
    let mut writer = Writer::of(&server);
    wait_for(&server, "the first", || names(&server, "there").len() == 1);
    writer.commit(1 << 20);
    server.wait_for_log("failed: it has ended before it had everything, with exit status: 0. It is tried");
    assert_eq!(names(&server, "there").len(), 1);
    let killed = "kill -9 $$;";
    let server = Server::start_any("", &section(killed, ""), with_repository);
    server.wait_for_log("failed: signal: 9 (SIGKILL). It is tried again");
}

/// It takes nothing, and has started another process. Backups go on beside it.
#[test]
fn a_command_that_hangs_is_killed() {
    let before = "test -e calm || { sleep 1000 & echo $! >pid.part; mv pid.part pid; wait; };";
    let server = Server::start_any("", &section(before, "  command-timeout 3s"), with_repository);
    let mut writer = Writer::of(&server);
    let pid = server.directory().join("pid");
    wait_for(&server, "the command", || number_in(&pid).is_some());
    let hung = number_in(&pid).expect("a number");
    let last = names(&server, "repo").pop();
    writer.commit(1 << 20);
    wait_for(&server, "a later backup", || names(&server, "repo").pop() != last);
    server.wait_for_log("failed: it took nothing for 3 s, or did not end, and was killed");
    wait_for(&server, "the end of the process", || !is_running(hung));
    fs::write(server.directory().join("calm"), "").expect("a file");
    writer.commit(100);
    check_arrived(&server);
}

#[test]
fn the_stop_of_the_server_ends_the_command() {
    // It does not want to end.
    let before = "trap '' TERM; sleep 1000 & echo $! >pid.part; mv pid.part pid; wait;";
    let mut server = Server::start_any("", &section(before, ""), with_repository);
    let pid = server.directory().join("pid");
    wait_for(&server, "the command", || number_in(&pid).is_some());
    let hung = number_in(&pid).expect("a number");
    assert!(is_running(hung));
    let begun = Instant::now();
    assert!(server.stop().success());
    assert!(begun.elapsed() < Duration::from_secs(30));
    wait_for(&server, "the end of the process", || !is_running(hung));
    assert_eq!(server.count_in_log("ERROR"), 0, "{}", server.log());
}

/// Killed while a backup is sent, and when it has arrived, but the command has not said so.
#[test]
fn a_server_that_is_killed_sends_it_again() {
    let zeobackup = env!("CARGO_BIN_EXE_zeobackup");
    let hold = "touch begun; while test -e hold; do sleep 0.02; done";
    for command in [
        format!("{hold}; {zeobackup} receive -r there"),
        format!("{zeobackup} receive -r there; code=$?; {hold}; exit $code"),
    ] {
        let mut server = Server::start_any("", &section_with(&command, ""), with_repository);
        let mut writer = Writer::of(&server);
        writer.commit(1000);
        check_arrived(&server);
        let path = |name: &str| server.directory().join(name);
        let (held, begun) = (path("hold"), path("begun"));
        fs::remove_file(&begun).expect("it has begun once");
        fs::write(&held, "").expect("a file");
        // More than a pipe takes.
        writer.commit(300_000);
        wait_for(&server, "a backup that is being sent", || begun.exists());
        server.kill();
        fs::remove_file(&held).expect("removed");
        server.start_again();
        check_arrived(&server);
    }
}

/// Another disk, or an older state of it.
#[test]
fn a_receiver_that_has_lost_everything_is_sent_everything() {
    let server = Server::start_any("", &section("", ""), with_repository);
    let mut writer = Writer::of(&server);
    writer.commit(300_000);
    check_arrived(&server);
    let there = server.directory().join("there");
    fs::remove_dir_all(&there).expect("removed");
    writer.commit(1000);
    check_arrived(&server);
    assert_eq!(server.count_in_log("everything is sent again"), 1, "{}", server.log());
    assert_eq!(server.count_in_log("ERROR"), 0, "{}", server.log());
    writer.commit(1000);
    check_arrived(&server);
    assert_eq!(server.count_in_log("everything is sent again"), 1, "{}", server.log());
}

#[test]
fn a_command_has_nothing_of_the_server() {
    let before =
        "ls -l /proc/self/fd >fds; grep ^Sig /proc/self/status >signals; readlink /proc/self/fd/0 >input;";
    let server = Server::start_any("", &section(before, ""), with_repository);
    Writer::of(&server).commit(1000);
    check_arrived(&server);
    let read = |name: &str| fs::read_to_string(server.directory().join(name)).expect("a file");
    let fds = read("fds");
    let open: Vec<&str> = fds.lines().filter_map(|line| line.split_once(" -> ")).map(|(_, to)| to).collect();
    // There may be some that the tests were started with.
    let ours = server.directory().to_string_lossy().into_owned();
    let of_server =
        |to: &&&str| to.starts_with("socket:") || to.starts_with("anon_inode:") || to.starts_with(&ours);
    let of_server: Vec<_> = open.iter().filter(of_server).collect();
    assert!(open.len() >= 4 && of_server.len() == 1 && of_server[0].ends_with("/fds"), "{fds}");
    let signals = read("signals");
    let mask = |name: &str| {
        let line = signals.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
        u64::from_str_radix(line.trim(), 16).expect("a mask")
    };
    // SIGPIPE is number 13.
    assert_eq!((mask("SigBlk:"), mask("SigIgn:") & (1 << 12)), (0, 0), "{signals}");
}
