//! Containers that are one record: mappings, lists and lengths.

use super::error::RecordError;
use super::format::Format;
use super::order::order;
use super::record::ObjectRecord;
use super::value::{Class, PyValue};
use crate::base::ids::Oid;

type Result<T> = std::result::Result<T, RecordError>;

/// The attribute of a mapping or list that has the items.
const DATA: &str = "data";
/// Its name in mappings of the first years.
const CONTAINER: &str = "_container";

/// A `PersistentMapping` or `PersistentDict`, or an object of a class of the application that derives from one: what
/// else its state has is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct PersistentMapping {
    record: ObjectRecord,
    attribute: &'static str,
}

impl PersistentMapping {
    /// An empty one.
    pub fn new(format: Format) -> PersistentMapping {
        let state = PyValue::Dict(vec![(format.native(DATA), PyValue::Dict(Vec::new()))]);
        let class = Class::new("persistent.mapping", "PersistentMapping");
        PersistentMapping { record: ObjectRecord::new(class, state, format), attribute: DATA }
    }

    /// The mapping of a record.
    ///
    /// Errors: its state is not a mapping's.
    pub fn of(record: ObjectRecord) -> Result<PersistentMapping> {
        let attribute = [DATA, CONTAINER].into_iter().find(|name| {
            record.attribute(name).is_some_and(|value| matches!(value.plain(), PyValue::Dict(_)))
        });
        match attribute {
            Some(attribute) => Ok(PersistentMapping { record, attribute }),
            None => Err(unexpected("a persistent mapping", &record)),
        }
    }

    /// The keys and values, in the order in which they were set.
    pub fn items(&self) -> &[(PyValue, PyValue)] {
        self.record.attribute(self.attribute).and_then(PyValue::as_dict).unwrap_or_default()
    }

    /// The value of a key.
    pub fn get(&self, key: impl Into<PyValue>) -> Option<&PyValue> {
        let key = key.into();
        self.items().iter().rev().find(|(other, _)| is_same(&key, other)).map(|(_, value)| value)
    }

    /// The object that is the value of a key.
    pub fn reference(&self, key: impl Into<PyValue>) -> Option<Oid> {
        self.get(key)?.as_oid()
    }

    /// Sets a value; returns the former one. A text that is a new key becomes what Python calls `str`.
    pub fn insert(&mut self, key: impl Into<PyValue>, value: PyValue) -> Option<PyValue> {
        let mut key = key.into();
        if self.record.format.is_python2()
            && let PyValue::Text(text) = &key
            && text.is_ascii()
        {
            key = self.record.format.native(text);
        }
        let pairs = self.pairs_mut()?;
        match pairs.iter_mut().rev().find(|(other, _)| is_same(&key, other)) {
            Some((_, old)) => Some(std::mem::replace(old, value)),
            None => {
                pairs.push((key, value));
                None
            }
        }
    }

    /// Removes a key; returns its value.
    pub fn remove(&mut self, key: impl Into<PyValue>) -> Option<PyValue> {
        let key = key.into();
        let old = self.get(key.clone()).cloned();
        if old.is_some() {
            self.pairs_mut()?.retain(|(other, _)| !is_same(&key, other));
        }
        old
    }

    /// The record.
    pub fn record(&self) -> &ObjectRecord {
        &self.record
    }

    fn pairs_mut(&mut self) -> Option<&mut Vec<(PyValue, PyValue)>> {
        match attribute_mut(&mut self.record, self.attribute)? {
            PyValue::Dict(pairs) => Some(pairs),
            _ => None,
        }
    }
}

impl From<PersistentMapping> for ObjectRecord {
    fn from(mapping: PersistentMapping) -> ObjectRecord {
        mapping.record
    }
}

/// A `PersistentList`, or an object of a class of the application that derives from it.
#[derive(Clone, Debug, PartialEq)]
pub struct PersistentList {
    record: ObjectRecord,
}

impl PersistentList {
    /// An empty one.
    pub fn new(format: Format) -> PersistentList {
        let state = PyValue::Dict(vec![(format.native(DATA), PyValue::List(Vec::new()))]);
        let class = Class::new("persistent.list", "PersistentList");
        PersistentList { record: ObjectRecord::new(class, state, format) }
    }

    /// The list of a record.
    ///
    /// Errors: its state is not a list's.
    pub fn of(record: ObjectRecord) -> Result<PersistentList> {
        match record.attribute(DATA).map(PyValue::plain) {
            Some(PyValue::List(_)) => Ok(PersistentList { record }),
            _ => Err(unexpected("a persistent list", &record)),
        }
    }

    /// The items.
    pub fn items(&self) -> &[PyValue] {
        self.record.attribute(DATA).and_then(PyValue::as_items).unwrap_or_default()
    }

    /// The items, for changing them.
    ///
    /// Errors: none for a list that [`PersistentList::of`] has accepted.
    pub fn items_mut(&mut self) -> Result<&mut Vec<PyValue>> {
        match attribute_mut(&mut self.record, DATA) {
            Some(PyValue::List(items)) => Ok(items),
            _ => Err(RecordError::Unexpected { wanted: "a list", found: "something else".into() }),
        }
    }

    /// The record.
    pub fn record(&self) -> &ObjectRecord {
        &self.record
    }
}

impl From<PersistentList> for ObjectRecord {
    fn from(list: PersistentList) -> ObjectRecord {
        list.record
    }
}

/// A `BTrees.Length.Length`: a number that transactions can change at the same time, because the server merges it.
#[derive(Clone, Debug, PartialEq)]
pub struct Length {
    record: ObjectRecord,
}

impl Length {
    /// One of this value.
    pub fn new(value: i64, format: Format) -> Length {
        Length {
            record: ObjectRecord::new(Class::new("BTrees.Length", "Length"), PyValue::Int(value), format),
        }
    }

    /// The length of a record.
    ///
    /// Errors: its state is no integer of 64 bits.
    pub fn of(record: ObjectRecord) -> Result<Length> {
        let length = Length { record };
        match length.integer() {
            Some(_) => Ok(length),
            None => Err(unexpected("a length", &length.record)),
        }
    }

    /// The value.
    pub fn value(&self) -> i64 {
        self.integer().unwrap_or_default()
    }

    /// Adds to it.
    ///
    /// Errors: the sum has more than 64 bits.
    pub fn change(&mut self, delta: i64) -> Result<()> {
        let sum = self.value().checked_add(delta);
        self.record.state = PyValue::Int(sum.ok_or(RecordError::TooLarge)?);
        Ok(())
    }

    fn integer(&self) -> Option<i64> {
        self.record.state.as_integer().and_then(|value| i64::try_from(value).ok())
    }
}

impl From<Length> for ObjectRecord {
    fn from(length: Length) -> ObjectRecord {
        length.record
    }
}

fn attribute_mut<'r>(record: &'r mut ObjectRecord, name: &str) -> Option<&'r mut PyValue> {
    let PyValue::Dict(pairs) = record.state.plain_mut() else { return None };
    let (_, value) = pairs.iter_mut().rev().find(|(key, _)| key.as_text() == Some(name))?;
    Some(value.plain_mut())
}

/// Whether two keys of a dict are one.
fn is_same(a: &PyValue, b: &PyValue) -> bool {
    a == b || order(a, b).is_ok_and(std::cmp::Ordering::is_eq)
}

fn unexpected(wanted: &'static str, record: &ObjectRecord) -> RecordError {
    let class = record.class_name().map_or_else(|| "an object".into(), |class| format!("a {class}"));
    RecordError::Unexpected { wanted, found: format!("{class} whose state is {}", record.state.type_name()) }
}
