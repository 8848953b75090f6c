//! The calls to the C library that logging needs, with safe interfaces; the rest of logging has no `unsafe`.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use crate::base::clock::IoDeadline;

/// The kernel's thread id, as in `ps -L` and `top -H`.
pub fn thread_id() -> i64 {
    thread_local!(static ID: i64 = {
        // SAFETY: no arguments, cannot fail.
        i64::from(unsafe { libc::gettid() })
    });
    ID.with(|id| *id)
}

/// Waits until `fd` takes a write without blocking. `false` after the timeout.
///
/// A broken pipe counts as writable: the write returns the error.
pub fn wait_writable(fd: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
    let deadline = IoDeadline::after(timeout);
    loop {
        let millis = libc::c_int::try_from(deadline.left().as_millis()).unwrap_or(libc::c_int::MAX);
        let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
        // SAFETY: one valid pollfd, and the count says one.
        let ready = unsafe { libc::poll(&mut poll, 1, millis) };
        if ready >= 0 {
            return Ok(ready > 0);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
