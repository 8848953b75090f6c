//! What an exception that a server raised means for a client: the way back from Python's classes. Class, arguments and
//! attributes stay in the [`PyException`], for messages and for passing it on.

use crate::base::ids::{Oid, Tid};
use crate::conflict::Conflict;
use crate::storage::StorageError;
use crate::wire::exception::{BUILTINS, PyException};
use crate::wire::value::Value;

/// What a client can do something about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Meaning {
    /// `ConflictError` and classes derived from it: another transaction changed the object first.
    Conflict(ConflictFacts),
    /// `ReadConflictError`: an object that the transaction depends on was changed.
    ReadConflict(ConflictFacts),
    /// `POSKeyError`, or `KeyError` with an oid: no such object, or no such revision of it.
    NoSuchObject(Oid),
    /// `POSKeyError` with a message: the blob has no file.
    NoBlob {
        /// The object.
        oid: Oid,
        /// The revision.
        serial: Tid,
    },
    /// `ReadOnlyError`
    ReadOnly,
    /// `StorageTransactionError`: the call is for a transaction that is not the open one.
    WrongTransaction,
    /// `UndoError` and `MultipleUndoErrors`: the objects that cannot be undone, as far as they are named.
    Undo(Vec<UndoFailure>),
    /// The server is the client of another one, and not connected to it.
    Disconnected,
    /// `AuthError`
    Authentication,
    /// Any other class.
    Other,
}

/// A conflict, as far as the exception tells.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ConflictFacts {
    /// The object.
    pub oid: Option<Oid>,
    /// The serial that is committed now.
    pub committed: Option<Tid>,
    /// The serial from which the transaction started.
    pub read: Option<Tid>,
}

/// Why a transaction cannot be undone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UndoFailure {
    /// In Python's words.
    pub reason: String,
    /// The object, if it is about one.
    pub oid: Option<Oid>,
}

impl Meaning {
    /// From the class of the exception.
    pub fn of(exception: &PyException) -> Meaning {
        match (&*exception.module, &*exception.name) {
            (super::POS_EXCEPTION, name) => of_zodb(name, exception),
            (BUILTINS, "KeyError") => no_such_object(exception),
            ("ZEO.Exceptions", "ClientDisconnected") | ("ZEO.zrpc.error", "DisconnectedError") => {
                Meaning::Disconnected
            }
            ("ZEO.Exceptions", "AuthError") => Meaning::Authentication,
            _ => Meaning::Other,
        }
    }
}

/// What a storage would have said where a server raised this exception: the reverse of
/// [`of_storage_error`](super::of_storage_error), as far as there is one.
pub fn to_storage_error(exception: &PyException) -> StorageError {
    let other = || StorageError::Server {
        class: match &*exception.module {
            BUILTINS | "exceptions" => exception.name.to_string(),
            module => format!("{module}.{}", exception.name),
        },
        message: arguments(exception),
    };
    match Meaning::of(exception) {
        Meaning::Conflict(facts) => facts.conflict().map_or_else(other, StorageError::Conflict),
        Meaning::ReadConflict(facts) => facts.conflict().map_or_else(other, StorageError::ReadConflict),
        Meaning::NoSuchObject(oid) if *exception.name == *"KeyError" => StorageError::Missing(oid),
        Meaning::NoSuchObject(oid) => StorageError::PosKey(oid),
        Meaning::NoBlob { oid, serial } => {
            let path = exception.args.first().map(text).unwrap_or_default();
            StorageError::NoBlob { oid, serial, path: path.trim_start_matches(NO_BLOB_AT).into() }
        }
        Meaning::ReadOnly => StorageError::ReadOnly,
        Meaning::WrongTransaction => StorageError::Transaction(arguments(exception)),
        Meaning::Undo(failures) if *exception.name == *"MultipleUndoErrors" => {
            let failure = |failure: UndoFailure| Some((failure.oid?, failure.reason.into()));
            match failures.into_iter().filter_map(failure).collect::<Vec<_>>() {
                none if none.is_empty() => other(),
                failures => StorageError::MultipleUndo(failures),
            }
        }
        Meaning::Undo(failures) => match failures.into_iter().next() {
            Some(first) => StorageError::Undo { reason: first.reason.into(), oid: first.oid },
            None => other(),
        },
        Meaning::Disconnected => StorageError::Disconnected(arguments(exception)),
        Meaning::Authentication | Meaning::Other => match &*exception.name {
            "FileStorageQuotaError" => StorageError::Quota,
            "Unsupported" => StorageError::Unsupported(arguments(exception)),
            _ => other(),
        },
    }
}

