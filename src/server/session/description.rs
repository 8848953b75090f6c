//! Descriptions of transactions in undoLog, and the specifications of undoInfo.
//!
//! The keys of a transaction's extension are its client's, as many as fit into the file: they are looked up by a map.

use std::collections::HashMap;

use crate::storage::UndoEntry;
use crate::wire::exception::PyException;
use crate::wire::undo_id::undo_id;
use crate::wire::value::{Value, extension_dict};

/// Dicts with more keys are looked up by a map.
const FEW: usize = 16;
/// Upper bound on the entries of a specification: each transaction of the log is compared with all of them.
const WANTED_MAX: usize = 1000;

/// A dict whose keys are compared as [`equal`] does.
pub struct Description {
    items: Vec<(Value, Value)>,
    /// Where in `items` a key is, by its [`canonical`] form; empty while there are few.
    places: HashMap<Vec<u8>, usize>,
}

impl Description {
    /// The keys of the extension stand beside, and in front of, its own.
    pub fn new(entry: &UndoEntry) -> Description {
        let own = vec![
            (Value::text("id"), Value::bytes(undo_id(entry.tid))),
            (Value::text("time"), Value::Float(entry.tid.to_unix())),
            (Value::text("user_name"), Value::bytes(&entry.meta.user)),
            (Value::text("size"), Value::Int(i64::try_from(entry.size).unwrap_or(i64::MAX))),
            (Value::text("description"), Value::bytes(&entry.meta.description)),
        ];
        let mut description = Description { items: own, places: HashMap::new() };
        if let Some(Value::Dict(extension)) = extension_dict(&entry.meta.extension) {
            extension.into_iter().for_each(|(key, value)| description.set(key, value));
        }
        description
    }

    pub fn into_value(self) -> Value {
        Value::Dict(self.items)
    }

    fn set(&mut self, key: Value, value: Value) {
        if let Some((_, own)) = self.place(&key).and_then(|at| self.items.get_mut(at)) {
            *own = value;
            return;
        }
        self.items.push((key, value));
        if self.items.len() > FEW {
            for (at, (key, _)) in self.items.iter().enumerate().skip(self.places.len()) {
                self.places.insert(canonical(key), at);
            }
        }
    }

    fn place(&self, key: &Value) -> Option<usize> {
        match self.places.is_empty() {
            true => self.items.iter().position(|(known, _)| equal(key, known)),
            false => self.places.get(&canonical(key)).copied(),
        }
    }

    fn get(&self, key: &Value) -> Option<&Value> {
        self.place(key).and_then(|at| self.items.get(at)).map(|(_, value)| value)
    }
}

/// Keys and values that a transaction's description must have for undoInfo.
pub struct Specification(Vec<(Value, Value)>);

impl Specification {
    /// `None` if nothing is asked for.
    pub fn new(specification: Value) -> Result<Option<Specification>, PyException> {
        let kind = match specification {
            Value::Dict(items) if items.is_empty() => return Ok(None),
            Value::Dict(items) if items.len() > WANTED_MAX => {
                let message = format!("a specification has at most {WANTED_MAX} keys");
                return Err(PyException::builtin("ValueError", message));
            }
            Value::Dict(items) => return Ok(Some(Specification(items))),
            Value::None | Value::Bool(false) | Value::Int(0) => return Ok(None),
            Value::Tuple(items) | Value::List(items) if items.is_empty() => return Ok(None),
            Value::Bytes(bytes) | Value::Str(bytes) if bytes.is_empty() => return Ok(None),
            Value::Text(text) | Value::Unicode(text) if text.is_empty() => return Ok(None),
            Value::Bool(_) => "bool",
            Value::Int(_) | Value::BigInt(_) => "int",
            Value::Float(_) => "float",
            Value::Tuple(_) => "tuple",
            Value::List(_) => "list",
            _ => "str",
        };
        let message = format!("'{kind}' object has no attribute 'items'");
        Err(PyException::builtin("AttributeError", message))
    }

