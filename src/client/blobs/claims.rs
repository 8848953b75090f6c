//! Which blobs this process is downloading: a thread that wants one of them waits for it.

use std::collections::HashSet;

use crate::base::ids::{Oid, Tid};
use crate::base::sync::{Arc, Condvar, Mutex, rank};

#[derive(Default)]
pub(super) struct Claims {
    blobs: Mutex<HashSet<(Oid, Tid)>, rank::BlobDownloads>,
    changed: Condvar,
}

/// The right to download a blob, within this process.
pub(super) struct Claim {
    claims: Arc<Claims>,
    blob: (Oid, Tid),
}

impl Claims {
    /// Waits for a thread that has claimed the blob. `None`: there was one, so the blob may be there now.
    pub fn claim(self: &Arc<Self>, blob: (Oid, Tid)) -> Option<Claim> {
        let mut blobs = self.blobs.lock();
        if blobs.insert(blob) {
            return Some(Claim { claims: Arc::clone(self), blob });
        }
        while blobs.contains(&blob) {
            blobs = self.changed.wait(blobs);
        }
        None
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims.blobs.lock().remove(&self.blob);
        self.claims.changed.notify_all();
    }
}
