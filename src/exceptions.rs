//! Errors of storages and of the server -> the Python exceptions that clients expect. [`meaning`] is the way back, for
//! our own client.
//!
//! Classes, arguments and attributes are those of ZODB.POSException and of what FileStorage raises; how they
//! are encoded is the wire's business.

pub mod meaning;

use std::borrow::Cow;

use crate::base::ids::{Oid, Tid};
use crate::conflict::Conflict;
use crate::pickle::record;
use crate::storage::{Refusal, StorageError};
use crate::wire::exception::{BUILTINS, PyException};
use crate::wire::value::Value;

const POS_EXCEPTION: &str = "ZODB.POSException";
const FILE_STORAGE: &str = "ZODB.FileStorage.FileStorage";

/// Objects that the error of an undo lists: an undone transaction may have millions.
const UNDO_ERRORS_MAX: usize = 1000;

/// The exception that Python's storage would raise.
pub fn of_storage_error(error: &StorageError) -> PyException {
    match error {
        StorageError::PosKey(oid) => pos_key_error(*oid),
        StorageError::NoBlob { oid, serial, path } => {
            no_blob(*oid, *serial, &format!("No blob file at {}", path.display()))
        }
        StorageError::Missing(oid) => PyException::new(BUILTINS, "KeyError", vec![(*oid).into()]),
        StorageError::Conflict(conflict) => {
            conflict_error("ConflictError", "database conflict error", conflict)
        }
        StorageError::ReadConflict(conflict) => {
            conflict_error("ReadConflictError", "database read conflict error", conflict)
        }
        StorageError::Outdated(why) => pos("ReadConflictError", why),
        StorageError::ReadOnly => read_only_error(),
        StorageError::Transaction(what) => pos("StorageTransactionError", what),
        StorageError::Undo { reason, oid } => undo_error(reason, *oid),
        StorageError::MultipleUndo(errors) => multiple_undo_errors(errors),
        StorageError::Quota => PyException::new(
            FILE_STORAGE,
            "FileStorageQuotaError",
            vec![Value::text("The storage quota has been exceeded.")],
        ),
        StorageError::Unsupported(what) => unsupported(what),
        StorageError::Refused { what, message } => {
            let (module, name) = class_of_refusal(*what);
            PyException::new(module, name, vec![Value::text(message)])
        }
        StorageError::Corrupt { .. } => PyException::new(
            "ZODB.FileStorage.format",
            "CorruptedDataError",
            vec![Value::None, Value::text(error.to_string())],
        ),
        StorageError::Io { doing, error: io } => match io.raw_os_error() {
            Some(errno) => PyException::new(
                BUILTINS,
                "OSError",
                vec![Value::Int(errno.into()), Value::text(format!("{io} ({doing})"))],
            ),
            None => PyException::builtin("OSError", format!("{doing}: {io}")),
        },
        StorageError::Closed(why) => pos("StorageSystemError", why),
        StorageError::Disconnected(why) | StorageError::OutcomeUnknown(why) => {
            let (module, name) = CLIENT_DISCONNECTED;
            PyException::new(module, name, vec![Value::text(why)])
        }
        StorageError::Server { class, message } => of_server(class, message),
    }
}

/// What another server raised, for the clients of this one. Up to ZEO 4 they build the exception, and end the
/// connection if they do not have the class, or if it cannot be made of one text: such an error becomes a
/// `StorageError` that names the class.
fn of_server(class: &str, message: &str) -> PyException {
    let (module, name) = class.rsplit_once('.').unwrap_or((BUILTINS, class));
    let is_known = match module {
        BUILTINS => BUILTINS_OF_ONE_TEXT.contains(&name),
        _ => CLASSES_OF_ONE_TEXT.contains(&(module, name)),
    };
    if !is_known {
        return storage_error(&format!("{class}: {message}"));
    }
    PyException::new(module.to_string(), name.to_string(), vec![Value::text(message)])
}

/// Built-in exceptions that every Python from 2.7 on can make of one text.
const BUILTINS_OF_ONE_TEXT: [&str; 24] = [
    "ArithmeticError",
    "AssertionError",
    "AttributeError",
    "BufferError",
    "EOFError",
    "EnvironmentError",
    "Exception",
    "FloatingPointError",
    "IOError",
    "ImportError",
    "IndexError",
    "KeyError",
    "LookupError",
    "MemoryError",
    "NameError",
    "NotImplementedError",
    "OSError",
    "OverflowError",
    "RuntimeError",
    "SystemError",
    "TypeError",
    "UnicodeError",
    "ValueError",
    "ZeroDivisionError",
];

