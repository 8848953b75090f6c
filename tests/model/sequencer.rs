//! The sequencer of a database in PostgreSQL under the model checker: what is answered, and when, beside commits of
//! other clients of the database.
//!
//! The desk, the groups, the answers and the publishing are the real ones (`src/storage/postgres/sequencer`). The
//! thread between them is not: it takes its turns as `turn.rs` and `writer.rs` do, but its messages go to a list with a
//! lock, as a session of PostgreSQL with the commit lock would answer them. A client that gets no answer is a deadlock
//! of the model, which loom reports.

use std::any::Any;
use std::collections::VecDeque;

use loom::thread;
use runzeo::ids::Tid;
use runzeo::internal::base::sync::{Answerer, Arc, answer};
use runzeo::internal::postgres::Wake;
use runzeo::internal::storage::postgres::sequencer::{
    DatabaseState, Desk, Finish, Foreign, Group, Sequencer, WrittenTransaction, publish,
};
use runzeo::storage::{Committed, Delivery, GroupTimes, Publisher, StorageError, Ticket};

use crate::{Mutex, OfModel};

/// What a client hears of its finish. `None`: it is not committed.
type Heard = Answerer<Option<Tid>, OfModel>;

/// The table of transactions. Its lock is the commit lock.
#[derive(Default)]
struct Database(Mutex<Vec<Tid>>);

impl Database {
    /// One message: what was committed after `last`, and a group of `count` transactions, whose first tid is returned.
    fn message(&self, last: Tid, count: usize) -> (Vec<Foreign>, Tid) {
        let mut tids = self.0.lock();
        let later = tids.iter().filter(|tid| **tid > last);
        let later = later.map(|tid| Foreign { tid: *tid, oids: Vec::new() }).collect();
        let first = Tid(tids.last().map_or(1, |tid| tid.0 + 1));
        tids.extend((0..count).map(|position| Group::tid(first, position)));
        (later, first)
    }

    /// A client of RelStorage commits.
    fn commit(&self) -> Tid {
        self.message(Tid::MAX, 1).1
    }
}

/// The server.
struct Told {
    published: Mutex<Vec<Tid>>,
}

impl Publisher for Told {
    fn publish(&self, group: Vec<Committed>, install: &mut dyn FnMut()) -> Delivery {
        let mut published = self.published.lock();
        for Committed { tid, .. } in &group {
            assert!(published.last() < Some(tid), "{tid} behind {published:?}");
            published.push(*tid);
        }
        install();
        drop(published);
        let own = |one: Committed| Some((*one.ticket.downcast::<Heard>().ok()?, one.tid));
        let answers: Vec<(Heard, Tid)> = group.into_iter().filter_map(own).collect();
        Box::new(move || answers.into_iter().for_each(|(heard, tid)| assert!(heard.give(Some(tid)), "twice")))
    }

    fn failed(&self, ticket: Ticket, _: StorageError) {
        if let Ok(heard) = (ticket as Box<dyn Any>).downcast::<Heard>() {
            assert!(heard.give(None), "answered twice");
        }
    }
}

struct Model {
    desk: Arc<Desk>,
    sequencer: Sequencer,
    shared: DatabaseState,
    database: Database,
    told: std::sync::Arc<Told>,
}

/// How the thread of the sequencer works.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Thread {
    Right,
    /// It ends after its first message, as after a panic.
    Fails,
    /// Wrong: it answers clients that came after the search was sent.
    AnswersTooMuch,
}

impl Model {
    fn new() -> Arc<Model> {
        let told = std::sync::Arc::new(Told { published: Mutex::default() });
        let shared = DatabaseState::of_model(Tid::ZERO);
        shared.publisher.set(std::sync::Arc::clone(&told) as std::sync::Arc<dyn Publisher>, "model", "model");
        let desk = Arc::new(Desk::new(Wake::new().expect("a descriptor")));
        let sequencer = Sequencer::of_model(Arc::clone(&desk));
        Arc::new(Model { desk, sequencer, shared, database: Database::default(), told })
    }

    fn spawn(self: &Arc<Model>, kind: Thread) -> thread::JoinHandle<()> {
        let model = Arc::clone(self);
        thread::spawn(move || model.work(kind))
    }

