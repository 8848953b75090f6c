//! The references in an object's record to objects of other databases.
//!
//! Such a persistent id is a list of a letter and a tuple: `['m', (database, oid, class)]`, or `['n', (database, oid)]`
//! for an object whose class has `__getnewargs__`. They are rare, so the record is read as a tree:
//! [`references`](super::refs::references) says whether there are any lists in it.

use super::read::{Accept, read_record_with};
use super::value::{Node, NodeId, Tree};
use crate::base::ids::Oid;

/// Appends each reference to another database: its name and the oid. The error says why the record is invalid, or what
/// kind of reference it has that ZODB does not know.
pub fn cross_references(record: &[u8], found: &mut Vec<(Vec<u8>, Oid)>) -> Result<(), String> {
    let accept = Accept { nodes_max: record.len(), ..Accept::RECORD };
    let (tree, _) = read_record_with(record, accept).map_err(|error| error.to_string())?;
    for node in tree.nodes() {
        if let Node::Persistent(id) = node
            && let Node::List(items) = tree.node(*id)
        {
            found.extend(cross_reference(&tree, items)?);
        }
    }
    Ok(())
}

/// `None`: the reference is weak.
fn cross_reference(tree: &Tree<'_>, items: &[NodeId]) -> Result<Option<(Vec<u8>, Oid)>, String> {
    let unknown = || "it has a reference of an unknown kind".to_string();
    let [kind, arguments] = items else {
        // Weak, as old versions wrote it.
        return if items.len() == 1 { Ok(None) } else { Err(unknown()) };
    };
    match string(tree, *kind) {
        Some(b"w") => return Ok(None),
        Some(b"m" | b"n") => {}
        _ => return Err(unknown()),
    }
    let Node::Tuple(arguments) = tree.node(*arguments) else { return Err(unknown()) };
    let [database, oid, ..] = arguments.as_slice() else { return Err(unknown()) };
    let oid = string(tree, *oid).and_then(Oid::from_slice);
    match (string(tree, *database), oid) {
        (Some(database), Some(oid)) => Ok(Some((database.to_vec(), oid))),
        _ => Err(unknown()),
    }
}

fn string<'t>(tree: &'t Tree<'_>, id: NodeId) -> Option<&'t [u8]> {
    match tree.node(id) {
        Node::Bytes(bytes) | Node::Str(bytes) | Node::Text(bytes) => Some(bytes),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(state: &[u8]) -> Result<Vec<(String, u64)>, String> {
        let record = [b"cm\nC\nq\x01.", state].concat();
        let mut found = Vec::new();
        cross_references(&record, &mut found)?;
        Ok(found.into_iter().map(|(name, oid)| (String::from_utf8_lossy(&name).into(), oid.0)).collect())
    }

    #[test]
    fn every_form() {
        let db_7 = || Ok(vec![("db".to_string(), 7)]);
        assert_eq!(of(b"](U\x01m(U\x02dbU\x08\0\0\0\0\0\0\0\x07cm\nC\nteQ."), db_7());
        assert_eq!(of(b"](U\x01n(U\x02dbU\x08\0\0\0\0\0\0\0\x07teQ."), db_7());
        assert_eq!(of(b"\x80\x03](X\x01\0\0\0mX\x02\0\0\0dbC\x08\0\0\0\0\0\0\0\x07h\x01\x87eQ."), db_7());
        // In a list of references, one of them twice.
        let two = b"\x80\x03](](X\x01\0\0\0nX\x02\0\0\0dbC\x08\0\0\0\0\0\0\0\x07\x86eq\x05Qh\x05QU\x08\0\0\0\0\0\0\0\x09Qe.";
        assert_eq!(of(two).map(|found| found.len()), Ok(2));
    }

    #[test]
    fn weak_ones_are_none() {
        assert_eq!(of(b"](U\x01w(U\x08\0\0\0\0\0\0\0\x07teQ."), Ok(vec![]));
        assert_eq!(of(b"](U\x01w(U\x08\0\0\0\0\0\0\0\x07U\x02dbteQ."), Ok(vec![]));
        assert_eq!(of(b"](U\x08\0\0\0\0\0\0\0\x07eQ."), Ok(vec![]));
        assert_eq!(of(b"U\x08\0\0\0\0\0\0\0\x07Q."), Ok(vec![]));
    }

    #[test]
    fn what_is_unknown_is_an_error() {
        for state in [
            &b"](U\x01x(U\x02dbU\x08\0\0\0\0\0\0\0\x07teQ."[..],
            b"](U\x01m(U\x02dbU\x07\0\0\0\0\0\0\x07teQ.",
            b"](U\x01m(U\x02dbteQ.",
            b"](U\x01mU\x02dbeQ.",
            b"]Q.",
            b"](K\x01NeQ.",
            b"](U\x01m",
        ] {
            assert!(of(state).is_err(), "{}", state.escape_ascii());
        }
    }
}
