//! A disk that has no room is an error of the vote, not of the finish.
//!
//! Space was reserved with `fallocate` where the file system can do that, and hoped for elsewhere; and a limit on the length of
//! files (`ulimit -f`) does not count there. So `tpc_finish` failed, in the second phase, when other databases of the same
//! transaction had committed.

#[path = "common/mod.rs"]
mod common;

use common::client::{RawClient, Speaks, record};
use common::pickle::Value;
use common::process::Server;
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
    // What is shorter still fits, and so does all else once there is room.
    serial = client.commit(&[(0, serial, &record(b"short"))]).unwrap().unwrap();
    limit_files_to(&server, None);
    client.commit(&[(0, serial, &data)]).unwrap().unwrap();
}
