//! Records of objects: two pickles, the first tells the class, the second has the state.

use super::read::{Accept, read};
use super::value::{Node, NodeId, Tree};

/// Longest first pickle that is looked at: it names a class and perhaps has a few arguments.
const CLASS_LEN_MAX: usize = 64 << 10;

/// `module.Class` of the object that a record holds, in every form that ZODB has written: the class, a tuple of the
/// class and arguments, or names instead of the class. `None` if the record tells no class.
pub fn class_name(record: &[u8]) -> Option<String> {
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

fn class_of(tree: &Tree<'_>, id: NodeId) -> Option<String> {
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

fn joined(module: &[u8], name: &[u8]) -> String {
    format!("{}.{}", String::from_utf8_lossy(module), String::from_utf8_lossy(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_record() {
        let check = |record: &[u8], expected: Option<&str>| {
            assert_eq!(class_name(record).as_deref(), expected, "{}", record.escape_ascii());
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
