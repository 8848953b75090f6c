//! How Python compares two values read from records: equal or not, less or greater, or unknown.
//!
//! Values of built-in types compare as in Python. Where Python 2 and 3 differ, the comparison follows the one that
//! wrote the records, or is unknown if that is not known. A persistent reference stands for an object that is not
//! loaded: it equals only a reference to the same object, and comparing it with another reference is an error, as in
//! ZODB. Instances of classes are equal if they were pickled from equal parts; otherwise only their class can compare
//! them.

use std::cmp::Ordering;
use std::iter::zip;

use super::class::joined;
use super::refusal::Stop;
use super::shape::{Chain, DEPTH_MAX, Kind, NodeId, Shape};
use crate::pickle::number::widened;

/// A value in a scanned record.
#[derive(Clone, Copy)]
pub struct NodeValue<'s, 'a> {
    pub shape: &'s Shape<'a>,
    pub id: NodeId,
    kind: Kind,
}

impl<'s, 'a> NodeValue<'s, 'a> {
    pub fn new(shape: &'s Shape<'a>, id: NodeId) -> NodeValue<'s, 'a> {
        NodeValue { shape, id, kind: shape.kind(id) }
    }

    pub fn kind(self) -> Kind {
        self.kind
    }

    fn at(self, id: NodeId) -> NodeValue<'s, 'a> {
        NodeValue::new(self.shape, id)
    }

    fn string(self) -> Option<&'a [u8]> {
        self.shape.string(self.id)
    }

    /// Bytes that a comparison may have to read, without those of the value's parts.
    fn len(self) -> usize {
        match self.kind {
            Kind::BigInt(part)
            | Kind::Digits(part)
            | Kind::Bytes(part)
            | Kind::Str(part)
            | Kind::Text(part)
            | Kind::Odd(part)
            | Kind::Global(part) => self.shape.bytes(part).len(),
            Kind::GlobalOf(module, name) => {
                let len = |id| self.shape.string(id).map_or(0, <[u8]>::len);
                len(module).saturating_add(len(name))
            }
            _ => 0,
        }
    }

    fn class(self) -> String {
        let name = |id| self.shape.global(id).map(|(module, name)| joined(module, name));
        let unknown = || "an unknown class".to_string();
        match self.kind() {
            Kind::Object(chain) => self.shape.contents(chain).find_map(name).unwrap_or_else(unknown),
            Kind::Global(_) | Kind::GlobalOf(..) => name(self.id).unwrap_or_else(unknown),
            Kind::Reference(_) => "a persistent reference".to_string(),
            Kind::Odd(_) => "a value in the form of protocol 0".to_string(),
            _ => "values of different types".to_string(),
        }
    }
}

/// Compares values. The number of steps is limited, because a shared value may be compared again at each reference.
pub struct Comparer {
    /// All records were written by Python 2.
    python2: bool,
    /// Steps left
    left: usize,
}

/// Bytes that are compared in one step.
const STEP_LEN: usize = 4;

/// A number
enum Number {
    Int(i128),
    Float(f64),
}

type Result<T> = std::result::Result<T, Stop>;

const REFERENCES: &str = "a persistent reference is compared with another";

impl Comparer {
    /// The comparer of one merge, for records of this total length.
    pub fn new(python2: bool, len: usize) -> Comparer {
        Comparer { python2, left: len.saturating_mul(8).saturating_add(4096) }
    }

    /// The order of two keys; in BTrees `None` is before everything.
    pub fn keys(&mut self, a: NodeValue<'_, '_>, b: NodeValue<'_, '_>) -> Result<Ordering> {
        match (a.kind(), b.kind()) {
            (Kind::Int(a), Kind::Int(b)) => return Ok(a.cmp(&b)),
            (Kind::Text(x), Kind::Text(y)) => {
                let (x, y) = (a.shape.bytes(x), b.shape.bytes(y));
                self.pay(x.len().min(y.len()) / STEP_LEN)?;
                return Ok(x.cmp(y));
            }
            (Kind::None, Kind::None) => return Ok(Ordering::Equal),
            (Kind::None, _) => return Ok(Ordering::Less),
            (_, Kind::None) => return Ok(Ordering::Greater),
            _ => {}
        }
        self.order(a, b, 0)
    }

    /// Whether two values are equal. In BTrees `None` equals only `None`.
    pub fn values(&mut self, a: NodeValue<'_, '_>, b: NodeValue<'_, '_>) -> Result<bool> {
        match (a.kind(), b.kind()) {
            (Kind::None, Kind::None) => Ok(true),
            (Kind::None, _) | (_, Kind::None) => Ok(false),
            _ => self.equal(a, b, 0),
        }
    }

