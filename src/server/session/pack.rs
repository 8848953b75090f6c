//! `pack(time, wait)`: a background job.

use crate::base::clock::Stopwatch;
use crate::base::level::{ERROR, INFO};
use crate::base::sync::Arc;
use crate::exceptions;
use crate::pickle::refs::references;
use crate::server::client_log::PACKS;
use crate::server::connection::Connection;
use crate::server::hosted::Hosted;
use crate::server::registered::Registered;
use crate::server::replies::reply_frame;
use crate::server::session::Session;
use crate::server::stats::LastPack;
use crate::storage::{PackProgress, PackRequest};
use crate::wire::exception::PyException;
use crate::wire::push::Push;
use crate::wire::request::OwnedMsgId;
use crate::wire::value::Value;

impl Session {
    /// Begins to pack. The reply comes when it is done, or not at all if the client does not wait.
    pub(super) fn pack(&self, registered: &Registered, time: f64, id: &OwnedMsgId, reply_wanted: bool) {
        let (hosted, connection, id) =
            (Arc::clone(&registered.hosted), Arc::clone(&self.connection), id.clone());
        self.run_in_background(&registered.hosted.workers.packs, move || {
            let result = run(&hosted, &connection, time);
            if reply_wanted {
                connection.post(reply_frame(&connection, &id, &result.map(|()| Value::None)));
            }
        });
    }
}

fn run(hosted: &Hosted, connection: &Connection, time: f64) -> Result<(), PyException> {
    connection.peer.log(&PACKS, INFO, format_args!("pack(time={time:?}) started..."));
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
    if let Err(error) = packed {
        connection.peer.log(&PACKS, ERROR, format_args!("pack(time={time:?}) ended with an error: {error}"));
        return Err(exceptions::of_storage_error(&error));
    }
    connection.peer.log(&PACKS, INFO, format_args!("pack(time={time:?}) complete"));
    let info = hosted.size_info();
    let outboxes = hosted.publication.broadcast(|wire| {
        let mut frame = Vec::new();
        wire.push(&Push::Info(info.clone()), &mut frame);
        frame
    });
    outboxes.iter().for_each(|outbox| outbox.flush());
    Ok(())
}
