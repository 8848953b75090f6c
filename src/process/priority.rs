//! Work that is to leave the processor to others.

use std::cell::Cell;

use log::debug;
use rustix::process::{getpid, getpriority_process, setpriority_process};
use rustix::thread::gettid;

/// By how much `nice` is more than the process's: others get nine tenths of a processor that both want. The kernel
/// derives the priority of reading from disks from it, where the scheduler of the disk has priorities.
const NICER_BY: i32 = 10;
/// The largest value of `nice`.
const NICE_MAX: i32 = 19;

thread_local! {
    static STANDS_BACK: Cell<bool> = const { Cell::new(false) };
}

/// The calling thread, and those that it starts from now on, run when others do not want the processor. In Linux this
/// is a property of each thread, and without privileges there is no way back.
pub fn stand_back() {
    // The main thread has the process's own priority, which may be low already.
    let set = getpriority_process(Some(getpid()))
        .and_then(|of_process| setpriority_process(Some(gettid()), (of_process + NICER_BY).min(NICE_MAX)));
    match set {
        Ok(()) => STANDS_BACK.set(true),
        Err(error) => debug!("the priority of this thread stays as it is: {error}"),
    }
}

/// Whether the calling thread has called [`stand_back`], so that a thread that it starts would be one that stands back.
pub fn stands_back() -> bool {
    STANDS_BACK.get()
}
