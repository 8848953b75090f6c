//! The arguments of a call: their number and their types.
//!
//! As tolerant as Python: ids may be text or bytes, and arguments with defaults may be left out. Where Python's server
//! would answer with a TypeError or another exception, the result is [`Refused`].

use std::borrow::Cow;

use super::exception::{BUILTINS, PyException};
use super::protocol::{Encoding, Wire};
use super::request::{TpcBegin, TxnId};
use super::scalars::{Scalar, Slot};
use super::value::Value;
use crate::base::ids::{Oid, Tid};
use crate::pickle::Dialect;
use crate::pickle::rewrite::rewrite;
use crate::pickle::value::{Budget, Node, Tree};

/// The exception that answers a call which is not made.
pub(super) type Refused = Box<PyException>;

/// The arguments of a call.
pub(super) struct Args<'s, 'a> {
    pub method: &'s [u8],
    pub slots: &'s [Slot<'a>],
    /// The message, if an argument is no scalar.
    pub tree: Option<&'s Tree<'a>>,
    pub wire: Wire,
}

impl<'a> Args<'_, 'a> {
    pub fn tpc_begin(&self) -> Result<TpcBegin<'a>, Refused> {
        let status = match self.slots.get(5) {
            None => b' ',
            Some(_) => match self.utf8(5)?.as_ref() {
                [status] => *status,
                _ => return Err(refused("ValueError", "a transaction's status must be one character")),
            },
        };
        Ok(TpcBegin {
            id: self.txn_id(0)?,
            user: self.utf8(1)?,
            description: self.utf8(2)?,
            extension: self.extension(3)?,
            tid: self.optional_tid(4)?,
            status,
        })
    }

    /// The extension as Python's server would write it: pickled by the Python that a server of the peer's generation
    /// would run on.
    fn extension(&self, at: usize) -> Result<Vec<u8>, Refused> {
        match self.slots.get(at).map(|slot| slot.scalar) {
            None | Some(Scalar::None) => Ok(Vec::new()),
            // When ZODB 5 and later copy a transaction, they pass on its pickled bytes.
            Some(Scalar::Bytes(pickled) | Scalar::Str(pickled)) => Ok(pickled.to_vec()),
            Some(Scalar::Node(id)) => {
                let Some(tree) = self.tree else { return Ok(Vec::new()) };
                match tree.node(id) {
                    Node::Dict(pairs) if pairs.is_empty() => Ok(Vec::new()),
                    _ => {
                        let dialect = match self.wire.encoding {
                            Encoding::Pickle(dialect) => dialect,
                            Encoding::Msgpack => Dialect::Python3,
                        };
                        rewrite(tree, id, dialect)
                            .map_err(|_| refused("ValueError", "the extension cannot be pickled"))
                    }
                }
            }
            Some(_) => Err(refused("TypeError", "the extension of a transaction must be a dictionary")),
        }
    }

    // -- single arguments

    /// Checks the number of arguments. A wrong number is the TypeError of the peer's Python.
    #[inline]
    pub fn arity(&self, names: &[&str], required: usize) -> Result<(), Refused> {
        let given = self.slots.len();
        if given >= required && given <= names.len() {
            Ok(())
        } else {
            Err(self.wrong_arity(names, required))
        }
    }

    #[cold]
    fn wrong_arity(&self, names: &[&str], required: usize) -> Refused {
        let method = String::from_utf8_lossy(self.method);
        let given = self.slots.len();
        let python2 = self.wire.encoding == Encoding::Pickle(Dialect::Python2);
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        // both count `self`
        let message = if python2 {
            let (how, count) = match (required == names.len(), given < required) {
                (true, _) => ("exactly", required + 1),
                (false, true) => ("at least", required + 1),
                (false, false) => ("at most", names.len() + 1),
            };
            format!("{method}() takes {how} {count} argument{} ({} given)", plural(count), given + 1)
        } else if given < required {
            let missing: Vec<String> =
                names.iter().take(required).skip(given).map(|name| format!("'{name}'")).collect();
            let list = match missing.as_slice() {
                [one] => one.clone(),
                [one, two] => format!("{one} and {two}"),
                [first @ .., last] => format!("{}, and {last}", first.join(", ")),
                [] => String::new(),
            };
            let count = missing.len();
            format!(
                "ZEOStorage.{method}() missing {count} required positional argument{}: {list}",
                plural(count)
            )
        } else {
            let most = names.len() + 1;
            let takes = match required + 1 {
                least if least == most => format!("{most} positional argument{}", plural(most)),
                least => format!("from {least} to {most} positional arguments"),
            };
            format!("ZEOStorage.{method}() takes {takes} but {} were given", given + 1)
        };
        refused("TypeError", message)
    }

    fn scalar(&self, at: usize) -> Scalar<'a> {
        self.slots.get(at).map_or(Scalar::None, |slot| slot.scalar)
    }

    pub fn is_none(&self, at: usize) -> bool {
        self.scalar(at) == Scalar::None
    }

    pub fn truth(&self, at: usize) -> bool {
        match (self.scalar(at), self.tree) {
            (Scalar::Node(id), Some(tree)) => match tree.node(id) {
                Node::Tuple(items) | Node::List(items) => !items.is_empty(),
                Node::Dict(pairs) => !pairs.is_empty(),
                Node::Bytes(value) | Node::Str(value) | Node::Text(value) => !value.is_empty(),
                _ => true,
            },
            (item, _) => is_true(item),
        }
    }

    #[inline]
    pub fn oid(&self, at: usize) -> Result<Oid, Refused> {
        match self.scalar(at) {
            Scalar::Bytes(oid) | Scalar::Str(oid) if oid.len() == 8 => {
                Ok(Oid::from_slice(oid).unwrap_or_default())
            }
            _ => self.odd_id(at, "oid").map(Oid::from_bytes),
        }
    }

    #[inline]
    pub fn tid(&self, at: usize) -> Result<Tid, Refused> {
        match self.scalar(at) {
            Scalar::Bytes(tid) | Scalar::Str(tid) if tid.len() == 8 => {
                Ok(Tid::from_slice(tid).unwrap_or_default())
            }
            _ => self.odd_id(at, "tid").map(Tid::from_bytes),
        }
    }

    /// The serial that a client has read: `None` or an empty string for a new object.
    pub fn serial(&self, at: usize) -> Result<Tid, Refused> {
        match self.scalar(at) {
            Scalar::None | Scalar::Bytes([]) | Scalar::Str([]) | Scalar::Text([]) => Ok(Tid::ZERO),
            _ => self.tid(at),
        }
    }

    pub fn optional_oid(&self, at: usize) -> Result<Option<Oid>, Refused> {
        if self.is_none(at) { Ok(None) } else { self.oid(at).map(Some) }
    }

    pub fn optional_tid(&self, at: usize) -> Result<Option<Tid>, Refused> {
        if self.is_none(at) { Ok(None) } else { self.tid(at).map(Some) }
    }

    /// An id sent as a text of Latin-1 characters; or the error of Python's storage for a value that is no id.
    #[cold]
    fn odd_id(&self, at: usize, what: &str) -> Result<[u8; 8], Refused> {
        let bytes: Vec<u8> = match (self.scalar(at), self.tree) {
            (Scalar::Text(text), _) => {
                latin1(text).ok_or_else(|| refused("TypeError", format!("invalid {what}")))?
            }
            (Scalar::Bytes(bytes) | Scalar::Str(bytes), _) => bytes.to_vec(),
            (Scalar::Node(id), Some(tree)) => match tree.node(id) {
                Node::Bytes(bytes) | Node::Str(bytes) => bytes.to_vec(),
                Node::Text(text) => {
                    latin1(text).ok_or_else(|| refused("TypeError", format!("invalid {what}")))?
                }
                _ => return Err(refused("TypeError", format!("invalid {what} {}", self.shown(at)))),
            },
            _ => return Err(refused("TypeError", format!("invalid {what} {}", self.shown(at)))),
        };
        <[u8; 8]>::try_from(bytes.as_slice()).map_err(|_| {
            // no object can have this oid
            let args = vec![Value::Bytes(bytes)];
            Box::new(PyException::new("ZODB.POSException", "POSKeyError", args))
        })
    }

    fn shown(&self, at: usize) -> String {
        match self.scalar(at) {
            Scalar::None => "None".to_string(),
            Scalar::Bool(true) => "True".to_string(),
            Scalar::Bool(false) => "False".to_string(),
            Scalar::Int(value) => value.to_string(),
            Scalar::Float(value) => format!("{value:?}"),
            _ => format!("in argument {}", at + 1),
        }
    }

    /// A byte string; a text is encoded as UTF-8.
    #[inline]
    pub fn bytes(&self, at: usize) -> Result<Cow<'a, [u8]>, Refused> {
        match (self.scalar(at), self.tree) {
            (Scalar::Bytes(bytes) | Scalar::Str(bytes) | Scalar::Text(bytes), _) => Ok(Cow::Borrowed(bytes)),
            (Scalar::Node(id), Some(tree)) => match tree.node(id) {
                Node::Bytes(bytes) | Node::Str(bytes) | Node::Text(bytes) => Ok(Cow::Owned(bytes.to_vec())),
                Node::ByteArray(bytes) => Ok(Cow::Borrowed(bytes)),
                _ => Err(self.not_a("bytes-like object", at)),
            },
            _ => Err(self.not_a("bytes-like object", at)),
        }
    }

    /// A text or byte string as the bytes that ZODB writes; `None` is empty.
    fn utf8(&self, at: usize) -> Result<Cow<'a, [u8]>, Refused> {
        if self.is_none(at) { Ok(Cow::Borrowed(b"")) } else { self.bytes(at) }
    }

    /// A text, a byte string, or a number as by `str()`.
    pub fn text(&self, at: usize) -> Result<Cow<'a, str>, Refused> {
        match self.scalar(at) {
            Scalar::None | Scalar::Bool(_) | Scalar::Int(_) | Scalar::Float(_) => Ok(self.shown(at).into()),
            _ => Ok(match self.bytes(at)? {
                Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
                Cow::Owned(bytes) => String::from_utf8_lossy(&bytes).into_owned().into(),
            }),
        }
    }

    pub fn int(&self, at: usize) -> Result<i64, Refused> {
        match self.scalar(at) {
            Scalar::Int(value) => Ok(value),
            Scalar::Bool(value) => Ok(value.into()),
            _ => Err(self.not_a("integer", at)),
        }
    }

    pub fn int_or(&self, at: usize, default: i64) -> Result<i64, Refused> {
        if self.slots.len() > at { self.int(at) } else { Ok(default) }
    }

    /// The integer, `default` if the argument is left out, `None` if it is something else.
    pub fn optional_int_or(&self, at: usize, default: i64) -> Option<i64> {
        self.int_or(at, default).ok()
    }

    pub fn float(&self, at: usize) -> Result<f64, Refused> {
        match self.scalar(at) {
            Scalar::Float(value) => Ok(value),
            #[allow(clippy::cast_precision_loss)] // seconds since 1970
            Scalar::Int(value) => Ok(value as f64),
            _ => Err(self.not_a("float", at)),
        }
    }

    /// The number of an iterator. Another value names no iterator.
    pub fn iterator(&self, at: usize) -> Result<i64, Refused> {
        self.int(at).or_else(|_| {
            let key = self.value(at)?;
            Err(Box::new(PyException::new(BUILTINS, "KeyError", vec![key])))
        })
    }

    pub fn ints(&self, at: usize) -> Result<Vec<i64>, Refused> {
        match self.value(at)? {
            Value::List(items) | Value::Tuple(items) => Ok(items
                .into_iter()
                .filter_map(|item| match item {
                    Value::Int(value) => Some(value),
                    _ => None, // names no iterator, so there is nothing to forget
                })
                .collect()),
            _ => Err(self.not_a("sequence", at)),
        }
    }

    /// A transaction id, in its encoded form.
    pub fn txn_id(&self, at: usize) -> Result<TxnId<'a>, Refused> {
        match self.slots.get(at) {
            Some(slot) if !slot.encoded.is_empty() => Ok(Cow::Borrowed(slot.encoded)),
            Some(Slot { scalar: Scalar::Node(id), .. }) => {
                match self.tree.map(|tree| rewrite(tree, *id, Dialect::Python3)) {
                    Some(Ok(encoded)) => Ok(Cow::Owned(encoded)),
                    _ => Err(refused("TypeError", "a transaction id that cannot be compared")),
                }
            }
            _ => Err(refused("TypeError", "a transaction id that cannot be compared")),
        }
    }

    pub fn value(&self, at: usize) -> Result<Value, Refused> {
        self.value_within(&mut self.budget(), at)
    }

    fn budget(&self) -> Budget {
        Budget::for_len(self.tree.map_or(0, Tree::len))
    }

    fn value_within(&self, budget: &mut Budget, at: usize) -> Result<Value, Refused> {
        Ok(match self.scalar(at) {
            Scalar::None => Value::None,
            Scalar::Bool(value) => Value::Bool(value),
            Scalar::Int(value) => Value::Int(value),
            Scalar::Float(value) => Value::Float(value),
            Scalar::Bytes(value) | Scalar::Str(value) => Value::bytes(value),
            Scalar::Text(value) => Value::Text(String::from_utf8_lossy(value).into_owned()),
            Scalar::Load(oid, tid) => Value::Tuple(vec![oid.into(), tid.into()]),
            Scalar::Node(id) => match self.tree {
                Some(tree) => Value::from_tree_within(budget, tree, id).map_err(|e| {
                    refused("TypeError", format!("argument {} cannot be used: {}", at + 1, e.0))
                })?,
                None => Value::None,
            },
        })
    }

    pub fn values(&self) -> Result<Vec<Value>, Refused> {
        let mut budget = self.budget();
        (0..self.slots.len()).map(|at| self.value_within(&mut budget, at)).collect()
    }

    /// Checks that the version is empty: versions were removed in ZODB 3.9.
    pub fn no_version(&self, at: usize) -> Result<(), Refused> {
        if self.truth(at) {
            let message = vec![Value::text("Versions aren't supported.")];
            return Err(Box::new(PyException::new("ZEO.StorageServer", "StorageServerError", message)));
        }
        Ok(())
    }

    #[cold]
    fn not_a(&self, what: &str, at: usize) -> Refused {
        refused("TypeError", format!("argument {} must be a {what}: {}", at + 1, self.shown(at)))
    }
}

pub(super) fn refused(name: &'static str, message: impl Into<String>) -> Refused {
    Box::new(PyException::builtin(name, message))
}

/// The bytes of a text whose characters are all Latin-1.
fn latin1(text: &[u8]) -> Option<Vec<u8>> {
    str::from_utf8(text).ok()?.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect()
}

/// The truth value of a scalar, as in Python's `if x:`.
pub(super) fn is_true(scalar: Scalar<'_>) -> bool {
    match scalar {
        Scalar::None => false,
        Scalar::Bool(value) => value,
        Scalar::Int(value) => value != 0,
        Scalar::Float(value) => value != 0.0,
        Scalar::Bytes(value) | Scalar::Str(value) | Scalar::Text(value) => !value.is_empty(),
        Scalar::Load(..) | Scalar::Node(_) => true,
    }
}
