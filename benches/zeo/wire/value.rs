//! A decoded value, for arguments and replies outside the fast path.

use super::Id8;

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// Byte strings and texts alike.
    Bytes(Vec<u8>),
    List(Vec<Value>),
    Tuple(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    /// A class, by its dotted name.
    Class(String),
    /// An instance: its class, then constructor arguments and state.
    Object(String, Vec<Value>),
}

impl Value {
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Value::Bytes(b) => Some(b),
            _ => None,
        }
    }

    pub fn as_int(&self) -> Option<i64> {
        match self {
            Value::Int(i) => Some(*i),
            Value::Bool(b) => Some(i64::from(*b)),
            _ => None,
        }
    }

    /// The items of a list or tuple; empty for any other value.
    pub fn items(&self) -> &[Value] {
        match self {
            Value::List(v) | Value::Tuple(v) => v,
            _ => &[],
        }
    }

    pub fn id8(&self) -> Result<Id8, String> {
        self.as_bytes()
            .and_then(|b| b.try_into().ok())
            .ok_or_else(|| format!("expected an 8-byte id, got {self:?}"))
    }
}
