//! `scrub-schedule`: a byte that the disk has changed is found while the file is served, and nothing else is.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::blob_messages;
use crate::support::client::{RawClient, Speaks, record, undo_id};
use crate::support::dice::Dice;
use crate::support::pickle::Value;
use crate::support::process::Server;
use crate::support::pythons::python;

const SECTION: &str = "scrub-schedule every 1s\nscrub-max-rate 1GB\npack-keep-old false";
const CLEAN: &str = "nothing is wrong";

fn start() -> Server {
    Server::start_storage("", SECTION)
}

fn data_fs(server: &Server) -> PathBuf {
    server.directory().join("Data.fs")
}

/// Waits for a pass that begins from now on. Two are enough: one of them may be under way.
fn wait_for_pass(server: &Server) {
    let passes = server.count_in_log("checked in");
    server.wait_for_log_count("checked in", passes + 2);
}

/// A client and the serial of the root.
fn register(server: &Server) -> (RawClient, u64) {
    let (client, last) = RawClient::register(server.address, Speaks::Z5).expect("a connection");
    (client, last.unwrap_or(0))
}

/// Commits revisions of an object of its own; returns the tids.
fn commit(client: &mut RawClient, count: usize, text: &[u8]) -> Vec<u64> {
    let oid = client.new_oids(1).expect("connected")[0];
    let mut tids = Vec::new();
    for _ in 0..count {
        let serial = tids.last().copied().unwrap_or(0);
        tids.push(client.commit(&[(oid, serial, &record(text))]).expect("connected").expect("a commit"));
    }
    tids
}

/// Changes one bit of the first occurrence of a text behind `from`, as a disk would. Returns its position.
fn flip(server: &Server, text: &[u8], from: usize) -> u64 {
    let path = data_fs(server);
    let bytes = fs::read(&path).expect("the file");
    let at = bytes[from..].windows(text.len()).position(|part| part == text).expect("the text") + from;
    let file = fs::OpenOptions::new().write(true).open(path).expect("the file");
    file.write_all_at(&[bytes[at] ^ 1], at as u64).expect("written");
    at as u64
}

#[test]
fn a_flipped_bit_is_found_and_reported_once() {
    // The packs have nothing to do.
    let mut server = Server::start_storage("", &format!("{SECTION}\npack-schedule every 2s\npack-gc false"));
    let (mut client, _) = register(&server);
    commit(&mut client, 1, b"the root");
    let tids: Vec<u64> =
        (0..300).flat_map(|n| commit(&mut client, 1, format!("content number {n:04}").as_bytes())).collect();
    server.wait_for_log(CLEAN);
    wait_for_pass(&server);
    let last = &server.ruok()["1"]["last-scrub"];
    assert_eq!(
        (last["findings"].as_u64(), &last["compared"]),
        (Some(0), &serde_json::json!(fs::metadata(data_fs(&server)).unwrap().len() - 4)),
        "{last}"
    );
    assert!(server.ruok()["1"]["next-scrub"].as_f64() > Some(1.7e9));

    // No structure has changed, only a text in a pickle.
    let at = flip(&server, b"content number 0200", 0);
    server.wait_for_log("DAMAGED");
    wait_for_pass(&server);
    let log = server.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("DAMAGED")).collect();
    let [line] = lines[..] else { panic!("{lines:#?}") };
    let pos: u64 =
        line.split("DAMAGED at ").nth(1).and_then(|rest| rest.split(':').next()).unwrap().parse().unwrap();
    assert!((at.saturating_sub(64 << 10)..=at).contains(&pos), "{at}: {line}");
    assert!(
        line.contains("are not those that were written here") && line.contains("Transactions: "),
        "{line}"
    );
    assert!(line.contains("ERROR ZODB.FileStorage Data.fs: "), "{line}");
    let last = &server.ruok()["1"]["last-scrub"];
    assert_eq!((last["findings"].as_u64(), last["error"].is_null()), (Some(1), true), "{last}");
    assert!(tids.len() == 300 && log.contains("1 FINDINGS"));

    // It is served all the same, and what is committed later is whole. It is not packed by schedule.
    server
        .wait_for_log("by pack-schedule is left out: the last check of the file has found 1 damaged places");
    commit(&mut client, 1, b"later");
    drop(client);
    server.restart();
    server.wait_for_log_count("DAMAGED", 2);
    server.kill();
    server.start_again();
    server.wait_for_log_count("DAMAGED", 3);
}

