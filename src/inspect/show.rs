//! Values in pickles as JSON of bounded size, for people and programs. Nothing is executed: classes are names.

use serde_json::{Map, Value, json};

use crate::pickle::read::{Accept, read};
use crate::pickle::value::{Node, NodeId, Tree};

/// Deepest nesting that is shown.
const DEPTH_MAX: usize = 6;
/// Values that are shown of one pickle.
const VALUES_MAX: usize = 500;
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
            Node::Dict(pairs) => {
                let mut shown = Map::new();
                for (key, value) in pairs {
                    if self.left == 0 {
                        shown.insert("…".into(), Value::Null);
                        break;
                    }
                    let key = match self.value(*key, depth + 1) {
                        Value::String(key) => key,
                        other => other.to_string(),
                    };
                    shown.insert(key, self.value(*value, depth + 1));
                }
                shown.into()
            }
            Node::Global { module, name } => format!("<class {}.{}>", text(module), text(name)).into(),
            Node::Extension(code) => format!("<registered class {code}>").into(),
            Node::Persistent(_) => "<persistent reference>".into(),
            Node::Object(object) => {
                let class = match self.tree.node(object.class) {
                    Node::Global { module, name } => format!("{}.{}", text(module), text(name)),
                    _ => "?".into(),
                };
                json!({ "instance of": class })
            }
        }
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
