//! Records of objects: two pickles, the first for the class, the second for the state.

use std::fmt;

use super::read::{Accept, read};
use super::value::{Node, NodeId, Tree};
use crate::base::untrusted::Untrusted;

/// Upper bound on the first pickle's length: it names a class and perhaps has a few arguments.
const CLASS_LEN_MAX: usize = 64 << 10;

const BLOB_MODULE: &[u8] = b"ZODB.blob";

/// `module.Class` as in the record. The client that stored the record chose it, so in a log line it is escaped and cut.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClassName(String);

impl ClassName {
    /// The unescaped text, for comparisons and for clients.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same, without a copy.
    pub fn into_string(self) -> String {
        self.0
    }

    /// Used in log lines about a record whose class is unknown.
    pub(crate) fn unknown() -> ClassName {
        ClassName("unknown".into())
    }
}

impl fmt::Display for ClassName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Untrusted(&self.0).fmt(f)
    }
}

/// `module.Class` of the record's object, in every form that ZODB has written: the class, a tuple of the class and
/// arguments, or names instead of the class. `None` if the record has no class.
pub fn class_name(record: &[u8]) -> Option<ClassName> {
    let head = record.get(..CLASS_LEN_MAX).unwrap_or(record);
    let tree = read(head, Accept::RECORD).ok()?;
    match tree.node(tree.root()) {
        Node::Global { module, name } => Some(joined(module, name)),
        Node::Object(object) => class_of(&tree, object.class),
        Node::Tuple(parts) => match parts.as_slice() {
            [first, rest @ ..] => class_of(&tree, *first)
                .or_else(|| Some(joined(string(&tree, *first)?, string(&tree, *rest.first()?)?))),
            [] => None,
        },
        _ => None,
    }
}

/// Whether a record is a blob's: Python's test, a text search before anything is decoded.
pub fn is_blob(record: &[u8]) -> bool {
    if !contains_blob(record) {
        return false;
    }
    let head = record.get(..CLASS_LEN_MAX).unwrap_or(record);
    let Ok(tree) = read(head, Accept::RECORD) else { return false };
    matches!(tree.node(tree.root()), Node::Global { module, name }
        if module.as_ref() == BLOB_MODULE && name.as_ref() == b"Blob")
}

/// Whether a record may be a blob's. One that is not a plain pickle, but transformed, may be.
pub fn may_be_blob(record: &[u8]) -> bool {
    let is_pickle = matches!(record.first(), Some(0x80 | b'c' | b'('));
    if is_pickle { is_blob(record) } else { !record.is_empty() }
}

fn contains_blob(record: &[u8]) -> bool {
    memchr::memmem::find(record, BLOB_MODULE).is_some()
}

fn class_of(tree: &Tree<'_>, id: NodeId) -> Option<ClassName> {
    match tree.node(id) {
        Node::Global { module, name } => Some(joined(module, name)),
        Node::Tuple(names) => match names.as_slice() {
            [module, name, ..] => Some(joined(string(tree, *module)?, string(tree, *name)?)),
            _ => None,
        },
        _ => None,
    }
}

fn string<'t>(tree: &'t Tree<'_>, id: NodeId) -> Option<&'t [u8]> {
    match tree.node(id) {
        Node::Text(value) | Node::Str(value) | Node::Bytes(value) => Some(value),
        _ => None,
    }
}

fn joined(module: &[u8], name: &[u8]) -> ClassName {
    ClassName(format!("{}.{}", String::from_utf8_lossy(module), String::from_utf8_lossy(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs() {
        for yes in [
            &b"\x80\x03cZODB.blob\nBlob\nq\x00.\x80\x03N."[..],
            b"cZODB.blob\nBlob\nq\x01.N.",
            b"\x80\x05\x95\x15\0\0\0\0\0\0\0\x8c\tZODB.blob\x94\x8c\x04Blob\x94\x93\x94.\x80\x05N.",
        ] {
            assert!(is_blob(yes) && may_be_blob(yes), "{}", yes.escape_ascii());
        }
        for no in [
            &b"\x80\x03cpersistent.mapping\nPersistentMapping\nq\x00.\x80\x03X\x09\0\0\0ZODB.blob."[..],
            b"(cZODB.blob\nBlob\nq\x01Nt.N.",
            b"cZODB.blob\nBlobFile\n.N.",
            b"\x80\x03cZODB.blob",
            b"",
        ] {
            assert!(!is_blob(no) && !may_be_blob(no), "{}", no.escape_ascii());
        }
        assert!(may_be_blob(b".zx\x9c") && !is_blob(b".zx\x9c"));
    }

    #[test]
    fn every_form_of_record() {
        let check = |record: &[u8], expected: Option<&str>| {
            assert_eq!(
                class_name(record).as_ref().map(ClassName::as_str),
                expected,
                "{}",
                record.escape_ascii()
            );
        };
        check(
            b"\x80\x03cpersistent.mapping\nPersistentMapping\nq\x00.\x80\x03}.",
            Some("persistent.mapping.PersistentMapping"),
        );
        check(b"cBTrees.OOBTree\nOOBTree\nq\x01.N.", Some("BTrees.OOBTree.OOBTree"));
        check(
            b"(cpersistent.mapping\nPersistentMapping\nq\x01Ntq\x02.}q\x03.",
            Some("persistent.mapping.PersistentMapping"),
        );
        check(b"((U\x01mq\x01U\x01Cq\x02tq\x03Nt.}.", Some("m.C"));
        check(b"((U\x01mU\x01CtNt.", Some("m.C"));
        check(b"(U\x01mU\x01Ct.", Some("m.C"));
        check(
            b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00\x8c\x01m\x94\x8c\x01C\x94\x93\x94.",
            Some("m.C"),
        );
        check(b"(ccopy_reg\n_reconstructor\n(cm\nC\nc__builtin__\nobject\nNtRNt.", None);
        check(b"", None);
        check(b"garbage", None);
        check(b"N.", None);
        check(b"(t.", None);
    }
}
