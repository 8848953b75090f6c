//! How long a thread merges conflicts, for the record of slow requests.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use super::{Resolver, ThreeStates, Unresolved};
use crate::base::clock::Stopwatch;

thread_local!(static SPENT: Cell<Duration> = const { Cell::new(Duration::ZERO) });

/// A resolver whose time is counted for the thread that calls it.
pub struct Timed(pub Arc<dyn Resolver>);

impl Resolver for Timed {
    fn resolve(&self, states: &ThreeStates<'_>) -> Result<Vec<u8>, Unresolved> {
        counted(|| self.0.resolve(states))
    }

    fn resolve_now(&self, states: &ThreeStates<'_>) -> Option<Result<Vec<u8>, Unresolved>> {
        counted(|| self.0.resolve_now(states))
    }
}

fn counted<T>(merge: impl FnOnce() -> T) -> T {
    let watch = Stopwatch::start();
    let result = merge();
    SPENT.set(SPENT.get() + watch.passed());
    result
}

/// For how long this thread has merged since the last call.
pub fn take() -> Duration {
    SPENT.replace(Duration::ZERO)
}
