//! Values in pickles as JSON of bounded size, for people and programs. Nothing is executed: classes are names.

use serde_json::{Map, Value};

use crate::base::ids::Oid;
use crate::pickle::read::{Accept, read, read_record_with};
use crate::pickle::value::{Node, NodeId, Object, Tree};

/// Deepest nesting that is shown.
const DEPTH_MAX: usize = 6;
/// Values that are shown of one pickle.
const VALUES_MAX: usize = 500;
/// `module.name` of the function that makes an instance of the class that is its first argument, in Python 2 and 3.
const RECONSTRUCTORS: [&str; 2] = ["copy_reg._reconstructor", "copyreg._reconstructor"];
/// Characters that are shown of one text.
const TEXT_MAX: usize = 500;

/// The extension of a transaction: a dict, or empty. Text that says what is wrong if it is no pickle.
pub fn extension(bytes: &[u8]) -> Value {
    if bytes.is_empty() {
        return Value::Object(Map::new());
    }
    match read(bytes, Accept { persistent: false, ..Accept::RECORD }) {
        Ok(tree) => Shower { tree: &tree, left: VALUES_MAX }.value(tree.root(), 0),
        Err(error) => Value::String(format!("<{} bytes, {error}>", bytes.len())),
    }
}

/// The state of an object, whose record this is, uncompressed. Instances are what they are made of; references are
/// texts like `<0x12 module.Class>`. The error says why the record cannot be read.
pub fn state(record: &[u8]) -> Result<Value, String> {
    let accept = Accept { nodes_max: record.len(), ..Accept::RECORD };
    let (tree, _) = read_record_with(record, accept).map_err(|error| error.to_string())?;
    Ok(Shower { tree: &tree, left: VALUES_MAX }.value(tree.root(), 0))
}

/// Bytes as text: UTF-8, or with what is not escaped.
pub fn text(bytes: &[u8]) -> String {
    match str::from_utf8(bytes) {
        Ok(text) if text.chars().count() <= TEXT_MAX => text.into(),
        Ok(text) => text.chars().take(TEXT_MAX).chain(['…']).collect(),
        Err(_) => {
            let shown = bytes.get(..TEXT_MAX).unwrap_or(bytes);
            let more = if shown.len() < bytes.len() { "…" } else { "" };
            format!("{}{more}", shown.escape_ascii())
        }
    }
}

struct Shower<'t, 'a> {
    tree: &'t Tree<'a>,
    /// Values that may still be shown.
    left: usize,
}

impl Shower<'_, '_> {
    fn value(&mut self, id: NodeId, depth: usize) -> Value {
        if self.left == 0 {
            return "…".into();
        }
        self.left -= 1;
        if depth > DEPTH_MAX {
            return "…".into();
        }
        match self.tree.node(id) {
            Node::None => Value::Null,
            Node::Bool(value) => (*value).into(),
            Node::Int(value) => (*value).into(),
            Node::BigInt(bytes) => format!("<integer of {} bytes>", bytes.len()).into(),
            Node::Float(value) => {
                serde_json::Number::from_f64(*value).map_or_else(|| value.to_string().into(), Value::Number)
            }
            Node::Bytes(bytes) | Node::Str(bytes) | Node::Text(bytes) => text(bytes).into(),
            Node::ByteArray(bytes) => text(bytes).into(),
            Node::Tuple(items) | Node::List(items) | Node::Set(items) | Node::FrozenSet(items) => {
                self.values(items, depth).into()
            }
            Node::Dict(pairs) => self.pairs(pairs, depth),
            Node::Global { module, name } => format!("<class {}.{}>", text(module), text(name)).into(),
            Node::Extension(code) => format!("<registered class {code}>").into(),
            Node::Persistent(id) => self.reference(*id).into(),
            Node::Object(object) => self.instance(object, depth),
        }
    }