/// A position, a length, a tid: what `zeofs test` finds without a checksum.
#[test]
fn damage_of_the_time_before_the_first_checksum_is_found() {
    let mut server = Server::start();
    let (mut client, _) = register(&server);
    let tids = commit(&mut client, 50, b"x");
    drop(client);
    assert!(server.stop().success());
    // The tid in a record.
    let bytes = fs::read(data_fs(&server)).unwrap();
    let tid = tids[10].to_be_bytes();
    let header = bytes.windows(8).position(|part| part == tid).unwrap();
    flip(&server, &tid, header + 1);
    let config = server.directory().join("zeo.conf");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("path Data.fs", &format!("path Data.fs\n{SECTION}"))).unwrap();
    server.start_again();
    server.wait_for_log("DAMAGED");
    assert!(server.log().contains("the record has another tid than its transaction"), "{}", server.log());
}

/// The files of blobs.
fn blobs(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).map(|entries| entries.flatten().collect::<Vec<_>>()).unwrap_or_default();
    let below = entries.iter().map(fs::DirEntry::path);
    below
        .flat_map(|path| match path.is_dir() {
            true => blobs(&path),
            false => vec![path],
        })
        .filter(|path| path.extension().is_some_and(|end| end == "blob"))
        .collect()
}

#[test]
fn a_blob_without_a_file_is_found_and_reported_once() {
    let keys = format!("path Data.fs\n{SECTION}\npack-schedule every 2s\npack-gc false");
    for section in [
        format!("<filestorage 1>\n{keys}\nblob-dir blobs\n</filestorage>"),
        format!("<blobstorage 1>\nblob-dir blobs\n<filestorage>\n{keys}\n</filestorage>\n</blobstorage>"),
    ] {
        let mut server = Server::start_any("", &section, |_| ());
        let (mut client, _) = register(&server);
        for txn in 0..5 {
            let oid = client.new_oids(1).unwrap()[0];
            blob_messages::commit(&mut client, oid, b"content", txn);
        }
        wait_for_pass(&server);
        server.wait_for_log("nothing is wrong: ");
        server.wait_for_log(", and 5 blobs");
        let last = &server.ruok()["1"]["last-scrub"];
        assert_eq!((last["findings"].as_u64(), last["missing-blobs"].as_u64()), (Some(0), Some(0)), "{last}");
        let lost = blobs(&server.directory().join("blobs")).pop().expect("a blob");
        fs::remove_file(&lost).expect("removed");
        server.wait_for_log("BLOB MISSING at ");
        wait_for_pass(&server);
        assert_eq!(server.count_in_log("BLOB MISSING"), 1, "{}", server.log());
        let named = format!("the blob has no file {}. Keep", lost.display());
        assert!(server.log().contains(&named), "{}", server.log());
        let last = &server.ruok()["1"]["last-scrub"];
        assert_eq!((last["findings"].as_u64(), last["missing-blobs"].as_u64()), (Some(1), Some(1)), "{last}");
        // A pack makes it no worse.
        let packs = server.count_in_log("by pack-schedule complete");
        server.wait_for_log_count("by pack-schedule complete", packs + 2);
        assert_eq!(server.count_in_log("is left out"), 0);
        drop(client);
        server.restart();
        server.wait_for_log_count("BLOB MISSING", 2);
    }
}

