//! Descriptors that this process was started with, and that the processes it starts are not to have.
//!
//! `unsafe`: they come as numbers.
#![allow(unsafe_code)]

use std::fs;
use std::io;
use std::os::fd::RawFd;

/// The first one behind standard input, output and error.
const FIRST: RawFd = 3;

/// Keeps all open descriptors from programs that are executed from now on, besides the standard streams: a pipe that a
/// shell has left open would keep its reader waiting.
pub fn keep_from_children() -> io::Result<()> {
    let numbers = fs::read_dir("/proc/self/fd")?;
    for number in numbers.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<RawFd>().ok()) {
        if number >= FIRST {
            // SAFETY: it changes what happens at an execution; nothing is closed. A number that is not open any more is
            // an error, and has no effect.
            unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
    Ok(())
}
