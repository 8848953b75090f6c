//! Python's values as data.

use std::fmt;
use std::sync::Arc;

use crate::base::ids::Oid;
use crate::pickle::number::widened;

/// A value in a record.
///
/// Two values are equal if all their parts are. Unlike in Python, a `Text` never equals a `Str`, nor an `Int` a `Long`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum PyValue {
    /// `None`
    None,
    /// `True`, `False`
    Bool(bool),
    /// An integer; `int` in Python 2.
    Int(i64),
    /// A `long` of Python 2.
    Long(i64),
    /// An integer beyond 64 bits: two's complement, little endian.
    BigInt(Arc<[u8]>),
    /// A float.
    Float(f64),
    /// A text: `str` in Python 3, `unicode` in Python 2.
    Text(Arc<str>),
    /// A text with lone surrogates, which Rust's text cannot have: UTF-8 with surrogates of three bytes.
    Surrogates(Arc<[u8]>),
    /// `bytes` of Python 3.
    Bytes(Arc<[u8]>),
    /// `str` of Python 2: bytes, or a text; nobody but the application knows.
    Str(Arc<[u8]>),
    /// `bytearray`
    ByteArray(Arc<[u8]>),
    /// A tuple.
    Tuple(Vec<PyValue>),
    /// A list.
    List(Vec<PyValue>),
    /// A dict: keys and values in the order in which they were set. Of equal keys the last one counts.
    Dict(Vec<(PyValue, PyValue)>),
    /// A set.
    Set(Vec<PyValue>),
    /// A frozenset.
    FrozenSet(Vec<PyValue>),
    /// A class or a function, by its name.
    Class(Class),
    /// A code of the extension registry (`copyreg.add_extension`).
    Extension(u32),
    /// A reference to a persistent object.
    Reference(Arc<Reference>),
    /// An object that is part of this record.
    Instance(Box<Instance>),
    /// A value that occurs in several places of the record: for Python it is one object. [`PyValue::plain`] sees
    /// through it. Who changes one occurrence makes it an object of its own.
    Shared(Arc<PyValue>),
}

/// The name of a class or function.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Class {
    /// Such as `BTrees.OOBTree`.
    pub module: Arc<str>,
    /// Such as `OOBTree`.
    pub name: Arc<str>,
}

impl Class {
    /// The class of this module and name.
    pub fn new(module: &str, name: &str) -> Class {
        Class { module: module.into(), name: name.into() }
    }

    /// Whether it is this one.
    pub fn is(&self, module: &str, name: &str) -> bool {
        *self.module == *module && *self.name == *name
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.module, self.name)
    }
}

/// A persistent reference, in any form that ZODB has written.
#[derive(Clone, Debug, PartialEq)]
pub enum Reference {
    /// To an object of this database.
    Object {
        /// The object.
        oid: Oid,
        /// Its class, a [`PyValue::Class`] nearly always, so that it needs not be loaded to make a ghost of it. ZODB
        /// leaves it out for classes with `__getnewargs__`.
        class: Option<PyValue>,
    },
    /// A weak one (`persistent.wref`), which does not keep the object alive.
    Weak {
        /// The object.
        oid: Oid,
        /// The database, if it is another one.
        database: Option<PyValue>,
    },
    /// To an object of another database.
    Foreign {
        /// The name of the database.
        database: PyValue,
        /// The object there.
        oid: Oid,
        /// Its class.
        class: Option<PyValue>,
    },
    /// None of these forms: the persistent id as it was.
    Unknown(PyValue),
}

/// How an [`Instance`] is made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Construction {
    /// `class.__new__(class, *args)`
    New,
    /// The same with keywords: the arguments are a tuple and a dict.
    NewWithKeywords,
    /// `class(*args)`; often not a class but a function such as `copy_reg._reconstructor`.
    Call,
    /// An instance of a classic class of Python 2; without arguments `__init__` is not called.
    Classic,
}

/// An object that is not persistent by itself, as the parts it was pickled from.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// How it is made.
    pub construction: Construction,
    /// A [`PyValue::Class`] or [`PyValue::Extension`].
    pub class: PyValue,
    /// The arguments.
    pub args: Vec<PyValue>,
    /// What `__setstate__` gets, or a dict of the attributes.
    pub state: Option<PyValue>,
    /// Items of a subclass of list.
    pub items: Vec<PyValue>,
    /// Keys and values of a subclass of dict.
    pub pairs: Vec<(PyValue, PyValue)>,
}

/// A `datetime.datetime` without a time zone.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[allow(missing_docs)] // the names say all
pub struct DateTime {
    pub year: u16,
    pub month: u8,
    pub day: u8,
    pub hour: u8,
    pub minute: u8,
    pub second: u8,
    pub microsecond: u32,
}

impl PyValue {
    /// A [`PyValue::Text`].
    pub fn text(text: &str) -> PyValue {
        PyValue::Text(text.into())
    }

    /// A [`PyValue::Bytes`].
    pub fn bytes(bytes: &[u8]) -> PyValue {
        PyValue::Bytes(bytes.into())
    }

    /// A [`PyValue::Str`], for databases of Python 2.
    pub fn str2(bytes: &[u8]) -> PyValue {
        PyValue::Str(bytes.into())
    }

    /// A reference to an object of this class.
    pub fn reference(oid: Oid, class: &Class) -> PyValue {
        let class = Some(PyValue::Class(class.clone()));
        PyValue::Reference(Arc::new(Reference::Object { oid, class }))
    }

