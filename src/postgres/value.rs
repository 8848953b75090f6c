//! Values of parameters, in PostgreSQL's binary format.

use bytes::{BufMut, BytesMut};

/// The type of a parameter.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Type {
    Bool,
    Bytea,
    Float8,
    Int4,
    Int8,
    Oid,
    Text,
    BoolArray,
    ByteaArray,
    Int4Array,
    Int8Array,
    TextArray,
}

impl Type {
    /// Its number in the catalog of types: the same in all versions.
    pub fn oid(self) -> u32 {
        match self {
            Type::Bool => 16,
            Type::Bytea => 17,
            Type::Int8 => 20,
            Type::Int4 => 23,
            Type::Text => 25,
            Type::Oid => 26,
            Type::Float8 => 701,
            Type::BoolArray => 1000,
            Type::ByteaArray => 1001,
            Type::Int4Array => 1007,
            Type::TextArray => 1009,
            Type::Int8Array => 1016,
        }
    }
}

/// The value of a parameter. Arrays have one dimension and begin at 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Bytes(&'a [u8]),
    Float8(f64),
    Int4(i32),
    Int8(i64),
    Oid(u32),
    Text(&'a str),
    Bools(&'a [bool]),
    ByteArrays(&'a [Option<&'a [u8]>]),
    Int4s(&'a [i32]),
    Int8s(&'a [i64]),
    /// An array of which elements may be null.
    OptionalInt8s(&'a [Option<i64>]),
    Texts(&'a [&'a str]),
}

impl Value<'_> {
    /// The type that it is a value of; `None`: of any.
    pub fn type_of(&self) -> Option<Type> {
        Some(match self {
            Value::Null => return None,
            Value::Bool(_) => Type::Bool,
            Value::Bytes(_) => Type::Bytea,
            Value::Float8(_) => Type::Float8,
            Value::Int4(_) => Type::Int4,
            Value::Int8(_) => Type::Int8,
            Value::Oid(_) => Type::Oid,
            Value::Text(_) => Type::Text,
            Value::Bools(_) => Type::BoolArray,
            Value::ByteArrays(_) => Type::ByteaArray,
            Value::Int4s(_) => Type::Int4Array,
            Value::Int8s(_) | Value::OptionalInt8s(_) => Type::Int8Array,
            Value::Texts(_) => Type::TextArray,
        })
    }

    /// Upper bound on the bytes that [`Value::put`] adds.
    pub fn len_max(&self) -> usize {
        /// Of an array, in front of its elements.
        const ARRAY: usize = 20;
        match self {
            Value::Bytes(bytes) => bytes.len(),
            Value::Text(text) => text.len(),
            Value::Bools(values) => ARRAY + values.len() * 5,
            Value::Int4s(values) => ARRAY + values.len() * 8,
            Value::Int8s(values) => ARRAY + values.len() * 12,
            Value::OptionalInt8s(values) => ARRAY + values.len() * 12,
            Value::Texts(values) => ARRAY + values.iter().map(|value| 4 + value.len()).sum::<usize>(),
            Value::ByteArrays(values) => {
                ARRAY + values.iter().map(|value| 4 + value.map_or(0, <[u8]>::len)).sum::<usize>()
            }
            _ => 8,
        }
    }

    /// Appends the value. The caller has made sure that no length exceeds an `i32`.
    pub fn put(&self, out: &mut BytesMut) {
        match *self {
            Value::Null => {}
            Value::Bool(value) => out.put_u8(u8::from(value)),
            Value::Bytes(bytes) => out.put_slice(bytes),
            Value::Float8(value) => out.put_f64(value),
            Value::Int4(value) => out.put_i32(value),
            Value::Int8(value) => out.put_i64(value),
            Value::Oid(value) => out.put_u32(value),
            Value::Text(text) => out.put_slice(text.as_bytes()),
            Value::Bools(values) => {
                array(out, Type::Bool, values.len(), false);
                for value in values {
                    element(out, &[u8::from(*value)]);
                }
            }
            Value::ByteArrays(values) => {
                array(out, Type::Bytea, values.len(), values.iter().any(Option::is_none));
                for value in values {
                    optional_element(out, *value);
                }
            }
            Value::Int4s(values) => {
                array(out, Type::Int4, values.len(), false);
                for value in values {
                    element(out, &value.to_be_bytes());
                }
            }
            Value::Int8s(values) => {
                array(out, Type::Int8, values.len(), false);
                for value in values {
                    element(out, &value.to_be_bytes());
                }
            }
            Value::OptionalInt8s(values) => {
                array(out, Type::Int8, values.len(), values.iter().any(Option::is_none));
                for value in values {
                    optional_element(out, value.map(i64::to_be_bytes).as_ref().map(<[u8; 8]>::as_slice));
                }
            }
            Value::Texts(values) => {
                array(out, Type::Text, values.len(), false);
                for value in values {
                    element(out, value.as_bytes());
                }
            }
        }
    }
}

/// What stands in front of the elements: number of dimensions, whether there are nulls, type of the elements, length
/// and first index of the dimension. An empty array has no dimension.
fn array(out: &mut BytesMut, element: Type, len: usize, has_nulls: bool) {
    out.put_i32(i32::from(len > 0));
    out.put_i32(i32::from(has_nulls));
    out.put_u32(element.oid());
    if len > 0 {
        out.put_u32(length(len));
        out.put_i32(1);
    }
}

fn element(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32(length(bytes.len()));
    out.put_slice(bytes);
}

fn optional_element(out: &mut BytesMut, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => element(out, bytes),
        None => out.put_i32(-1),
    }
}

/// The length of a value, which the caller has bounded.
pub(super) fn length(len: usize) -> u32 {
    u32::try_from(len).expect("values are bounded when a batch takes them")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_is_longer_than_its_bound() {
        let values = [
            Value::Null,
            Value::Bool(true),
            Value::Bytes(b"abc"),
            Value::Float8(1.5),
            Value::Int4(-1),
            Value::Int8(1 << 40),
            Value::Oid(7),
            Value::Text("größer"),
            Value::Bools(&[true, false]),
            Value::ByteArrays(&[Some(b"a"), None, Some(b"")]),
            Value::Int4s(&[1, 2]),
            Value::Int8s(&[]),
            Value::OptionalInt8s(&[None, Some(3)]),
            Value::Texts(&["a", ""]),
        ];
        for value in values {
            let mut out = BytesMut::new();
            value.put(&mut out);
            assert!(out.len() <= value.len_max(), "{value:?}: {} bytes", out.len());
        }
    }

    #[test]
    fn an_array_has_the_form_that_the_server_reads() {
        let mut out = BytesMut::new();
        Value::ByteArrays(&[Some(b"ab"), None]).put(&mut out);
        let expected =
            b"\0\0\0\x01\0\0\0\x01\0\0\0\x11\0\0\0\x02\0\0\0\x01\0\0\0\x02ab\xff\xff\xff\xff".as_slice();
        assert_eq!(&out[..], expected);
    }
}
