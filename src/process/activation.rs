//! Sockets that the service manager listens on and passes to the server: sd_listen_fds(3) of systemd.
//!
//! `unsafe`: they come as numbers.
#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::FdFlags;

/// The first one; those before are standard input, output and error.
const FIRST: RawFd = 3;
/// More are a mistake.
const COUNT_MAX: RawFd = 1000;

/// A descriptor and the name that the manager has for it.
#[derive(Debug)]
pub struct Passed {
    /// Empty if there is none.
    pub name: String,
    pub fd: OwnedFd,
}

/// The descriptors that were passed to this process; none the second time. No file may have been opened before.
pub fn take(environment: &dyn Fn(&str) -> Option<String>) -> Result<Vec<Passed>, String> {
    static IS_TAKEN: AtomicBool = AtomicBool::new(false);
    let is_for_us = environment("LISTEN_PID").is_some_and(|pid| pid.parse() == Ok(std::process::id()));
    let Some(count) = environment("LISTEN_FDS").filter(|_| is_for_us) else { return Ok(Vec::new()) };
    let count: RawFd = match count.parse() {
        Ok(count @ 0..=COUNT_MAX) => count,
        _ => return Err(format!("LISTEN_FDS is '{}', which is no number of sockets", count.escape_debug())),
    };
    if IS_TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(Vec::new());
    }
    let names = environment("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut passed = Vec::new();
    for number in FIRST..FIRST + count {
        // SAFETY: only asks.
        if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
            return Err(format!("LISTEN_FDS is {count}, but descriptor {number} is not open"));
        }
        // SAFETY: it is open, the manager has passed it to this process, and it is taken once.
        let fd = unsafe { OwnedFd::from_raw_fd(number) };
        // Not for the processes that the server starts.
        rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC)
            .map_err(|error| format!("descriptor {number} of LISTEN_FDS: {error}"))?;
        passed.push(Passed { name: names.next().unwrap_or_default().into(), fd });
    }
    Ok(passed)
}
