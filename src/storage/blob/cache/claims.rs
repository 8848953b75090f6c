//! Which blobs this process is downloading: a thread that wants one of them waits for it.

use std::collections::{HashMap, HashSet};
use std::sync::Weak;

use crate::base::ids::{Oid, Tid};
use crate::base::sync::{Arc, Condvar, Mutex, rank};
use crate::storage::BlobFile;
use crate::storage::media::MediaFile;

#[derive(Default)]
pub(super) struct Claims {
    state: Mutex<ClaimState, rank::BlobDownloads>,
    changed: Condvar,
}

#[derive(Default)]
struct ClaimState {
    claimed: HashSet<(Oid, Tid)>,
    /// Blobs that were downloaded and are not in the cache, as long as a reader has them open.
    unnamed: HashMap<(Oid, Tid), (Weak<dyn MediaFile>, u64)>,
}

/// The right to download a blob, within this process.
pub(super) struct Claim {
    claims: Arc<Claims>,
    blob: (Oid, Tid),
}

/// The result of [`Claims::claim`].
pub(super) enum Claimed {
    Claim(Claim),
    /// There was a download, which has ended: the blob may be there now.
    Waited,
    /// The file of a blob that is not in the cache, and its length.
    Unnamed(Arc<dyn MediaFile>, u64),
}

impl Claims {
    /// Waits for a thread that has claimed the blob.
    pub fn claim(self: &Arc<Self>, blob: (Oid, Tid)) -> Claimed {
        let mut state = self.state.lock();
        if let Some((file, len)) = state.unnamed.get(&blob)
            && let Some(file) = file.upgrade()
        {
            return Claimed::Unnamed(file, *len);
        }
        if state.claimed.insert(blob) {
            return Claimed::Claim(Claim { claims: Arc::clone(self), blob });
        }
        while state.claimed.contains(&blob) {
            state = self.changed.wait(state);
        }
        Claimed::Waited
    }
}

impl Claim {
    /// The blob is not in the cache, but here: threads that wait for it are given the same file.
    pub fn share(&self, blob: &BlobFile) {
        let mut state = self.claims.state.lock();
        state.unnamed.retain(|_, (file, _)| file.strong_count() > 0);
        state.unnamed.insert(self.blob, (Arc::downgrade(&blob.file), blob.len));
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims.state.lock().claimed.remove(&self.blob);
        self.claims.changed.notify_all();
    }
}
