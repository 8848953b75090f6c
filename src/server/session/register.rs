//! `register`: the connection chooses its storage, and is a client's from then on.

use crate::base::level::INFO;
use crate::base::sync::{Arc, Ordering};
use crate::base::untrusted::Untrusted;
use crate::exceptions;
use crate::server::client_log;
use crate::server::publish::Member;
use crate::server::registered::Registered;
use crate::server::session::Session;
use crate::wire::exception::PyException;
use crate::wire::request::OwnedMsgId;

impl Session {
    /// `register(storage, read_only)`: from the reply on, the client gets every invalidation (R4).
    pub(super) fn register(
        &mut self,
        id: &OwnedMsgId,
        storage: &str,
        read_only: bool,
    ) -> Result<(), PyException> {
        let connection = &self.connection;
        if self.registered.is_some() {
            connection.peer.log(&client_log::WRONG_STATE, INFO, format_args!("duplicate register() call"));
            return Err(PyException::builtin("ValueError", "duplicate register() call"));
        }
        let hosted = self.server.hosted(storage);
        let Some(hosted) = hosted.filter(|_| self.policy.serves(storage)) else {
            // For the log alone: the client cannot tell this from a storage that does not exist.
            let why = match self.server.hosted(storage) {
                Some(_) => " (not one of the 'storages' of this listener)",
                None => "",
            };
            let storage = Untrusted(storage);
            self.log(&client_log::UNREGISTERED, INFO, format_args!("unknown storage_id: {storage}{why}"));
            return Err(PyException::builtin("ValueError", format!("unknown storage: {storage}")));
        };
        // Only now: if the storage loses its disk later, vote says so.
        let rights = self.policy.rights();
        if !read_only && (hosted.is_read_only() || !rights.write) {
            // Clients with read-only-fallback begin with this, too. What is read-only only here stays so.
            connection.wanted_to_write.store(rights.write, Ordering::Relaxed);
            let message =
                format_args!("refused: it wants to write, and storage '{}' is read-only", hosted.name);
            self.log(&client_log::UNREGISTERED, INFO, message);
            return Err(exceptions::read_only_error());
        }
        // The last step that can fail.
        self.admission.register(connection).map_err(|why| exceptions::storage_error(&why))?;
        let wire = connection.wire();
        connection.can_write.store(!read_only, Ordering::Relaxed);
        hosted.add_connection(connection);
        {
            let (mut members, seen) = hosted.publication.members();
            members.join(Member {
                id: connection.id(),
                wire,
                outbox: Arc::clone(&connection.outbox),
                is_voted: connection.transaction.is_voted(),
                is_quiet: false,
            });
            let mut frame = Vec::new();
            if wire.register_returns_tid() {
                wire.tid_reply(id.get(), seen.last_transaction(), &mut frame);
            } else {
                wire.none_reply(id.get(), &mut frame);
            }
            connection.outbox.place().push_reply(frame);
        }
        connection.outbox.flush();
        let connection = Arc::clone(&self.connection);
        self.registered = Some(Arc::new(Registered { hosted, connection, read_only, rights }));
        Ok(())
    }
}