/// Other exceptions that the clients of all generations have, from ZODB 3.8 on, and can make of one text.
const CLASSES_OF_ONE_TEXT: [(&str, &str); 21] = [
    (POS_EXCEPTION, "ConflictError"),
    (POS_EXCEPTION, "ExportError"),
    (POS_EXCEPTION, "InvalidObjectReference"),
    (POS_EXCEPTION, "MountedStorageError"),
    (POS_EXCEPTION, "POSError"),
    (POS_EXCEPTION, "POSKeyError"),
    (POS_EXCEPTION, "ReadConflictError"),
    (POS_EXCEPTION, "ReadOnlyError"),
    (POS_EXCEPTION, "StorageError"),
    (POS_EXCEPTION, "StorageSystemError"),
    (POS_EXCEPTION, "StorageTransactionError"),
    (POS_EXCEPTION, "UndoError"),
    (POS_EXCEPTION, "Unsupported"),
    (FILE_STORAGE, "FileStorageError"),
    (FILE_STORAGE, "FileStorageFormatError"),
    (FILE_STORAGE, "FileStorageQuotaError"),
    ("ZODB.FileStorage.format", "CorruptedDataError"),
    ("ZODB.FileStorage.format", "CorruptedError"),
    ("ZEO.Exceptions", "AuthError"),
    ("ZEO.Exceptions", "ClientDisconnected"),
    ("ZEO.Exceptions", "ClientStorageError"),
];

/// Module and name of the class whose message says why the request is refused.
fn class_of_refusal(what: Refusal) -> (&'static str, &'static str) {
    match what {
        Refusal::Options
        | Refusal::BlobLayout
        | Refusal::BlobFile
        | Refusal::PackTimeRange
        | Refusal::PackedLater => (BUILTINS, "ValueError"),
        Refusal::Blobs | Refusal::GarbageCollection => (BUILTINS, "TypeError"),
        Refusal::FileMissing => (BUILTINS, "IOError"),
        Refusal::FileInUse => ("zc.lockfile", "LockError"),
        Refusal::FileFormat => (FILE_STORAGE, "FileStorageFormatError"),
        Refusal::FileLimit | Refusal::PackTimeZero | Refusal::PackRunning | Refusal::PackRemoval => {
            (FILE_STORAGE, "FileStorageError")
        }
        Refusal::TornTail => (POS_EXCEPTION, "StorageSystemError"),
        Refusal::Record
        | Refusal::TransactionTooLarge
        | Refusal::TidOrder
        | Refusal::IterationEnded
        | Refusal::Pack
        | Refusal::PackCancelled
        | Refusal::BlobsNotPacked => (POS_EXCEPTION, "StorageError"),
    }
}

/// `StorageTransactionError(current, wanted)`: a call for a transaction that is not the open one.
pub fn wrong_transaction(current: Value, wanted: Value) -> PyException {
    PyException::new(POS_EXCEPTION, "StorageTransactionError", vec![current, wanted])
}

/// `StorageTransactionError(message)`
pub fn transaction_error(message: &str) -> PyException {
    pos("StorageTransactionError", message)
}

/// `StorageError(message)`: what a limit refuses. All clients know this class; none retries or disconnects on it.
pub fn storage_error(message: &str) -> PyException {
    pos("StorageError", message)
}

/// `ReadOnlyError()`
pub fn read_only_error() -> PyException {
    PyException::new(POS_EXCEPTION, "ReadOnlyError", Vec::new())
}

/// `POSKeyError(oid)`
pub fn pos_key_error(oid: Oid) -> PyException {
    PyException::new(POS_EXCEPTION, "POSKeyError", vec![oid.into()])
}

/// `POSKeyError(message, oid, serial)`
pub fn no_blob(oid: Oid, serial: Tid, message: &str) -> PyException {
    PyException::new(POS_EXCEPTION, "POSKeyError", vec![Value::text(message), oid.into(), serial.into()])
}

/// `Unsupported(message)`
pub fn unsupported(message: &str) -> PyException {
    pos("Unsupported", message)
}

fn pos(name: &'static str, message: &str) -> PyException {
    PyException::new(POS_EXCEPTION, name, vec![Value::text(message)])
}

fn undo_error(reason: &str, oid: Option<Oid>) -> PyException {
    let mut args = vec![Value::text(reason)];
    args.extend(oid.map(Value::from));
    PyException::new(POS_EXCEPTION, "UndoError", args)
        .with([("_reason", Value::text(reason)), ("_oid", oid.map_or(Value::None, Value::from))])
}

