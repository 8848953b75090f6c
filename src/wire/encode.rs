//! Replies, errors and pushes to frames: the messages are put together here, the bytes of single values in
//! [`crate::pickle::write`] and [`super::msgpack`].

use super::codec::LoadShape;
use super::exception::{BUILTINS, PyException};
use super::frame::{begin_frame, end_frame};
use super::msgpack;
use super::protocol::{Codec, Wire};
use super::push::Push;
use super::request::MsgId;
use super::value::Value;
use crate::base::ids::{Oid, Tid};
use crate::pickle::Dialect;
use crate::pickle::opcode;
use crate::pickle::write as pickle;

/// A flag of messages: an error, since Z5.
const FLAG_ERROR: i64 = 2;
const REPLY: &str = ".reply";

/// Writes values of one codec.
pub(super) struct Encoder<'o> {
    pub out: &'o mut Vec<u8>,
    pub wire: Wire,
}

impl Encoder<'_> {
    pub fn none(&mut self) {
        self.out.push(match self.wire.codec {
            Codec::Pickle(_) => opcode::NONE,
            Codec::Msgpack => msgpack::NIL,
        });
    }

    pub fn bool(&mut self, value: bool) {
        match self.wire.codec {
            Codec::Pickle(dialect) => pickle::put_bool(dialect, value, self.out),
            Codec::Msgpack => self.out.push(if value { msgpack::TRUE } else { msgpack::FALSE }),
        }
    }

    pub fn int(&mut self, value: i64) {
        match self.wire.codec {
            Codec::Pickle(dialect) => pickle::put_int(dialect, value, self.out),
            Codec::Msgpack => msgpack::put_int(value, self.out),
        }
    }

    pub fn float(&mut self, value: f64) {
        match self.wire.codec {
            Codec::Pickle(_) => pickle::put_float(value, self.out),
            Codec::Msgpack => msgpack::put_float(value, self.out),
        }
    }

    pub fn bytes(&mut self, value: &[u8]) {
        match self.wire.codec {
            Codec::Pickle(dialect) => pickle::put_bytes(dialect, value, self.out),
            Codec::Msgpack => msgpack::put_bytes(value, self.out),
        }
    }

    pub fn tid(&mut self, tid: Tid) {
        self.id8(tid.to_bytes());
    }

    pub fn oid(&mut self, oid: Oid) {
        self.id8(oid.to_bytes());
    }

    /// An oid in a list of invalidations: with the version that it was changed in, where these are known.
    fn oid_with_version(&mut self, oid: Oid) {
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

    fn id8(&mut self, [a, b, c, d, e, f, g, h]: [u8; 8]) {
        let opcode = match self.wire.codec {
            Codec::Pickle(Dialect::Python2) => opcode::SHORT_BINSTRING,
            Codec::Pickle(Dialect::Python3) => opcode::SHORT_BINBYTES,
            Codec::Msgpack => msgpack::BIN8,
        };
        self.out.extend_from_slice(&[opcode, 8, a, b, c, d, e, f, g, h]);
    }

    pub fn text(&mut self, value: &str) {
        match self.wire.codec {
            Codec::Pickle(dialect) => pickle::put_text(dialect, value, self.out),
            Codec::Msgpack => msgpack::put_text(value, self.out),
        }
    }

    pub fn begin_tuple(&mut self, count: usize) {
        match self.wire.codec {
            Codec::Pickle(dialect) => pickle::begin_tuple(dialect, count, self.out),
            Codec::Msgpack => msgpack::begin_array(count, self.out),
        }
    }

    pub fn end_tuple(&mut self, count: usize) {
        if let Codec::Pickle(dialect) = self.wire.codec {
            pickle::end_tuple(dialect, count, self.out);
        }
    }

    pub fn begin_list(&mut self, count: usize) {
        match self.wire.codec {
            Codec::Pickle(_) => pickle::begin_list(count, self.out),
            Codec::Msgpack => msgpack::begin_array(count, self.out),
        }
    }

    pub fn end_list(&mut self, count: usize) {
        if let Codec::Pickle(_) = self.wire.codec {
            pickle::end_list(count, self.out);
        }
    }

    pub fn begin_dict(&mut self, count: usize) {
        match self.wire.codec {
            Codec::Pickle(_) => pickle::begin_dict(count, self.out),
            Codec::Msgpack => msgpack::begin_map(count, self.out),
        }
    }

    pub fn end_dict(&mut self, count: usize) {
        if let Codec::Pickle(_) = self.wire.codec {
            pickle::end_dict(count, self.out);
        }
    }

    /// A message id as it came.
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

    /// What stands before the result in a reply.
    pub fn begin_reply(&mut self, id: MsgId<'_>, flag: i64) {
        self.begin_message();
        self.msg_id(id);
        self.int(flag);
        self.text(REPLY);
    }

    /// What stands before the arguments of a call to the client.
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

    /// A call with an oid and a serial.
    fn call_about_revision(&mut self, method: &str, oid: Oid, serial: Tid) {
        self.begin_call(method);
        self.begin_tuple(2);
        self.oid(oid);
        self.tid(serial);
        self.end_tuple(2);
    }

    pub fn begin_message(&mut self) {
        if let Codec::Pickle(dialect) = self.wire.codec {
            pickle::start(dialect, self.out);
        }
        self.begin_tuple(4);
    }

    pub fn end_message(&mut self) {
        self.end_tuple(4);
        if let Codec::Pickle(_) = self.wire.codec {
            self.out.push(opcode::STOP);
        }
    }

    /// Any value. Recursion is as deep as the value; what comes from peers is bounded when it is decoded.
    pub fn value(&mut self, value: &Value) {
        match value {
            Value::None => self.none(),
            Value::Bool(value) => self.bool(*value),
            Value::Int(value) => self.int(*value),
            Value::BigInt(value) => match self.wire.codec {
                Codec::Pickle(_) => pickle::put_big_int(value, self.out),
                Codec::Msgpack => match small(value) {
                    Some(value) => self.int(value),
                    // msgpack has no such integer, and Python's server fails to answer
                    None => self.float(nearest(value)),
                },
            },
            Value::Float(value) => self.float(*value),
            Value::Bytes(value) => self.bytes(value),
            Value::Text(value) => self.text(value),
            Value::Str(value) => match (self.wire.codec, std::str::from_utf8(value)) {
                (Codec::Pickle(Dialect::Python2), _) => self.bytes(value),
                (_, Ok(text)) if text.is_ascii() => self.text(text),
                _ => self.bytes(value),
            },
            Value::Unicode(value) => match self.wire.codec {
                Codec::Pickle(_) => pickle::put_unicode(value, self.out),
                Codec::Msgpack => msgpack::put_text(value, self.out),
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

    /// An exception inside a value: a pickled instance, in Z5 too. Python's servers put (name, attributes) into a message of
    /// msgpack, on which clients fail when they print the MultipleUndoErrors that it stands in; what it says will do.
    pub fn exception(&mut self, exception: &PyException) {
        match (self.wire.codec, exception.args.first()) {
            (Codec::Pickle(_), _) => self.exception_instance(exception),
            (Codec::Msgpack, Some(message)) => self.value(message),
            (Codec::Msgpack, None) => self.text(exception.name),
        }
    }

    /// ("module.Name", arguments), or the attributes if there are any, as ZEO 5 does.
    fn exception_pair(&mut self, exception: &PyException) {
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
    fn exception_class(&mut self, exception: &PyException) {
        let module = match (exception.module, self.wire.codec) {
            (BUILTINS, Codec::Pickle(Dialect::Python2)) => "exceptions",
            (module, _) => module,
        };
        pickle::put_global(module, exception.name, self.out);
    }

    /// A pickled instance. ZODB's own exceptions reduce to `_recon(class, state)`, with the arguments in the state;
    /// clients accept that function and classes of exceptions, and no other global.
    fn exception_instance(&mut self, exception: &PyException) {
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
        // 3.8's ConflictError and its like keep their message in a slot that must be set; others ignore it.
        let message =
            self.wire.exceptions_have_message() && !attributes.iter().any(|(name, _)| *name == "message");
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

/// An integer that 64 bits hold.
fn small(value: &[u8]) -> Option<i64> {
    let sign = if value.last().is_some_and(|top| top & 0x80 != 0) { 0xff } else { 0 };
    let mut bytes = [sign; 8];
    bytes.get_mut(..value.len())?.copy_from_slice(value);
    Some(i64::from_le_bytes(bytes))
}

/// The float next to an integer in two's complement, little endian.
fn nearest(value: &[u8]) -> f64 {
    let (top, rest) = value.split_last().unwrap_or((&0, &[]));
    let top = f64::from(i8::from_le_bytes([*top]));
    rest.iter().rev().fold(top, |sum, byte| sum * 256.0 + f64::from(*byte))
}

/// Append one frame with a message that `build` writes.
pub(super) fn frame(wire: Wire, out: &mut Vec<u8>, build: impl FnOnce(&mut Encoder<'_>)) {
    let start = begin_frame(out);
    let mut encoder = Encoder { out, wire };
    build(&mut encoder);
    encoder.end_message();
    end_frame(out, start);
}

/// Append one frame: an error.
pub(super) fn error(wire: Wire, id: MsgId<'_>, exception: &PyException, out: &mut Vec<u8>) {
    frame(wire, out, |e| {
        if wire.pickles_exceptions() {
            e.begin_reply(id, 0);
            e.begin_tuple(2);
            e.exception_class(exception);
            e.exception_instance(exception);
            e.end_tuple(2);
        } else {
            e.begin_reply(id, FLAG_ERROR);
            e.exception_pair(exception);
        }
    });
}

/// Append one frame: a call to the client that wants no reply.
pub(super) fn push(wire: Wire, push: &Push<'_>, out: &mut Vec<u8>) {
    frame(wire, out, |e| match push {
        Push::Invalidate { tid, oids } => {
            e.begin_call("invalidateTransaction");
            e.invalidations(*tid, oids);
        }
        Push::Info(info) => {
            e.begin_call("info");
            e.begin_tuple(1);
            e.value(info);
            e.end_tuple(1);
        }
        Push::Serialnos(serials) => {
            e.begin_call("serialnos");
            e.begin_tuple(1);
            e.begin_list(serials.len());
            for (oid, serial) in serials {
                e.begin_tuple(2);
                e.oid(*oid);
                e.value(serial);
                e.end_tuple(2);
            }
            e.end_list(serials.len());
            e.end_tuple(1);
        }
        Push::InvalidateVerify { oid } => {
            e.begin_call("invalidateVerify");
            e.begin_tuple(1);
            e.oid_with_version(*oid);
            e.end_tuple(1);
        }
        Push::EndVerify => {
            e.begin_call("endVerify");
            e.begin_tuple(0);
            e.end_tuple(0);
        }
        Push::BlobStart { oid, serial } => e.call_about_revision("receiveBlobStart", *oid, *serial),
        Push::BlobStop { oid, serial } => e.call_about_revision("receiveBlobStop", *oid, *serial),
    });
}

/// See [`Wire::blob_chunk`].
pub(super) fn blob_chunk(wire: Wire, oid: Oid, serial: Tid, len: usize, out: &mut Vec<u8>) -> usize {
    let mut chunk_start = 0;
    frame(wire, out, |e| {
        e.begin_call("receiveBlobChunk");
        e.begin_tuple(3);
        e.oid(oid);
        e.tid(serial);
        e.bytes(&vec![0; len]);
        chunk_start = e.out.len() - len;
        e.end_tuple(3);
    });
    chunk_start
}

/// Bytes that the header of a load's reply takes, which is the same for every length of the data: it is always
/// written with a length of four bytes.
pub(super) fn load_headroom(wire: Wire, id: MsgId<'_>) -> usize {
    // length of the frame; start of the message; flag and method; start of the result; length of the data
    let (rest, load) = match wire.codec {
        Codec::Pickle(Dialect::Python3) => (4 + 3 + 13 + 5, 21),
        Codec::Pickle(Dialect::Python2) => (4 + 1 + 10 + 1 + 5, 22),
        Codec::Msgpack => (4 + 1 + 8 + 3 + 5, 21),
    };
    rest + match id {
        MsgId::Int(0..=0xff) => 2,
        MsgId::Int(0x100..=0xffff) => 3,
        MsgId::Int(0x1_0000..=0x7fff_ffff) => 5,
        MsgId::Int(_) => INT_LEN_MAX,
        MsgId::Load(..) => load,
        MsgId::Raw(encoded) => encoded.len(),
    }
}

/// An integer of 64 bits as text, and its opcode.
const INT_LEN_MAX: usize = 22;

/// See [`Wire::load_reply`].
#[allow(clippy::too_many_arguments)] // what varies in a reply
pub(super) fn load_reply(
    wire: Wire,
    shape: LoadShape,
    id: MsgId<'_>,
    serial: Tid,
    end: Option<Tid>,
    out: &mut Vec<u8>,
    frame_start: usize,
    data_start: usize,
) {
    let versions = wire.knows_versions();
    let data_len = out.len().saturating_sub(data_start);
    let count = match shape {
        LoadShape::Serial => 0,
        LoadShape::Load => 2,
        LoadShape::LoadEx if !versions => 2,
        LoadShape::LoadEx | LoadShape::Before => 3,
        LoadShape::ZeoLoad => 5,
    };
    let mut e = Encoder { out, wire };
    if count > 0 {
        e.tid(serial);
    }
    match shape {
        LoadShape::Before => match end {
            Some(end) => e.tid(end),
            None => e.none(),
        },
        LoadShape::LoadEx if versions => e.text(""),
        LoadShape::ZeoLoad => {
            e.text("");
            e.none();
            e.none();
        }
        LoadShape::Serial | LoadShape::Load | LoadShape::LoadEx => {}
    }
    if count > 0 {
        e.end_tuple(count);
    }
    e.end_message();

    // The header is written behind everything, and then copied to its place before the data.
    let message_end = e.out.len();
    e.out.extend_from_slice(&[0; 4]);
    e.begin_reply(id, 0);
    let data_len = u32::try_from(data_len).unwrap_or(u32::MAX);
    match wire.codec {
        Codec::Pickle(dialect) => {
            if count > 0 {
                e.begin_tuple(count);
            }
            e.out.push(if dialect == Dialect::Python3 { opcode::BINBYTES } else { opcode::BINSTRING });
            e.out.extend_from_slice(&data_len.to_le_bytes());
        }
        Codec::Msgpack => {
            if let (1.., Ok(count)) = (count, u16::try_from(count)) {
                // The long form makes this header as long as a data header of FileStorage, where data is
                // read into place: then nothing needs to be moved.
                e.out.push(msgpack::ARRAY16);
                e.out.extend_from_slice(&count.to_be_bytes());
            }
            e.out.push(msgpack::BIN32);
            e.out.extend_from_slice(&data_len.to_be_bytes());
        }
    }
    let header_len = out.len() - message_end;
    match data_start.checked_sub(header_len) {
        Some(start) if start >= frame_start => {
            out.copy_within(message_end.., start);
            out.truncate(message_end);
            if start > frame_start {
                out.copy_within(start.., frame_start);
                out.truncate(message_end - (start - frame_start));
            }
        }
        _ => {
            // less headroom than was asked for
            let header = out.split_off(message_end);
            out.splice(frame_start..data_start.min(message_end), header);
        }
    }
    end_frame(out, frame_start);
}
