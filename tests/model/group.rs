//! The group commit under the model checker: who leads, which sync counts for which transaction, and the order of
//! publishing.
//!
//! Run by `scripts/model`, which builds with `--cfg loom`; without that flag there is nothing here. The lead is the
//! real one (`src/storage/file/lead.rs`); instead of a file its holder has a list that must be synced. A job without a
//! leader, or a lead that is never taken, is a deadlock of the model, which loom reports.

use loom::cell::UnsafeCell;
use loom::thread;
use runzeo::internal::base::sync::{Arc, Condvar};
use runzeo::internal::storage::file::lead::{Joined, Lead, Tried};

use crate::Mutex;

/// The outcome of a client's transaction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Outcome {
    Done { tid: u8 },
    Failed,
    Refused,
}

/// State for the leader only. Loom detects two leaders at once.
#[derive(Default)]
struct Log {
    /// (tid, client) of each transaction.
    written: Vec<(u8, u8)>,
    last_tid: u8,
    syncs: usize,
    /// The sync that fails, with all later ones.
    failing_sync: Option<usize>,
    broken: bool,
    /// Whether a pack has replaced this file.
    switched: usize,
}

struct Model {
    lead: Lead<u8>,
    log: UnsafeCell<Log>,
    published: Mutex<Vec<u8>>,
    outcomes: Mutex<Vec<(u8, Outcome)>>,
    answered: Condvar,
}

impl Model {
    fn new(failing_sync: Option<usize>) -> Arc<Model> {
        Arc::new(Model {
            lead: Lead::default(),
            log: UnsafeCell::new(Log { failing_sync, ..Log::default() }),
            published: Mutex::new(Vec::new()),
            outcomes: Mutex::new(Vec::new()),
            answered: Condvar::new(),
        })
    }

    /// For the leader only.
    #[allow(unsafe_code)] // loom's cell checks that nobody else is in it
    fn with_log<R>(&self, work: impl FnOnce(&mut Log) -> R) -> R {
        self.log.with_mut(|log| work(unsafe { &mut *log }))
    }

    /// One client's finish; returns when it is answered.
    fn finish(&self, client: u8) -> Outcome {
        match self.lead.join(client) {
            Joined::Queued => {}
            Joined::Leads => self.lead_group(),
            Joined::Refused(client) => self.answer(client, Outcome::Refused),
        }
        let mut outcomes = self.outcomes.lock();
        loop {
            if let Some((_, outcome)) = outcomes.iter().find(|(of, _)| *of == client) {
                return *outcome;
            }
            outcomes = self.answered.wait(outcomes);
        }
    }

    fn answer(&self, client: u8, outcome: Outcome) {
        let mut outcomes = self.outcomes.lock();
        assert!(outcomes.iter().all(|(of, _)| *of != client), "answered twice");
        outcomes.push((client, outcome));
        self.answered.notify_all();
    }

    /// As `storage::file::group` does: tids, one write, one sync, publish, pass on, answer.
    fn lead_group(&self) {
        let clients = self.lead.take(|jobs| jobs.len());
        let outcomes: Vec<(u8, Outcome)> = self.with_log(|log| {
            if log.broken {
                return clients.iter().map(|client| (*client, Outcome::Failed)).collect();
            }
            let begin = log.written.len();
            for client in &clients {
                log.last_tid += 1;
                log.written.push((log.last_tid, *client));
            }
            log.syncs += 1;
            if log.failing_sync == Some(log.syncs) {
                log.broken = true;
                log.written.truncate(begin);
                return clients.iter().map(|client| (*client, Outcome::Failed)).collect();
            }
            let group = &log.written[begin..];
            self.published.lock().extend(group.iter().map(|(tid, _)| *tid));
            group.iter().map(|(tid, client)| (*client, Outcome::Done { tid: *tid })).collect()
        });
        self.lead.pass_on();
        outcomes.into_iter().for_each(|(client, outcome)| self.answer(client, outcome));
    }

    fn spawn_committer(self: &Arc<Model>) -> thread::JoinHandle<()> {
        let model = Arc::clone(self);
        thread::spawn(move || {
            while model.lead.next_turn() {
                model.lead_group();
            }
        })
    }

    fn spawn_client(self: &Arc<Model>, client: u8) -> thread::JoinHandle<Outcome> {
        let model = Arc::clone(self);
        thread::spawn(move || model.finish(client))
    }

