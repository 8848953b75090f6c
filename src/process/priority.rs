//! Work that is to leave the processor to others.

use std::cell::Cell;

use log::debug;
use rustix::process::setpriority_process;
use rustix::thread::gettid;

/// Of `nice`: others get nine tenths of a processor that both want. The kernel derives the priority of reading from
/// disks from it, where the scheduler of the disk has priorities.
const NICE: i32 = 10;

thread_local! {
    static STANDS_BACK: Cell<bool> = const { Cell::new(false) };
}

/// The calling thread, and those that it starts from now on, run when others do not want the processor. In Linux this
/// is a property of each thread, and without privileges there is no way back.
pub fn stand_back() {
    match setpriority_process(Some(gettid()), NICE) {
        Ok(()) => STANDS_BACK.set(true),
        Err(error) => debug!("the priority of this thread stays as it is: {error}"),
    }
}

/// Whether the calling thread has called [`stand_back`], so that a thread that it starts would be one that stands back.
pub fn stands_back() -> bool {
    STANDS_BACK.get()
}
