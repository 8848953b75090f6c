//! `pack(time, wait)`: a background job.

use crate::base::level::{ERROR, INFO};
use crate::base::sync::Arc;
use crate::exceptions;
use crate::server::client_log::PACKS;
use crate::server::connection::Connection;
use crate::server::hosted::Hosted;
use crate::server::packs;
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
}

fn run(hosted: &Hosted, connection: &Connection, time: f64) -> Result<(), PyException> {
    connection.peer.log(&PACKS, INFO, format_args!("pack(time={time:?}) started..."));
    if let Err(error) = packs::pack(hosted, time) {
        connection.peer.log(&PACKS, ERROR, format_args!("pack(time={time:?}) ended with an error: {error}"));
        return Err(exceptions::of_storage_error(&error));
    }
    connection.peer.log(&PACKS, INFO, format_args!("pack(time={time:?}) complete"));
    packs::announce(hosted);
    Ok(())
}
