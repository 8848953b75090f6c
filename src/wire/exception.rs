//! Python exceptions as data: constructors, and their text in the log. The type is in [`super::value`], because an
//! exception has values and a value may be an exception.
//!
//! How an exception is encoded is in [`super::encoder`]: a pickled instance before Z5, class name and
//! arguments in Z5 and M5.

use std::borrow::Cow;
use std::fmt;

use super::value::Value;
pub use super::value::{BUILTINS, PyException};
use crate::base::untrusted::{Untrusted, UntrustedBytes};

/// The text for a log line: class and arguments. Arguments may come from a client.
impl fmt::Display for PyException {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        let mut args = &self.args[..];
        if let ("OSError", [Value::Int(errno), rest @ ..]) = (&*self.name, args) {
            write!(f, ": [Errno {errno}]")?;
            args = rest;
        } else if !args.is_empty() {
            f.write_str(":")?;
        }
        for (n, arg) in args.iter().enumerate() {
            write!(f, "{} {}", if n == 0 { "" } else { "," }, Shown(arg))?;
        }
        Ok(())
    }
}

/// A value as operators read it: strings without quotes, oids and tids in hex.
struct Shown<'a>(&'a Value);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::None => f.write_str("None"),
            Value::Bool(true) => f.write_str("True"),
            Value::Bool(false) => f.write_str("False"),
            Value::Int(number) => write!(f, "{number}"),
            Value::Float(number) => write!(f, "{number}"),
            Value::Text(text) | Value::Unicode(text) => write!(f, "{}", Untrusted(text)),
            Value::Bytes(bytes) | Value::Str(bytes) => match <[u8; 8]>::try_from(&bytes[..]) {
                Ok(id) => write!(f, "0x{:016x}", u64::from_be_bytes(id)),
                Err(_) => write!(f, "{}", UntrustedBytes(bytes)),
            },
            Value::Tuple(items) | Value::List(items) => {
                f.write_str("(")?;
                for (n, item) in items.iter().enumerate() {
                    write!(f, "{}{}", if n == 0 { "" } else { ", " }, Shown(item))?;
                }
                f.write_str(")")
            }
            Value::Exception(exception) => exception.fmt(f),
            Value::BigInt(_) => f.write_str("a large integer"),
            Value::Dict(items) => write!(f, "a dict of {} items", items.len()),
            Value::Prefix(prefix) => Shown(prefix).fmt(f),
        }
    }
}

impl PyException {
    /// An exception with positional arguments only.
    pub fn new(
        module: impl Into<Cow<'static, str>>,
        name: impl Into<Cow<'static, str>>,
        args: Vec<Value>,
    ) -> PyException {
        PyException { module: module.into(), name: name.into(), args, attributes: Vec::new() }
    }

    /// The same exception with these attributes.
    pub fn with<const N: usize>(mut self, attributes: [(&'static str, Value); N]) -> PyException {
        self.attributes.extend(attributes.map(|(name, value)| (Cow::Borrowed(name), value)));
        self
    }

    /// A built-in exception with a message, e.g. `ValueError("no such storage")`.
    pub fn builtin(name: &'static str, message: impl Into<String>) -> PyException {
        PyException::new(BUILTINS, name, vec![Value::Text(message.into())])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The log showed Rust's debug text: `OSError[Int(2), Text("...")]`.
    #[test]
    fn lines_of_the_log_are_plain_text() {
        let line = |name, args| PyException::new(BUILTINS, name, args).to_string();
        let errno = vec![Value::Int(28), Value::text("No space left on device (buffering a transaction)")];
        assert_eq!(
            line("OSError", errno),
            "OSError: [Errno 28] No space left on device (buffering a transaction)"
        );
        assert_eq!(line("OSError", vec![Value::text("gone")]), "OSError: gone");
        assert_eq!(line("AssertionError", Vec::new()), "AssertionError");
        let args = vec![
            Value::text("No blob file"),
            Value::text("a\n------\nCRITICAL forged"),
            Value::bytes([0, 0, 0, 0, 0, 0, 0, 9]),
            Value::bytes("x\n"),
            Value::Tuple(vec![Value::None, Value::Bool(true)]),
        ];
        assert_eq!(
            line("POSKeyError", args),
            "POSKeyError: No blob file, a\\n------\\nCRITICAL forged, 0x0000000000000009, x\\n, (None, True)"
        );
    }
}
