//! One answer, which one thread waits for and another one gives.

use super::{Arc, Condvar, Mutex, Ranked};

/// Makes both ends.
pub fn answer<T, R: Ranked>() -> (Answerer<T, R>, Awaited<T, R>) {
    let slot = Arc::new(AnswerSlot { state: Mutex::new(AnswerState::Open), changed: Condvar::new() });
    (Answerer(Arc::clone(&slot)), Awaited(slot))
}

/// The end that gives the answer. Dropping it without one ends the wait.
pub struct Answerer<T, R: Ranked>(Arc<AnswerSlot<T, R>>);

/// The end that waits.
pub struct Awaited<T, R: Ranked>(Arc<AnswerSlot<T, R>>);

struct AnswerSlot<T, R> {
    state: Mutex<AnswerState<T>, R>,
    changed: Condvar,
}

enum AnswerState<T> {
    Open,
    Given(T),
    /// One of the ends is gone, or the answer was taken.
    Over,
}

impl<T, R: Ranked> Answerer<T, R> {
    /// Gives the answer. `false`: no thread waits for it any more, or there was one already.
    pub fn give(&self, value: T) -> bool {
        let mut state = self.0.state.lock();
        let is_open = matches!(*state, AnswerState::Open);
        if is_open {
            *state = AnswerState::Given(value);
            self.0.changed.notify_all();
        }
        is_open
    }
}

impl<T, R: Ranked> Drop for Answerer<T, R> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        if matches!(*state, AnswerState::Open) {
            *state = AnswerState::Over;
            self.0.changed.notify_all();
        }
    }
}

impl<T, R: Ranked> Awaited<T, R> {
    /// Waits for the answer. `None`: there will be none.
    pub fn wait(self) -> Option<T> {
        let mut state = self.0.state.lock();
        while matches!(*state, AnswerState::Open) {
            state = self.0.changed.wait(state);
        }
        match std::mem::replace(&mut *state, AnswerState::Over) {
            AnswerState::Given(value) => Some(value),
            AnswerState::Open | AnswerState::Over => None,
        }
    }
}

impl<T, R: Ranked> Drop for Awaited<T, R> {
    fn drop(&mut self) {
        let was = std::mem::replace(&mut *self.0.state.lock(), AnswerState::Over);
        drop(was);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::base::sync::rank;

    #[test]
    fn an_answer_arrives_once() {
        let (answerer, awaited) = answer::<u8, rank::PostgresAnswer>();
        let waiting = std::thread::spawn(move || awaited.wait());
        assert!(answerer.give(7));
        assert!(!answerer.give(8), "there was one");
        assert_eq!(waiting.join().ok().flatten(), Some(7));
    }

    #[test]
    fn each_end_notices_that_the_other_is_gone() {
        let (answerer, awaited) = answer::<u8, rank::PostgresAnswer>();
        let waiting = std::thread::spawn(move || awaited.wait());
        drop(answerer);
        assert_eq!(waiting.join().ok().flatten(), None);
        let (answerer, awaited) = answer::<u8, rank::PostgresAnswer>();
        drop(awaited);
        assert!(!answerer.give(7));
    }
}
