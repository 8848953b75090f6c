//! Cases resolved by Python, from `python-fixtures/resolve`, and hand-written ones. `compat-tests/resolve` compares
//! thousands more with the real BTrees.

use proptest::prelude::*;

use super::refusal::Reason;
use super::*;
use crate::pickle::read::{Accept, read};
use crate::pickle::value::{Node, NodeId, Tree};

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// A value as text, independent of its pickle form.
fn show(tree: &Tree<'_>, id: NodeId) -> String {
    let all = |items: &[NodeId]| items.iter().map(|id| show(tree, *id) + ",").collect::<String>();
    match tree.node(id) {
        Node::Tuple(items) => format!("({})", all(items)),
        Node::List(items) => format!("[{}]", all(items)),
        Node::Dict(pairs) => {
            let mut pairs: Vec<_> =
                pairs.iter().map(|(key, value)| show(tree, *key) + ":" + &show(tree, *value)).collect();
            pairs.sort();
            format!("{{{}}}", pairs.join(","))
        }
        Node::Persistent(id) => format!("<{}>", show(tree, *id)),
        Node::Object(object) => {
            let state = object.state.map(|state| show(tree, state));
            format!("{}{}{state:?}{}", show(tree, object.class), show(tree, object.args), all(&object.items))
        }
        // Numbers in decimal digits are read with a trailing zero byte, which may be superfluous.
        Node::BigInt(bytes) => match &**bytes {
            [rest @ .., below, 0] if below & 0x80 == 0 => format!("{:?}", [rest, &[*below]].concat()),
            bytes => format!("{bytes:?}"),
        },
        other => format!("{other:?}"),
    }
}

/// Class and state of a record as text. Both are read as one stream, because the state may refer to the class.
fn show_record(record: &[u8]) -> String {
    let class = read(record, Accept::RECORD).expect("a class");
    let mut both = record[..class.len() - 1].to_vec();
    both.extend_from_slice(&record[class.len()..record.len() - 1]);
    both.extend_from_slice(b"\x86.");
    let tree = read(&both, Accept::RECORD).unwrap_or_else(|e| panic!("{e}: {}", record.escape_ascii()));
    assert_eq!(tree.len(), both.len());
    show(&tree, tree.root())
}

fn fixtures() -> Vec<(String, [Vec<u8>; 3], String, String)> {
    let mut cases = Vec::new();
    for text in [
        include_str!("../../../python-fixtures/resolve/py27.txt"),
        include_str!("../../../python-fixtures/resolve/py311.txt"),
    ] {
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let [name, old, committed, new, letter, answer] =
                line.split(' ').collect::<Vec<_>>().try_into().unwrap();
            let records = [old, committed, new].map(unhex);
            cases.push((name.to_string(), records, letter.to_string(), answer.to_string()));
        }
    }
    cases
}

#[test]
fn as_python_resolved() {
    for (name, [old, committed, new], letter, answer) in fixtures() {
        match (merge(&old, &committed, &new), letter.as_str()) {
            (Merge::Resolved(record), "R") => {
                assert_eq!(show_record(&record), show_record(&unhex(&answer)), "{name}");
            }
            (Merge::Refused(Refusal::BTrees { positions: [p1, p2, p3], reason }), "B") => {
                assert_eq!(format!("{p1}/{p2}/{p3}/{}", reason.number()), answer, "{name}");
            }
            (other, _) => panic!("{name}: {other:?} instead of {letter} {answer}"),
        }
    }
}

const LENGTH: &[u8] = b"\x80\x03cBTrees.Length\nLength\nq\x00.\x80\x03";
const BUCKET: &[u8] = b"\x80\x03cBTrees.OOBTree\nOOBucket\nq\x00.\x80\x03";

fn with(class: &[u8], states: [&[u8]; 3]) -> Merge {
    let [old, committed, new] = states.map(|state| [class, state, b"."].concat());
    merge(&old, &committed, &new)
}

fn resolved(class: &[u8], state: &[u8]) -> Merge {
    Merge::Resolved([class, state, b"."].concat())
}

#[test]
fn lengths_add_up() {
    assert_eq!(with(LENGTH, [b"K\x05", b"K\x07", b"K\x04"]), resolved(LENGTH, b"K\x06"));
    assert_eq!(with(LENGTH, [b"K\x05", b"K\x05", b"K\x04"]), resolved(LENGTH, b"K\x04"));
    let big = b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f";
    assert_eq!(
        with(LENGTH, [b"K\x00", big, b"K\x01"]),
        resolved(LENGTH, b"\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x80\x00")
    );
    assert_eq!(with(LENGTH, [b"K\x01", b"K\x00", b"K\x00"]), resolved(LENGTH, b"J\xff\xff\xff\xff"));
    assert!(matches!(with(LENGTH, [b"K\x01", b"N", b"K\x00"]), Merge::Unknown(_)));
    let py2 = b"cBTrees.Length\nLength\nq\x01.";
    assert_eq!(
        with(py2, [b"K\x00", b"I9223372036854775807\n", b"K\x01"]),
        resolved(py2, b"L9223372036854775808L\n")
    );
}

