//! `zeofs dump` and `zeofs tail`.

use std::io::{Seek, SeekFrom, Write};
use std::process::Command;

use runzeo::ids::Tid;
use runzeo::storage::file::{FileStorage, FileStorageOptions};
use runzeo::storage::prelude::*;

use crate::files::{fixtures, json, made, run, zeofs};

/// Transactions and records are those that the storage itself iterates over.
#[test]
fn a_dump_has_what_the_storage_has() {
    for (environment, path) in fixtures() {
        let (lines, status) = json("dump", &[], &path);
        assert_eq!(status, 0, "{environment}");
        let found: Vec<String> = lines
            .iter()
            .map(|line| match line["kind"].as_str() {
                Some("record") => format!("{} {}", line["oid"].as_str().unwrap(), line["len"]),
                _ => format!("{} {}", line["tid"].as_str().unwrap(), line["status"]),
            })
            .collect();
        let mut expected = Vec::new();
        let storage =
            FileStorage::open(FileStorageOptions { read_only: true, ..FileStorageOptions::new(&path) });
        let storage = storage.unwrap();
        let mut transactions = storage.iterate(None, None).unwrap();
        while let Some(txn) = transactions.next_transaction().unwrap() {
            expected.push(format!("{} \"{}\"", txn.tid, char::from(txn.status)));
            let mut records = transactions.records().unwrap();
            while let Some(record) = records.next_record().unwrap() {
                expected.push(format!("{} {}", record.oid, record.data.map_or(0, |data| data.len())));
            }
        }
        assert_eq!(found, expected, "{environment}");
    }
}

