//! Who reads a link, under the model checker: no thread that waits for an answer is left asleep while nobody reads.
//!
//! The turn is the real one (`src/client/link/turn.rs`); instead of a socket there is a queue of answers. Models have
//! no clock, so the thread of the link never takes the reader because a moment has passed: every answer is read without
//! that. A thread that is never woken is a deadlock of the model, which loom reports.

use std::collections::VecDeque;
use std::time::Duration;

use loom::thread;
use runzeo::internal::base::sync::{Arc, Condvar};
use runzeo::internal::client::link::{EndCause, Reads, Slot, Turn};

use crate::Mutex;

/// What becomes of an answer.
enum Answered {
    /// A thread waits for it.
    Awaited(Arc<Slot<u8>>),
    /// None does: it is noted.
    Started,
}

#[derive(Default)]
struct Line {
    arrived: VecDeque<(u8, Answered)>,
    is_closed: bool,
    noted: Vec<u8>,
    is_read: bool,
}

struct Model {
    turn: Turn<Reader>,
    line: Mutex<Line>,
    changed: Condvar,
}

struct Reader(Arc<Model>);

impl Reads for Reader {
    fn read(&mut self, _: Option<runzeo::internal::base::clock::IoDeadline>) -> Result<bool, EndCause> {
        let mut line = self.0.line.lock();
        assert!(!std::mem::replace(&mut line.is_read, true), "two threads read");
        while line.arrived.is_empty() && !line.is_closed {
            line = self.0.changed.wait(line);
        }
        line.is_read = false;
        match line.arrived.pop_front() {
            None => Err(EndCause::Closed),
            Some((answer, Answered::Awaited(slot))) => {
                drop(line);
                self.0.turn.answered(true);
                self.0.turn.fill(&slot, Ok(answer));
                Ok(true)
            }
            Some((answer, Answered::Started)) => {
                line.noted.push(answer);
                drop(line);
                self.0.turn.answered(false);
                self.0.changed.notify_all();
                Ok(false)
            }
        }
    }
}

impl Model {
    fn new() -> Arc<Model> {
        let turn = Turn::new(Duration::from_millis(1));
        let model = Arc::new(Model { turn, line: Mutex::default(), changed: Condvar::default() });
        model.turn.put(Reader(Arc::clone(&model)));
        model
    }

    /// The server answers at once.
    fn send(&self, answer: u8, answered: Answered) {
        self.turn.calling(matches!(answered, Answered::Awaited(_)));
        self.line.lock().arrived.push_back((answer, answered));
        self.changed.notify_all();
    }

    fn call(&self, answer: u8) {
        let slot = Arc::new(Slot::default());
        self.send(answer, Answered::Awaited(Arc::clone(&slot)));
        assert!(matches!(self.turn.wait_for(&slot, None), Some(Ok(found)) if found == answer));
    }

    /// A call for which no thread waits; this one looks whether its answer was noted.
    fn start(&self, answer: u8) {
        self.send(answer, Answered::Started);
        self.turn.call_thread();
        let mut line = self.line.lock();
        while !line.noted.contains(&answer) {
            line = self.changed.wait(line);
        }
    }

    fn close(&self) {
        self.line.lock().is_closed = true;
        self.changed.notify_all();
        self.turn.end();
    }
}

/// The thread of the link, and beside this thread one other.
fn check(here: fn(&Model), there: fn(&Model)) {
    loom::model(move || {
        let model = Model::new();
        let (serving, other) = (Arc::clone(&model), Arc::clone(&model));
        let thread = thread::spawn(move || drop(serving.turn.serve()));
        let caller = thread::spawn(move || there(&other));
        here(&model);
        caller.join().expect("no panic");
        model.close();
        thread.join().expect("no panic");
    });
}

#[test]
fn two_callers_wait_for_one_answer_each() {
    check(|model| model.call(1), |model| model.call(2));
}

#[test]
fn a_caller_that_calls_again() {
    check(
        |model| {
            model.call(1);
            model.call(2);
        },
        |_| (),
    );
}

#[test]
fn a_call_without_a_waiting_thread_beside_a_caller() {
    check(|model| model.call(1), |model| model.start(2));
}

#[test]
fn a_caller_that_calls_again_beside_another() {
    check(
        |model| {
            model.call(1);
            model.call(2);
        },
        |model| model.call(3),
    );
}
