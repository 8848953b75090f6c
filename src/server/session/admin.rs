//! Questions about the storage and the server, and the registration that comes before all others.

use std::ops::ControlFlow;

use crate::base::ids::Oid;
use crate::base::sync::Arc;
use crate::base::untrusted::Untrusted;
use crate::exceptions;
use crate::logging::level::INFO;
use crate::server::client_log;
use crate::server::publish::Member;
use crate::server::session::entries::Entries;
use crate::server::session::large::with_room;
use crate::server::session::load::{frame, reply_newest};
use crate::server::session::{Registered, Session};
use crate::storage::HistoryEntry;
use crate::wire::exception::PyException;
use crate::wire::protocol::{Codec, Dialect};
use crate::wire::request::OwnedMsgId;
use crate::wire::value::{Value, extension_dict};

/// The most oids that a client gets at once.
const NEW_OIDS_MAX: i64 = 100;

type Result = std::result::Result<Value, PyException>;

impl Session {
    /// `register(storage, read_only)`: from the reply on, the client gets every invalidation (R4).
    pub(super) fn register(
        &mut self,
        id: &OwnedMsgId,
        storage: &str,
        read_only: bool,
    ) -> std::result::Result<(), PyException> {
        let connection = &self.connection;
        if self.registered.is_some() {
            connection.log(&client_log::WRONG_STATE, INFO, format_args!("duplicate register() call"));
            return Err(PyException::builtin("ValueError", "duplicate register() call"));
        }
        let Some(hosted) = self.server.hosted(storage) else {
            let storage = Untrusted(storage);
            self.log(&client_log::STRANGERS, INFO, format_args!("unknown storage_id: {storage}"));
            return Err(PyException::builtin("ValueError", format!("unknown storage: {storage}")));
        };
        // Only now: if the storage loses its disk later, vote says so.
        if !read_only && hosted.is_read_only() {
            // Also what a client with read-only-fallback begins with.
            let message =
                format_args!("refused: it wants to write, and storage '{}' is read-only", hosted.name);
            self.log(&client_log::STRANGERS, INFO, message);
            return Err(exceptions::read_only_error());
        }
        // Last: from here on nothing fails.
        self.pass.register(connection).map_err(|why| exceptions::storage_error(&why))?;
        let wire = connection.wire();
        hosted.add_connection(connection);
        {
            let (mut members, seen) = hosted.publication.members();
            members.join(Member { id: connection.id, wire, outbox: Arc::clone(&connection.outbox) });
            let mut frame = Vec::new();
            if wire.register_returns_tid() {
                wire.tid_reply(id.get(), seen.last_transaction(), &mut frame);
            } else {
                wire.none_reply(id.get(), &mut frame);
            }
            connection.outbox.place().push_reply(frame);
        }
        connection.outbox.flush();
        self.registered = Some(Registered { hosted, read_only });
        Ok(())
    }

    /// `get_info()`: what the client should know of the storage.
    pub(super) fn get_info(&self, on: &Registered) -> Value {
        let storage = &on.hosted.storage;
        let wire = self.connection.wire();
        let interfaces = storage
            .interfaces()
            .into_iter()
            .map(|(module, name)| Value::Tuple(vec![Value::text(module), Value::text(name)]))
            .collect();
        let mut info = match on.hosted.size_info() {
            Value::Dict(info) => info,
            _ => Vec::new(),
        };
        let mut add = |key: &str, value: Value| info.push((Value::text(key), value));
        add("name", Value::text(storage.name()));
        add("supportsUndo", Value::Bool(storage.undo().is_some()));
        if wire.knows_extension_methods() {
            add("extensionMethods", self.extension_methods(on));
        }
        if wire.knows_versions() {
            add("supportsVersions", Value::Bool(false));
        }
        add("supports_record_iternext", Value::Bool(true));
        add("interfaces", Value::Tuple(interfaces));
        Value::Dict(info)
    }

    /// `getExtensionMethods()`: a dict with the names as keys.
    pub(super) fn extension_methods(&self, on: &Registered) -> Value {
        let mut names =
            on.hosted.storage.extension_methods().map(|methods| methods.names()).unwrap_or_default();
        names.extend(self.protocol().map(|protocol| protocol.extension_methods()).unwrap_or_default());
        Value::Dict(names.into_iter().map(|name| (Value::text(name), Value::None)).collect())
    }