    /// Acknowledged transactions are exactly those in the log and those that were published, in the order of tids.
    fn check(&self) {
        let outcomes = self.outcomes.lock();
        self.with_log(|log| {
            let tids: Vec<u8> = log.written.iter().map(|(tid, _)| *tid).collect();
            assert!(tids.is_sorted());
            assert_eq!(*self.published.lock(), tids, "published in the order of the log");
            let mut done: Vec<(u8, u8)> = Vec::new();
            for (client, outcome) in outcomes.iter() {
                if let Outcome::Done { tid } = outcome {
                    done.push((*tid, *client));
                }
            }
            done.sort_unstable();
            assert_eq!(done, log.written, "acknowledged is what was written and synced");
            assert!(log.syncs <= outcomes.len(), "at most one sync for each");
        });
    }
}

#[test]
fn two_clients_and_a_committer() {
    loom::model(|| {
        let model = Model::new(None);
        let committer = model.spawn_committer();
        let other = model.spawn_client(2);
        assert!(matches!(model.finish(1), Outcome::Done { .. }));
        assert!(matches!(other.join().unwrap(), Outcome::Done { .. }));
        model.lead.close();
        committer.join().unwrap();
        model.check();
    });
}

#[test]
fn a_sync_that_fails_fails_its_group_and_all_after_it() {
    loom::model(|| {
        let model = Model::new(Some(1));
        let committer = model.spawn_committer();
        let other = model.spawn_client(2);
        assert_eq!(model.finish(1), Outcome::Failed);
        assert_eq!(other.join().unwrap(), Outcome::Failed);
        assert_eq!(model.finish(3), Outcome::Failed);
        model.lead.close();
        committer.join().unwrap();
        model.check();
        assert!(model.published.lock().is_empty());
    });
}

/// Synced transactions stay: only the second group fails.
#[test]
fn the_second_sync_fails() {
    loom::model(|| {
        let model = Model::new(Some(2));
        let committer = model.spawn_committer();
        let other = model.spawn_client(2);
        let outcome = model.finish(1);
        let other = other.join().unwrap();
        assert!([outcome, other].iter().any(|outcome| matches!(outcome, Outcome::Done { .. })));
        model.lead.close();
        committer.join().unwrap();
        model.check();
    });
}

/// The switch of a pack takes the lead between two groups, and returns it.
#[test]
fn a_pack_takes_the_lead() {
    loom::model(|| {
        let model = Model::new(None);
        let committer = model.spawn_committer();
        let client = model.spawn_client(1);
        assert!(model.lead.alone());
        model.with_log(|log| log.switched += 1);
        model.lead.pass_on();
        assert!(matches!(client.join().unwrap(), Outcome::Done { .. }));
        model.lead.close();
        committer.join().unwrap();
        model.check();
        model.with_log(|log| assert_eq!(log.switched, 1));
    });
}

/// A finish is done before the close, or is refused.
#[test]
fn a_finish_beside_the_close() {
    loom::model(|| {
        let model = Model::new(None);
        let committer = model.spawn_committer();
        let client = model.spawn_client(1);
        model.lead.close();
        let written = model.with_log(|log| log.written.len());
        let outcome = client.join().unwrap();
        assert_eq!(outcome == Outcome::Refused, written == 0);
        committer.join().unwrap();
        model.check();
    });
}

/// A server that was stopped while a pack was about to switch files could hang: the pack found the queue closed, but
/// had taken the lead briefly to find out. A committer thread that woke at this moment to end waited again, and the
/// close waited for it.
#[test]
fn a_pack_beside_the_close() {
    loom::model(|| {
        let model = Model::new(None);
        let client = model.spawn_client(1);
        let pack = {
            let model = Arc::clone(&model);
            thread::spawn(move || {
                if model.lead.alone() {
                    model.with_log(|log| log.switched += 1);
                    model.lead.pass_on();
                }
            })
        };
        let committer = model.spawn_committer();
        model.lead.close();
        client.join().unwrap();
        pack.join().unwrap();
        committer.join().unwrap();
        model.check();
    });
}

/// A watchdog takes the lead if it is free, and never waits for it. Beside it, a client finishes and the storage
/// closes.
#[test]
fn a_watchdog_beside_a_finish_and_the_close() {
    loom::model(|| {
        let model = Model::new(None);
        let committer = model.spawn_committer();
        let watchdog = {
            let model = Arc::clone(&model);
            thread::spawn(move || {
                if model.lead.try_alone() == Tried::Leads {
                    // Loom notices a second leader.
                    model.with_log(|log| log.switched += 1);
                    model.lead.pass_on();
                }
            })
        };
        let outcome = model.finish(1);
        assert!(matches!(outcome, Outcome::Done { .. }));
        model.lead.close();
        assert_eq!(model.lead.try_alone(), Tried::Closed);
        watchdog.join().unwrap();
        committer.join().unwrap();
        model.check();
    });
}