    fn instance(&mut self, object: &Object, depth: usize) -> Value {
        let mut class = self.class(object.class).unwrap_or_else(|| "?".into());
        let mut args = match self.tree.node(object.args) {
            Node::Tuple(items) => items.as_slice(),
            _ => std::slice::from_ref(&object.args),
        };
        if RECONSTRUCTORS.contains(&class.as_str())
            && let [made, ..] = args
            && let Some(made) = self.class(*made)
        {
            (class, args) = (made, &[]);
        }
        let mut shown = Map::new();
        shown.insert("instance of".into(), class.into());
        if !args.is_empty() {
            shown.insert("arguments".into(), self.values(args, depth).into());
        }
        if let Some(state) = object.state {
            shown.insert("state".into(), self.value(state, depth + 1));
        }
        if !object.items.is_empty() {
            shown.insert("items".into(), self.values(&object.items, depth).into());
        }
        if !object.pairs.is_empty() {
            shown.insert("pairs".into(), self.pairs(&object.pairs, depth));
        }
        shown.into()
    }

    fn class(&self, id: NodeId) -> Option<String> {
        match self.tree.node(id) {
            Node::Global { module, name } => Some(format!("{}.{}", text(module), text(name))),
            _ => None,
        }
    }

    /// A persistent id: an oid, with or without its class; a list is weak, or leads to another database.
    fn reference(&self, id: NodeId) -> String {
        let found = match self.tree.node(id) {
            Node::Tuple(items) => self.strong(items, ""),
            Node::List(items) => self.listed(items),
            _ => self.oid(id).map(|oid| format!("<{oid}>")),
        };
        found.unwrap_or_else(|| "<reference of an unknown kind>".into())
    }

    fn strong(&self, items: &[NodeId], of: &str) -> Option<String> {
        let oid = self.oid(*items.first()?)?;
        let class = items.get(1).and_then(|class| self.class(*class));
        Some(format!("<{oid}{of}{}>", class.map_or_else(String::new, |class| format!(" {class}"))))
    }

    fn listed(&self, items: &[NodeId]) -> Option<String> {
        let [kind, arguments] = items else {
            return Some(format!("<weak {}>", self.oid(*items.first()?)?));
        };
        let Node::Tuple(arguments) = self.tree.node(*arguments) else { return None };
        match (self.string(*kind)?, arguments.as_slice()) {
            (b"w", [oid]) => Some(format!("<weak {}>", self.oid(*oid)?)),
            (b"w", [oid, database, ..]) => {
                Some(format!("<weak {} of {}>", self.oid(*oid)?, text(self.string(*database)?)))
            }
            (b"m" | b"n", [database, object @ ..]) => {
                self.strong(object, &format!(" of {}", text(self.string(*database)?)))
            }
            _ => None,
        }
    }

    fn oid(&self, id: NodeId) -> Option<String> {
        self.string(id).and_then(Oid::from_slice).map(|oid| format!("{:#x}", oid.0))
    }

    fn string(&self, id: NodeId) -> Option<&[u8]> {
        match self.tree.node(id) {
            Node::Bytes(bytes) | Node::Str(bytes) | Node::Text(bytes) => Some(bytes),
            _ => None,
        }
    }

    fn pairs(&mut self, pairs: &[(NodeId, NodeId)], depth: usize) -> Value {
        let mut shown = Map::new();
        for (key, value) in pairs {
            if self.left == 0 {
                shown.insert("…".into(), Value::Null);
                break;
            }
            let mut key = match self.value(*key, depth + 1) {
                Value::String(key) => key,
                other => other.to_string(),
            };
            // 1 and '1' are two keys.
            while shown.contains_key(&key) {
                key.push('\'');
            }
            shown.insert(key, self.value(*value, depth + 1));
        }
        shown.into()
    }