/// A pass takes seconds, and what it reads is changed all the time: blobs are undone, given up, and removed by packs.
#[test]
fn blobs_that_come_and_go_give_no_alarm() {
    let keys =
        "path Data.fs\nscrub-schedule every 1s\nscrub-max-rate 100KB\npack-keep-old false\nblob-dir blobs";
    let section = format!("<filestorage 1>\n{keys}\n</filestorage>");
    let server = Server::start_logging("debug", "", &section, |_| ());
    let dice = &mut Dice::new(11, 0);
    let (mut client, _) = register(&server);
    client.commit(&[(0, 0, &record(b"the root"))]).unwrap().unwrap();
    for _ in 0..3 {
        let mut last = 0;
        for n in 0..100 {
            let oid = client.new_oids(1).unwrap()[0];
            if dice.below(5) == 0 {
                client.queue_begin(n);
                blob_messages::queue_blob(&mut client, oid, b"given up", n);
                client.call("vote", vec![Value::Int(n)]).unwrap().expect("vote");
                client.call("tpc_abort", vec![Value::Int(n)]).unwrap().expect("tpc_abort");
            } else {
                last = blob_messages::commit(&mut client, oid, b"content", n);
            }
        }
        let begun = server.count_in_log("the check of the file begins");
        server.wait_for_log_count("the check of the file begins", begun + 1);
        client.queue_begin(200);
        client.queue_async("undoa", vec![Value::Bytes(undo_id(last).into_bytes()), Value::Int(200)]);
        client.call("vote", vec![Value::Int(200)]).unwrap().expect("vote");
        client.call("tpc_finish", vec![Value::Int(200)]).unwrap().expect("tpc_finish");
        std::thread::sleep(Duration::from_millis(dice.below(1000)));
        // They are not referred to.
        client.call("pack", vec![Value::Float(4e9), Value::Bool(true)]).unwrap().unwrap();
        assert!(blobs(&server.directory().join("blobs")).is_empty());
    }
    for n in 0..10 {
        let oid = client.new_oids(1).unwrap()[0];
        blob_messages::commit(&mut client, oid, b"content", n);
    }
    server.wait_for_log(", and 10 blobs");
    assert_no_alarm(&server, "blobs");
    assert_eq!(server.count_in_log("BLOB MISSING"), 0, "{}", server.log());
}

/// What is done to the file between two starts.
#[derive(Clone, Copy, Debug)]
enum Between {
    Stop,
    Kill,
    /// An older copy takes its name.
    RestoreByName,
    /// An older copy is written over it.
    RestoreInPlace,
    /// The same, and it is served for a while without a schedule.
    RestoreUnnoticed,
    /// Python's ZODB commits to it, and packs it.
    Python,
}

#[test]
fn nothing_but_the_disk_gives_an_alarm() {
    let dice = &mut Dice::new(7, 0);
    let mut server = start();
    let (mut client, _) = register(&server);
    client.commit(&[(0, 0, &record(b"the root"))]).unwrap().unwrap();
    drop(client);
    let backup = server.directory().join("Backup.fs");
    let rounds = [
        Between::Kill,
        Between::RestoreInPlace,
        Between::Kill,
        Between::Python,
        Between::RestoreByName,
        Between::Stop,
    ];
    for (round, between) in rounds.into_iter().enumerate() {
        let (mut client, _) = register(&server);
        for step in 0..4 {
            let tids = commit(
                &mut client,
                1 + dice.below(20) as usize,
                &vec![b'y'; 1 + dice.below(20_000) as usize],
            );
            if step == 1 {
                let _ = fs::copy(data_fs(&server), &backup);
            }
            if dice.below(2) == 0 {
                let id = Value::Bytes(undo_id(*tids.last().unwrap()).into_bytes());
                client.queue_begin(9);
                client.queue_async("undoa", vec![id, Value::Int(9)]);
                client.flush().unwrap();
                if client.call("vote", vec![Value::Int(9)]).unwrap().is_ok() {
                    client.call("tpc_finish", vec![Value::Int(9)]).unwrap().unwrap();
                } else {
                    client.call("tpc_abort", vec![Value::Int(9)]).unwrap().unwrap();
                }
            }
            if dice.below(3) == 0 {
                let gc = vec![Value::Float(4e9), Value::Bool(true)];
                // The objects are not referred to, and gone.
                client.call("pack", gc).unwrap().unwrap();
            }
            std::thread::sleep(Duration::from_millis(dice.below(700)));
        }
        wait_for_pass(&server);
        assert_no_alarm(&server, &format!("round {round}"));
        if matches!(between, Between::Kill) {
            // In the middle of commits.
            std::thread::scope(|scope| {
                let commits = scope.spawn(|| {
                    let mut oids = 1 << 40..;
                    while oids
                        .next()
                        .is_some_and(|oid| client.commit(&[(oid, 0, &record(&[b'z'; 5000]))]).is_ok())
                    {
                    }
                });
                std::thread::sleep(Duration::from_millis(dice.below(300)));
                server.kill();
                commits.join().unwrap();
            });
        } else {
            drop(client);
            assert!(server.stop().success());
        }
        change(&mut server, between, &backup);
        server.start_again();
        wait_for_pass(&server);
        assert_no_alarm(&server, &format!("round {round}, after {between:?}"));
    }
    // And the checksums are still there.
    let (mut client, _) = register(&server);
    commit(&mut client, 1, b"the last text");
    wait_for_pass(&server);
    flip(&server, b"the last text", 0);
    server.wait_for_log("DAMAGED");
}

