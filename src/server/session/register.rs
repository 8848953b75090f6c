//! `register`: the connection chooses its storage, and is a client's from then on.

use std::fmt;

use crate::base::level::{INFO, WARNING};
use crate::base::sync::{Arc, Ordering};
use crate::base::untrusted::Untrusted;
use crate::exceptions;
use crate::server::audit::Event;
use crate::server::client_log;
use crate::server::connection::Registration;
use crate::server::connection_counts::RefusedFor;
use crate::server::hosted::Hosted;
use crate::server::publish::Member;
use crate::server::registered::Registered;
use crate::server::renewal;
use crate::server::rights::Rights;
use crate::server::session::Session;
use crate::server::stats::count;
use crate::wire::exception::PyException;
use crate::wire::request::OwnedMsgId;

impl Session {
    /// Whether the client may learn of the storage, by what it has shown so far.
    pub(super) fn may_know(&self, storage: &str) -> bool {
        let mut client = self.identity.client.clone();
        client.ip = self.connection.peer.ip();
        self.policy.serves(storage) && self.policy.rights(storage, &client).is_some()
    }

    /// A storage that the client may read here, and what else it may do with it. Logs why it gets none: it cannot tell
    /// whether there is such a storage.
    fn served(&self, storage: &str) -> Option<(Arc<Hosted>, Rights)> {
        let log = |why: &str| {
            let message = format_args!("unknown storage_id: {}{why}", Untrusted(storage));
            self.log(&client_log::UNREGISTERED, INFO, message);
            self.audit_refused(None, &message.to_string());
        };
        let Some(hosted) = self.server.hosted(storage) else {
            log("");
            return None;
        };
        if !self.policy.serves(storage) {
            log(" (not one of the 'storages' of this listener)");
            return None;
        }
        let client = &self.identity.client;
        let rights = self.policy.rights(storage, client);
        if rights.is_none() {
            self.server.counts().refuse(RefusedFor::Access);
            self.log_denied(&hosted, format_args!("may not read it"));
        }
        Some((hosted, rights?))
    }

    /// Counts and logs what the rules of `<access>` do not permit.
    pub(super) fn log_denied(&self, hosted: &Hosted, what: fmt::Arguments<'_>) {
        count(&hosted.stats.denied);
        let client = &self.identity.client;
        let message = format_args!("refused by <access> of storage '{}': {client} {what}", hosted.name);
        self.connection.peer.log(&client_log::DENIED, WARNING, message);
        self.audit_refused(Some(&hosted.name), &format!("{client} {what}"));
    }

    /// Notes in the audit log that the client was not let in, or not permitted something.
    pub(super) fn audit_refused(&self, storage: Option<&str>, why: &str) {
        self.server.audit().note(Event::Refused, storage, Some(&self.connection), |facts| {
            facts.insert("why".into(), why.into());
        });
    }

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
        self.identity.client.ip = connection.peer.ip();
        let Some((hosted, rights)) = self.served(storage) else {
            return Err(PyException::builtin(
                "ValueError",
                format!("unknown storage: {}", Untrusted(storage)),
            ));
        };
        // The client may have been connected to another server of the same database, and know a newer state.
        hosted.storage.catch_up().map_err(|error| exceptions::of_storage_error(&error))?;
        // Before it is known whether it can be written.
        let writable_again = hosted.writable_again();
        // Only now: if the storage loses its disk later, vote says so.
        if !read_only && (hosted.is_read_only() || !rights.write) {
            return Err(self.refuse_writer(&hosted, rights, writable_again));
        }
        // The last step that can fail.
        self.admission.register(connection).map_err(|why| exceptions::storage_error(&why))?;
        let wire = connection.wire();
        connection.can_write.store(!read_only, Ordering::Relaxed);
        self.identity.client.shown().into_iter().for_each(|shown| connection.set_identity(shown));
        connection.rights.set(rights);
        connection.set_registration(Registration {
            storage: storage.into(),
            client: self.identity.client.clone(),
            policy: Arc::clone(&self.policy),
            read_only,
        });
        hosted.add_connection(connection);
        // A reload may have changed the rules since they were looked at, and not have found this connection.
        renewal::renew(connection);
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
        self.send_away_if_late(&hosted);
        if self.policy.has_rules_for(&hosted.name) {
            let client = &self.identity.client;
            let rights = if read_only { Rights { write: false, undo: false, ..rights } } else { rights };
            let message = format_args!("registered for storage '{}' as {client}: {rights}", hosted.name);
            connection.peer.log(&client_log::IDENTITIES, INFO, message);
        }
        self.server.audit().note(Event::Register, Some(&hosted.name), Some(connection), |facts| {
            let protocol = connection.protocol();
            facts.insert("protocol".into(), protocol.into());
            facts.insert("can_write".into(), (!read_only).into());
        });
        let connection = Arc::clone(&self.connection);
        self.registered = Some(Arc::new(Registered { hosted, connection, read_only }));
        Ok(())
    }

    /// The client wants to write, and cannot. Clients with read-only-fallback begin with this, too.
    fn refuse_writer(&self, hosted: &Hosted, rights: Rights, writable_again: u64) -> PyException {
        // What is read-only only for this client stays so.
        self.connection.wanted_to_write.store(rights.write, Ordering::Relaxed);
        self.connection.refused_at.store(writable_again, Ordering::Relaxed);
        let name = &hosted.name;
        let message = match hosted.is_read_only() {
            true => format!("refused: it wants to write, and storage '{name}' is read-only"),
            false => format!("refused: it wants to write, and may only read storage '{name}' here"),
        };
        self.log(&client_log::UNREGISTERED, INFO, format_args!("{message}"));
        exceptions::read_only_error()
    }

    /// Ends the connection of a client that was refused as a writer, if this server or another one became writable
    /// before it registered as a reader. It has its reply: Python's clients look at all servers again if they lose one
    /// that they use.
    fn send_away_if_late(&self, hosted: &Hosted) {
        let connection = &self.connection;
        if connection.wanted_to_write.load(Ordering::Relaxed)
            && connection.refused_at.load(Ordering::Relaxed) != hosted.writable_again()
        {
            connection.outbox.close("a server can be written now");
        }
    }
}
