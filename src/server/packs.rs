//! Packing a served storage, for a client or by schedule: progress and result for monitoring, and the news for clients.

use crate::base::clock::Stopwatch;
use crate::pickle::refs::references;
use crate::server::hosted::Hosted;
use crate::server::stats::LastPack;
use crate::storage::{PackProgress, PackRequest, Result};
use crate::wire::push::Push;

/// Packs to `time`, in seconds since 1970. [`announce`] is to follow when the end is logged.
pub fn pack(hosted: &Hosted, time: f64) -> Result<()> {
    // The storage refuses a second pack, which must not change the progress figures of the first.
    let mine = PackProgress::default();
    let shown = hosted.pack.begin();
    let progress = if shown.is_some() { &hosted.pack.progress } else { &mine };
    let request = PackRequest { time, gc: None, references: &references, progress, removals: None };
    let (began, watch, before) = (hosted.clock.system_time(), Stopwatch::start(), hosted.storage.size());
    let packed = hosted.storage.require_packing().and_then(|storage| storage.pack(&request));
    if shown.is_some() {
        let sizes = [before, hosted.storage.size()];
        let error = packed.as_ref().err().map(ToString::to_string);
        hosted.pack.ended(LastPack { began, took: watch.passed(), sizes, error });
    }
    drop(shown);
    packed
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
