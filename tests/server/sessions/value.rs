//! Values of messages as text, both ways, with names for tids.

use crate::support::client::{LATEST, content, record};
use crate::support::pickle::{Value, id};

/// Tids in the order of their first appearance: `$1` is the first.
#[derive(Default)]
pub struct Names {
    tids: Vec<u64>,
}

impl Names {
    pub fn show_list(&mut self, values: &[Value]) -> String {
        values.iter().map(|value| self.show(value)).collect::<Vec<_>>().join(", ")
    }

    pub fn show(&mut self, value: &Value) -> String {
        match value {
            Value::None => "None".to_string(),
            Value::Bool(true) => "True".to_string(),
            Value::Bool(false) => "False".to_string(),
            Value::Int(value) => value.to_string(),
            Value::Float(value) => format!("{value:?}"),
            Value::Bytes(bytes) => self.show_bytes(bytes),
            Value::Text(text) => format!("{text:?}"),
            Value::Tuple(items) if items.len() == 1 => format!("({},)", self.show(&items[0])),
            Value::Tuple(items) => format!("({})", self.show_list(items)),
            Value::List(items) => format!("[{}]", self.show_list(items)),
            Value::Dict(pairs) => {
                let pairs: Vec<_> =
                    pairs.iter().map(|(k, v)| format!("{}: {}", self.show(k), self.show(v))).collect();
                format!("{{{}}}", pairs.join(", "))
            }
            Value::Global(name) => format!("<{name}>"),
            Value::Object(class, state) => format!("{}({})", self.show(class), self.show(state)),
        }
    }

    fn show_bytes(&mut self, bytes: &[u8]) -> String {
        if let Ok(id) = bytes.try_into().map(u64::from_be_bytes) {
            return match id {
                LATEST => "latest".to_string(),
                // The clock is far beyond that.
                oid if oid < 1 << 32 => format!("@{oid}"),
                tid => format!("${}", self.number(tid)),
            };
        }
        if bytes.len() > record(b"").len() && *bytes == record(content(bytes)) {
            return format!("record({:?})", String::from_utf8_lossy(content(bytes)));
        }
        format!("b\"{}\"", bytes.escape_ascii())
    }

    fn number(&mut self, tid: u64) -> usize {
        let known = self.tids.iter().position(|known| *known == tid).unwrap_or_else(|| {
            // A session meets each tid when it is new.
            assert!(self.tids.last().is_none_or(|last| *last < tid), "R3: tids only grow");
            self.tids.push(tid);
            self.tids.len() - 1
        });
        known + 1
    }
}

/// `method(arguments)`.
pub fn parse_call(text: &str, names: &Names) -> (String, Vec<Value>) {
    let (method, rest) = text.split_once('(').unwrap_or_else(|| panic!("no call: {text:?}"));
    let mut parser = Parser { rest, names };
    let args = parser.list(')');
    assert!(parser.rest.is_empty(), "behind the call: {:?}", parser.rest);
    (method.to_string(), args)
}

struct Parser<'a> {
    rest: &'a str,
    names: &'a Names,
}

impl Parser<'_> {
    fn takes(&mut self, token: &str) -> bool {
        let rest = self.rest.trim_start();
        let found = rest.strip_prefix(token);
        self.rest = found.unwrap_or(rest);
        found.is_some()
    }

    /// Values up to the closing bracket, with commas between.
    fn list(&mut self, close: char) -> Vec<Value> {
        let close = close.to_string();
        let mut values = Vec::new();
        while !self.takes(&close) {
            values.push(self.value());
            if !self.takes(",") {
                assert!(self.takes(&close), "{close:?} is missing: {:?}", self.rest);
                break;
            }
        }
        values
    }

    /// Digits.
    fn number(&mut self) -> i64 {
        let end = self.rest.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        self.rest = rest;
        digits.parse().unwrap_or_else(|_| panic!("no value: {digits:?} {rest:?}"))
    }

    /// Up to the quotation mark; nothing is escaped.
    fn quoted(&mut self) -> String {
        let (text, rest) = self.rest.split_once('"').expect("the end of a text");
        self.rest = rest;
        text.to_string()
    }

    fn value(&mut self) -> Value {
        for (word, value) in [
            ("None", Value::None),
            ("True", Value::Bool(true)),
            ("False", Value::Bool(false)),
            ("latest", id(LATEST)),
            ("{}", Value::Dict(Vec::new())),
        ] {
            if self.takes(word) {
                return value;
            }
        }
        if self.takes("@") {
            id(self.number() as u64)
        } else if self.takes("$") {
            id(self.names.tids[self.number() as usize - 1])
        } else if self.takes("record(\"") {
            let data = record(self.quoted().as_bytes());
            assert!(self.takes(")"), "{:?}", self.rest);
            Value::Bytes(data)
        } else if self.takes("b\"") {
            Value::Bytes(self.quoted().into_bytes())
        } else if self.takes("\"") {
            Value::Text(self.quoted())
        } else if self.takes("(") {
            Value::Tuple(self.list(')'))
        } else if self.takes("[") {
            Value::List(self.list(']'))
        } else {
            Value::Int(self.number())
        }
    }
}