    pub fn fits(&self, has: &Description) -> bool {
        self.0
            .iter()
            .all(|(key, wanted)| has.get(key).map_or(*wanted == Value::None, |value| equal(wanted, value)))
    }
}

/// Whether Python has `wanted == value`. Texts and bytes are compared as Python 2 does, whatever the peer: the file
/// does not tell them apart.
fn equal(wanted: &Value, value: &Value) -> bool {
    if let (Some(wanted), Some(value)) = (wanted.string(), value.string()) {
        return wanted == value;
    }
    if let (Some(wanted), Some(value)) = (number(wanted), number(value)) {
        return wanted == value;
    }
    match (wanted, value) {
        (Value::Prefix(path), value) => match (path.string(), value.string()) {
            (Some(path), Some(value)) => is_path_prefix(path, value),
            _ => false,
        },
        (Value::Tuple(a), Value::Tuple(b)) | (Value::List(a), Value::List(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
        }
        (Value::Dict(a), Value::Dict(b)) => a.len() == b.len() && contains_all(b, a),
        (wanted, value) => wanted == value,
    }
}

/// Whether a dict has these keys, with equal values.
fn contains_all(has: &[(Value, Value)], wanted: &[(Value, Value)]) -> bool {
    if has.len() <= FEW {
        return wanted
            .iter()
            .all(|(key, wanted)| has.iter().any(|(known, value)| equal(key, known) && equal(wanted, value)));
    }
    let values: HashMap<Vec<u8>, &Value> = has.iter().map(|(key, value)| (canonical(key), value)).collect();
    wanted.iter().all(|(key, wanted)| values.get(&canonical(key)).is_some_and(|value| equal(wanted, value)))
}

/// Bytes that are the same for two keys if these are equal.
fn canonical(key: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    put_canonical(key, &mut out);
    out
}

fn put_canonical(key: &Value, out: &mut Vec<u8>) {
    let mut put = |kind: u8, bytes: &[u8]| {
        out.push(kind);
        out.extend_from_slice(&bytes.len().to_le_bytes());
        out.extend_from_slice(bytes);
    };
    if let Some(string) = key.string() {
        return put(b's', string);
    }
    if let Some(number) = number(key) {
        // Zero has two signs.
        let number = if number == 0.0 { 0.0 } else { number };
        return put(b'n', &number.to_bits().to_le_bytes());
    }
    match key {
        Value::BigInt(digits) => put(b'b', digits),
        Value::Tuple(items) | Value::List(items) => {
            let kind = if matches!(key, Value::Tuple(_)) { b't' } else { b'l' };
            put(kind, &items.len().to_le_bytes());
            items.iter().for_each(|item| put_canonical(item, out));
        }
        Value::Dict(items) => {
            // Their order does not matter. Python has no such keys.
            let mut pairs: Vec<[Vec<u8>; 2]> =
                items.iter().map(|(key, value)| [canonical(key), canonical(value)]).collect();
            pairs.sort_unstable();
            put(b'd', &pairs.len().to_le_bytes());
            pairs.iter().flatten().for_each(|part| out.extend_from_slice(part));
        }
        Value::Prefix(path) => {
            put(b'p', b"");
            put_canonical(path, out);
        }
        _ => put(b'0', b""),
    }
}

#[allow(clippy::cast_precision_loss)] // Python's comparison of large integers and floats is of no use here
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(value) => Some(f64::from(u8::from(*value))),
        Value::Int(value) => Some(*value as f64),
        Value::Float(value) => Some(*value),
        _ => None,
    }
}

