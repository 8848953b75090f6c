//! Writes single values and the frame of a message, in the encoding of a [`Wire`]. Only this module chooses between
//! [`super::pickle`] and [`super::msgpack`]. Replies and pushes are composed in [`super::reply`] and [`super::push`].

use super::exception::{BUILTINS, PyException};
use super::frame::{begin_frame, end_frame};
use super::protocol::{Encoding, Wire};
use super::request::MsgId;
use super::value::Value;
use super::{msgpack, pickle};
use crate::base::ids::{Oid, Tid};
use crate::pickle::Dialect;
use crate::pickle::opcode;

const REPLY: &str = ".reply";

/// Writes values in one encoding.
pub(super) struct Encoder<'o> {
    pub out: &'o mut Vec<u8>,
    pub wire: Wire,
}

impl Encoder<'_> {
    pub fn none(&mut self) {
        match self.wire.encoding {
            Encoding::Pickle(_) => self.out.push(opcode::NONE),
            Encoding::Msgpack => msgpack::put_none(self.out),
        }
    }

    pub fn bool(&mut self, value: bool) {
        match self.wire.encoding {
            Encoding::Pickle(dialect) => pickle::put_bool(dialect, value, self.out),
            Encoding::Msgpack => msgpack::put_bool(value, self.out),
        }
    }

    pub fn int(&mut self, value: i64) {
        match self.wire.encoding {
            Encoding::Pickle(dialect) => pickle::put_int(dialect, value, self.out),
            Encoding::Msgpack => msgpack::put_int(value, self.out),
        }
    }

    pub fn float(&mut self, value: f64) {
        match self.wire.encoding {
            Encoding::Pickle(_) => pickle::put_float(value, self.out),
            Encoding::Msgpack => msgpack::put_float(value, self.out),
        }
    }

    pub fn bytes(&mut self, value: &[u8]) {
        match self.wire.encoding {
            Encoding::Pickle(dialect) => pickle::put_bytes(dialect, value, self.out),
            Encoding::Msgpack => msgpack::put_bytes(value, self.out),
        }
    }

    pub fn tid(&mut self, tid: Tid) {
        self.id8(tid.to_bytes());
    }

    pub fn oid(&mut self, oid: Oid) {
        self.id8(oid.to_bytes());
    }

    /// An oid in a list of invalidations, with its (empty) version for generations that have versions.
    pub fn oid_with_version(&mut self, oid: Oid) {
        if self.wire.knows_versions() {
            self.begin_tuple(2);
            self.oid(oid);
            self.text("");
            self.end_tuple(2);
        } else {
            self.oid(oid);
        }
    }

    /// (tid, oids)
    pub fn invalidations(&mut self, tid: Tid, oids: &[Oid]) {
        self.begin_tuple(2);
        self.tid(tid);
        self.begin_list(oids.len());
        oids.iter().for_each(|oid| self.oid_with_version(*oid));
        self.end_list(oids.len());
        self.end_tuple(2);
    }

    fn id8(&mut self, id: [u8; 8]) {
        match self.wire.encoding {
            Encoding::Pickle(dialect) => pickle::put_id8(dialect, id, self.out),
            Encoding::Msgpack => msgpack::put_id8(id, self.out),
        }
    }

    pub fn text(&mut self, value: &str) {
        match self.wire.encoding {
            Encoding::Pickle(dialect) => pickle::put_text(dialect, value, self.out),
            Encoding::Msgpack => msgpack::put_text(value, self.out),
        }
    }

    pub fn begin_tuple(&mut self, count: usize) {
        match self.wire.encoding {
            Encoding::Pickle(dialect) => pickle::begin_tuple(dialect, count, self.out),
            Encoding::Msgpack => msgpack::begin_array(count, self.out),
        }
    }

    pub fn end_tuple(&mut self, count: usize) {
        if let Encoding::Pickle(dialect) = self.wire.encoding {
            pickle::end_tuple(dialect, count, self.out);
        }
    }

    pub fn begin_list(&mut self, count: usize) {
        match self.wire.encoding {
            Encoding::Pickle(_) => pickle::begin_list(count, self.out),
            Encoding::Msgpack => msgpack::begin_array(count, self.out),
        }
    }

    pub fn end_list(&mut self, count: usize) {
        if let Encoding::Pickle(_) = self.wire.encoding {
            pickle::end_list(count, self.out);
        }
    }

    pub fn begin_dict(&mut self, count: usize) {
        match self.wire.encoding {
            Encoding::Pickle(_) => pickle::begin_dict(count, self.out),
            Encoding::Msgpack => msgpack::begin_map(count, self.out),
        }
    }

    pub fn end_dict(&mut self, count: usize) {
        if let Encoding::Pickle(_) = self.wire.encoding {
            pickle::end_dict(count, self.out);
        }
    }

    /// A message id, unchanged.
    pub fn msg_id(&mut self, id: MsgId<'_>) {
        match id {
            MsgId::Int(id) => self.int(id),
            MsgId::Load(oid, tid) => {
                self.begin_tuple(2);
                self.oid(oid);
                self.tid(tid);
                self.end_tuple(2);
            }
            MsgId::Raw(encoded) => self.out.extend_from_slice(encoded),
        }
    }

    /// The part of a reply before the result.
    pub fn begin_reply(&mut self, id: MsgId<'_>, flag: i64) {
        self.begin_message();
        self.msg_id(id);
        self.int(flag);
        self.text(REPLY);
    }

    /// The part of a call with a reply before the arguments.
    pub fn begin_request(&mut self, id: i64, method: &str) {
        self.begin_message();
        self.int(id);
        if self.wire.call_flag_is_bool() {
            self.bool(false);
        } else {
            self.int(0);
        }
        self.text(method);
    }

    /// The part of a call without a reply, of either side, before the arguments.
    pub fn begin_call(&mut self, method: &str) {
        self.begin_message();
        self.int(0);
        if self.wire.async_flag_is_bool() {
            self.bool(true);
        } else {
            self.int(1);
        }
        self.text(method);
    }

    pub fn begin_message(&mut self) {
        if let Encoding::Pickle(dialect) = self.wire.encoding {
            pickle::start(dialect, self.out);
        }
        self.begin_tuple(4);
    }

    pub fn end_message(&mut self) {
        self.end_tuple(4);
        if let Encoding::Pickle(_) = self.wire.encoding {
            self.out.push(opcode::STOP);
        }
    }

    /// Any value. The recursion is as deep as the value; values from peers are bounded when they are decoded.
    pub fn value(&mut self, value: &Value) {
        match value {
            Value::None => self.none(),
            Value::Bool(value) => self.bool(*value),
            Value::Int(value) => self.int(*value),
            Value::BigInt(value) => match self.wire.encoding {
                Encoding::Pickle(_) => pickle::put_big_int(value, self.out),
                Encoding::Msgpack => match as_i64(value) {
                    Some(value) => self.int(value),
                    // msgpack has no such integer, and Python's server fails to answer
                    None => self.float(nearest(value)),
                },
            },
            Value::Float(value) => self.float(*value),
            Value::Bytes(value) => self.bytes(value),
            Value::Text(value) => self.text(value),
            Value::Str(value) => match (self.wire.encoding, std::str::from_utf8(value)) {
                (Encoding::Pickle(Dialect::Python2), _) => self.bytes(value),
                (_, Ok(text)) if text.is_ascii() => self.text(text),
                _ => self.bytes(value),
            },
            Value::Unicode(value) => match self.wire.encoding {
                Encoding::Pickle(_) => pickle::put_unicode(value, self.out),
                Encoding::Msgpack => msgpack::put_text(value, self.out),
            },
            Value::Tuple(items) => {
                self.begin_tuple(items.len());
                items.iter().for_each(|item| self.value(item));
                self.end_tuple(items.len());
            }
            Value::List(items) => {
                self.begin_list(items.len());
                items.iter().for_each(|item| self.value(item));
                self.end_list(items.len());
            }
            Value::Dict(items) => {
                self.begin_dict(items.len());
                for (key, value) in items {
                    self.value(key);
                    self.value(value);
                }
                self.end_dict(items.len());
            }
            Value::Prefix(prefix) => self.value(prefix),
            Value::Exception(exception) => self.exception(exception),
        }
    }

    /// An exception inside a value: a pickled instance, in Z5 too. In msgpack only its message is sent: Python's
    /// servers send (name, attributes), and clients fail when they print the MultipleUndoErrors that contain it.
    pub fn exception(&mut self, exception: &PyException) {
        match (self.wire.encoding, exception.args.first()) {
            (Encoding::Pickle(_), _) => self.exception_instance(exception),
            (Encoding::Msgpack, Some(message)) => self.value(message),
            (Encoding::Msgpack, None) => self.text(&exception.name),
        }
    }

    /// ("module.Name", arguments), or the attributes if there are any, as ZEO 5 does.
    pub fn exception_pair(&mut self, exception: &PyException) {
        self.begin_tuple(2);
        let name = format!("{}.{}", exception.module, exception.name);
        self.text(&name);
        if exception.attributes.is_empty() {
            self.begin_tuple(exception.args.len());
            exception.args.iter().for_each(|arg| self.value(arg));
            self.end_tuple(exception.args.len());
        } else {
            self.begin_dict(exception.attributes.len());
            for (name, value) in &exception.attributes {
                self.text(name);
                self.value(value);
            }
            self.end_dict(exception.attributes.len());
        }
        self.end_tuple(2);
    }

    /// The class of an exception: the module of the built-in ones depends on the Python.
    pub fn exception_class(&mut self, exception: &PyException) {
        let module = match (&*exception.module, self.wire.encoding) {
            (BUILTINS, Encoding::Pickle(Dialect::Python2)) => "exceptions",
            (module, _) => module,
        };
        pickle::put_global(module, &exception.name, self.out);
    }

    /// A pickled instance. ZODB's own exceptions reduce to `_recon(class, state)`, with the arguments in the state;
    /// clients accept this function, classes of exceptions, and no other global.
    pub fn exception_instance(&mut self, exception: &PyException) {
        let attributes = &exception.attributes;
        if exception.module == BUILTINS || exception.module == "transaction.interfaces" {
            self.exception_class(exception);
            self.begin_tuple(exception.args.len());
            exception.args.iter().for_each(|arg| self.value(arg));
            self.end_tuple(exception.args.len());
            self.out.push(opcode::REDUCE);
            if !attributes.is_empty() {
                self.begin_dict(attributes.len());
                for (name, value) in attributes {
                    self.text(name);
                    self.value(value);
                }
                self.end_dict(attributes.len());
                self.out.push(opcode::BUILD);
            }
            return;
        }
        pickle::put_global("ZODB.POSException", "_recon", self.out);
        self.begin_tuple(2);
        self.exception_class(exception);
        // ConflictError and similar classes of 3.8 keep their message in a slot that must be set; others ignore it.
        let message =
            self.wire.exceptions_have_message() && !attributes.iter().any(|(name, _)| name == "message");
        let count = attributes.len() + 1 + usize::from(message);
        self.begin_dict(count);
        for (name, value) in attributes {
            self.text(name);
            self.value(value);
        }
        if message {
            self.text("message");
            match exception.args.as_slice() {
                [message] => self.value(message),
                _ => self.text(""),
            }
        }
        self.text("args");
        self.begin_tuple(exception.args.len());
        exception.args.iter().for_each(|arg| self.value(arg));
        self.end_tuple(exception.args.len());
        self.end_dict(count);
        self.end_tuple(2);
        self.out.push(opcode::REDUCE);
    }
}

