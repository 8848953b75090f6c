//! A decoded value: arguments and replies off the fast path.

use super::Id8;

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// byte strings and text alike
    Bytes(Vec<u8>),
    List(Vec<Value>),
    Tuple(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    /// a class, by its dotted name
    Class(String),
    /// an instance: its class, then constructor arguments and state
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

    /// The items of a list or tuple; nothing for any other value.
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
