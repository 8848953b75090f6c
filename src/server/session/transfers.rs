//! The blobs under way on one connection: the one that is being received, and the threads that send.

use crate::base::sync::{AtomicUsize, Ordering};
use crate::server::descriptors::Taken;
use crate::storage::blob::Upload;

/// Threads that send blobs to one client.
const THREADS_MAX: usize = 8;

/// A blob that the client is sending. Messages do not say which blob they belong to, so there can only be one.
#[derive(Default)]
pub enum Receiving {
    #[default]
    Nothing,
    Blob(Upload, Taken),
    /// It has failed and vote will say so; the rest of it is thrown away.
    Failed,
}

/// Threads that send blobs to one client.
#[derive(Debug, Default)]
pub struct Downloads(AtomicUsize);

impl Downloads {
    /// Whether there may be one more thread.
    pub fn begin(&self) -> bool {
        let free = self.0.fetch_add(1, Ordering::Relaxed) < THREADS_MAX;
        if !free {
            self.end();
        }
        free
    }

    /// A thread that [`Downloads::begin`] permitted has ended, or could not be started.
    pub fn end(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
