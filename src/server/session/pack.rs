//! `pack(time, wait)`: a background job; and `runzeo_cancel_pack()`, which ends it, or a pack by schedule.

use crate::base::level::{ERROR, INFO, WARNING};
use crate::base::sync::Arc;
use crate::exceptions;
use crate::server::client_log::PACKS;
use crate::server::connection::Connection;
use crate::server::hosted::Hosted;
use crate::server::packs::{self, PackFailure};
use crate::server::registered::Registered;
use crate::server::replies::reply_frame;
use crate::server::session::Session;
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
        let pack = hosted.pack.cancel();
        if pack.is_some() {
            connection.peer.log(&PACKS, INFO, format_args!("cancels the pack"));
        }
        if !reply_wanted {
            return;
        }
        self.run_in_background(&registered.hosted.workers.packs, move || {
            let is_cancelled = pack.map_or(Value::None, |pack| Value::Bool(hosted.pack.wait(&pack)));
            connection.post(reply_frame(&connection, &id, &Ok(is_cancelled)));
        });
    }
}

fn run(hosted: &Hosted, connection: &Connection, time: f64) -> Result<(), PyException> {
    connection.peer.log(&PACKS, INFO, format_args!("pack(time={time:?}) started..."));
    if let Err(PackFailure { error, is_cancelled }) = packs::pack(hosted, time) {
        let level = if is_cancelled { WARNING } else { ERROR };
        connection.peer.log(&PACKS, level, format_args!("pack(time={time:?}) ended with an error: {error}"));
        return Err(exceptions::of_storage_error(&error));
    }
    connection.peer.log(&PACKS, INFO, format_args!("pack(time={time:?}) complete"));
    packs::announce(hosted);
    Ok(())
}
