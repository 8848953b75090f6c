//! A full disk is an error of the vote, not of the finish.
//!
//! Space was reserved with `fallocate` if the file system supports it, and not at all elsewhere; and a limit on the
//! length of files (`ulimit -f`) does not affect `fallocate`. So `tpc_finish` failed in the second phase, when other
//! databases of the same transaction had committed.

use std::sync::Arc;

use crate::support::client::{RawClient, Speaks, record};
use crate::support::faulty::Faulty;
use crate::support::pickle::Value;
use crate::support::process::Server;
use crate::support::storage::{Outcome, commit, finish_voted, load, open_with, staged};
use runzeo::ids::{Oid, Tid};
use runzeo::storage::TidAt;
use runzeo::storage::file::FileStorageOptions;
use runzeo::storage::prelude::*;
use rustix::process::{Pid, Resource, Rlimit, prlimit};

fn limit_files_to(server: &Server, len: Option<u64>) {
    let pid = Pid::from_raw(server.pid() as i32);
    prlimit(pid, Resource::Fsize, Rlimit { current: len, maximum: None }).unwrap();
}

#[test]
fn a_limit_on_the_length_of_files_is_found_at_vote() {
    let server = Server::start();
    let (mut client, _) = RawClient::register(server.address, Speaks::Z5).unwrap();
    limit_files_to(&server, Some(1 << 20));
    let data = record(&[7; 100_000]);
    let mut serial = 0;
    let mut commits = 0;
    let error = loop {
        client.queue_begin(commits);
        client.queue_store(0, serial, &data, commits);
        if let Err((class, detail)) = client.call("vote", vec![Value::Int(commits)]).unwrap() {
            let _ = client.call("tpc_abort", vec![Value::Int(commits)]).unwrap();
            break format!("{class} {detail:?}");
        }
        serial = client.call("tpc_finish", vec![Value::Int(commits)]).unwrap().expect("it had voted").id();
        commits += 1;
    };
    assert!((5..11).contains(&commits), "{commits}");
    assert!(error.contains("OSError") && error.contains("no room"), "{error}");
    // A shorter transaction still fits, and longer ones do when there is room again.
    serial = client.commit(&[(0, serial, &record(b"short"))]).unwrap().unwrap();
    limit_files_to(&server, None);
    client.commit(&[(0, serial, &data)]).unwrap().unwrap();
}

/// The list of blocks that are rightly zero is written at finish, without a reservation: with 2 MB of zeros, and a disk
/// that another program filled after the vote, `tpc_finish` failed. Without the list, these blocks must not be taken
/// for torn after a power cut.
#[test]
fn a_disk_that_fills_up_between_vote_and_finish_does_not_matter() {
    // The lock file is a real one.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("Data.fs");
    let disk = Faulty::new(7, None).without_reserve();
    let options = |disk: &Faulty| FileStorageOptions {
        media: Arc::new(disk.clone()),
        ..FileStorageOptions::new(&path)
    };
    let storage = open_with(options(&disk)).unwrap();
    commit(&storage, &[(1, Tid::ZERO, b"before")]).unwrap();
    let zeros = [&b"head"[..], &[0; 200_000], b"tail"].concat();
    let mut transaction = staged();
    transaction.store(Oid(2), Tid::ZERO, &zeros).unwrap();
    let voted = storage.vote(transaction, TidAt::Finish).unwrap();
    disk.set_full(true);
    let outcome = finish_voted(&storage, voted).recv().unwrap();
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    let cuts: Vec<Faulty> = (0..200).map(|_| disk.after_power_cut()).collect();
    drop(storage);
    for cut in cuts {
        let after = open_with(options(&cut)).unwrap();
        assert_eq!(load(&after, 2).unwrap().0, zeros);
    }
}