    /// The value itself, if it is a [`PyValue::Shared`] one.
    pub fn plain(&self) -> &PyValue {
        let mut value = self;
        while let PyValue::Shared(shared) = value {
            value = shared;
        }
        value
    }

    /// The value itself, for changing it: if it was shared, it becomes one of its own.
    pub fn plain_mut(&mut self) -> &mut PyValue {
        if let PyValue::Shared(_) = self {
            *self = self.plain().clone();
        }
        self
    }

    /// An integer of up to 128 bits, of any type; `True` and `False` are integers in Python.
    pub fn as_integer(&self) -> Option<i128> {
        match self.plain() {
            PyValue::Bool(value) => Some((*value).into()),
            PyValue::Int(value) | PyValue::Long(value) => Some((*value).into()),
            PyValue::BigInt(bytes) => widened(bytes).map(i128::from_le_bytes),
            _ => None,
        }
    }

    /// A text: [`PyValue::Text`], or a `Str` of Python 2 that is UTF-8.
    pub fn as_text(&self) -> Option<&str> {
        match self.plain() {
            PyValue::Text(text) => Some(text),
            PyValue::Str(bytes) => str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// Bytes: [`PyValue::Bytes`], `Str` or `ByteArray`.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self.plain() {
            PyValue::Bytes(bytes) | PyValue::Str(bytes) | PyValue::ByteArray(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The items of a tuple or list.
    pub fn as_items(&self) -> Option<&[PyValue]> {
        match self.plain() {
            PyValue::Tuple(items) | PyValue::List(items) => Some(items),
            _ => None,
        }
    }

    /// The keys and values of a dict.
    pub fn as_dict(&self) -> Option<&[(PyValue, PyValue)]> {
        match self.plain() {
            PyValue::Dict(pairs) => Some(pairs),
            _ => None,
        }
    }

    /// The object that a reference to this database refers to, if it is not a weak one.
    pub fn as_oid(&self) -> Option<Oid> {
        match self.plain() {
            PyValue::Reference(reference) => match **reference {
                Reference::Object { oid, .. } => Some(oid),
                _ => None,
            },
            _ => None,
        }
    }

    /// The instance.
    pub fn as_instance(&self) -> Option<&Instance> {
        match self.plain() {
            PyValue::Instance(instance) => Some(instance),
            _ => None,
        }
    }

    /// A `datetime.datetime` without a time zone.
    pub fn as_datetime(&self) -> Option<DateTime> {
        let instance = self.as_instance()?;
        match &instance.class {
            PyValue::Class(class) if class.is("datetime", "datetime") => {}
            _ => return None,
        }
        let [packed] = instance.args.as_slice() else { return None };
        let bytes: [u8; 10] = packed.as_bytes()?.try_into().ok()?;
        let [year1, year2, month, day, hour, minute, second, micro1, micro2, micro3] = bytes;
        Some(DateTime {
            year: u16::from_be_bytes([year1, year2]),
            // The highest bit is for the second of two equal hours, in autumn.
            month: month & 0x7f,
            day,
            hour,
            minute,
            second,
            microsecond: u32::from_be_bytes([0, micro1, micro2, micro3]),
        })
    }

    /// A `datetime.datetime` without a time zone, for Python 3; ranges are not checked.
    pub fn datetime(when: DateTime) -> PyValue {
        let ([year1, year2], [_, micro1, micro2, micro3]) =
            (when.year.to_be_bytes(), when.microsecond.to_be_bytes());
        let packed =
            [year1, year2, when.month, when.day, when.hour, when.minute, when.second, micro1, micro2, micro3];
        PyValue::Instance(Box::new(Instance {
            construction: Construction::Call,
            class: PyValue::Class(Class::new("datetime", "datetime")),
            args: vec![PyValue::bytes(&packed)],
            state: None,
            items: Vec::new(),
            pairs: Vec::new(),
        }))
    }

    /// The type in Python's words, for messages.
    pub fn type_name(&self) -> String {
        match self.plain() {
            PyValue::None => "None".into(),
            PyValue::Bool(_) => "a bool".into(),
            PyValue::Int(_) => "an int".into(),
            PyValue::Long(_) | PyValue::BigInt(_) => "a long".into(),
            PyValue::Float(_) => "a float".into(),
            PyValue::Text(_) | PyValue::Surrogates(_) => "a text".into(),
            PyValue::Bytes(_) => "bytes".into(),
            PyValue::Str(_) => "a str of Python 2".into(),
            PyValue::ByteArray(_) => "a bytearray".into(),
            PyValue::Tuple(_) => "a tuple".into(),
            PyValue::List(_) => "a list".into(),
            PyValue::Dict(_) => "a dict".into(),
            PyValue::Set(_) => "a set".into(),
            PyValue::FrozenSet(_) => "a frozenset".into(),
            PyValue::Class(class) => format!("the class {class}"),
            PyValue::Extension(code) => format!("the registered class {code}"),
            PyValue::Reference(_) => "a persistent reference".into(),
            PyValue::Instance(instance) => match &instance.class {
                PyValue::Class(class) => format!("an instance of {class}"),
                _ => "an instance of a registered class".into(),
            },
            PyValue::Shared(_) => "a shared value".into(),
        }
    }
}

impl From<i64> for PyValue {
    fn from(value: i64) -> PyValue {
        PyValue::Int(value)
    }
}

impl From<&str> for PyValue {
    fn from(text: &str) -> PyValue {
        PyValue::text(text)
    }
}