    fn work(&self, kind: Thread) {
        let mut waiting = VecDeque::new();
        loop {
            let mut taken = self.desk.take();
            waiting.append(&mut taken.finishes);
            if waiting.is_empty() && taken.catch_ups.is_empty() {
                if taken.is_closed {
                    break;
                }
                self.desk.wake.wait();
                continue;
            }
            let finishes = Group::take(&mut waiting, 1).map(|group| group.finishes).unwrap_or_default();
            let (foreign, first) = self.database.message(self.shared.last(), finishes.len());
            if kind == Thread::AnswersTooMuch {
                taken.catch_ups.append(&mut self.desk.take().catch_ups);
            }
            let (delivery, _) = publish(&self.shared, foreign, first, finishes, GroupTimes::default());
            delivery.into_iter().for_each(|deliver| deliver());
            for waiting in taken.catch_ups {
                waiting.give(Ok(()));
            }
            if kind == Thread::Fails {
                break;
            }
        }
        for finish in waiting.into_iter().chain(self.desk.end()) {
            self.told.failed(finish.ticket, StorageError::Closed("model".into()));
        }
    }

    /// A client finishes a transaction, and waits for the answer.
    fn finish(&self) -> Option<Tid> {
        let (heard, answered) = answer::<Option<Tid>, OfModel>();
        let written = WrittenTransaction {
            meta: Default::default(),
            is_packed: false,
            tid: None,
            records: Vec::new(),
            blobs: Default::default(),
        };
        let finish = Finish::new(Vec::new(), written, Box::new(heard));
        if let Err(back) = self.sequencer.finish(finish) {
            self.told.failed(back.0.ticket, back.1);
        }
        let tid = answered.wait().expect("an answer")?;
        assert!(self.shared.last() >= tid, "answered before it was published");
        Some(tid)
    }

    /// A client of the database commits, and then one of the server asks for the newest state.
    fn commit_and_catch_up(&self) {
        let tid = self.database.commit();
        if self.sequencer.catch_up().is_ok() {
            assert!(self.shared.last() >= tid, "{tid} was committed before, and is not published");
        }
    }

    /// After all threads have ended: everything that is published is in the database, in its order.
    fn check(&self, finished: &[Option<Tid>]) {
        let committed = self.database.0.lock().clone();
        let published = self.told.published.lock().clone();
        assert!(committed.starts_with(&published), "{published:?} of {committed:?}");
        for tid in finished.iter().flatten() {
            assert!(published.contains(tid));
        }
    }
}

#[test]
fn a_finish_beside_a_commit_of_another_client_that_is_waited_for() {
    loom::model(|| {
        let model = Model::new();
        let thread = model.spawn(Thread::Right);
        let other = {
            let model = Arc::clone(&model);
            thread::spawn(move || model.commit_and_catch_up())
        };
        let tid = model.finish();
        assert!(tid.is_some());
        other.join().unwrap();
        model.sequencer.close();
        thread.join().unwrap();
        model.check(&[tid]);
        assert_eq!(model.told.published.lock().len(), 2, "none is skipped");
    });
}

#[test]
fn two_finishes_in_one_group_or_in_two() {
    loom::model(|| {
        let model = Model::new();
        let thread = model.spawn(Thread::Right);
        let other = {
            let model = Arc::clone(&model);
            thread::spawn(move || model.finish())
        };
        let tids = [model.finish(), other.join().unwrap()];
        assert!(tids[0].is_some() && tids[1].is_some() && tids[0] != tids[1]);
        model.sequencer.close();
        thread.join().unwrap();
        model.check(&tids);
    });
}

/// A finish beside the close is done, or is refused.
#[test]
fn a_finish_beside_the_close() {
    loom::model(|| {
        let model = Model::new();
        let thread = model.spawn(Thread::Right);
        let client = {
            let model = Arc::clone(&model);
            thread::spawn(move || model.finish())
        };
        model.sequencer.close();
        thread.join().unwrap();
        let tid = client.join().unwrap();
        model.check(&[tid]);
        assert_eq!(tid.is_some(), model.database.0.lock().len() == 1);
    });
}

/// The thread fails: each client gets an answer. A finish that came while the thread answered those that waited, and
/// had not said yet that it was over, once got none.
#[test]
fn clients_beside_a_thread_that_fails() {
    loom::model(|| {
        let model = Model::new();
        let thread = model.spawn(Thread::Fails);
        let client = {
            let model = Arc::clone(&model);
            thread::spawn(move || model.finish())
        };
        // An error means that the thread has ended before.
        let _ = model.sequencer.catch_up();
        let tid = client.join().unwrap();
        thread.join().unwrap();
        model.check(&[tid]);
    });
}

/// The checker finds an answer that is too early.
#[test]
#[should_panic(expected = "is not published")]
fn an_answer_to_a_client_that_came_after_the_search_is_found() {
    loom::model(|| {
        let model = Model::new();
        let thread = model.spawn(Thread::AnswersTooMuch);
        let other = {
            let model = Arc::clone(&model);
            thread::spawn(move || model.commit_and_catch_up())
        };
        model.commit_and_catch_up();
        other.join().unwrap();
        model.sequencer.close();
        thread.join().unwrap();
    });
}