/// How the message about a missing blob begins.
const NO_BLOB_AT: &str = "No blob file at ";

/// The arguments in words, without the class.
fn arguments(exception: &PyException) -> String {
    let text = exception.to_string();
    text.strip_prefix(&*exception.name).unwrap_or(&text).trim_start_matches(':').trim_start().to_string()
}

impl ConflictFacts {
    /// `None` without an object. Serials that are not told are zero.
    fn conflict(self) -> Option<Box<Conflict>> {
        let (committed, read) = (self.committed.unwrap_or_default(), self.read.unwrap_or_default());
        Some(Box::new(Conflict { oid: self.oid?, committed, read, data: Vec::new() }))
    }
}

fn of_zodb(name: &str, exception: &PyException) -> Meaning {
    match name {
        "ConflictError" | "BTreesConflictError" => Meaning::Conflict(conflict(exception)),
        "ReadConflictError" => Meaning::ReadConflict(conflict(exception)),
        "POSKeyError" => no_such_object(exception),
        "ReadOnlyError" => Meaning::ReadOnly,
        "StorageTransactionError" => Meaning::WrongTransaction,
        "UndoError" => Meaning::Undo(vec![undo_failure(exception)]),
        "MultipleUndoErrors" => Meaning::Undo(undo_failures(exception)),
        _ => Meaning::Other,
    }
}

fn attribute<'e>(exception: &'e PyException, wanted: &str) -> Option<&'e Value> {
    exception.attributes.iter().find(|(name, _)| name == wanted).map(|(_, value)| value)
}

fn id8(value: &Value) -> Option<[u8; 8]> {
    value.string()?.try_into().ok()
}

fn oid(value: &Value) -> Option<Oid> {
    id8(value).map(Oid::from_bytes)
}

fn tid(value: &Value) -> Option<Tid> {
    id8(value).map(Tid::from_bytes)
}

/// A text or a byte string for a message.
fn text(value: &Value) -> String {
    value.string().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
}

fn conflict(exception: &PyException) -> ConflictFacts {
    let serials = match attribute(exception, "serials") {
        Some(Value::Tuple(serials) | Value::List(serials)) => serials.as_slice(),
        _ => &[],
    };
    ConflictFacts {
        oid: attribute(exception, "oid").and_then(oid),
        committed: serials.first().and_then(tid),
        read: serials.get(1).and_then(tid),
    }
}

/// `(oid)`, or `(message, oid, serial)` for a blob.
fn no_such_object(exception: &PyException) -> Meaning {
    let args = exception.args.as_slice();
    let found = match args {
        [key] => oid(key).map(Meaning::NoSuchObject),
        // Python's storages name the serial of a revision that they do not have.
        [key, _] => oid(key).map(Meaning::NoSuchObject),
        [_, blob, serial] => oid(blob).zip(tid(serial)).map(|(oid, serial)| Meaning::NoBlob { oid, serial }),
        _ => None,
    };
    found.unwrap_or(Meaning::Other)
}

fn undo_failure(exception: &PyException) -> UndoFailure {
    let args = exception.args.as_slice();
    UndoFailure {
        reason: attribute(exception, "_reason").or(args.first()).map(text).unwrap_or_default(),
        oid: attribute(exception, "_oid").or(args.get(1)).and_then(oid),
    }
}

