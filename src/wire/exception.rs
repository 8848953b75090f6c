//! A Python exception as data: the class that the peer is to raise and what it is to find in it.
//!
//! How it travels is the codec's business: a pickled instance before Z5, class name and arguments in Z5 and M5.

use super::value::Value;

/// An exception to be raised by the client.
#[derive(Clone, Debug, PartialEq)]
pub struct PyException {
    /// e.g. `ZODB.POSException`; [`BUILTINS`] for `builtins` (Python 3) or `exceptions` (Python 2)
    pub module: &'static str,
    /// e.g. `POSKeyError`
    pub name: &'static str,
    /// positional arguments of the instance
    pub args: Vec<Value>,
    /// instance attributes (`__dict__`); empty if the class keeps none
    pub attributes: Vec<(&'static str, Value)>,
}

/// Stands for the module of the peer's built-in exceptions.
pub const BUILTINS: &str = "builtins";

impl PyException {
    /// An exception with positional arguments only.
    pub fn new(module: &'static str, name: &'static str, args: Vec<Value>) -> PyException {
        PyException { module, name, args, attributes: Vec::new() }
    }

    /// A built-in exception with a message, e.g. `ValueError("no such storage")`.
    pub fn builtin(name: &'static str, message: impl Into<String>) -> PyException {
        PyException::new(BUILTINS, name, vec![Value::Text(message.into())])
    }
}
