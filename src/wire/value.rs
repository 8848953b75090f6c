//! Plain Python data, as the rarely used calls exchange it. The calls that must be fast (loads, stores,
//! invalidations) never build one.

/// A Python value without code: what `None`, numbers, strings and containers are in every codec.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// Python 3 `bytes`, Python 2 `str`
    Bytes(Vec<u8>),
    /// `str` in Python 3 (and in msgpack); sent to a Python 2 peer as `str` where it is ASCII, else `unicode`
    Text(String),
    Tuple(Vec<Value>),
    List(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    /// A text that the peer sent as ZopeUndo.Prefix: matches what begins with it.
    Prefix(Box<Value>),
    /// An exception inside a value: conflicts in `serialnos` (protocols before Z5).
    Exception(Box<super::exception::PyException>),
}

impl Value {
    /// A text from anything that is one.
    pub fn text(s: impl Into<String>) -> Value {
        Value::Text(s.into())
    }

    /// A byte string.
    pub fn bytes(b: impl AsRef<[u8]>) -> Value {
        Value::Bytes(b.as_ref().to_vec())
    }

    /// A dict with text keys.
    pub fn dict<const N: usize>(items: [(&str, Value); N]) -> Value {
        Value::Dict(items.into_iter().map(|(key, value)| (Value::text(key), value)).collect())
    }
}

impl From<crate::base::ids::Oid> for Value {
    fn from(oid: crate::base::ids::Oid) -> Value {
        Value::bytes(oid.to_bytes())
    }
}

impl From<crate::base::ids::Tid> for Value {
    fn from(tid: crate::base::ids::Tid) -> Value {
        Value::bytes(tid.to_bytes())
    }
}
