//! Which classes are merged natively, by module and name.

use crate::base::untrusted::Untrusted;

/// `module.class`, for a reason that is logged.
pub fn joined(module: &[u8], class: &[u8]) -> String {
    let name = format!("{}.{}", String::from_utf8_lossy(module), String::from_utf8_lossy(class));
    Untrusted(&name).to_string()
}

/// A class whose states are merged here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mergeable {
    Counter(Counter),
    BTree(Family, Form),
}

/// A class whose state is a number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Counter {
    /// The old state plus both changes: `BTrees.Length.Length`.
    Sum,
    /// The larger of the two new states: `zope.minmax.Maximum`.
    Maximum,
    /// The smaller of the two new states: `zope.minmax.Minimum`.
    Minimum,
    /// The largest of all three states: the `Increaser` of Zope's Transience.
    Increaser,
}

/// The types of a BTree's keys and values.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Family {
    pub key: ItemType,
    pub value: ItemType,
}

/// The type of a key or value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ItemType {
    /// Any object
    Object,
    /// An integer of this range
    Int { min: i64, max: u64 },
    /// A float of 32 bits
    Float,
    /// A byte string of this length
    Bytes(usize),
}

/// The kind of container.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    Bucket,
    Set,
    BTree,
    TreeSet,
}

impl Form {
    pub fn has_values(self) -> bool {
        matches!(self, Form::Bucket | Form::BTree)
    }

    /// Keys and values of one item.
    pub fn width(self) -> usize {
        if self.has_values() { 2 } else { 1 }
    }

    pub fn is_tree(self) -> bool {
        matches!(self, Form::BTree | Form::TreeSet)
    }
}

/// The class of this name, if its states are merged here. Subclasses are not: they may have a `_p_resolveConflict` of
/// their own.
pub fn mergeable(module: &[u8], class: &[u8]) -> Option<Mergeable> {
    match (module, class) {
        (b"BTrees.Length", b"Length") => return Some(Mergeable::Counter(Counter::Sum)),
        (b"zope.minmax" | b"zope.minmax._minmax", b"Maximum") => {
            return Some(Mergeable::Counter(Counter::Maximum));
        }
        (b"zope.minmax" | b"zope.minmax._minmax", b"Minimum") => {
            return Some(Mergeable::Counter(Counter::Minimum));
        }
        (b"Products.Transience.Transience", b"Increaser") => {
            return Some(Mergeable::Counter(Counter::Increaser));
        }
        _ => {}
    }
    let module = module.strip_prefix(b"BTrees.")?;
    let prefix = module.strip_prefix(b"_").unwrap_or(module).strip_suffix(b"BTree")?;
    let family = family(prefix)?;
    let class = class.strip_prefix(prefix).unwrap_or(class);
    let form = match class.strip_suffix(b"Py").unwrap_or(class) {
        b"Bucket" => Form::Bucket,
        b"Set" => Form::Set,
        b"BTree" => Form::BTree,
        b"TreeSet" => Form::TreeSet,
        _ => return None,
    };
    Some(Mergeable::BTree(family, form))
}

/// All families of the BTrees package.
const FAMILIES: &[&[u8; 2]] = &[
    b"IO", b"II", b"IF", b"IU", b"UO", b"UU", b"UF", b"UI", b"LO", b"LL", b"LF", b"LQ", b"QO", b"QQ", b"QF",
    b"QL", b"OO", b"OI", b"OU", b"OL", b"OQ", b"fs",
];

fn family(prefix: &[u8]) -> Option<Family> {
    let prefix: &[u8; 2] = prefix.try_into().ok().filter(|prefix| FAMILIES.contains(prefix))?;
    let [key, value] = prefix.map(item);
    Some(Family { key: key?, value: value? })
}

fn item(letter: u8) -> Option<ItemType> {
    Some(match letter {
        b'O' => ItemType::Object,
        b'I' => ItemType::Int { min: i32::MIN.into(), max: i32::MAX.unsigned_abs().into() },
        b'U' => ItemType::Int { min: 0, max: u32::MAX.into() },
        b'L' => ItemType::Int { min: i64::MIN, max: i64::MAX.unsigned_abs() },
        b'Q' => ItemType::Int { min: 0, max: u64::MAX },
        b'F' => ItemType::Float,
        b'f' => ItemType::Bytes(2),
        b's' => ItemType::Bytes(6),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_time() {
        let known = |name: &str| {
            let (module, class) = name.rsplit_once('.')?;
            mergeable(module.as_bytes(), class.as_bytes())
        };
        let form = |name: &str| match known(name) {
            Some(Mergeable::BTree(_, form)) => Some(form),
            _ => None,
        };
        assert_eq!(form("BTrees.OOBTree.OOBTree"), Some(Form::BTree));
        assert_eq!(form("BTrees._OOBTree.OOBTree"), Some(Form::BTree));
        assert_eq!(form("BTrees.OOBTree.OOBTreePy"), Some(Form::BTree));
        assert_eq!(form("BTrees.IIBTree.IITreeSet"), Some(Form::TreeSet));
        assert_eq!(form("BTrees.LQBTree.LQSet"), Some(Form::Set));
        assert_eq!(form("BTrees.fsBTree.fsBucket"), Some(Form::Bucket));
        assert_eq!(form("BTrees.OOBTree.Bucket"), Some(Form::Bucket));
        assert_eq!(form("BTrees.OOBTree.IOBucket"), None);
        assert_eq!(form("BTrees.ULBTree.ULBucket"), None, "there is no such family");
        assert_eq!(form("BTrees.OOBTree.OOTreeItems"), None);
        assert_eq!(form("myapp.OOBTree.OOBTree"), None);
        assert_eq!(known("BTrees.Length.Length"), Some(Mergeable::Counter(Counter::Sum)));
        assert_eq!(known("Length"), None);
    }
}