    /// Whether two references are the same object while a conflict is resolved: ZODB makes one object of equal data.
    pub fn same_reference(&mut self, a: NodeValue<'_, '_>, b: NodeValue<'_, '_>) -> Result<bool> {
        match (a.kind(), b.kind()) {
            (Kind::None, Kind::None) => Ok(true),
            (Kind::Reference(x), Kind::Reference(y)) => self.identical(a.at(x), b.at(y), 0),
            (Kind::Reference(_), Kind::None) | (Kind::None, Kind::Reference(_)) => Ok(false),
            _ => Stop::unsure("the next bucket is no reference"),
        }
    }

    /// The order by Python's `<` and `==`.
    pub fn order(&mut self, a: NodeValue<'_, '_>, b: NodeValue<'_, '_>, depth: u32) -> Result<Ordering> {
        self.step(a, b, depth)?;
        if let (Some(x), Some(y)) = (number(a), number(b)) {
            // A NaN has no order.
            return order_numbers(&x, &y).map_or_else(|| Stop::unsure("a NaN as key"), Ok);
        }
        match (a.kind(), b.kind()) {
            (
                Kind::Str(_) | Kind::Bytes(_) | Kind::Text(_),
                Kind::Str(_) | Kind::Bytes(_) | Kind::Text(_),
            ) => self.order_strings(a, b),
            (Kind::Tuple(x), Kind::Tuple(y)) => {
                let (x, y) = (a.shape.kids(x), b.shape.kids(y));
                for (x, y) in zip(x, y) {
                    let (x, y) = (a.at(x.node), b.at(y.node));
                    if !self.equal(x, y, depth + 1)? {
                        return self.order(x, y, depth + 1);
                    }
                }
                Ok(x.len().cmp(&y.len()))
            }
            (Kind::Reference(_), Kind::Reference(_)) => match self.equal(a, b, depth)? {
                true => Ok(Ordering::Equal),
                false => Stop::error(REFERENCES),
            },
            (Kind::None, Kind::None) => Ok(Ordering::Equal),
            (Kind::Object(_), Kind::Object(_)) if self.identical(a, b, depth)? => Ok(Ordering::Equal),
            _ => match (rank(a), rank(b)) {
                (Some(x), Some(y)) if self.python2 && x != y => Ok(x.cmp(y)),
                _ => Stop::unsure(unsure(a, b)),
            },
        }
    }

    fn order_strings(&mut self, a: NodeValue<'_, '_>, b: NodeValue<'_, '_>) -> Result<Ordering> {
        let (x, y) = (a.string().unwrap_or_default(), b.string().unwrap_or_default());
        let sure = match (a.kind(), b.kind()) {
            (Kind::Text(_), Kind::Text(_)) | (Kind::Bytes(_), Kind::Bytes(_)) => true,
            // Python 3 reads a `str` of Python 2 as text if it is ASCII, otherwise as bytes.
            (Kind::Str(_), Kind::Str(_)) => self.python2 || x.is_ascii() == y.is_ascii(),
            (Kind::Str(_), Kind::Text(_)) => x.is_ascii(),
            (Kind::Text(_), Kind::Str(_)) => y.is_ascii(),
            _ => false,
        };
        // UTF-8 sorts as code points do.
        if sure { Ok(x.cmp(y)) } else { Stop::unsure("strings of different types") }
    }

