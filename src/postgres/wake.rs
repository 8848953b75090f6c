//! Ends the wait of another thread for notifications.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

/// Clones wake the same thread. A wake that comes before the wait ends the next wait.
#[derive(Clone, Debug)]
pub struct Wake {
    fd: Arc<OwnedFd>,
    /// In models no thread waits for a descriptor.
    #[cfg(loom)]
    bell: crate::base::sync::Arc<bell::Bell>,
}

impl Wake {
    pub fn new() -> io::Result<Wake> {
        Ok(Wake {
            fd: Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?),
            #[cfg(loom)]
            bell: Default::default(),
        })
    }

    /// From any thread; does not wait.
    pub fn wake(&self) {
        // An error means that the counter is full: the thread is woken already.
        let _ = rustix::io::write(&*self.fd, &1u64.to_ne_bytes());
        #[cfg(loom)]
        self.bell.ring();
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Forgets the wakes until now.
    pub(super) fn clear(&self) {
        // An error means that there was none.
        let _ = rustix::io::read(&*self.fd, &mut [0; 8]);
    }
}

#[cfg(loom)]
impl Wake {
    /// Waits for a wake, and forgets all until then, as a wait for the descriptor does.
    pub fn wait(&self) {
        self.bell.wait();
    }
}

#[cfg(loom)]
mod bell {
    use crate::base::sync::{Condvar, Mutex, rank};

    #[derive(Debug, Default)]
    pub struct Bell {
        rung: Mutex<bool, rank::PostgresAnswer>,
        changed: Condvar,
    }

    impl Bell {
        pub fn ring(&self) {
            *self.rung.lock() = true;
            self.changed.notify_all();
        }

        pub fn wait(&self) {
            let mut rung = self.rung.lock();
            while !*rung {
                rung = self.changed.wait(rung);
            }
            *rung = false;
        }
    }
}
