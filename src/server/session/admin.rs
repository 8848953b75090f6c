//! Questions about the storage and the server.

use std::ops::ControlFlow;

use crate::base::ids::Oid;
use crate::exceptions;
use crate::server::registered::Registered;
use crate::server::replies::{reply_frame, reply_newest};
use crate::server::session::Session;
use crate::server::session::entries::Entries;
use crate::server::session::large::with_share;
use crate::storage::HistoryEntry;
use crate::wire::encoder::pickled;
use crate::wire::exception::PyException;
use crate::wire::protocol::{Dialect, Encoding, INSTANCE_KEY};
use crate::wire::request::OwnedMsgId;
use crate::wire::value::{Value, extension_dict, unpickled};

/// Upper bound on the oids that a client gets at once.
const NEW_OIDS_MAX: i64 = 100;

type Result = std::result::Result<Value, PyException>;

impl Session {
    /// `get_info()`: properties of the storage for the client.
    pub(super) fn get_info(&self, registered: &Registered) -> Value {
        let storage = &registered.hosted.storage;
        let wire = self.connection.wire();
        let interfaces = storage
            .interfaces()
            .into_iter()
            .map(|(module, name)| Value::Tuple(vec![Value::text(module), Value::text(name)]))
            .collect();
        let mut info = match registered.hosted.size_info() {
            Value::Dict(info) => info,
            _ => Vec::new(),
        };
        let mut add = |key: &str, value: Value| info.push((Value::text(key), value));
        add("name", Value::text(storage.name()));
        add("supportsUndo", Value::Bool(storage.undo().is_some()));
        // Python's servers from ZEO 5 on have none; a server in the middle over this one may want them.
        let methods = self.extension_methods(registered);
        if wire.knows_extension_methods() || methods != Value::Dict(Vec::new()) {
            add("extensionMethods", methods);
        }
        if wire.knows_versions() {
            add("supportsVersions", Value::Bool(false));
        }
        add("supports_record_iternext", Value::Bool(true));
        add("interfaces", Value::Tuple(interfaces));
        if let Some(instance) = &registered.hosted.instance {
            add(INSTANCE_KEY, Value::text(instance));
        }
        Value::Dict(info)
    }

    /// `getExtensionMethods()`: a dict with the names as keys.
    pub(super) fn extension_methods(&self, registered: &Registered) -> Value {
        let mut names =
            registered.hosted.storage.extension_methods().map(|methods| methods.names()).unwrap_or_default();
        let protocol = self.demanded.as_ref().filter(|_| self.connection.wire().knows_authentication());
        let own = protocol.map(|demanded| demanded.protocol.extension_methods()).unwrap_or_default();
        names.extend(own.iter().map(|name| (*name).to_string()));
        Value::Dict(names.into_iter().map(|name| (Value::text(name), Value::None)).collect())
    }

    /// A method that only some storages have.
    pub(super) fn call_extension(
        &self,
        registered: &Registered,
        name: &str,
        args: &[Value],
    ) -> Option<Result> {
        let methods = registered.hosted.storage.extension_methods()?;
        if !methods.names().iter().any(|known| known == name) {
            return None;
        }
        if let Some((right, refused)) = registered.rights().refuse_extension() {
            if self.policy.has_rules_for(&registered.hosted.name) {
                self.log_denied(&registered.hosted, format_args!("has no right to {right}"));
            }
            return Some(Err(refused));
        }
        let result = methods.call(name, &pickled(&Value::Tuple(args.to_vec())));
        Some(match result.map(|pickle| unpickled(&pickle)) {
            Ok(Some(value)) => Ok(value),
            Ok(None) => {
                let message = format!("the result of {name} is no plain data");
                Err(PyException::builtin("ValueError", message))
            }
            Err(error) => Err(exceptions::of_storage_error(&error)),
        })
    }

    /// `new_oids(n)`
    pub(super) fn new_oids(
        &self,
        registered: &Registered,
        count: i64,
    ) -> std::result::Result<Vec<Oid>, PyException> {
        if registered.read_only {
            return Err(exceptions::read_only_error());
        }
        let count = count.clamp(1, NEW_OIDS_MAX) as usize;
        registered.hosted.storage.new_oids(count).map_err(|error| exceptions::of_storage_error(&error))
    }

    /// `history(oid, count)`: a list of dicts, newest first.
    pub(super) fn history(&self, registered: &Registered, id: &OwnedMsgId, oid: Oid, count: usize) {
        let count = count.min(self.server.limits().undo_log);
        let connection = &self.connection;
        let with_version = connection.wire().knows_versions();
        let answer = || {
            let mut entries = Entries::new(connection, count);
            let found = registered.hosted.storage.revisions(oid, &mut |entry| {
                if !entries.is_full() {
                    entries.push(&history_entry(entry, with_version));
                }
                if entries.is_full() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            match found {
                Ok(()) => entries.frame(id),
                Err(error) => reply_frame(connection, id, &Err(exceptions::of_storage_error(&error))),
            }
        };
        reply_newest(&registered.hosted, connection, answer);
    }

    /// `history(oid, None)`: Python 3 cannot compare the count with a number; Python 2 can, and finds it reached.
    pub(super) fn history_of_no_count(&self, registered: &Registered, oid: Oid) -> Result {
        registered.hosted.storage.history(oid, 0).map_err(|error| exceptions::of_storage_error(&error))?;
        match self.connection.wire().encoding {
            Encoding::Pickle(Dialect::Python2) => Ok(Value::List(Vec::new())),
            Encoding::Pickle(Dialect::Python3) | Encoding::Msgpack => {
                let message = "'>=' not supported between instances of 'int' and 'NoneType'";
                Err(PyException::builtin("TypeError", message))
            }
        }
    }

    /// `record_iternext(next)` -> (oid, tid, data, next oid)
    pub(super) fn record_iternext(&self, registered: &Registered, id: &OwnedMsgId, next: Option<Oid>) {
        // Of a large record, until it was sent.
        let mut held = None;
        let mut record = || {
            held = None;
            let (record, share) = with_share(registered, || registered.hosted.storage.record_iternext(next));
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
        reply_newest(&registered.hosted, &self.connection, || reply_frame(&self.connection, id, &record()));
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
