//! `pack(time, wait)`: a background job; `runzeo_pack_plan(time)`, which finds what it would remove; and
//! `runzeo_cancel_pack()`, which ends either, or a pack by schedule.

use crate::base::level::{ERROR, INFO, WARNING};
use crate::base::sync::Arc;
use crate::exceptions;
use crate::server::client_log::PACKS;
use crate::server::connection::Connection;
use crate::server::hosted::Hosted;
use crate::server::packs::{self, AskedBy, PackFailure};
use crate::server::registered::Registered;
use crate::server::replies::reply_frame;
use crate::server::session::Session;
use crate::storage::{Dangling, PackPlan, Removal};
use crate::wire::exception::PyException;
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

    /// Cancels the pack that is running. The reply comes when that pack has ended.
    pub(super) fn cancel_pack(&self, registered: &Registered, id: &OwnedMsgId, reply_wanted: bool) {
        let (hosted, connection, id) =
            (Arc::clone(&registered.hosted), Arc::clone(&self.connection), id.clone());
        let cancelling = packs::cancel(&hosted, |name| {
            connection.peer.log(&PACKS, INFO, format_args!("cancels the {name}"));
        });
        if !reply_wanted {
            return;
        }
        self.run_in_background(&registered.hosted.workers.packs, move || {
            let is_cancelled = cancelling.wait(&hosted).map_or(Value::None, Value::Bool);
            connection.post(reply_frame(&connection, &id, &Ok(is_cancelled)));
        });
    }

    /// Begins to find what a pack would remove.
    pub(super) fn plan_pack(&self, registered: &Registered, time: f64, id: &OwnedMsgId, reply_wanted: bool) {
        let (hosted, connection, id) =
            (Arc::clone(&registered.hosted), Arc::clone(&self.connection), id.clone());
        self.run_in_background(&registered.hosted.workers.packs, move || {
            let plan = packs::plan(&hosted, &connection, time);
            if reply_wanted {
                let plan =
                    plan.map(|plan| value_of(&plan)).map_err(|error| exceptions::of_storage_error(&error));
                connection.post(reply_frame(&connection, &id, &plan));
            }
        });
    }
}

/// A plan as a dict. The client's `pack_plan` reads it.
fn value_of(plan: &PackPlan) -> Value {
    let int = |number: u64| Value::Int(i64::try_from(number).unwrap_or(i64::MAX));
    let removal = |removal: Removal| Value::Tuple(vec![int(removal.before), int(removal.removed)]);
    let dangling = plan.dangling.iter().map(|Dangling { from, to }| {
        Value::Tuple(vec![from.map_or(Value::None, Value::from), Value::from(*to)])
    });
    Value::dict([
        ("stop", plan.stop.into()),
        ("gc", Value::Bool(plan.gc)),
        ("objects", removal(plan.objects)),
        ("revisions", removal(plan.revisions)),
        ("transactions", removal(plan.transactions)),
        ("size", int(plan.size)),
        ("size-after", int(plan.size_after)),
        ("blobs", int(plan.blobs)),
        ("blob-bytes", int(plan.blob_bytes)),
        ("dangling-count", int(plan.dangling_count)),
        ("dangling", Value::List(dangling.collect())),
        ("refusal", plan.refusal.clone().map_or(Value::None, Value::text)),
        ("free", plan.free.map_or(Value::None, int)),
    ])
}

fn run(hosted: &Hosted, connection: &Connection, time: f64) -> Result<(), PyException> {
    connection.peer.log(&PACKS, INFO, format_args!("pack(time={time:?}) started..."));
    if let Err(PackFailure { error, is_cancelled }) = packs::pack(hosted, time, AskedBy::Client(connection)) {
        let level = if is_cancelled { WARNING } else { ERROR };
        connection.peer.log(&PACKS, level, format_args!("pack(time={time:?}) ended with an error: {error}"));
        return Err(exceptions::of_storage_error(&error));
    }
    connection.peer.log(&PACKS, INFO, format_args!("pack(time={time:?}) complete"));
    packs::announce(hosted);
    Ok(())
}
