//! Keys and values of the families whose items are not Python objects: bounded integers, 32-bit floats, byte strings of
//! fixed length.

use super::class::ItemType;
use super::compare::{NodeValue, integer};
use super::refusal::Stop;
use super::shape::Kind;

type Result<T> = std::result::Result<T, Stop>;

/// Checks that a key or value has the type that BTrees takes for it when it loads a state.
pub fn check(item: ItemType, value: NodeValue<'_, '_>) -> Result<()> {
    let fits = match (item, value.kind()) {
        (ItemType::Object, _) => true,
        (ItemType::Int { min, max }, Kind::Int(value)) => {
            value >= min && u64::try_from(value).is_ok_and(|value| value <= max) || (min..0).contains(&value)
        }
        (ItemType::Int { min, max }, _) => {
            integer(value).is_some_and(|value| i128::from(min) <= value && value <= i128::from(max))
        }
        (ItemType::Float, Kind::Float(_)) => true,
        (ItemType::Float, _) => integer(value).is_some_and(|value| i64::try_from(value).is_ok()),
        (ItemType::Bytes(len), Kind::Str(part) | Kind::Bytes(part)) => value.shape.bytes(part).len() == len,
        (ItemType::Bytes(_), _) => false,
    };
    match (fits, value.kind()) {
        (true, _) => Ok(()),
        (false, Kind::Object(_) | Kind::Odd(_)) => Stop::unsure("numbers of unknown classes"),
        (false, _) => Stop::error("a key or value of the wrong type, or out of range"),
    }
}

/// Whether BTrees would write a key or value unchanged. BTrees holds numbers as C does, so `True` becomes 1 and a float
/// is rounded to 32 bits.
pub fn is_plain(item: ItemType, value: NodeValue<'_, '_>) -> bool {
    match (item, value.kind()) {
        (ItemType::Int { .. }, Kind::Bool(_)) => false,
        (ItemType::Float, Kind::Float(float)) => is_single(float),
        (ItemType::Float, _) => false,
        _ => true,
    }
}

/// Whether the number is exactly a 32-bit float.
#[allow(clippy::cast_possible_truncation)]
pub fn is_single(value: f64) -> bool {
    f64::from(value as f32).to_bits() == value.to_bits()
}

/// The 32-bit float that BTrees makes of a value.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
pub fn single(value: NodeValue<'_, '_>) -> f32 {
    match value.kind() {
        Kind::Float(value) => value as f32,
        _ => integer(value).map_or(f32::NAN, |value| value as f32),
    }
}

/// Whether two values are the same, in a family whose values are not objects.
pub fn are_same(item: ItemType, a: NodeValue<'_, '_>, b: NodeValue<'_, '_>) -> bool {
    use std::cmp::Ordering::{Greater, Less};
    match (item, a.kind(), b.kind()) {
        // In these families a NaN equals everything.
        (ItemType::Float, ..) => !matches!(single(a).partial_cmp(&single(b)), Some(Less | Greater)),
        (_, Kind::Int(a), Kind::Int(b)) => a == b,
        _ => integer(a) == integer(b),
    }
}

/// Two byte strings of fixed length. An ASCII `str` of Python 2 is text for Python 3, where these families have no
/// text.
pub fn fixed<'a>(python2: bool, a: NodeValue<'_, 'a>, b: NodeValue<'_, 'a>) -> Result<(&'a [u8], &'a [u8])> {
    let bytes = |value: NodeValue<'_, 'a>| match value.kind() {
        Kind::Bytes(part) => Some(value.shape.bytes(part)),
        Kind::Str(part) => Some(value.shape.bytes(part)).filter(|bytes| python2 || !bytes.is_ascii()),
        _ => None,
    };
    match (bytes(a), bytes(b)) {
        (Some(a), Some(b)) => Ok((a, b)),
        _ => Stop::unsure("strings of different types"),
    }
}