    fn values(&mut self, items: &[NodeId], depth: usize) -> Vec<Value> {
        let mut shown = Vec::new();
        for item in items {
            if self.left == 0 {
                shown.push("…".into());
                break;
            }
            shown.push(self.value(*item, depth + 1));
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn extensions_are_shown_as_data() {
        assert_eq!(extension(b""), json!({}));
        assert_eq!(
            extension(b"}q\x01(U\x03keyq\x02U\x05valueq\x03U\x01nK\x07u."),
            json!({"key": "value", "n": 7})
        );
        assert_eq!(extension(b"\x80\x03}X\x01\0\0\0acm\nC\n)Rs."), json!({"a": {"instance of": "m.C"}}));
        assert!(extension(b"garbage").as_str().is_some_and(|text| text.starts_with("<7 bytes, pickle: ")));
    }

    #[test]
    fn states_are_shown_as_data() {
        let of = |bytes: &[u8]| state(&[b"cm\nC\nq\x01.", bytes].concat());
        assert_eq!(of(b"N."), Ok(Value::Null));
        assert_eq!(of(b"(h\x01U\x03abct."), Ok(json!(["<class m.C>", "abc"])));
        // References in all their forms.
        for (id, shown) in [
            (&b"U\x08\0\0\0\0\0\0\0\x07"[..], "<0x7>"),
            (b"(U\x08\0\0\0\0\0\0\0\x07h\x01t", "<0x7 m.C>"),
            (b"](U\x01w(U\x08\0\0\0\0\0\0\0\x07te", "<weak 0x7>"),
            (b"](U\x08\0\0\0\0\0\0\0\x07e", "<weak 0x7>"),
            (b"](U\x01w(U\x08\0\0\0\0\0\0\0\x07U\x02dbte", "<weak 0x7 of db>"),
            (b"](U\x01m(U\x02dbU\x08\0\0\0\0\0\0\0\x07h\x01te", "<0x7 of db m.C>"),
            (b"](U\x01n(U\x02dbU\x08\0\0\0\0\0\0\0\x07te", "<0x7 of db>"),
            (b"](U\x01x(U\x02dbte", "<reference of an unknown kind>"),
            (b"K\x07", "<reference of an unknown kind>"),
        ] {
            assert_eq!(of(&[id, b"Q."].concat()), Ok(shown.into()), "{}", id.escape_ascii());
        }
        // Instances: by a call, with state; as Python 2 makes them; a class of its own with items and pairs.
        assert_eq!(
            of(b"cm\nD\n(K\x01tR}U\x01aK\x02sb."),
            Ok(json!({"instance of": "m.D", "arguments": [1], "state": {"a": 2}}))
        );
        assert_eq!(
            of(b"ccopy_reg\n_reconstructor\n(cm\nD\nc__builtin__\nobject\nNtR."),
            Ok(json!({"instance of": "m.D"}))
        );
        assert_eq!(of(b"cm\nD\n)\x81(K\x01K\x02e."), Ok(json!({"instance of": "m.D", "items": [1, 2]})));
        assert_eq!(of(b"cm\nD\n)\x81K\x01K\x02s."), Ok(json!({"instance of": "m.D", "pairs": {"1": 2}})));
        assert_eq!(of(b"}(K\x01NU\x011Nu."), Ok(json!({"1": null, "1'": null})));
        assert!(of(b"garbage").is_err());
    }

    /// A list that contains itself ten times in each of ten levels has 10^10 values when it is unfolded.
    #[test]
    fn what_would_unfold_is_cut() {
        let mut pickle = b"]q\x00".to_vec();
        for level in 0..10u8 {
            pickle.extend([b']', b'q', level + 1, b'(']);
            (0..10).for_each(|_| pickle.extend([b'h', level]));
            pickle.push(b'e');
        }
        pickle.push(b'.');
        assert!(extension(&pickle).to_string().len() < 20_000);
        // It contains itself.
        assert!(extension(b"]q\x00h\x00a.").to_string().len() < 1000);
        let long = [&b"X\x10\x27\0\0"[..], &[b'x'; 10_000], b"."].concat();
        assert!(extension(&long).to_string().len() < 600);
    }
}
