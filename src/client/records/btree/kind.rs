//! The families of BTrees.

use std::cmp::Ordering;

use crate::client::records::error::RecordError;
use crate::client::records::order::{order, supported};
use crate::client::records::value::{Class, PyValue};
use crate::conflict::native::class::{Family, Form, ItemType, Mergeable, mergeable};

type Result<T> = std::result::Result<T, RecordError>;

/// A family, and which of its four classes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TreeKind {
    family: Family,
    form: Form,
}

impl TreeKind {
    /// Of a class of the package. `None` for others, also for those that derive from one: they may order keys
    /// differently, or have nodes of other classes.
    pub fn of(class: &Class) -> Option<TreeKind> {
        match mergeable(class.module.as_bytes(), class.name.as_bytes())? {
            Mergeable::BTree(family, form) => Some(TreeKind { family, form }),
            Mergeable::Counter(_) => None,
        }
    }

    /// A BTree or TreeSet, not a bucket or set.
    pub fn is_tree(self) -> bool {
        self.form.is_tree()
    }

    /// Whether there is a value for each key.
    pub fn has_values(self) -> bool {
        self.form.has_values()
    }

    /// Whether a tree of this kind has nodes of that kind: itself, or its buckets.
    pub fn has_child(self, child: TreeKind) -> bool {
        self.is_tree() && child.family == self.family && child.has_values() == self.has_values()
    }

    /// The kind of its buckets.
    pub fn bucket(self) -> TreeKind {
        TreeKind { form: if self.has_values() { Form::Bucket } else { Form::Set }, ..self }
    }

    /// The class of its buckets.
    pub fn bucket_class(self, tree: &Class) -> Class {
        let module = tree.module.rsplit('.').next().unwrap_or_default();
        let family: String = module.trim_start_matches('_').chars().take(2).collect();
        Class::new(&tree.module, &format!("{family}{}", if self.has_values() { "Bucket" } else { "Set" }))
    }

    /// A bucket with more keys is split. The sizes are those of all versions of the package; a class of the application
    /// may set others, which does no harm.
    pub fn bucket_max(self) -> usize {
        match (self.family.key, self.family.value) {
            (ItemType::Object, ItemType::Object) => 30,
            (ItemType::Object, _) | (_, ItemType::Object) => 60,
            (ItemType::Bytes(_), _) => 500,
            _ => 120,
        }
    }

    /// A node with more children is split; a root, if it has twice as many.
    pub fn node_max(self) -> usize {
        if self.family.key == ItemType::Object { 250 } else { 500 }
    }

    /// The key as it is stored.
    ///
    /// Errors: `WrongType`, `Incomparable`.
    pub fn key(self, key: &PyValue) -> Result<PyValue> {
        match self.family.key {
            ItemType::Object => supported(key).map(|()| key.plain().clone()),
            item => native(item, key),
        }
    }

    /// Whether the key is one of the family's type. Any object may be one, whether it can be compared or not, in a
    /// family of objects.
    ///
    /// Errors: `WrongType`.
    pub fn is_key(self, key: &PyValue) -> Result<()> {
        match self.family.key {
            ItemType::Object => Ok(()),
            item => native(item, key).map(drop),
        }
    }

    /// The value as it is stored.
    ///
    /// Errors: `WrongType`.
    pub fn value(self, value: &PyValue) -> Result<PyValue> {
        match self.family.value {
            ItemType::Object => Ok(value.clone()),
            item => native(item, value),
        }
    }

    /// The order of two keys.
    pub fn order(self, a: &PyValue, b: &PyValue) -> Result<Ordering> {
        match (self.family.key, a.plain().as_bytes(), b.plain().as_bytes()) {
            // `str` of Python 2 and `bytes` of Python 3.
            (ItemType::Bytes(_), Some(a), Some(b)) => Ok(a.cmp(b)),
            _ => order(a, b),
        }
    }
}

/// A key or value of a type of C.
fn native(item: ItemType, value: &PyValue) -> Result<PyValue> {
    let value = value.plain();
    let wrong = |wanted| Err(RecordError::WrongType { wanted, found: format!("{value:?}") });
    match item {
        ItemType::Object => Ok(value.clone()),
        ItemType::Int { min, max } => {
            let in_range = |number: &i128| (i128::from(min)..=i128::from(max)).contains(number);
            match value.as_integer().filter(in_range) {
                Some(number) => Ok(match i64::try_from(number) {
                    Ok(number) => PyValue::Int(number),
                    Err(_) => PyValue::BigInt(number.to_le_bytes().get(..9).unwrap_or_default().into()),
                }),
                None if (min, max) == (i64::MIN, i64::MAX.unsigned_abs()) => wrong("integers of 64 bits"),
                None if min < 0 => wrong("integers of 32 bits"),
                None if max > u32::MAX.into() => wrong("integers of 64 bits that are not negative"),
                None => wrong("integers of 32 bits that are not negative"),
            }
        }
        ItemType::Float => match value {
            #[allow(clippy::cast_possible_truncation)] // that is what is stored
            PyValue::Float(number) => Ok(PyValue::Float((*number as f32).into())),
            // As C converts it.
            #[allow(clippy::cast_precision_loss)]
            _ => match value.as_integer().and_then(|number| i64::try_from(number).ok()) {
                Some(number) => Ok(PyValue::Float((number as f32).into())),
                None => wrong("floats"),
            },
        },
        ItemType::Bytes(len) => match value {
            PyValue::Bytes(bytes) | PyValue::Str(bytes) if bytes.len() == len => Ok(value.clone()),
            _ if len == 2 => wrong("bytes of length 2"),
            _ => wrong("bytes of length 6"),
        },
    }
}