    /// Equality by Python's `==`.
    fn equal(&mut self, a: NodeValue<'_, '_>, b: NodeValue<'_, '_>, depth: u32) -> Result<bool> {
        self.step(a, b, depth)?;
        if let (Some(x), Some(y)) = (number(a), number(b)) {
            return Ok(order_numbers(&x, &y) == Some(Ordering::Equal));
        }
        match (a.kind(), b.kind()) {
            (Kind::None, Kind::None) => Ok(true),
            (
                Kind::Str(_) | Kind::Bytes(_) | Kind::Text(_),
                Kind::Str(_) | Kind::Bytes(_) | Kind::Text(_),
            ) => equal_strings(a, b).map_or_else(|| Stop::unsure("strings of different types"), Ok),
            (Kind::Tuple(x), Kind::Tuple(y)) => {
                let (x, y) = (a.shape.kids(x), b.shape.kids(y));
                for (x, y) in zip(x, y) {
                    if !self.equal(a.at(x.node), b.at(y.node), depth + 1)? {
                        return Ok(false);
                    }
                }
                Ok(x.len() == y.len())
            }
            (Kind::List(x), Kind::List(y)) => {
                // Python compares the lengths of lists first, but not of tuples.
                let count = |list: NodeValue<'_, '_>, x| {
                    list.shape.steps(x).map(|step| list.shape.kids(step.kids).len()).sum::<usize>()
                };
                let (x_steps, y_steps) = (a.shape.steps(x).count(), b.shape.steps(y).count());
                self.pay(x_steps.saturating_add(y_steps))?;
                if count(a, x) != count(b, y) {
                    return Ok(false);
                }
                let (mut x, mut y) = (a.shape.contents(x), b.shape.contents(y));
                loop {
                    match (x.next(), y.next()) {
                        (Some(x), Some(y)) => {
                            if !self.equal(a.at(x), b.at(y), depth + 1)? {
                                return Ok(false);
                            }
                        }
                        (None, None) => return Ok(true),
                        _ => return Ok(false),
                    }
                }
            }
            (Kind::Dict(x), Kind::Dict(y)) => self.equal_dicts(a, x, b, y, depth),
            (Kind::Reference(x), Kind::Reference(y)) => {
                if self.identical(a.at(x), b.at(y), depth)? {
                    return Ok(true);
                }
                match (target(a.at(x)), target(b.at(y))) {
                    (Some(x), Some(y)) if x == y => Ok(true),
                    (Some(_) | None, Some(_) | None) => Stop::error(REFERENCES),
                }
            }
            // In Python 2 the object's class may answer before the reference raises its error.
            (Kind::Reference(_), Kind::Object(_)) | (Kind::Object(_), Kind::Reference(_)) if self.python2 => {
                Stop::unsure(unsure(a, b))
            }
            (Kind::Reference(_), _) | (_, Kind::Reference(_)) => {
                Stop::error("a persistent reference is compared with another type")
            }
            _ if rank(a).is_some() && rank(b).is_some() => Ok(false),
            _ => match self.identical(a, b, depth)? {
                true => Ok(true),
                false => Stop::unsure(unsure(a, b)),
            },
        }
    }