#[test]
fn minima_and_maxima() {
    let class =
        |name: &str| format!("\x7fczope.minmax._minmax\n{name}\nq\x00.").replace('\x7f', "").into_bytes();
    let (max, min) = (class("Maximum"), class("Minimum"));
    assert_eq!(with(&max, [b"K\x05", b"K\x07", b"K\x04"]), resolved(&max, b"K\x07"));
    assert_eq!(
        with(&min, [b"K\x05", b"K\x07", b"G\x40\x08\0\0\0\0\0\0"]),
        resolved(&min, b"G\x40\x08\0\0\0\0\0\0")
    );
    let increaser = b"cProducts.Transience.Transience\nIncreaser\nq\x00.";
    assert_eq!(with(increaser, [b"K\x09", b"K\x07", b"K\x04"]), resolved(increaser, b"K\x09"));
}

#[test]
fn classes_that_are_not_known() {
    let unknown = |class: &[u8], name: &str| {
        assert_eq!(with(class, [b"K\x01"; 3]), Merge::Unknown(name.to_string()));
    };
    unknown(b"\x80\x03cmyapp\nCounter\nq\x00.\x80\x03", "myapp.Counter");
    unknown(b"\x80\x03cmyapp\nLength\nq\x00.\x80\x03", "myapp.Length");
    assert_eq!(merge(b"", b"", b""), Merge::Unknown("(a record without a class)".to_string()));
}

/// Keys and values of a class are the same if their bytes are; otherwise only the class can compare them.
#[test]
fn instances() {
    let state = |instances: [&[u8]; 2]| {
        let [a, b] = instances;
        [b"(K\x01".as_slice(), a, b"K\x02", b, b"t\x85"].concat()
    };
    let (a, b) = (b"cm\nC\nK\x01\x85R".as_slice(), b"cm\nC\nK\x02\x85R".as_slice());
    let old = state([a, a]);
    let (committed, new) = (state([a, b]), state([b, a]));
    assert_eq!(with(BUCKET, [&old, &committed, &new]), resolved(BUCKET, &state([b, b])));
    // Both made the same change.
    assert_eq!(
        with(BUCKET, [&old, &committed, &committed]),
        Merge::Unknown("BTrees.OOBTree.OOBucket (m.C)".to_string())
    );
    let keys: [&[u8]; 3] = [b"(cm\nC\n)RNt\x85", b"(cm\nB\n)RNcm\nC\n)RNt\x85", b"(cm\nC\n)RNt\x85"];
    assert!(matches!(with(BUCKET, keys), Merge::Unknown(_)));
}

/// A value that a copied item shares with one that is not copied is written at its first use.
#[test]
fn values_that_are_shared() {
    let old = b"(K\x01]q\x01K\x09aK\x02h\x01K\x03h\x01t\x85";
    let committed = b"(K\x01NK\x02]q\x01K\x09aK\x03h\x01t\x85";
    let new = b"(K\x01]q\x01K\x09aK\x02h\x01K\x03h\x01K\x04h\x01t\x85";
    assert_eq!(
        with(BUCKET, [old, committed, new]),
        resolved(BUCKET, b"(K\x01NK\x02]q\x01K\x09aK\x03h\x01K\x04h\x01t\x85")
    );
}

/// The state refers to the class, as in ZODB's references to the next bucket.
#[test]
fn the_memo_of_the_class() {
    let next = b"C\x08\0\0\0\0\0\0\0\x05q\x04h\x00\x86q\x05Q";
    let state = |items: &[u8]| [b"(", items, b"tq\x03", next, b"\x86"].concat();
    let states = [state(b"K\x01N"), state(b"K\x01NK\x02N"), state(b"K\x00NK\x01N")];
    let Merge::Resolved(record) = with(BUCKET, states.each_ref().map(Vec::as_slice)) else { panic!() };
    assert_eq!(show_record(&record), show_record(&[BUCKET, &state(b"K\x00NK\x01NK\x02N"), b"."].concat()));
}

/// Records with a common beginning, which ends within a key, after a key, or before its memo index.
#[test]
fn what_records_begin_with() {
    let state = |keys: &[&str]| {
        let keys = keys
            .iter()
            .zip(1u8..)
            .map(|(key, index)| [b"X\x02\0\0\0", key.as_bytes(), b"q", &[index], b"N"].concat());
        [&b"("[..], &keys.collect::<Vec<_>>().concat(), b"t\x85"].concat()
    };
    let all = ["aa", "ab", "bb", "bc", "cc", "dd"];
    for left_out in 1..all.len() {
        for also in (1..all.len()).filter(|also| *also != left_out) {
            let without = |index: usize| {
                let mut keys = all.to_vec();
                keys.remove(index);
                state(&keys)
            };
            let mut rest = all.to_vec();
            rest.retain(|key| *key != all[left_out] && *key != all[also]);
            let merged = with(BUCKET, [&state(&all), &without(left_out), &without(also)]);
            let Merge::Resolved(record) = merged else { panic!("{left_out}, {also}: {merged:?}") };
            assert_eq!(show_record(&record), show_record(&[BUCKET, &state(&rest), b"."].concat()));
        }
    }
}

