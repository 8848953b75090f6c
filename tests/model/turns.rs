//! The two threads of a replica that take turns, under the model checker: each group is stored, in order, and both
//! threads come to their end. A thread that is never woken is a deadlock of the model, which loom reports.

use loom::thread;
use runzeo::internal::base::sync::{Arc, Condvar};
use runzeo::internal::replication::cluster::turns::Turns;

use crate::Mutex;

/// Receives the numbers from 1 to `to`.
struct Numbers {
    next: u8,
    to: u8,
}

struct Model {
    turns: Turns<Numbers, Vec<u8>, u8>,
    stored: Mutex<Vec<u8>>,
    /// The last number that was received. What is stored may have to wait for it.
    received: Mutex<u8>,
    changed: Condvar,
    /// Number `n` is stored only when `n + waits_for` has been received: as a group that waits until its primary has
    /// published it.
    waits_for: u8,
    fails_at: u8,
}

impl Model {
    fn new(to: u8, room: usize, waits_for: u8, fails_at: u8) -> Arc<Model> {
        let turns = Turns::new(Numbers { next: 1, to }, Vec::new(), room);
        let (stored, received, changed) = (Mutex::default(), Mutex::default(), Condvar::default());
        Arc::new(Model { turns, stored, received, changed, waits_for, fails_at })
    }

    fn work(&self) {
        while let Some(mut numbers) = self.turns.wait_for_receiver() {
            let storer = loop {
                let number = numbers.next;
                numbers.next += 1;
                *self.received.lock() = number;
                self.changed.notify_all();
                if number == numbers.to + 1 {
                    // The end releases what waits.
                    *self.received.lock() = u8::MAX;
                    self.changed.notify_all();
                    self.turns.end();
                    break None;
                }
                if let Some(storer) = self.turns.add(number) {
                    self.turns.put_receiver_down(numbers);
                    break Some(storer);
                }
            };
            let mut next = storer.and_then(|storer| self.turns.next_group(storer));
            while let Some((mut storer, number)) = next {
                if number == self.fails_at {
                    return self.turns.end();
                }
                self.store(&mut storer, number);
                next = self.turns.next_group(storer);
            }
        }
    }

    fn store(&self, storer: &mut Vec<u8>, number: u8) {
        let mut received = self.received.lock();
        while *received < number + self.waits_for {
            received = self.changed.wait(received);
        }
        drop(received);
        assert!(storer.last().is_none_or(|last| *last + 1 == number), "{number} behind {storer:?}");
        storer.push(number);
        self.stored.lock().push(number);
    }

    /// Both threads. Returns what was stored.
    fn run(self: Arc<Model>) -> Vec<u8> {
        let other = Arc::clone(&self);
        let other = thread::spawn(move || other.work());
        self.work();
        other.join().unwrap();
        std::mem::take(&mut self.stored.lock())
    }
}

#[test]
fn each_group_is_stored_in_order() {
    loom::model(|| assert_eq!(Model::new(3, 2, 0, 0).run(), [1, 2, 3]));
}

#[test]
fn a_group_that_waits_for_news_keeps_nobody_from_receiving_it() {
    loom::model(|| assert_eq!(Model::new(3, 2, 1, 0).run(), [1, 2, 3]));
}

#[test]
fn without_room_the_one_that_receives_waits() {
    loom::model(|| assert_eq!(Model::new(3, 1, 0, 0).run(), [1, 2, 3]));
}

#[test]
fn both_end_when_storing_fails() {
    loom::model(|| assert_eq!(Model::new(3, 1, 0, 2).run(), [1]));
}
