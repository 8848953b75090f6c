//! Threads that work beside the server until it stops: its backups, and the checks of its files.

use std::io;
use std::thread::{self, JoinHandle};

use crate::base::sync::Arc;
use crate::server::stop_signal::StopSignal;

/// Threads with one signal, which ends all of them.
#[derive(Default)]
pub(super) struct Keepers {
    stop: Arc<StopSignal>,
    threads: Vec<JoinHandle<()>>,
}

impl Keepers {
    /// What the threads have to look at.
    pub(super) fn signal(&self) -> Arc<StopSignal> {
        Arc::clone(&self.stop)
    }

    /// Starts a thread.
    pub(super) fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads.push(thread::Builder::new().name(name.into()).spawn(run)?);
        Ok(())
    }

    /// Ends the threads, and waits for them.
    pub(super) fn stop(self) {
        self.stop.stop();
        for thread in self.threads {
            // A panic was logged by the hook.
            let _ = thread.join();
        }
    }
}
