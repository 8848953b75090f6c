//! Changes of the roles of a cluster's servers, by their operator.

use std::fs;
use std::path::Path;

use crate::cluster::{Cluster, FILE, load, put};
use crate::support::client::record;
use crate::support::process::{Server, free_address};

#[test]
fn roles_are_exchanged_without_a_loss() {
    let cluster = Cluster::start(3, "");
    let mut serial = put(&mut cluster.client(0), 0, b"0");
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        cluster.wait_for_last(to, serial);
        let refused = cluster.admin(to, &["promote", "--wait", "0"]);
        assert!(!refused.status.success(), "the primary is there");
        let demoted = cluster.admin(from, &["demote"]);
        assert!(demoted.status.success(), "{demoted:?}");
        assert!(!cluster.admin(from, &["demote"]).status.success());
        let promoted = cluster.admin(to, &["promote", "--wait", "20"]);
        assert!(promoted.status.success(), "{promoted:?} {}", cluster.servers[to].talk());
        assert!(!cluster.admin(to, &["promote"]).status.success());
        serial = put(&mut cluster.client(to), serial, format!("{from} to {to}").as_bytes());
        for no in 0..3 {
            cluster.wait_for_last(no, serial);
        }
        assert_eq!(cluster.servers[from].count_in_log("does not have the last"), 0);
    }
}

/// Without the mark, clients of the former primary would take their caches for as new as what was committed here.
#[test]
fn a_promotion_that_was_interrupted_is_marked_at_the_next_start() {
    let mut cluster = Cluster::start(2, "");
    let serial = put(&mut cluster.client(0), 0, b"0");
    cluster.wait_for_last(1, serial);
    cluster.servers[0].kill();
    assert!(cluster.admin(1, &["promote", "--force"]).status.success());
    let mark = cluster.last(1);
    assert!(mark > serial);
    cluster.servers[1].kill();
    let state = cluster.servers[1].directory().join("Data.fs.replication");
    let text = fs::read_to_string(&state).unwrap();
    assert!(!text.contains("unmarked"), "{text}");
    // As if it had been killed before the mark.
    fs::write(&state, text.replace("\nend\n", "\nunmarked\nend\n")).unwrap();
    cluster.servers[1].start_again();
    cluster.servers[1].wait_for_log("it is complete now");
    let serial = put(&mut cluster.client(1), serial, b"1");
    assert_eq!(cluster.data(1).windows(23).filter(|part| part == b"runzeo: n1 was promoted").count(), 2);
    assert!(!fs::read_to_string(&state).unwrap().contains("unmarked"));
    cluster.servers[0].start_again();
    cluster.wait_for_last(0, serial);
}

#[test]
fn a_file_asks_for_a_promotion() {
    let mut cluster = Cluster::start(2, "");
    let serial = put(&mut cluster.client(0), 0, b"0");
    cluster.wait_for_last(1, serial);
    cluster.servers[0].kill();
    let trigger = cluster.servers[1].directory().join("promote");
    fs::write(&trigger, "").unwrap();
    cluster.wait_for_role(1, 0);
    cluster.servers[1].wait_for_log("n1 is the primary now");
    assert!(!Path::new(&trigger).exists());
    put(&mut cluster.client(1), serial, b"1");
}

#[test]
fn a_replica_follows_whom_it_was_told_to_follow() {
    let mut cluster = Cluster::start(3, "");
    let mut client = cluster.client(0);
    let mut serial = put(&mut client, 0, b"0");
    cluster.wait_for_last(2, serial);
    // A replica follows no replica.
    let other = cluster.addresses[1].to_string();
    assert!(cluster.admin(2, &["follow", &other]).status.success());
    cluster.servers[2].wait_for_log("n1 is a replica as well");
    let missed = serial;
    serial = put(&mut client, serial, b"1");
    cluster.wait_for_last(1, serial);
    assert_eq!(cluster.last(2), missed);
    // It remembers.
    cluster.servers[2].restart();
    cluster.servers[2].wait_for_log_count("n1 is a replica as well", 2);
    assert_eq!(cluster.last(2), missed);
    assert!(cluster.admin(2, &["demote"]).status.success());
    cluster.wait_for_last(2, serial);
    assert!(!cluster.admin(2, &["demote"]).status.success(), "it follows no one in particular");
    // A primary that is told to follow is none any more.
    cluster.wait_for_last(1, serial);
    assert!(cluster.admin(0, &["follow", &other]).status.success());
    assert!(cluster.admin(1, &["promote", "--wait", "20"]).status.success());
    serial = put(&mut cluster.client(1), serial, b"2");
    cluster.wait_for_last(0, serial);
    cluster.wait_for_last(2, serial);
}

