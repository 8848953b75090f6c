//! How Python orders keys: `None`, numbers, texts, bytes, and tuples of them. Other keys need the code of their class.

use std::cmp::Ordering;

use super::error::RecordError;
use super::value::PyValue;

type Result<T> = std::result::Result<T, RecordError>;

/// The order by Python's `<` and `==`; in BTrees `None` is before everything.
///
/// Errors: `Incomparable`. Among them are a text and bytes, numbers and strings, and in Python 2 a `str` that is not
/// ASCII and a `unicode`.
pub fn order(a: &PyValue, b: &PyValue) -> Result<Ordering> {
    let (a, b) = (a.plain(), b.plain());
    match (a, b) {
        (PyValue::None, PyValue::None) => return Ok(Ordering::Equal),
        (PyValue::None, b) => return supported(b).map(|()| Ordering::Less),
        (a, PyValue::None) => return supported(a).map(|()| Ordering::Greater),
        (PyValue::Text(a), PyValue::Text(b)) => return Ok(a.cmp(b)),
        (PyValue::Tuple(a), PyValue::Tuple(b)) => {
            for (a, b) in a.iter().zip(b) {
                match order(a, b)? {
                    Ordering::Equal => {}
                    other => return Ok(other),
                }
            }
            return Ok(a.len().cmp(&b.len()));
        }
        _ => {}
    }
    if let (Some(a), Some(b)) = (a.as_integer(), b.as_integer()) {
        return Ok(a.cmp(&b));
    }
    if let (Some((a, a_type)), Some((b, b_type))) = (string(a), string(b))
        && a_type.compares_with(b_type)
    {
        return Ok(a.cmp(b));
    }
    Err(RecordError::Incomparable { what: format!("{} and {}", a.type_name(), b.type_name()) })
}

/// Refuses a key that cannot be compared with others of its type.
pub fn supported(key: &PyValue) -> Result<()> {
    match key.plain() {
        PyValue::None => Ok(()),
        PyValue::Tuple(items) => items.iter().try_for_each(supported),
        key if key.as_integer().is_some() || string(key).is_some() => Ok(()),
        key => Err(RecordError::Incomparable { what: key.type_name() }),
    }
}

/// The types of strings, as far as they can be compared.
#[derive(Clone, Copy, Eq, PartialEq)]
enum StringType {
    Text,
    Bytes,
    /// `str` of Python 2: a text if it is ASCII.
    Str {
        is_ascii: bool,
    },
}

impl StringType {
    fn compares_with(self, other: StringType) -> bool {
        match (self, other) {
            (StringType::Str { .. }, StringType::Str { .. }) => true,
            (StringType::Str { is_ascii }, StringType::Text)
            | (StringType::Text, StringType::Str { is_ascii }) => is_ascii,
            (a, b) => a == b,
        }
    }
}

/// UTF-8 sorts as code points do.
fn string(value: &PyValue) -> Option<(&[u8], StringType)> {
    match value {
        PyValue::Text(text) => Some((text.as_bytes(), StringType::Text)),
        PyValue::Bytes(bytes) => Some((bytes, StringType::Bytes)),
        PyValue::Str(bytes) => Some((bytes, StringType::Str { is_ascii: bytes.is_ascii() })),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_ordered_as_in_python() {
        let tuple = |items: &[PyValue]| PyValue::Tuple(items.to_vec());
        let ascending = [
            PyValue::None,
            tuple(&[]),
            tuple(&[PyValue::Int(-1), PyValue::text("z")]),
            tuple(&[PyValue::Int(2)]),
            tuple(&[PyValue::Long(2), PyValue::text("a")]),
            tuple(&[PyValue::Int(2), PyValue::str2(b"b")]),
        ];
        for (i, a) in ascending.iter().enumerate() {
            for (j, b) in ascending.iter().enumerate() {
                assert_eq!(order(a, b), Ok(i.cmp(&j)), "{a:?} {b:?}");
            }
        }
        let big = PyValue::BigInt([0, 0, 0, 0, 0, 0, 0, 0x80, 0].as_slice().into());
        assert_eq!(order(&PyValue::Int(i64::MAX), &big), Ok(Ordering::Less));
        assert_eq!(order(&PyValue::Bool(true), &PyValue::Int(1)), Ok(Ordering::Equal));
        assert_eq!(order(&PyValue::text("a"), &PyValue::str2(b"a")), Ok(Ordering::Equal));
        assert_eq!(order(&PyValue::text("\u{ffff}"), &PyValue::text("\u{10000}")), Ok(Ordering::Less));
    }

    #[test]
    fn what_python_would_have_to_decide_is_an_error() {
        for (a, b) in [
            (PyValue::Int(1), PyValue::text("1")),
            (PyValue::text("1"), PyValue::bytes(b"1")),
            (PyValue::text("ä"), PyValue::str2("ä".as_bytes())),
            (PyValue::Float(1.0), PyValue::Float(2.0)),
            (PyValue::None, PyValue::List(vec![])),
        ] {
            assert!(matches!(order(&a, &b), Err(RecordError::Incomparable { .. })), "{a:?} {b:?}");
        }
    }
}