    /// Compares dicts whose keys are in the same order, or are all simple.
    fn equal_dicts(
        &mut self,
        a: NodeValue<'_, '_>,
        x: Chain,
        b: NodeValue<'_, '_>,
        y: Chain,
        depth: u32,
    ) -> Result<bool> {
        let (mut x, mut y) = (pairs(a, x), pairs(b, y));
        self.pay(x.len().saturating_add(y.len()))?;
        if x.len() != y.len() {
            return match simple(a, &x) && simple(b, &y) {
                true => Ok(false),
                // A key may occur twice.
                false => Stop::unsure("dicts with unusual keys"),
            };
        }
        let aligned =
            zip(&x, &y).all(|((x, _), (y, _))| matches!(self.identical(a.at(*x), b.at(*y), depth), Ok(true)));
        if !aligned {
            if !simple(a, &x) || !simple(b, &y) {
                return Stop::unsure("dicts with unusual keys");
            }
            // One long key may occur many times.
            let key_len = |dict: NodeValue<'_, '_>, keys: &[(NodeId, NodeId)]| {
                keys.iter().map(|(key, _)| dict.at(*key).len()).fold(0, usize::saturating_add)
            };
            self.pay(key_len(a, &x).saturating_add(key_len(b, &y)) / STEP_LEN)?;
            x.sort_by(|(x, _), (y, _)| a.at(*x).string().cmp(&a.at(*y).string()));
            y.sort_by(|(x, _), (y, _)| b.at(*x).string().cmp(&b.at(*y).string()));
            for ((x, _), (y, _)) in zip(&x, &y) {
                if !self.equal(a.at(*x), b.at(*y), depth + 1)? {
                    return Ok(false);
                }
            }
        }
        for ((_, x), (_, y)) in zip(&x, &y) {
            if !self.equal(a.at(*x), b.at(*y), depth + 1)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether two values were pickled from the same parts: then they are unchanged, whatever their class does.
    fn identical(&mut self, a: NodeValue<'_, '_>, b: NodeValue<'_, '_>, depth: u32) -> Result<bool> {
        self.step(a, b, depth)?;
        Ok(match (a.kind(), b.kind()) {
            (Kind::None, Kind::None) => true,
            (Kind::Bool(x), Kind::Bool(y)) => x == y,
            (Kind::Int(x), Kind::Int(y)) => x == y,
            (Kind::BigInt(x), Kind::BigInt(y))
            | (Kind::Digits(x), Kind::Digits(y))
            | (Kind::Odd(x), Kind::Odd(y)) => a.shape.bytes(x) == b.shape.bytes(y),
            (Kind::Float(x), Kind::Float(y)) => x.to_bits() == y.to_bits(),
            (Kind::Text(x), Kind::Text(y)) => a.shape.bytes(x) == b.shape.bytes(y),
            (Kind::Str(_) | Kind::Bytes(_), Kind::Str(_) | Kind::Bytes(_)) => {
                equal_strings(a, b) == Some(true)
            }
            (Kind::Tuple(x), Kind::Tuple(y)) => {
                let (x, y) = (a.shape.kids(x), b.shape.kids(y));
                if x.len() != y.len() {
                    return Ok(false);
                }
                for (x, y) in zip(x, y) {
                    if !self.identical(a.at(x.node), b.at(y.node), depth + 1)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Kind::Global(_) | Kind::GlobalOf(..), Kind::Global(_) | Kind::GlobalOf(..)) => {
                a.shape.global(a.id).is_some_and(|name| b.shape.global(b.id) == Some(name))
            }
            (Kind::Reference(x), Kind::Reference(y)) => self.identical(a.at(x), b.at(y), depth + 1)?,
            (Kind::List(x), Kind::List(y))
            | (Kind::Dict(x), Kind::Dict(y))
            | (Kind::Set(x), Kind::Set(y))
            | (Kind::Object(x), Kind::Object(y)) => self.identical_steps(a, x, b, y, depth)?,
            _ => false,
        })
    }

    fn identical_steps(
        &mut self,
        a: NodeValue<'_, '_>,
        x: Chain,
        b: NodeValue<'_, '_>,
        y: Chain,
        depth: u32,
    ) -> Result<bool> {
        let (mut x, mut y) = (a.shape.steps(x), b.shape.steps(y));
        loop {
            match (x.next(), y.next()) {
                (Some(x), Some(y)) => {
                    let opcode = x.opcode == y.opcode;
                    let (x, y) = (a.shape.kids(x.kids), b.shape.kids(y.kids));
                    if !opcode || x.len() != y.len() {
                        return Ok(false);
                    }
                    for (x, y) in zip(x, y) {
                        if !self.identical(a.at(x.node), b.at(y.node), depth + 1)? {
                            return Ok(false);
                        }
                    }
                }
                (None, None) => return Ok(true),
                _ => return Ok(false),
            }
        }
    }

    /// Counts the comparison of two values, because a long string may be compared for any number of keys.
    fn step(&mut self, a: NodeValue<'_, '_>, b: NodeValue<'_, '_>, depth: u32) -> Result<()> {
        if depth > DEPTH_MAX {
            return Stop::unsure("values that are nested too deeply");
        }
        self.pay(1 + a.len().saturating_add(b.len()) / STEP_LEN)
    }

    fn pay(&mut self, steps: usize) -> Result<()> {
        match self.left.checked_sub(steps) {
            Some(left) => self.left = left,
            None => {
                self.left = 0;
                return Stop::unsure("values that share too much");
            }
        }
        Ok(())
    }
}

fn unsure(a: NodeValue<'_, '_>, b: NodeValue<'_, '_>) -> String {
    match (rank(a), a.kind()) {
        (None, _) => a.class(),
        (Some(_), Kind::None) => "None beside other keys".to_string(),
        _ => b.class(),
    }
}

/// The rank of a built-in type among the others in Python 2: `None`, numbers, then by name.
fn rank(value: NodeValue<'_, '_>) -> Option<&'static str> {
    Some(match value.kind() {
        Kind::None => " ",
        Kind::Bool(_) | Kind::Int(_) | Kind::BigInt(_) | Kind::Digits(_) | Kind::Float(_) => "!",
        Kind::Dict(_) => "dict",
        Kind::List(_) => "list",
        Kind::Str(_) | Kind::Bytes(_) => "str",
        Kind::Tuple(_) => "tuple",
        Kind::Text(_) => "unicode",
        _ => return None,
    })
}

/// Whether two strings are equal; `None` if the Pythons disagree.
fn equal_strings(a: NodeValue<'_, '_>, b: NodeValue<'_, '_>) -> Option<bool> {
    let (x, y) = (a.string()?, b.string()?);
    let same = x == y;
    match (a.kind(), b.kind()) {
        (Kind::Str(_), Kind::Str(_)) | (Kind::Bytes(_), Kind::Bytes(_)) | (Kind::Text(_), Kind::Text(_)) => {
            Some(same)
        }
        // `str` of Python 2 is text in Python 3 if it is ASCII, otherwise bytes.
        (Kind::Str(_), Kind::Bytes(_)) | (Kind::Bytes(_), Kind::Str(_)) => {
            (!same || !x.is_ascii()).then_some(same)
        }
        // For others Python 2 only warns.
        (Kind::Str(_), Kind::Text(_)) => x.is_ascii().then_some(same),
        (Kind::Text(_), Kind::Str(_)) => y.is_ascii().then_some(same),
        _ => (!same).then_some(false),
    }
}

fn number(value: NodeValue<'_, '_>) -> Option<Number> {
    match value.kind() {
        Kind::Float(value) => Some(Number::Float(value)),
        _ => integer(value).map(Number::Int),
    }
}

/// An integer of up to 128 bits.
pub fn integer(value: NodeValue<'_, '_>) -> Option<i128> {
    match value.kind() {
        Kind::Int(value) => Some(value.into()),
        Kind::Bool(value) => Some(value.into()),
        Kind::BigInt(part) => widened(value.shape.bytes(part)).map(i128::from_le_bytes),
        Kind::Digits(part) => str::from_utf8(value.shape.bytes(part)).ok()?.parse().ok(),
        _ => None,
    }
}

fn order_numbers(a: &Number, b: &Number) -> Option<Ordering> {
    match (a, b) {
        (Number::Int(a), Number::Int(b)) => Some(a.cmp(b)),
        (Number::Float(a), Number::Float(b)) => a.partial_cmp(b),
        (Number::Int(a), Number::Float(b)) => order_int_float(*a, *b),
        (Number::Float(a), Number::Int(b)) => order_int_float(*b, *a).map(Ordering::reverse),
    }
}

/// Compares exactly, as Python does.
fn order_int_float(a: i128, b: f64) -> Option<Ordering> {
    const LIMIT: f64 = 1.7e38; // below 2^127
    if b.is_nan() {
        return None;
    }
    if b > LIMIT {
        return Some(Ordering::Less);
    }
    if b < -LIMIT {
        return Some(Ordering::Greater);
    }
    #[allow(clippy::cast_possible_truncation)] // the fraction is looked at next
    let whole = b.trunc() as i128;
    match a.cmp(&whole) {
        Ordering::Equal => 0.0.partial_cmp(&b.fract()),
        other => Some(other),
    }
}

/// Keys and values of a dict in the order in which they were set
fn pairs(dict: NodeValue<'_, '_>, chain: Chain) -> Vec<(NodeId, NodeId)> {
    let mut pairs = Vec::new();
    let mut contents = dict.shape.contents(chain);
    while let (Some(key), Some(value)) = (contents.next(), contents.next()) {
        pairs.push((key, value));
    }
    pairs
}

/// Whether all keys are strings of one type.
fn simple(dict: NodeValue<'_, '_>, pairs: &[(NodeId, NodeId)]) -> bool {
    let kinds = |id: NodeId| match dict.shape.kind(id) {
        Kind::Str(_) => 1,
        Kind::Text(_) => 2,
        Kind::Bytes(_) => 4,
        _ => 8,
    };
    matches!(pairs.iter().fold(0, |all, (key, _)| all | kinds(*key)), 0..=2 | 4)
}

/// What a persistent reference refers to.
#[derive(Eq, PartialEq)]
struct Target<'a> {
    oid: &'a [u8],
    database: Option<&'a [u8]>,
}

/// The target of a reference; `None` for a weak one, which equals only itself.
fn target<'a>(reference: NodeValue<'_, 'a>) -> Option<Target<'a>> {
    let oid = |id: NodeId| reference.shape.string(id);
    match reference.kind() {
        Kind::Str(_) | Kind::Bytes(_) | Kind::Text(_) => {
            Some(Target { oid: oid(reference.id)?, database: None })
        }
        Kind::Tuple(parts) => match reference.shape.kids(parts) {
            [id, _class] => Some(Target { oid: oid(id.node)?, database: None }),
            _ => None,
        },
        Kind::List(parts) => {
            let mut parts = reference.shape.contents(parts);
            let (form, args, None) = (parts.next()?, parts.next()?, parts.next()) else { return None };
            let args = reference.shape.tuple(args)?;
            match (oid(form)?, args) {
                (b"m", [database, id, _]) | (b"n", [database, id]) => {
                    Some(Target { oid: oid(id.node)?, database: Some(oid(database.node)?) })
                }
                _ => None,
            }
        }
        _ => None,
    }
}