/// An integer in two's complement, little endian, if 64 bits hold it.
fn as_i64(value: &[u8]) -> Option<i64> {
    let sign = if value.last().is_some_and(|top| top & 0x80 != 0) { 0xff } else { 0 };
    let mut bytes = [sign; 8];
    bytes.get_mut(..value.len())?.copy_from_slice(value);
    Some(i64::from_le_bytes(bytes))
}

/// The nearest float to an integer in two's complement, little endian.
fn nearest(value: &[u8]) -> f64 {
    let (top, rest) = value.split_last().unwrap_or((&0, &[]));
    let top = f64::from(i8::from_le_bytes([*top]));
    rest.iter().rev().fold(top, |sum, byte| sum * 256.0 + f64::from(*byte))
}

/// A value as a pickle of its own, which Python 2 and 3 read.
pub fn pickled(value: &Value) -> Vec<u8> {
    let dialect = Dialect::Python3;
    let wire = Wire { encoding: Encoding::Pickle(dialect), ..Wire::BEFORE_FIRST_MESSAGE };
    let mut out = Vec::new();
    pickle::start(dialect, &mut out);
    Encoder { out: &mut out, wire }.value(value);
    out.push(opcode::STOP);
    out
}

/// Appends one frame with a message that `build` writes.
pub(super) fn frame(wire: Wire, out: &mut Vec<u8>, build: impl FnOnce(&mut Encoder<'_>)) {
    let start = begin_frame(out);
    let mut encoder = Encoder { out, wire };
    build(&mut encoder);
    encoder.end_message();
    end_frame(out, start);
}
