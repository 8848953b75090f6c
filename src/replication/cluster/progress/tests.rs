//! What is sent to a replica, and which acknowledgements count.

use std::io::{self, IoSlice};

use super::*;
use crate::replication::cluster::options::Role;
use crate::replication::recent::RECENT_MAX;

struct Line;

impl Sink for Line {
    fn try_send(&self, _: &[IoSlice<'_>]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn send(&self, chunks: &[IoSlice<'_>]) -> io::Result<usize> {
        self.try_send(chunks)
    }

    fn shutdown(&self) {}
}

fn primary(level: Level) -> GroupProgress<Line> {
    let options = ClusterOptions {
        name: "here".into(),
        listen: None,
        peers: Vec::new(),
        first_role: Role::Primary,
        state: "state".into(),
        trigger: None,
        synchronous_replicas: 1,
        level,
        synchronous_timeout: Duration::ZERO,
        on_timeout: OnTimeout::Degrade,
        max_staleness: None,
        lease: None,
        max_rate: None,
        compress: false,
        follows_packs: true,
        follows_replicas: false,
        tls: None,
    };
    GroupProgress::new("1", &options, Mode::Primary, Tid(100), 1000)
}

fn replica(progress: &GroupProgress<Line>) -> Connection<'_, Line> {
    progress.add_replica("there", "peer", &Arc::new(Line), Tid(100)).unwrap()
}

fn told_up_to(sent: u64) -> Told {
    Told { sent: Tid(sent), published: Tid::ZERO, packs: 0 }
}

fn ack(tid: Tid) -> Ack {
    Ack { received: tid, synced: tid, published: tid }
}

/// Bytes and transactions that one lacks which has everything up to `has`.
fn lag(progress: &GroupProgress<Line>, has: u64) -> (u64, u64) {
    let Lag { bytes, transactions, .. } = progress.state.lock().recent.lag(Tid(has));
    (bytes, transactions)
}

#[test]
fn the_lag_is_what_was_written_behind() {
    let progress = primary(Level::Synced);
    progress.written(Tid(103), 1300, 3);
    progress.written(Tid(105), 1500, 2);
    let whole = (500, 5);
    for (has, expected) in [(100, whole), (102, whole), (103, (200, 2)), (104, (200, 2)), (105, (0, 0))] {
        assert_eq!(lag(&progress, has), expected, "{has}");
    }
    // Of one that has less than was there at the start the file tells the bytes.
    assert_eq!(lag(&progress, 50), (1500, 5));
    progress.taken_back(Tid(103));
    assert_eq!(lag(&progress, 103), (0, 0));
    assert_eq!(lag(&progress, 100), (300, 3));
    progress.written(Tid(104), 1400, 1);
    assert_eq!(lag(&progress, 103), (100, 1));
    progress.rewound(Tid(100), 1000);
    assert_eq!(lag(&progress, 100), (0, 0));
}

#[test]
fn the_lag_behind_more_groups_than_are_known_is_at_least_theirs() {
    let progress = primary(Level::Synced);
    let groups = RECENT_MAX as u64 + 10;
    for no in 1..=groups {
        progress.written(Tid(100 + no), 1000 + no, 1);
    }
    assert_eq!(lag(&progress, 100 + groups - 1), (1, 1));
    assert_eq!(lag(&progress, 100), (1000 + groups, groups));
}

#[test]
fn a_replica_hears_of_what_it_lacks_and_may_publish() {
    let told = |level| {
        let progress = primary(level);
        let replica = replica(&progress);
        let now = |sent| replica.wait(&told_up_to(sent), Duration::ZERO).unwrap().news;
        assert_eq!((now(100).written, now(100).published), (Tid(100), Tid(100)));
        progress.written(Tid(102), 1200, 2);
        let before = now(100);
        assert_eq!((before.written, before.bytes, before.transactions), (Tid(102), 200, 2));
        progress.state.lock().durable = Tid(102);
        let durable = now(102);
        replica.acknowledge(ack(Tid(102)));
        assert_eq!((now(102).bytes, now(102).transactions), (0, 0));
        progress.published(Tid(102));
        assert_eq!(now(102).published, Tid(102));
        (before.published, durable.published)
    };
    assert_eq!(told(Level::Synced), (Tid(100), Tid(100)));
    // Otherwise each side would wait for the other one.
    assert_eq!(told(Level::Published), (Tid(100), Tid(102)));
}

#[test]
fn an_acknowledgement_of_what_was_taken_back_does_not_count() {
    let progress = primary(Level::Synced);
    let replica = replica(&progress);
    progress.written(Tid(105), 1500, 1);
    replica.acknowledge(ack(Tid(105)));
    progress.taken_back(Tid(100));
    assert!(replica.wait(&told_up_to(105), Duration::ZERO).is_none(), "it ends");
    replica.acknowledge(ack(Tid(105)));
    progress.written(Tid(103), 1300, 1);
    progress.durable(Tid(103)).unwrap();
    assert_eq!(progress.degradation().1, 1, "no replica has it");
}
