//! Packing a served storage, for a client or by schedule: progress and result for monitoring, and the news for clients.
//! And what a pack would remove: such a dry run gives way to a pack, of which there is one at a time, too.

use std::time::{Duration, UNIX_EPOCH};

use crate::base::clock::Stopwatch;
use crate::base::sync::Arc;
use crate::base::timestamp::iso_utc;
use crate::base::untrusted::Untrusted;
use crate::pickle::refs::references;
use crate::server::audit::Event;
use crate::server::connection::Connection;
use crate::server::hosted::Hosted;
use crate::server::stats::{LastPack, RunningPack};
use crate::storage::{PackPlan, PackProgress, PackRequest, Refusal, StorageError};
use crate::wire::push::Push;

/// Why a storage was not packed.
pub struct PackFailure {
    pub error: StorageError,
    /// It was asked to end ([`PackStatus::cancel`](super::stats::PackStatus::cancel)).
    pub is_cancelled: bool,
}

/// Who has asked for a pack, for the audit log.
#[derive(Clone, Copy)]
pub enum AskedBy<'a> {
    Client(&'a Connection),
    /// A schedule, or a process at the admin socket, in words.
    Other(&'a str),
}

/// Packs to `time`, in seconds since 1970. [`announce`] is to follow when the end is logged.
pub fn pack(hosted: &Hosted, time: f64, by: AskedBy<'_>) -> std::result::Result<(), PackFailure> {
    let packed = pack_unaudited(hosted, time);
    if let Some(audit) = hosted.audit(Event::Pack) {
        let (client, other) = match by {
            AskedBy::Client(connection) => (Some(connection), None),
            AskedBy::Other(who) => (None, Some(who)),
        };
        audit.note(Event::Pack, Some(&hosted.name), client, |facts| {
            other.into_iter().for_each(|who| drop(facts.insert("by".into(), who.into())));
            let until = Duration::try_from_secs_f64(time).unwrap_or_default();
            facts.insert("packed_to".into(), iso_utc(UNIX_EPOCH + until).into());
            let error =
                packed.as_ref().err().map(|failure| Untrusted(&failure.error.to_string()).to_string());
            facts.insert("error".into(), error.into());
        });
    }
    packed
}

fn pack_unaudited(hosted: &Hosted, time: f64) -> std::result::Result<(), PackFailure> {
    if let Some(plan) = hosted.pack_plan.cancel() {
        hosted.pack_plan.wait(&plan);
    }
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

/// Finds what a pack to `time` would remove, for a client: if that goes, the search ends.
pub fn plan(hosted: &Hosted, connection: &Connection, time: f64) -> Result<PackPlan, StorageError> {
    let refused =
        |message: &str| StorageError::Refused { what: Refusal::PackRunning, message: message.into() };
    if hosted.pack.is_running() {
        return Err(refused("a pack is running: ask again when it has ended"));
    }
    let Some(shown) = hosted.pack_plan.begin_for(Some(connection.id())) else {
        return Err(refused("another dry run of a pack is running"));
    };
    // It may have gone before.
    if connection.outbox.is_closed() {
        shown.progress().cancel();
    }
    let request =
        PackRequest { time, gc: None, references: &references, progress: shown.progress(), removals: None };
    let plan = hosted.storage.require_packing().and_then(|storage| storage.plan(&request));
    shown.end_plan();
    plan
}

/// A pack, or the dry run of one, that was asked to end.
pub struct Cancelling {
    pack: Option<Arc<RunningPack>>,
    plan: Option<Arc<RunningPack>>,
}

/// Cancels the pack that is running, and the dry run of one. `log` is called for each.
pub fn cancel(hosted: &Hosted, log: impl Fn(&str)) -> Cancelling {
    let (pack, plan) = (hosted.pack.cancel(), hosted.pack_plan.cancel());
    let running = [("pack", &pack), ("dry run of a pack", &plan)];
    running.iter().filter(|(_, running)| running.is_some()).for_each(|(name, _)| log(name));
    Cancelling { pack, plan }
}

impl Cancelling {
    /// Waits until it has ended. `None`: nothing was running. `false`: it was complete all the same.
    pub fn wait(self, hosted: &Hosted) -> Option<bool> {
        let plan = self.plan.map(|plan| hosted.pack_plan.wait(&plan));
        self.pack.map(|pack| hosted.pack.wait(&pack)).or(plan)
    }
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