/// A primary that most servers do not answer answers no commit, from a time before another one is promoted.
#[test]
fn a_primary_without_a_lease_answers_no_commit() {
    let cluster = Cluster::start(3, "lease 5");
    cluster.servers[0].wait_for_log("it can be written");
    let mut client = cluster.client(0);
    let serial = put(&mut client, 0, b"0");
    (1..3).for_each(|no| cluster.wait_for_last(no, serial));
    // One of them is enough.
    cluster.servers[2].freeze();
    let serial = put(&mut client, serial, b"1");
    cluster.servers[1].freeze();
    cluster.servers[0].wait_for_log("have not answered within the lease");
    let role = cluster.admin(0, &["role"]);
    assert!(
        String::from_utf8_lossy(&role.stdout).contains("most servers of the cluster do not answer"),
        "{role:?}"
    );
    assert!(!matches!(client.commit(&[(1, serial, &record(b"no"))]), Ok(Ok(_))));
    (1..3).for_each(|no| cluster.servers[no].signal("CONT"));
    cluster.servers[0].wait_for_log_count("it can be written", 2);
    let mut client = cluster.client(0);
    assert_eq!(load(&mut client, 1), b"1");
    let serial = put(&mut client, serial, b"2");
    (1..3).for_each(|no| cluster.wait_for_last(no, serial));
    // A primary that stands still does not know that its time is over.
    cluster.servers[0].freeze();
    assert!(!cluster.admin(1, &["promote", "--wait", "0"]).status.success(), "the primary may have a lease");
    let promoted = cluster.admin(1, &["promote", "--wait", "40"]);
    assert!(promoted.status.success(), "{promoted:?}");
    cluster.servers[0].signal("CONT");
    assert!(!matches!(client.commit(&[(1, serial, &record(b"no"))]), Ok(Ok(_))));
    cluster.wait_for_role(0, 10);
    // One that has been demoted has none.
    cluster.servers[1].wait_for_log("it can be written");
    assert!(cluster.admin(1, &["demote"]).status.success());
    assert!(cluster.admin(2, &["promote", "--wait", "4"]).status.success(), "{}", cluster.servers[2].talk());
}

/// The old and the new primary do not reach each other, but the same third server.
#[test]
fn a_primary_hears_of_a_promotion_from_a_third_server() {
    let addresses: Vec<_> = (0..3).map(|_| free_address()).collect();
    let mut cluster = Cluster { addresses: addresses.clone(), servers: Vec::new() };
    for (no, peers) in [(0, vec![2]), (1, vec![2]), (2, vec![0, 1])] {
        let role = if no == 0 { "primary" } else { "replica" };
        let peers: String = peers.iter().map(|peer: &usize| format!("peer {}\n", addresses[*peer])).collect();
        let storage = format!(
            "{FILE}\n<replication>\nname n{no}\nrole {role}\nlisten {}\n{peers}follow-replicas true\n</replication>",
            addresses[no]
        );
        cluster.servers.push(Server::start_any("admin-socket admin", &storage, |_| ()));
    }
    let serial = put(&mut cluster.client(0), 0, b"0");
    cluster.wait_for_last(1, serial);
    assert!(cluster.admin(1, &["promote", "--force"]).status.success());
    cluster.servers[0].wait_for_log("this server is not the primary any more");
    let serial = put(&mut cluster.client(1), serial, b"1");
    cluster.wait_for_last(2, serial);
    cluster.wait_for_last(0, serial);
    cluster.wait_for_role(0, 10);
}

/// While the primary was away, two replicas followed each other. Neither looked for the primary any more.
#[test]
fn replicas_that_may_follow_replicas_find_the_primary_again() {
    let mut cluster = Cluster::start(3, "follow-replicas true");
    let serial = put(&mut cluster.client(0), 0, b"0");
    (1..3).for_each(|no| cluster.wait_for_last(no, serial));
    cluster.servers[0].kill();
    (1..3).for_each(|no| cluster.servers[no].wait_for_log("no primary was found"));
    cluster.servers[0].start_again();
    let serial = put(&mut cluster.client(0), serial, b"1");
    (1..3).for_each(|no| cluster.wait_for_last(no, serial));
}
