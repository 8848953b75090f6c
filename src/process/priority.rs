//! Work that is to leave the processor to others.

use log::debug;
use rustix::process::setpriority_process;
use rustix::thread::gettid;

/// Of `nice`: others get nine tenths of a processor that both want.
const NICE: i32 = 10;

/// The calling thread, and those that it starts from now on, run when others do not want the processor. In Linux this
/// is a property of each thread.
pub fn stand_back() {
    if let Err(error) = setpriority_process(Some(gettid()), NICE) {
        debug!("the priority of this thread stays as it is: {error}");
    }
}