#[test]
fn options_choose_transactions_and_records() {
    for made in made() {
        let path = made.file("plain.fs");
        let (all, _) = json("dump", &[], &path);
        let tids: Vec<&str> = all
            .iter()
            .filter(|line| line["kind"] == "transaction")
            .map(|line| line["tid"].as_str().unwrap())
            .collect();
        let (some, status) = json("dump", &["--since", tids[2], "--until", tids[4]], &path);
        assert_eq!(status, 0);
        assert!(some.iter().all(|line| tids[2..=4].contains(&line["tid"].as_str().unwrap())));
        assert_eq!(some.iter().filter(|line| line["kind"] == "transaction").count(), 3);

        let (root, _) = json("dump", &["-o", "0"], &path);
        let records: Vec<_> = root.iter().filter(|line| line["kind"] == "record").collect();
        assert!(records.len() > 2 && records.iter().all(|line| line["oid"] == "0000000000000000"));
        let transactions = root.iter().filter(|line| line["kind"] == "transaction").count();
        assert_eq!(transactions, records.len());

        let (trees, _) = json("dump", &["-c", "BTrees.OOBTree", "--refs"], &path);
        let records: Vec<_> = trees.iter().filter(|line| line["kind"] == "record").collect();
        assert!(records.iter().all(|line| line["class"].as_str().unwrap().starts_with("BTrees.OOBTree.")));
        assert!(records.iter().any(|line| !line["refs"].as_array().unwrap().is_empty()));

        let blobs = made.file("blobs-plain");
        let (blob, status) = json("dump", &["-c", "ZODB.blob.Blob", "-b", blobs.to_str().unwrap()], &path);
        assert_eq!((blob.last().unwrap()["blob"].as_u64(), status), (Some(900), 0));

        let (text, status) = run("dump", &["--refs"], &path);
        assert_eq!(status, 0);
        for expected in [
            "    user \"/ admin\", description \"keys\", extension {\"request_type\":\"PUT\",\"size\":7}\n",
            "    user \"it's \"me\"\", description \"two\\nlines\\t\\ and ",
            "persistent.mapping.PersistentMapping  ",
            "        refers to 0x01",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
    }
}

/// Of objects that ZODB 3.8 to 6 have written, in the dump, of one object, and over the network.
#[test]
fn states_are_shown_as_data() {
    for (environment, file) in fixtures() {
        let (dump, status) = json("dump", &["--state"], &file);
        assert_eq!(status, 0, "{environment}");
        let mut texts = 0;
        for record in dump.iter().filter(|line| line["kind"] == "record") {
            let (state, data_pos) = (record.get("state"), &record["data_pos"]);
            assert_eq!(state.is_some(), !data_pos.is_null(), "{environment}: {record}");
            assert!(record.get("state_damage").is_none(), "{environment}: {record}");
            texts += u32::from(state.is_some_and(|state| state["data"].is_string()));
        }
        assert!(texts > 5, "{environment}: {texts}");
        // The states of the revisions of one object are those of its records in the dump, the newest first.
        let output = zeofs(&["oid", "--json", "-s", "--no-path", file.to_str().unwrap(), "0"]);
        let lines: Vec<serde_json::Value> = String::from_utf8(output.0)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let of_oid = lines.iter().filter(|line| line["kind"] == "revision").map(|line| line.get("state"));
        let root = |line: &&serde_json::Value| line["kind"] == "record" && line["oid"] == "0000000000000000";
        let of_dump = dump.iter().filter(root).map(|line| line.get("state"));
        assert!(of_oid.eq(of_dump.rev()), "{environment}");
    }
}

#[test]
fn a_tail_is_the_end_of_the_dump() {
    for (environment, path) in fixtures() {
        let (all, _) = json("dump", &[], &path);
        let mut expected: Vec<_> = all.into_iter().filter(|line| line["kind"] == "transaction").collect();
        expected.reverse();
        for count in [0, 3, 100] {
            let (mut lines, status) = json("tail", &["-n", &count.to_string()], &path);
            assert_eq!(status, 0);
            for line in &mut lines {
                let fields = line.as_object_mut().unwrap();
                let records = fields.remove("records").unwrap().as_u64().unwrap();
                let classes = fields.remove("classes").unwrap();
                let counted: u64 =
                    classes.as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
                assert_eq!(counted, records);
            }
            assert_eq!(lines, expected[..expected.len().min(count)], "{environment}");
        }
    }
}

/// What a server has not finished yet, or has reserved, is not seen, and is no damage while the server runs.
#[test]
fn a_file_in_use_is_seen_as_it_was() {
    let (_, path) = fixtures().pop().unwrap();
    let whole = std::fs::read(&path).unwrap();
    let (expected, _) = json("dump", &[], &path);
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("Data.fs");
    std::fs::write(&copy, &whole).unwrap();
    let storage = FileStorage::open(FileStorageOptions::new(&copy)).unwrap();
    let mut beside: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    beside.sort();

    let mut voted = Tid::now().to_bytes().to_vec();
    voted.extend(200u64.to_be_bytes());
    voted.push(b'c');
    for tail in [vec![0; 5000], voted.clone(), [voted, vec![1; 500]].concat(), vec![7; 9], vec![7; 300]] {
        let mut file = std::fs::OpenOptions::new().write(true).open(&copy).unwrap();
        file.seek(SeekFrom::Start(whole.len() as u64)).unwrap();
        file.write_all(&tail).unwrap();
        // Not in this process, which has the lock itself.
        let output =
            Command::new(env!("CARGO_BIN_EXE_zeofs")).args(["dump", "--json"]).arg(&copy).output().unwrap();
        let mut lines: Vec<serde_json::Value> = String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let ending = lines.pop().unwrap();
        assert_eq!(
            (ending["kind"].as_str(), ending["pos"].as_u64()),
            (Some("ending"), Some(whole.len() as u64))
        );
        assert_eq!((lines, output.status.code()), (expected.clone(), Some(0)));
        let (tail, status) = json("tail", &["-n", "1"], &copy);
        assert_eq!((tail.len(), status), (1, 0));
        file.set_len(whole.len() as u64).unwrap();
    }
    let mut after: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    after.sort();
    assert_eq!(after, beside, "something was written beside the file");
    storage.close().unwrap();
}

#[test]
fn wrong_command_lines_and_files_are_told_apart() {
    let (_, path) = &fixtures()[0];
    let path = path.to_str().unwrap();
    for wrong in [
        &["dump"][..],
        &["dump", path, path],
        &["dump", "--since", "x", path],
        &["dump", "-o", "x", path],
        &["nothing", path],
    ] {
        assert_eq!(crate::files::zeofs(wrong).1, 2, "{wrong:?}");
    }
    for unreadable in ["/nonexistent/Data.fs", "/", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")] {
        for command in ["dump", "tail"] {
            assert_eq!(crate::files::zeofs(&[command, unreadable]).1, 1, "{command} {unreadable}");
        }
    }
    assert_eq!(crate::files::zeofs(&["--help"]).1, 0);
}