/// FileStorage gives it pairs (oid, UndoError), of which the first ends up as reason and oid.
fn multiple_undo_errors(errors: &[(Oid, Cow<'static, str>)]) -> PyException {
    let pair = |(oid, reason): &(Oid, Cow<'static, str>)| -> (Value, Value) {
        ((*oid).into(), Value::Exception(Box::new(undo_error(reason, Some(*oid)))))
    };
    let pairs = errors
        .iter()
        .take(UNDO_ERRORS_MAX)
        .map(pair)
        .map(|(oid, error)| Value::Tuple(vec![oid, error]))
        .collect();
    let pairs = Value::List(pairs);
    let (reason, oid) = errors.first().map_or((Value::None, Value::None), pair);
    PyException::new(POS_EXCEPTION, "MultipleUndoErrors", vec![pairs.clone()]).with([
        ("_reason", reason),
        ("_oid", oid),
        ("_errs", pairs),
    ])
}

/// The client shows the class of the object, which is read from its record.
fn conflict_error(name: &'static str, message: &str, conflict: &Conflict) -> PyException {
    let class = record::class_name(&conflict.data);
    PyException::new(POS_EXCEPTION, name, Vec::new()).with([
        ("message", Value::text(message)),
        ("oid", conflict.oid.into()),
        ("class_name", class.map_or(Value::None, |class| Value::text(class.into_string()))),
        ("serials", Value::Tuple(vec![conflict.committed.into(), conflict.read.into()])),
    ])
}

/// Whether the error is that the storage is another server's, which cannot be reached.
pub fn is_upstream_lost(exception: &PyException) -> bool {
    (&*exception.module, &*exception.name) == CLIENT_DISCONNECTED
}

const CLIENT_DISCONNECTED: (&str, &str) = ("ZEO.Exceptions", "ClientDisconnected");

/// Whether an error is an everyday answer, not an event for the log.
pub fn is_routine(exception: &PyException) -> bool {
    let is_refused_client = exception.name == "AuthError"; // has a log line of its own
    exception.module == POS_EXCEPTION
        && matches!(
            &*exception.name,
            "POSKeyError"
                | "ConflictError"
                | "ReadConflictError"
                | "ReadOnlyError"
                | "StorageError" // what a limit refuses has a log line of its own
                | "UndoError"
                | "MultipleUndoErrors"
        )
        || is_refused_client
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_the_errors_of_pythons_storages() {
        let cases = [
            (Refusal::Options, "ValueError"),
            (Refusal::BlobFile, "ValueError"),
            (Refusal::Blobs, "TypeError"),
            (Refusal::FileInUse, "zc.lockfile.LockError"),
            (Refusal::FileFormat, "ZODB.FileStorage.FileStorage.FileStorageFormatError"),
            (Refusal::FileLimit, "ZODB.FileStorage.FileStorage.FileStorageError"),
            (Refusal::PackRunning, "ZODB.FileStorage.FileStorage.FileStorageError"),
            (Refusal::PackTimeRange, "ValueError"),
            (Refusal::TornTail, "ZODB.POSException.StorageSystemError"),
            (Refusal::Record, "ZODB.POSException.StorageError"),
        ];
        for (what, class) in cases {
            let exception = of_storage_error(&StorageError::Refused { what, message: "why".into() });
            let name = match &*exception.module {
                BUILTINS => exception.name.to_string(),
                module => format!("{module}.{}", exception.name),
            };
            assert_eq!((name.as_str(), exception.args), (class, vec![Value::text("why")]));
        }
    }

    /// Clients up to ZEO 4 ended the connection: they cannot make a `UnicodeDecodeError` of one text, and those on
    /// Python 2 do not have the class of a missing file.
    #[test]
    fn what_another_server_raised_can_be_built_by_every_client() {
        let of = |class: &str| {
            of_storage_error(&StorageError::Server { class: class.into(), message: "why".into() })
        };
        for class in ["UnicodeDecodeError", "FileNotFoundError", "ZODB.POSException.DanglingReferenceError"] {
            assert_eq!(of(class), storage_error(&format!("{class}: why")));
        }
        assert_eq!(of("ValueError"), PyException::builtin("ValueError", "why"));
        assert_eq!(of("ZODB.POSException.StorageSystemError"), pos("StorageSystemError", "why"));
    }
}