/// The bytes after the common beginning make one value of what is several values in the other records.
#[test]
fn what_records_begin_with_is_not_always_the_same() {
    let states: [&[u8]; 3] = [b"(K\x01NK\x02Nt\x85", b"(K\x01NK\x02NK\x03Nt\x85", b"(K\x01NK\x02N\x87t\x85"];
    assert_eq!(with(BUCKET, states), resolved(BUCKET, b"(K\x01NK\x02N\x87K\x03Nt\x85"));
    let [old, committed, new] = states;
    assert_eq!(with(BUCKET, [old, new, committed]), resolved(BUCKET, b"(K\x01NK\x02N\x87K\x03Nt\x85"));
}

#[test]
fn nothing_costs_more_than_it_is_long() {
    // Lists of lists, each twice: 2^60 values if they were unfolded.
    let mut bomb = b"]q\x00".to_vec();
    for index in 1..60u8 {
        bomb.extend_from_slice(&[b']', b'q', index, b'(', b'h', index - 1, b'h', index - 1, b'e']);
    }
    let state = |rest: &[u8]| [b"(K\x01(", bomb.as_slice(), b"tK\x02", rest, b"t\x85"].concat();
    let states = [state(b"N"), [b"(K\x00N", &state(b"N")[1..]].concat(), state(b"K\x02")];
    assert!(matches!(with(BUCKET, states.each_ref().map(Vec::as_slice)), Merge::Unknown(_)));
    // The common beginning is not examined.
    let states = [state(b"N"), state(b"K\x01"), state(b"K\x02")];
    let both_changed = Refusal::BTrees { positions: [2; 3], reason: Reason::BothChanged };
    assert_eq!(with(BUCKET, states.each_ref().map(Vec::as_slice)), Merge::Refused(both_changed));
    let deep = |inner: &[u8], rest: &[u8]| {
        [b"(K\x01", &b"]".repeat(5000)[..], inner, &b"a".repeat(4999), rest, b"t\x85"].concat()
    };
    let states = [deep(b"", b""), deep(b"Na", b"K\x02N"), [b"(K\x00N", &deep(b"", b"")[1..]].concat()];
    assert!(matches!(with(BUCKET, states.each_ref().map(Vec::as_slice)), Merge::Unknown(_)));
}

proptest! {
    /// Arbitrary bytes cause no panic, and each merged record can be read.
    #[test]
    fn any_bytes(which in 0..300usize, at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(), record in 0..3usize) {
        let cases = fixtures();
        let (_, mut records, ..) = cases[which % cases.len()].clone();
        let at = at.index(records[record].len());
        records[record][at] = byte;
        if cut {
            records[record].truncate(at);
        }
        let [old, committed, new] = records;
        let _ = merge(&old, &committed, &new);
    }

    #[test]
    fn any_ints(old in prop::collection::btree_map(-20..20i8, 0..3u8, 0..12), committed in prop::collection::btree_map(-20..20i8, 0..3u8, 1..12), new in prop::collection::btree_map(-20..20i8, 0..3u8, 1..12)) {
        let state = |items: &std::collections::BTreeMap<i8, u8>| {
            let mut out = b"(".to_vec();
            for (key, value) in items {
                out.push(b'J');
                out.extend_from_slice(&i32::from(*key).to_le_bytes());
                out.extend_from_slice(&[b'K', *value]);
            }
            [&out[..], b"t\x85"].concat()
        };
        let (a, b, c) = (state(&old), state(&committed), state(&new));
        if let Merge::Resolved(record) = with(BUCKET, [&a, &b, &c]) {
            // It has all changes of both.
            let mut expected = old.clone();
            for after in [&committed, &new] {
                expected.retain(|key, _| after.contains_key(key));
                for (key, value) in after {
                    if old.get(key) != Some(value) {
                        expected.insert(*key, *value);
                    }
                }
            }
            for (key, value) in &old {
                let kept = committed.get(key) == Some(value) && new.get(key) == Some(value);
                if kept {
                    expected.insert(*key, *value);
                }
            }
            for after in [&committed, &new] {
                for (key, value) in after {
                    if old.get(key) != Some(value) {
                        expected.insert(*key, *value);
                    }
                }
            }
            prop_assert_eq!(show_record(&record), show_record(&[BUCKET, &state(&expected), b"."].concat()));
        }
    }
}
