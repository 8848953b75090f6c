//! Ends the wait of another thread for notifications.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

/// Clones wake the same thread. A wake that comes before the wait ends the next wait.
#[derive(Clone, Debug)]
pub struct Wake(Arc<OwnedFd>);

impl Wake {
    pub fn new() -> io::Result<Wake> {
        Ok(Wake(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// From any thread; does not wait.
    pub fn wake(&self) {
        // An error means that the counter is full: the thread is woken already.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Forgets the wakes until now.
    pub(super) fn clear(&self) {
        // An error means that there was none.
        let _ = rustix::io::read(&*self.0, &mut [0; 8]);
    }
}
