//! Errors of storages and of the server -> the Python exceptions that clients expect.
//!
//! Classes, arguments and attributes are those of ZODB.POSException and of what FileStorage raises; how they
//! are encoded is the wire's business.

use crate::base::ids::Oid;
use crate::pickle::record;
use crate::storage::StorageError;
use crate::storage::error::Conflict;
use crate::wire::exception::{BUILTINS, PyException};
use crate::wire::value::Value;

const POS_EXCEPTION: &str = "ZODB.POSException";

/// The exception that Python's storage would raise.
pub fn of_storage_error(error: &StorageError) -> PyException {
    match error {
        StorageError::PosKey(oid) => pos_key_error(*oid),
        StorageError::Conflict(conflict) => {
            conflict_error("ConflictError", "database conflict error", conflict)
        }
        StorageError::ReadConflict(conflict) => {
            conflict_error("ReadConflictError", "database read conflict error", conflict)
        }
        StorageError::ReadOnly => read_only_error(),
        StorageError::Transaction(what) => pos("StorageTransactionError", what),
        StorageError::Undo { reason, oid } => undo_error(reason, *oid),
        StorageError::Quota => PyException::new(
            "ZODB.FileStorage.FileStorage",
            "FileStorageQuotaError",
            vec![Value::text("The storage quota has been exceeded.")],
        ),
        StorageError::Unsupported(what) => unsupported(what),
        StorageError::Refused { class: (module, name), message } => {
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

/// `ReadOnlyError()`
pub fn read_only_error() -> PyException {
    PyException::new(POS_EXCEPTION, "ReadOnlyError", Vec::new())
}

/// `POSKeyError(oid)`
pub fn pos_key_error(oid: Oid) -> PyException {
    PyException::new(POS_EXCEPTION, "POSKeyError", vec![oid.into()])
}

/// `Unsupported(message)`
pub fn unsupported(message: &str) -> PyException {
    pos("Unsupported", message)
}

fn pos(name: &'static str, message: &str) -> PyException {
    PyException::new(POS_EXCEPTION, name, vec![Value::text(message)])
}

fn undo_error(reason: &str, oid: Option<Oid>) -> PyException {
    PyException {
        module: POS_EXCEPTION,
        name: "UndoError",
        args: Vec::new(),
        attributes: vec![("_reason", Value::text(reason)), ("_oid", oid.map_or(Value::None, Value::from))],
    }
}

/// The client shows the class of the object, which its record tells.
fn conflict_error(name: &'static str, message: &str, conflict: &Conflict) -> PyException {
    let class = record::class_name(&conflict.data);
    PyException {
        module: POS_EXCEPTION,
        name,
        args: Vec::new(),
        attributes: vec![
            ("message", Value::text(message)),
            ("oid", conflict.oid.into()),
            ("class_name", class.map_or(Value::None, Value::text)),
            ("serials", Value::Tuple(vec![conflict.committed.into(), conflict.read.into()])),
        ],
    }
}

/// Errors that are an everyday answer, not an event for the log.
pub fn is_routine(exception: &PyException) -> bool {
    exception.module == POS_EXCEPTION
        && matches!(exception.name, "POSKeyError" | "ConflictError" | "ReadConflictError" | "ReadOnlyError")
}