fn assert_no_alarm(server: &Server, what: &str) {
    let log = server.log();
    let alarms: Vec<&str> = log
        .lines()
        .filter(|line| {
            ["DAMAGED", "FINDINGS", ".sums", "the check of the file has failed"]
                .iter()
                .any(|word| line.contains(word))
        })
        .collect();
    assert!(alarms.is_empty() && log.contains(CLEAN), "{what}: {alarms:#?}");
}

fn change(server: &mut Server, between: Between, backup: &PathBuf) {
    let path = data_fs(server);
    match between {
        Between::Stop | Between::Kill => {}
        Between::RestoreByName => {
            fs::copy(backup, server.directory().join("New.fs")).unwrap();
            fs::rename(server.directory().join("New.fs"), &path).unwrap();
        }
        Between::RestoreInPlace => fs::write(&path, fs::read(backup).unwrap()).unwrap(),
        Between::RestoreUnnoticed => {
            fs::write(&path, fs::read(backup).unwrap()).unwrap();
            let config = server.directory().join("zeo.conf");
            let text = fs::read_to_string(&config).unwrap();
            assert!(text.contains(SECTION));
            fs::write(&config, text.replace(SECTION, "")).unwrap();
            server.start_again();
            // More than was there before, and other bytes.
            let (mut client, _) = register(server);
            commit(&mut client, 40, &[b'u'; 200_000]);
            drop(client);
            assert!(server.stop().success());
            fs::write(&config, text).unwrap();
        }
        Between::Python => {
            let Some(python) = python("zeo6-py311") else { return };
            let script = "import pickle, sys, time\n\
                          from ZODB.Connection import TransactionMetaData\n\
                          from ZODB.FileStorage import FileStorage\n\
                          storage = FileStorage(sys.argv[1])\n\
                          def commit(size):\n    \
                              t = TransactionMetaData()\n    \
                              storage.tpc_begin(t)\n    \
                              storage.store(storage.new_oid(), bytes(8), b'cm\\nC\\n.' + pickle.dumps(b'x' * size, 3), '', t)\n    \
                              storage.tpc_vote(t)\n    \
                              storage.tpc_finish(t)\n\
                          commit(50000)\n\
                          storage.pack(time.time() + 1, lambda data, oids=None: [])\n\
                          commit(70000)\n\
                          storage.close()\n";
            let output = Command::new(python).args(["-c", script]).arg(&path).output().unwrap();
            assert!(output.status.success(), "{output:?}");
        }
    }
}

/// A backup was put back while there was no schedule. The next server with one believed the checksums of the file
/// before, because the server in between had left the file as it should be.
#[test]
fn checksums_that_missed_a_restore_are_not_believed() {
    let mut server = start();
    let (mut client, _) = register(&server);
    commit(&mut client, 5, &[b'a'; 20_000]);
    let backup = server.directory().join("Backup.fs");
    fs::copy(data_fs(&server), &backup).unwrap();
    commit(&mut client, 5, &[b'b'; 20_000]);
    drop(client);
    wait_for_pass(&server);
    assert!(server.stop().success());
    change(&mut server, Between::RestoreUnnoticed, &backup);
    server.start_again();
    wait_for_pass(&server);
    assert_no_alarm(&server, "after a restore");
}
