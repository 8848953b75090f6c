//! Packing a served storage, for a client or by schedule: progress and result for monitoring, and the news for clients.

use crate::base::clock::Stopwatch;
use crate::pickle::refs::references;
use crate::server::hosted::Hosted;
use crate::server::stats::LastPack;
use crate::storage::{PackProgress, PackRequest, StorageError};
use crate::wire::push::Push;

/// Why a storage was not packed.
pub struct PackFailure {
    pub error: StorageError,
    /// It was asked to end ([`PackStatus::cancel`](super::stats::PackStatus::cancel)).
    pub is_cancelled: bool,
}

/// Packs to `time`, in seconds since 1970. [`announce`] is to follow when the end is logged.
pub fn pack(hosted: &Hosted, time: f64) -> std::result::Result<(), PackFailure> {
    // The storage refuses a second pack, which must not change the progress figures of the first.
    let mine = PackProgress::default();
    let shown = hosted.pack.begin();
    let progress = shown.as_ref().map_or(&mine, |shown| shown.progress());
    let request = PackRequest { time, gc: None, references: &references, progress, removals: None };
    let (began, watch, before) = (hosted.clock.system_time(), Stopwatch::start(), hosted.storage.size());
    let packed = hosted.storage.require_packing().and_then(|storage| storage.pack(&request));
    // A storage of another server returns that server's error.
    let is_cancelled = packed.is_err() && progress.is_cancelled();
    if let Some(shown) = shown {
        let sizes = [before, hosted.storage.size()];
        let error = packed.as_ref().err().map(ToString::to_string);
        shown.end(LastPack { began, took: watch.passed(), sizes, error, is_cancelled });
    }
    packed.map_err(|error| PackFailure { error, is_cancelled })
}

/// Tells the clients how large the storage is now.
pub fn announce(hosted: &Hosted) {
    let info = hosted.size_info();
    let outboxes = hosted.publication.broadcast(|wire| {
        let mut frame = Vec::new();
        wire.push(&Push::Info(info.clone()), &mut frame);
        frame
    });
    outboxes.iter().for_each(|outbox| outbox.flush());
}