/// As ZopeUndo.Prefix compares: element by element; what follows the last blank of the last element is a user's name
/// and does not count.
fn is_path_prefix(path: &[u8], value: &[u8]) -> bool {
    if path.len() > value.len() {
        return false;
    }
    let mut elements: Vec<&[u8]> = value.split(|&byte| byte == b'/').collect();
    if let Some(last) = elements.last_mut()
        && let Some(blank) = last.iter().rposition(|&byte| byte == b' ')
    {
        *last = last.get(..blank).unwrap_or_default();
    }
    let wanted: Vec<&[u8]> = path.split(|&byte| byte == b'/').collect();
    elements.starts_with(&wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::Tid;
    use crate::storage::TransactionMeta;

    fn entry(user: &str, description: &str, extension: &[u8]) -> UndoEntry {
        let meta = TransactionMeta {
            user: user.into(),
            description: description.into(),
            extension: extension.to_vec(),
        };
        UndoEntry { tid: Tid(7), meta, size: 99 }
    }

    #[test]
    fn descriptions_give_way_to_extensions() {
        let items = Description::new(&entry("me", "what", b"(dU\x04sizeK\x05sU\x03newI01\ns.")).items;
        let names: Vec<_> = items.iter().map(|(key, _)| key.string().unwrap()).collect();
        assert_eq!(names, [&b"id"[..], b"time", b"user_name", b"size", b"description", b"new"]);
        assert_eq!(items[3].1, Value::Int(5));
        assert_eq!(Description::new(&entry("me", "what", b"broken")).items.len(), 5);
    }

    #[test]
    fn specifications() {
        let fits = |items: &[(&str, Value)], entry: &UndoEntry| {
            let items = items.iter().map(|(key, value)| (Value::text(*key), value.clone())).collect();
            Specification::new(Value::Dict(items)).unwrap().is_none_or(|s| s.fits(&Description::new(entry)))
        };
        let prefix = |path: &str| Value::Prefix(Box::new(Value::bytes(path)));
        let e = entry("/acl users/jim", "/a/b/c", b"}U\x01xF1\ns.");
        assert!(fits(&[], &e));
        assert!(fits(&[("description", Value::text("/a/b/c"))], &e));
        assert!(fits(&[("description", Value::bytes("/a/b/c")), ("x", Value::Int(1))], &e));
        assert!(!fits(&[("description", Value::bytes("/a/b"))], &e));
        assert!(!fits(&[("y", Value::bytes("/a/b"))], &e));
        assert!(fits(&[("y", Value::None)], &e));
        for (path, expected) in
            [("/a", true), ("/a/b/c", true), ("/a/b/c/d", false), ("/a/x", false), ("/", false)]
        {
            assert_eq!(fits(&[("description", prefix(path))], &e), expected, "{path}");
        }
        // The name of the user that follows a blank is left out, in the last element only.
        assert!(fits(&[("user_name", prefix("/acl users"))], &e));
        assert!(fits(
            &[("user_name", prefix("/folder/acl_users"))],
            &entry("/folder/acl_users jim", "", b"")
        ));
        assert!(fits(&[("user_name", prefix(""))], &entry("/folder jim", "", b"")));
        assert!(!fits(&[("time", prefix(""))], &e));
        assert!(Specification::new(Value::List(vec![Value::None])).is_err());
        assert!(Specification::new(Value::Tuple(Vec::new())).unwrap().is_none());
    }

    /// Also with many keys: the entry's own keys take precedence, and texts and bytes are the same key.
    #[test]
    fn many_keys_are_found_as_few_are() {
        let mut extension = b"(d".to_vec();
        for n in 0..40 {
            extension.extend(format!("S'k{n}'\nI{n}\nsI{n}\nI{}\ns", n + 100).into_bytes());
        }
        extension.extend_from_slice(b"U\x04sizeK\x05sF7.0\nI7\nsU\x02k3I9\ns.");
        let described = Description::new(&entry("me", "what", &extension));
        assert_eq!(described.items.len(), 5 + 80);
        for (key, value) in [
            (Value::text("size"), Value::Int(5)),
            (Value::bytes("k3"), Value::Int(9)),
            (Value::text("k39"), Value::Int(39)),
            (Value::Float(7.0), Value::Int(7)),
            (Value::Int(39), Value::Int(139)),
        ] {
            assert_eq!(described.get(&key), Some(&value), "{key:?}");
        }
        assert_eq!(described.get(&Value::text("k40")), None);
        let dict = |n: i64| Value::Dict((0..40).map(|at| (Value::Int(at), Value::Int(at % n))).collect());
        assert!(equal(&dict(7), &dict(7)) && !equal(&dict(7), &dict(8)));
    }
}
