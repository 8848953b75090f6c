//! Backups that travel as a stream: cut and changed at every place, and stopped at every call of the receiver.

use std::io::BufReader;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::repository::site::{Heard, Site};
use crate::support::faulty::Fault;
use crate::world::database;
use runzeo::internal::backup::repository::{
    Repository, RestoreOptions, Stamp, Streamed, Target, receive, restore, send, verify,
};

fn sent(site: &Site, stamps: &[Stamp], since: Option<&Stamp>) -> Vec<u8> {
    let mut out = Vec::new();
    let sent = send(&site.repository().unwrap(), stamps, since, &mut out).unwrap();
    assert_eq!(sent.backups, stamps);
    out
}

/// Receives into the repository `elsewhere` of this site.
fn received(site: &Site, bytes: &[u8]) -> Result<Streamed, String> {
    received_in(site, "elsewhere", bytes)
}

fn received_in(site: &Site, name: &str, bytes: &[u8]) -> Result<Streamed, String> {
    let media = std::sync::Arc::new(site.disk.clone());
    let repository = Repository::open_or_create(media, &site.path(name)).map_err(|e| e.to_string())?;
    receive(&repository, &mut BufReader::new(bytes)).map_err(|error| error.to_string())
}

fn repository(site: &Site, name: &str) -> Repository {
    Repository::open(std::sync::Arc::new(site.disk.clone()), &site.path(name)).unwrap()
}

/// Everything that was received is whole, and the newest backup restores these bytes.
fn check_elsewhere(site: &Site, expected: &[u8], what: &str) {
    check(site, "elsewhere", expected, what);
}

fn check(site: &Site, name: &str, expected: &[u8], what: &str) {
    let repository = repository(site, name);
    let verified = verify(&repository, &repository.backups().unwrap(), &Heard::default()).unwrap();
    assert!(verified.findings.is_empty(), "{what}: {:?}", verified.findings);
    let target = Target { name: "1".into(), path: site.path("There.fs"), blob_dir: Some(site.path("there")) };
    let options = RestoreOptions { stamp: None, until: None, targets: vec![target] };
    restore(&repository, &options, &Heard::default()).unwrap();
    assert!(site.bytes("There.fs") == expected, "{what}");
}

#[test]
fn what_is_sent_arrives_and_nothing_is_sent_twice() {
    let site = Site::new(0);
    site.grow(12);
    site.backup().unwrap();
    let first = sent(&site, &site.stamps(), None);
    received(&site, &first).unwrap();
    check_elsewhere(&site, &site.bytes("Data.fs"), "the first");
    site.grow(2);
    site.backup().unwrap();
    let stamps = site.stamps();
    let second = sent(&site, &stamps[1..], Some(&stamps[0]));
    assert!(second.len() * 2 < first.len(), "{} {}", second.len(), first.len());
    received(&site, &second).unwrap();
    check_elsewhere(&site, &site.bytes("Data.fs"), "the second");
    assert_eq!(repository(&site, "elsewhere").backups().unwrap(), stamps);
    // Again, and as a whole.
    received(&site, &second).unwrap();
    received(&site, &sent(&site, &stamps, None)).unwrap();
    check_elsewhere(&site, &site.bytes("Data.fs"), "again");
}

#[test]
fn a_part_that_the_receiver_lacks_is_named() {
    let site = Site::new(2);
    site.grow(5);
    site.backup().unwrap();
    site.grow(2);
    site.backup().unwrap();
    let stamps = site.stamps();
    let error = received(&site, &sent(&site, &stamps[1..], Some(&stamps[0]))).unwrap_err();
    assert!(error.contains("which is neither in the stream nor in "), "{error}");
    assert!(repository(&site, "elsewhere").backups().unwrap().is_empty());
}

#[test]
fn a_stream_that_is_cut_or_changed_adds_no_backup() {
    let site = Site::new(0);
    site.grow(2);
    site.backup().unwrap();
    let stream = sent(&site, &site.stamps(), None);
    let step = (stream.len() / 300).max(1);
    for at in (0..stream.len()).step_by(step) {
        // What comes after the backup is the end alone.
        let is_end = at + 4 >= stream.len();
        let (one, other) = (format!("cut {at}"), format!("changed {at}"));
        assert!(received_in(&site, &one, &stream[..at]).is_err(), "{at}");
        assert!(is_end || repository(&site, &one).backups().unwrap().is_empty(), "{at}");
        let mut changed = stream.clone();
        changed[at] ^= 0x21;
        let result = received_in(&site, &other, &changed);
        // Some bits of zstd mean nothing.
        if result.is_ok() || !repository(&site, &other).backups().unwrap().is_empty() {
            check(&site, &other, &site.bytes("Data.fs"), &other);
            assert!(result.is_ok() || is_end, "{at}");
        }
    }
    received(&site, &stream).unwrap();
    check_elsewhere(&site, &site.bytes("Data.fs"), "whole");
    for wrong in [&b"GET / HTTP/1.1\r\n"[..], b"\n", &[0xff; 300], b"zeobackup stream 1\nobject x 5\n"] {
        assert!(received(&site, wrong).unwrap_err().starts_with("the stream "), "{wrong:?}");
    }
}

#[test]
fn a_receiver_that_is_stopped_anywhere_goes_on() {
    for n in 1.. {
        let site = Site::new(n);
        site.grow(3);
        site.backup().unwrap();
        let stream = sent(&site, &site.stamps(), None);
        site.disk.fail_at(n, Fault::PowerCut);
        let result = received(&site, &stream);
        if !site.disk.fired() {
            result.unwrap();
            assert!(n > 10, "only {n} calls");
            break;
        }
        let disk = site.disk.after_power_cut();
        let site = site.on(disk);
        received(&site, &stream).unwrap();
        check_elsewhere(&site, &site.bytes("Data.fs"), &format!("call {n}"));
    }
}

#[test]
fn from_one_program_to_another() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("Data.fs"), database(4).0).unwrap();
    let program = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_zeobackup"));
        command.current_dir(dir.path()).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        command
    };
    assert!(program(&["create", "-q", "-r", "here", "-f", "Data.fs"]).status().unwrap().success());
    let refused = program(&["receive", "--existing", "-r", "there"]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(1) && said.contains("it is no repository"), "{said}");
    assert!(!dir.path().join("there").exists());
    let mut sender = program(&["send", "-r", "here"]).spawn().unwrap();
    let stream = sender.stdout.take().unwrap();
    let received = program(&["receive", "-r", "there"]).stdin(stream).output().unwrap();
    assert!(sender.wait().unwrap().success());
    let said = String::from_utf8_lossy(&received.stdout);
    assert!(received.status.success() && said.starts_with("received 1 backup and 2 objects of "), "{said}");
    assert!(program(&["restore", "-r", "there", "-f", "New.fs"]).status().unwrap().success());
    let bytes = |name: &str| std::fs::read(Path::new(dir.path()).join(name)).unwrap();
    assert_eq!(bytes("New.fs"), bytes("Data.fs"));
}
