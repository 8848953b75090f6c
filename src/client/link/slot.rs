//! The place where a thread waits for the result of its call.

use std::time::Duration;

use super::end::LinkError;
use crate::base::sync::{Condvar, Mutex, rank};

pub(super) struct Slot<T> {
    result: Mutex<Option<Result<T, LinkError>>, rank::LinkSlot>,
    is_filled: Condvar,
}

impl<T> Default for Slot<T> {
    fn default() -> Slot<T> {
        Slot { result: Mutex::new(None), is_filled: Condvar::new() }
    }
}

impl<T> Slot<T> {
    pub fn fill(&self, result: Result<T, LinkError>) {
        *self.result.lock() = Some(result);
        self.is_filled.notify_one();
    }

    /// `None`: there was no result in time.
    pub fn wait(&self, time_max: Option<Duration>) -> Option<Result<T, LinkError>> {
        let mut result = self.result.lock();
        match time_max {
            Some(time_max) => {
                result = self.is_filled.wait_timeout_while(result, time_max, |result| result.is_none());
            }
            None => {
                while result.is_none() {
                    result = self.is_filled.wait(result);
                }
            }
        }
        result.take()
    }
}
