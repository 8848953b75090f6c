//! Acknowledgements and fencing of a cluster under the model checker: when a primary may answer, what a replica may
//! publish, and that neither waits for ever.
//!
//! A wait that no one ends is a deadlock of the model, which loom reports. Models have no clock: a timeout of zero is
//! over at once, and a longer one never.

use std::io::{self, IoSlice};
use std::time::Duration;

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use loom::thread;
use runzeo::ids::Tid;
use runzeo::internal::base::sync::Arc;
use runzeo::internal::net::stream::Sink;
use runzeo::internal::replication::cluster::message::Ack;
use runzeo::internal::replication::cluster::options::{ClusterOptions, Level, OnTimeout, Role};
use runzeo::internal::replication::cluster::{Connection, Finishes, GroupProgress, Mode};
use runzeo::storage::GroupGate;

const NEVER: Duration = Duration::from_secs(100_000);
const BEFORE: Tid = Tid(1);
const GROUP: Tid = Tid(2);
const LATER: Tid = Tid(3);

/// A connection to a replica, over which nothing is sent.
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

type Model = Arc<GroupProgress<Line>>;

/// A storage whose groups need one replica.
fn storage(mode: Mode, timeout: Duration, on_timeout: OnTimeout) -> Model {
    let options = ClusterOptions {
        name: "here".into(),
        listen: None,
        peers: Vec::new(),
        first_role: Role::Primary,
        state: "state".into(),
        trigger: None,
        synchronous_replicas: 1,
        level: Level::Synced,
        synchronous_timeout: timeout,
        on_timeout,
        max_staleness: None,
        lease: None,
        max_rate: None,
        compress: false,
        follows_packs: true,
        follows_replicas: false,
        tls: None,
    };
    Arc::new(GroupProgress::new("1", &options, mode, BEFORE, 10))
}

fn primary() -> Model {
    storage(Mode::Primary, NEVER, OnTimeout::Block)
}

/// The leader of a group. True: it is published.
fn commit(model: &GroupProgress<Line>, last: Tid) -> bool {
    model.written(last, 20, 1);
    let is_published = model.durable(last).is_ok();
    match is_published {
        true => model.published(last),
        false => model.taken_back(BEFORE),
    }
    is_published
}

fn spawn_commit(model: &Model) -> thread::JoinHandle<bool> {
    let model = Arc::clone(model);
    thread::spawn(move || commit(&model, GROUP))
}

fn replica(model: &GroupProgress<Line>) -> Connection<'_, Line> {
    model.add_replica("there", "peer", &Arc::new(Line), BEFORE).unwrap()
}

fn acknowledge(replica: &Connection<'_, Line>, tid: Tid) {
    replica.acknowledge(Ack { received: tid, synced: tid, published: BEFORE });
}

#[test]
fn an_acknowledgement_beside_a_commit() {
    loom::model(|| {
        let model = primary();
        let committing = spawn_commit(&model);
        let replica = replica(&model);
        acknowledge(&replica, GROUP);
        assert!(committing.join().unwrap());
        assert!(!model.is_waiting());
    });
}

/// The primary is fenced at any moment, and the replica goes.
#[test]
fn what_is_published_was_acknowledged_and_nothing_is_after_the_fence() {
    loom::model(|| {
        let model = primary();
        let committing = spawn_commit(&model);
        let is_acknowledged = Arc::new(AtomicBool::new(false));
        let replying = {
            let (model, is_acknowledged) = (Arc::clone(&model), Arc::clone(&is_acknowledged));
            thread::spawn(move || {
                let replica = replica(&model);
                is_acknowledged.store(true, SeqCst);
                acknowledge(&replica, GROUP);
            })
        };
        model.set_mode(Mode::Stopping);
        assert!(!committing.join().unwrap() || is_acknowledged.load(SeqCst));
        replying.join().unwrap();
        let replica = replica(&model);
        acknowledge(&replica, LATER);
        assert!(!commit(&model, LATER), "published behind the fence");
        assert!(!model.is_waiting());
    });
}

/// The same server connects again: what it says over its former connection does not count any more.
#[test]
fn an_acknowledgement_of_a_former_connection() {
    loom::model(|| {
        let model = primary();
        let committing = spawn_commit(&model);
        let former = replica(&model);
        let is_replaced = Arc::new(AtomicBool::new(false));
        let replacing = {
            let (model, is_replaced) = (Arc::clone(&model), Arc::clone(&is_replaced));
            thread::spawn(move || {
                let _present = replica(&model);
                is_replaced.store(true, SeqCst);
                model.set_mode(Mode::Stopping);
            })
        };
        let is_late = is_replaced.load(SeqCst);
        acknowledge(&former, GROUP);
        assert!(!(committing.join().unwrap() && is_late));
        replacing.join().unwrap();
    });
}