/// From `_errs`, or the argument: a list of (oid, error). In msgpack an error may be its text, or (class, attributes).
fn undo_failures(exception: &PyException) -> Vec<UndoFailure> {
    let errors = attribute(exception, "_errs").or(exception.args.first());
    let Some(Value::List(errors) | Value::Tuple(errors)) = errors else {
        return vec![undo_failure(exception)];
    };
    let failure = |error: &Value| {
        let (Value::Tuple(pair) | Value::List(pair)) = error else { return None };
        let [key, error] = pair.as_slice() else { return None };
        let reason = match error {
            Value::Exception(error) => undo_failure(error).reason,
            Value::Tuple(pair) | Value::List(pair) => {
                pair.get(1).and_then(|attributes| attributes.get("_reason")).map(text).unwrap_or_default()
            }
            message => text(message),
        };
        Some(UndoFailure { reason, oid: oid(key) })
    };
    errors.iter().filter_map(failure).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exceptions::{of_storage_error, transaction_error};
    use crate::pickle::Dialect;
    use crate::wire::answers::FromServer;
    use crate::wire::protocol::{Encoding, Generation, Wire};
    use crate::wire::request::MsgId;

    const OID: Oid = Oid(0x4142_4344_4546_4748); // all letters
    const FACTS: ConflictFacts =
        ConflictFacts { oid: Some(OID), committed: Some(Tid(7)), read: Some(Tid(6)) };

    fn wires() -> impl Iterator<Item = Wire> {
        let pickle = |generation| {
            [Dialect::Python2, Dialect::Python3]
                .map(|dialect| Wire { generation, encoding: Encoding::Pickle(dialect) })
        };
        let generations = ["Z308", "Z309", "Z310", "Z3101", "Z4", "Z5"];
        let generations = generations.map(|name| Generation::parse(name.as_bytes()).unwrap());
        let msgpack = Wire { generation: Generation::NEWEST, encoding: Encoding::Msgpack };
        generations.into_iter().flat_map(pickle).chain([msgpack])
    }

    #[test]
    fn what_a_server_of_ours_raises_is_understood() {
        let conflict = || Box::new(Conflict { oid: OID, committed: Tid(7), read: Tid(6), data: Vec::new() });
        let failure = |reason: &str, oid| UndoFailure { reason: reason.into(), oid };
        let cases = [
            (of_storage_error(&StorageError::PosKey(OID)), Meaning::NoSuchObject(OID)),
            (
                of_storage_error(&StorageError::NoBlob { oid: OID, serial: Tid(7), path: "/blobs/x".into() }),
                Meaning::NoBlob { oid: OID, serial: Tid(7) },
            ),
            (of_storage_error(&StorageError::Missing(OID)), Meaning::NoSuchObject(OID)),
            (of_storage_error(&StorageError::Conflict(conflict())), Meaning::Conflict(FACTS)),
            (of_storage_error(&StorageError::ReadConflict(conflict())), Meaning::ReadConflict(FACTS)),
            (of_storage_error(&StorageError::ReadOnly), Meaning::ReadOnly),
            (transaction_error("no"), Meaning::WrongTransaction),
            (
                of_storage_error(&StorageError::Undo { reason: "why".into(), oid: Some(OID) }),
                Meaning::Undo(vec![failure("why", Some(OID))]),
            ),
            (
                of_storage_error(&StorageError::Undo { reason: "why".into(), oid: None }),
                Meaning::Undo(vec![failure("why", None)]),
            ),
            (
                of_storage_error(&StorageError::MultipleUndo(vec![
                    (OID, "one".into()),
                    (Oid(2), "two".into()),
                ])),
                Meaning::Undo(vec![failure("one", Some(OID)), failure("two", Some(Oid(2)))]),
            ),
            (of_storage_error(&StorageError::Quota), Meaning::Other),
            (PyException::builtin("ValueError", "unknown storage: 1"), Meaning::Other),
            (PyException::builtin("KeyError", "name"), Meaning::Other),
            (PyException::new("ZEO.Exceptions", "ClientDisconnected", Vec::new()), Meaning::Disconnected),
            (PyException::new("ZEO.Exceptions", "AuthError", Vec::new()), Meaning::Authentication),
        ];
        for wire in wires() {
            for (exception, meaning) in &cases {
                let mut out = Vec::new();
                wire.error_reply(MsgId::Int(1), exception, &mut out);
                let Ok(FromServer::Reply { answer, .. }) = wire.from_server(&out[4..]) else { panic!() };
                let raised = answer.raised().unwrap().unwrap();
                assert_eq!(Meaning::of(&raised), *meaning, "{wire:?}: {raised:?}");
            }
        }
    }

    #[test]
    fn a_conflict_may_name_nothing() {
        let conflict = PyException::new(super::super::POS_EXCEPTION, "ConflictError", Vec::new());
        assert_eq!(Meaning::of(&conflict), Meaning::Conflict(ConflictFacts::default()));
    }
}