    /// A method that only some storages have.
    pub(super) fn call_extension(&self, on: &Registered, name: &str) -> Option<Result> {
        if !self.connection.wire().knows_extension_methods() {
            return None;
        }
        let methods = on.hosted.storage.extension_methods()?;
        let known = methods.names().contains(&name);
        known.then(|| methods.call(name).map(Value::Int).map_err(|e| exceptions::of_storage_error(&e)))
    }

    /// `new_oids(n)`
    pub(super) fn new_oids(&self, on: &Registered, count: i64) -> std::result::Result<Vec<Oid>, PyException> {
        if on.read_only {
            return Err(exceptions::read_only_error());
        }
        let count = count.clamp(1, NEW_OIDS_MAX) as usize;
        on.hosted.storage.new_oids(count).map_err(|error| exceptions::of_storage_error(&error))
    }

    /// `history(oid, count)`: a list of dicts, newest first.
    pub(super) fn history(&self, on: &Registered, id: &OwnedMsgId, oid: Oid, count: usize) {
        let count = count.min(self.server.limits().undo_log);
        let connection = &self.connection;
        let with_version = connection.wire().knows_versions();
        let answer = || {
            let mut entries = Entries::new(connection, count);
            let found = on.hosted.storage.revisions(oid, &mut |entry| {
                if !entries.is_full() {
                    entries.push(&history_entry(entry, with_version));
                }
                if entries.is_full() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            match found {
                Ok(()) => entries.frame(id),
                Err(error) => frame(connection, id, &Err(exceptions::of_storage_error(&error))),
            }
        };
        reply_newest(&on.hosted, connection, answer);
    }

    /// `history(oid, None)`: Python 3 cannot compare the count with a number; Python 2 can, and finds it reached.
    pub(super) fn history_of_no_count(&self, on: &Registered, oid: Oid) -> Result {
        on.hosted.storage.history(oid, 0).map_err(|error| exceptions::of_storage_error(&error))?;
        match self.connection.wire().codec {
            Codec::Pickle(Dialect::Python2) => Ok(Value::List(Vec::new())),
            Codec::Pickle(Dialect::Python3) | Codec::Msgpack => {
                let message = "'>=' not supported between instances of 'int' and 'NoneType'";
                Err(PyException::builtin("TypeError", message))
            }
        }
    }

    /// `record_iternext(next)` -> (oid, tid, data, next oid)
    pub(super) fn record_iternext(&self, on: &Registered, id: &OwnedMsgId, next: Option<Oid>) {
        // Of a large record, until it was sent.
        let mut held = None;
        let mut record = || {
            held = None;
            let (record, share) =
                with_room(&on.hosted, &self.connection, || on.hosted.storage.record_iternext(next));
            held = share;
            let Some(record) = record.map_err(|error| exceptions::of_storage_error(&error))? else {
                // Python's FileStorage looks up the smallest key of an empty index.
                return Err(PyException::builtin("ValueError", "empty tree"));
            };
            Ok(Value::Tuple(vec![
                record.oid.into(),
                record.tid.into(),
                Value::Bytes(record.data),
                record.next.map_or(Value::None, Value::from),
            ]))
        };
        reply_newest(&on.hosted, &self.connection, || frame(&self.connection, id, &record()));
        if held.is_some() {
            self.connection.outbox.wait_until_sent();
        }
    }
}

/// The keys of the extension are merged into the entry, and give way to its own.
fn history_entry(entry: HistoryEntry, with_version: bool) -> Value {
    let mut items = match extension_dict(&entry.meta.extension) {
        Some(Value::Dict(items)) => items,
        _ => Vec::new(),
    };
    let mut set = |key: &str, value: Value| {
        items.retain(|(known, _)| known.string() != Some(key.as_bytes()));
        items.push((Value::text(key), value));
    };
    set("time", Value::Float(entry.tid.to_unix()));
    set("user_name", Value::Bytes(entry.meta.user));
    set("description", Value::Bytes(entry.meta.description));
    set("tid", entry.tid.into());
    if with_version {
        set("version", Value::text(""));
    }
    set("size", Value::Int(i64::try_from(entry.size).unwrap_or(i64::MAX)));
    Value::Dict(items)
}