/// Who commits without its replicas stops as well.
#[test]
fn a_timeout_beside_the_fence() {
    loom::model(|| {
        let model = storage(Mode::Primary, Duration::ZERO, OnTimeout::Degrade);
        let committing = spawn_commit(&model);
        model.set_mode(Mode::Stopping);
        let is_published = committing.join().unwrap();
        assert_eq!(model.degradation().1, u64::from(is_published));
        assert!(!commit(&model, LATER), "published behind the fence");
    });
}

#[test]
fn a_timeout_beside_an_acknowledgement() {
    loom::model(|| {
        let model = storage(Mode::Primary, Duration::ZERO, OnTimeout::Degrade);
        let committing = spawn_commit(&model);
        let replica = replica(&model);
        acknowledge(&replica, GROUP);
        assert!(committing.join().unwrap());
        acknowledge(&replica, GROUP);
        assert_eq!(model.degradation().0, None, "the replica has everything");
    });
}

/// The server is about to stop, and no replica comes.
#[test]
fn a_commit_that_waits_for_ever_beside_the_stop() {
    loom::model(|| {
        let model = storage(Mode::Primary, Duration::ZERO, OnTimeout::Block);
        let committing = spawn_commit(&model);
        model.stop_blocking();
        assert!(!committing.join().unwrap());
    });
}

/// A replica publishes a group when the primary has published it or is gone, or this server is promoted or closes; not
/// before, and not never.
#[test]
fn a_replica_publishes_what_it_may() {
    let releases: [fn(&GroupProgress<Line>); 4] = [
        |model| model.receive(GROUP, GROUP),
        |model| model.unattend(),
        |model| model.set_mode(Mode::Promoting),
        |model| model.close(),
    ];
    for release in releases {
        loom::model(move || {
            let model = storage(Mode::Replica, NEVER, OnTimeout::Block);
            model.attend(BEFORE, Some(Level::Synced));
            let is_released = Arc::new(AtomicBool::new(false));
            let committing = {
                let (model, is_released) = (Arc::clone(&model), Arc::clone(&is_released));
                thread::spawn(move || {
                    model.written(GROUP, 20, 1);
                    assert!(model.durable(GROUP).is_ok());
                    assert!(is_released.load(SeqCst), "published too early");
                    model.published(GROUP);
                })
            };
            model.receive(GROUP, BEFORE);
            is_released.store(true, SeqCst);
            release(&model);
            committing.join().unwrap();
            assert!(!model.is_waiting());
        });
    }
}

/// A server gives way: when the finishes that have begun are over, no client gets another answer.
#[test]
fn nothing_is_answered_when_the_last_finish_is_over() {
    loom::model(|| {
        let (model, finishes) = (primary(), Arc::new(Finishes::new(true)));
        let answered = Arc::new(AtomicUsize::new(0));
        let client = {
            let (model, finishes, answered) =
                (Arc::clone(&model), Arc::clone(&finishes), Arc::clone(&answered));
            thread::spawn(move || {
                let Some(_counted) = finishes.begin() else { return };
                if commit(&model, GROUP) {
                    answered.fetch_add(1, SeqCst);
                }
            })
        };
        let replica = replica(&model);
        acknowledge(&replica, GROUP);
        finishes.forbid();
        model.set_mode(Mode::Stopping);
        while !finishes.have_ended() {
            thread::yield_now();
        }
        let before = answered.load(SeqCst);
        client.join().unwrap();
        assert_eq!(answered.load(SeqCst), before);
        assert!(finishes.begin().is_none() && finishes.have_ended());
    });
}

#[test]
fn finishes_beside_each_other_are_all_counted() {
    loom::model(|| {
        let finishes = Arc::new(Finishes::new(true));
        let passed = Arc::new(AtomicUsize::new(0));
        let clients: Vec<_> = (0..2)
            .map(|_| {
                let (finishes, passed) = (Arc::clone(&finishes), Arc::clone(&passed));
                thread::spawn(move || {
                    let Some(_counted) = finishes.begin() else { return };
                    passed.fetch_add(1, SeqCst);
                })
            })
            .collect();
        finishes.forbid();
        while !finishes.have_ended() {
            thread::yield_now();
        }
        let before = passed.load(SeqCst);
        clients.into_iter().for_each(|client| client.join().unwrap());
        assert_eq!(passed.load(SeqCst), before);
    });
}
