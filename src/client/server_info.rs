//! What a server says about its storage: `get_info`.

use crate::wire::protocol::INSTANCE_KEY;
use crate::wire::value::Value;

/// The storage of a server.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ServerInfo {
    /// Its name there; of a file storage, the path.
    pub name: String,
    /// Whether transactions can be undone.
    pub supports_undo: bool,
    /// (module, name) of Python's interfaces. Empty before Z309.
    pub interfaces: Vec<(String, String)>,
    /// Whether `record_iternext` works.
    pub supports_record_iternext: bool,
    pub object_count: u64,
    /// Bytes.
    pub size: u64,
    /// Names of methods that only this storage has. Before Z5.
    pub extension_methods: Vec<String>,
    /// A name that no other storage has, nor this one after a restart. `None`: it is a server of Python.
    pub instance: Option<String>,
}

impl ServerInfo {
    /// From the dict that `get_info` returns. What is missing keeps its default.
    pub fn from_value(value: &Value) -> ServerInfo {
        let mut info = ServerInfo::default();
        info.update(value);
        if let Some(name) = get(value, "name").and_then(text) {
            info.name = name;
        }
        info.instance = get(value, INSTANCE_KEY).and_then(text);
        info.supports_undo = get(value, "supportsUndo").is_some_and(is_true);
        info.supports_record_iternext = get(value, "supports_record_iternext").is_some_and(is_true);
        if let Some(Value::Dict(methods)) = get(value, "extensionMethods") {
            info.extension_methods = methods.iter().filter_map(|(name, _)| text(name)).collect();
        }
        if let Some(Value::Tuple(pairs) | Value::List(pairs)) = get(value, "interfaces") {
            info.interfaces = pairs.iter().filter_map(interface).collect();
        }
        info
    }

    /// Length and size, from a dict that `get_info` returned or the server sent.
    pub fn update(&mut self, value: &Value) {
        if let Some(count) = get(value, "length").and_then(number) {
            self.object_count = count;
        }
        if let Some(size) = get(value, "size").and_then(number) {
            self.size = size;
        }
    }

    /// Whether the storage provides a Python interface, given by its name without the module.
    pub fn provides(&self, name: &str) -> bool {
        self.interfaces.iter().any(|(_, known)| known == name)
    }
}

fn get<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
    let Value::Dict(items) = value else { return None };
    items.iter().find(|(name, _)| name.string() == Some(key.as_bytes())).map(|(_, value)| value)
}

fn text(value: &Value) -> Option<String> {
    Some(String::from_utf8_lossy(value.string()?).into_owned())
}

fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        // A `long` of Python 2.
        Value::BigInt(bytes) if bytes.len() <= 9 && bytes.last().is_none_or(|top| *top < 0x80) => {
            Some(bytes.iter().take(8).rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
        }
        _ => None,
    }
}

fn is_true(value: &Value) -> bool {
    matches!(value, Value::Bool(true)) || matches!(value, Value::Int(number) if *number != 0)
}

fn interface(value: &Value) -> Option<(String, String)> {
    let (Value::Tuple(pair) | Value::List(pair)) = value else { return None };
    let [module, name] = pair.as_slice() else { return None };
    Some((text(module)?, text(name)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dict_of_each_generation_is_read() {
        let interfaces = Value::Tuple(vec![Value::Tuple(vec![
            Value::text("ZODB.interfaces"),
            Value::text("IStorageIteration"),
        ])]);
        let new = Value::dict([
            ("length", Value::Int(7)),
            ("size", Value::BigInt(vec![0, 1])),
            ("name", Value::text("/srv/Data.fs")),
            ("supportsUndo", Value::Bool(true)),
            ("supports_record_iternext", Value::Bool(true)),
            ("interfaces", interfaces),
        ]);
        let mut info = ServerInfo::from_value(&new);
        assert_eq!((info.object_count, info.size, info.name.as_str()), (7, 256, "/srv/Data.fs"));
        assert!(info.supports_undo && info.provides("IStorageIteration") && !info.provides("IBlobStorage"));
        info.update(&Value::dict([("length", Value::Int(8)), ("size", Value::Int(-1))]));
        assert_eq!((info.object_count, info.size), (8, 256));

        let methods = Value::Dict(vec![(Value::bytes("answer"), Value::None)]);
        let old = Value::Dict(vec![
            (Value::bytes("supportsUndo"), Value::Int(1)),
            (Value::bytes("extensionMethods"), methods),
        ]);
        let old = ServerInfo::from_value(&old);
        assert!(old.supports_undo && old.extension_methods == ["answer"]);
        assert_eq!(ServerInfo::from_value(&Value::None), ServerInfo::default());
    }
}
