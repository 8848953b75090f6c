//! The messages of zc.zrs 3.1 from a primary to a secondary: pickles, each in a frame of its own.
//!
//! | message | value | behind it |
//! |---|---|---|
//! | transaction | `('T', (tid, status, user, description, extension))` | its records |
//! | record | `('S', (oid, tid, version, data_txn))` | a frame with the data, empty if there is none |
//! | blob | `('B', (oid, tid, version, data_txn, count))` | a frame with the record, `count` frames with the blob |
//! | commit | `('C', (checksum,))` | the next transaction |
//!
//! `data_txn` is the transaction that has the data, if the record is a back-pointer, or None. Primaries on Python 2
//! write strings, those on Python 3 texts, and bytes as the call `_codecs.encode(text, 'latin1')`, for all is protocol
//! 1. Both are read here. Written is the form of Python 3, which secondaries on both Pythons read.

use std::borrow::Cow;

use crate::base::ids::{Oid, Tid};
use crate::pickle::opcode::{EMPTY_DICT, MARK, NONE, REDUCE, SETITEMS, STOP, TUPLE};
use crate::pickle::read::{Accept, read};
use crate::pickle::rewrite::rewrite;
use crate::pickle::value::{Budget, Node, NodeId, Object, Tree};
use crate::pickle::write::{
    Dialect, put_big_int, put_bool, put_bytes, put_float, put_global, put_int, put_unicode,
};
use crate::storage::TransactionMeta;

/// Bytes of a blob in a frame, but for the last one.
pub const BLOCK_LEN: usize = 1 << 16;
/// Longest frame with a pickle: a name, a description and an extension have up to 64 KiB each in a file.
pub const MESSAGE_LEN_MAX: usize = 4 << 20;

/// What a frame with a pickle says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Message {
    Transaction(Transaction),
    Record(RecordHead),
    Commit { checksum: Vec<u8> },
}

/// The beginning of a transaction.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Transaction {
    pub tid: Tid,
    pub status: u8,
    pub meta: TransactionMeta,
}

/// What comes before the data of a record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RecordHead {
    pub oid: Oid,
    pub tid: Tid,
    pub data_txn: Option<Tid>,
    /// Number of frames with the object's blob; `None`: it is not sent.
    pub blocks: Option<u64>,
}

/// An extension that is no dict of plain data. Classes of an application are not passed on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NotPlain;

impl Message {
    /// Errors say what is wrong with the message.
    pub fn parse(payload: &[u8]) -> Result<Message, String> {
        // Nothing is called and nothing imported: an extension may have instances, which are passed on as they are.
        let accept = Accept { global: |_, _| true, persistent: false, nodes_max: 1 << 17 };
        let tree = read(payload, accept).map_err(|error| error.to_string())?;
        let tree = with_bytes(tree);
        let parts = Parts { tree: &tree };
        let [kind, content] = parts.tuple(tree.root())?;
        match &*parts.bytes(kind)? {
            b"T" => {
                let [tid, status, user, description, extension] = parts.tuple(content)?;
                let status = match *parts.bytes(status)? {
                    [status] if status.is_ascii() => status,
                    _ => return Err("the status of a transaction is not one character".into()),
                };
                let meta = TransactionMeta {
                    user: parts.bytes(user)?.into_owned(),
                    description: parts.bytes(description)?.into_owned(),
                    extension: parts.extension(extension)?,
                };
                Ok(Message::Transaction(Transaction { tid: parts.tid(tid)?, status, meta }))
            }
            b"S" => {
                let [oid, tid, version, data_txn] = parts.tuple(content)?;
                parts.record([oid, tid, version, data_txn], None).map(Message::Record)
            }
            b"B" => {
                let [oid, tid, version, data_txn, count] = parts.tuple(content)?;
                let Node::Int(count) = tree.node(count) else { return Err("no number of blocks".into()) };
                let blocks = u64::try_from(*count).map_err(|_| "a negative number of blocks")?;
                parts.record([oid, tid, version, data_txn], Some(blocks)).map(Message::Record)
            }
            b"C" => {
                let [checksum] = parts.tuple(content)?;
                Ok(Message::Commit { checksum: parts.bytes(checksum)?.into_owned() })
            }
            other => Err(format!("a message of the unknown kind '{}'", other.escape_ascii())),
        }
    }
}

/// Whether it was made of values of Python 2.
fn has_strings(tree: &Tree<'_>) -> bool {
    tree.nodes().iter().any(|node| matches!(node, Node::Str(_)))
}

/// Bytes that Python 3 has pickled by protocol 1, as bytes, or as strings beside those of Python 2.
fn with_bytes(tree: Tree<'_>) -> Tree<'_> {
    let bytes_of = |object: &Object| -> Option<Vec<u8>> {
        let (Node::Global { module, name }, Node::Tuple(args)) =
            (tree.node(object.class), tree.node(object.args))
        else {
            return None;
        };
        match (&**module, &**name, args.as_slice()) {
            (b"_codecs", b"encode", [text, codec]) => match (tree.node(*text), tree.node(*codec)) {
                (Node::Text(text), Node::Text(codec)) if matches!(&**codec, b"latin1" | b"latin-1") => {
                    latin1(text)
                }
                _ => None,
            },
            (b"__builtin__" | b"builtins", b"bytes", []) => Some(Vec::new()),
            _ => None,
        }
    };
    let replaced: Vec<Option<Vec<u8>>> = tree
        .nodes()
        .iter()
        .map(|node| if let Node::Object(object) = node { bytes_of(object) } else { None })
        .collect();
    let is_python2 = has_strings(&tree);
    let node = |bytes| if is_python2 { Node::Str(bytes) } else { Node::Bytes(bytes) };
    tree.replace(replaced.into_iter().map(|bytes| bytes.map(|bytes| node(Cow::Owned(bytes)))))
}

/// The bytes of a text whose characters are bytes.
fn latin1(text: &[u8]) -> Option<Vec<u8>> {
    std::str::from_utf8(text).ok()?.chars().map(|character| u8::try_from(u32::from(character)).ok()).collect()
}

/// The values of a message.
struct Parts<'t, 'a> {
    tree: &'t Tree<'a>,
}

impl<'t> Parts<'t, '_> {
    fn tuple<const N: usize>(&self, id: NodeId) -> Result<[NodeId; N], String> {
        match self.tree.node(id) {
            Node::Tuple(items) => {
                items.as_slice().try_into().map_err(|_| format!("a tuple of {}, not {N}", items.len()))
            }
            _ => Err(format!("no tuple of {N}")),
        }
    }

    fn bytes(&self, id: NodeId) -> Result<Cow<'t, [u8]>, String> {
        match self.tree.node(id) {
            Node::Bytes(bytes) | Node::Str(bytes) => Ok(Cow::Borrowed(bytes)),
            Node::Text(text) => Ok(Cow::Borrowed(text)),
            _ => Err("no string where there must be one".into()),
        }
    }

    fn eight(&self, id: NodeId) -> Result<[u8; 8], String> {
        let bytes = self.bytes(id)?;
        bytes.as_ref().try_into().map_err(|_| format!("an id of {} bytes, not 8", bytes.len()))
    }

    fn tid(&self, id: NodeId) -> Result<Tid, String> {
        self.eight(id).map(|bytes| Tid(u64::from_be_bytes(bytes)))
    }

    /// The extension as it is in a file, pickled by the Python that has sent it. Empty for an empty dict.
    fn extension(&self, id: NodeId) -> Result<Vec<u8>, String> {
        let Node::Dict(pairs) = self.tree.node(id) else { return Err("the extension is no dict".into()) };
        if pairs.is_empty() {
            return Ok(Vec::new());
        }
        let dialect = if has_strings(self.tree) { Dialect::Python2 } else { Dialect::Python3 };
        rewrite(self.tree, id, dialect).map_err(|_| "the extension cannot be pickled".into())
    }

    fn record(
        &self,
        [oid, tid, version, data_txn]: [NodeId; 4],
        blocks: Option<u64>,
    ) -> Result<RecordHead, String> {
        if !self.bytes(version)?.is_empty() {
            return Err("a record of a version; ZODB has none any more".into());
        }
        let data_txn = match self.tree.node(data_txn) {
            Node::None => None,
            _ => Some(self.tid(data_txn)?),
        };
        let oid = Oid(u64::from_be_bytes(self.eight(oid)?));
        Ok(RecordHead { oid, tid: self.tid(tid)?, data_txn, blocks })
    }
}

impl Transaction {
    /// Appends the message. After [`NotPlain`] it has an empty extension.
    pub fn put(&self, out: &mut Vec<u8>) -> Result<(), NotPlain> {
        let Transaction { tid, status, meta } = self;
        begin("T", out);
        put_encoded(&tid.to_bytes(), out);
        put_unicode(char::from(*status).encode_utf8(&mut [0; 4]), out);
        put_encoded(&meta.user, out);
        put_encoded(&meta.description, out);
        let start = out.len();
        let put = put_extension(&meta.extension, out);
        if put.is_err() {
            out.truncate(start);
            out.push(EMPTY_DICT);
        }
        end(out);
        put
    }
}

impl RecordHead {
    /// Appends the message.
    pub fn put(&self, out: &mut Vec<u8>) {
        begin(if self.blocks.is_some() { "B" } else { "S" }, out);
        put_encoded(&self.oid.to_bytes(), out);
        put_encoded(&self.tid.to_bytes(), out);
        put_unicode("", out);
        match self.data_txn {
            Some(data_txn) => put_encoded(&data_txn.to_bytes(), out),
            None => out.push(NONE),
        }
        if let Some(blocks) = self.blocks {
            put_int(Dialect::Python2, i64::try_from(blocks).unwrap_or(i64::MAX), out);
        }
        end(out);
    }
}

/// Appends the end of a transaction.
pub fn put_commit(checksum: &[u8], out: &mut Vec<u8>) {
    begin("C", out);
    put_encoded(checksum, out);
    end(out);
}

fn begin(kind: &str, out: &mut Vec<u8>) {
    out.push(MARK);
    put_unicode(kind, out);
    out.push(MARK);
}

fn end(out: &mut Vec<u8>) {
    out.extend_from_slice(&[TUPLE, TUPLE, STOP]);
}

/// `bytes`, as Python 3 writes them in protocol 1.
fn put_encoded(bytes: &[u8], out: &mut Vec<u8>) {
    if bytes.is_empty() {
        put_global("__builtin__", "bytes", out);
        out.extend_from_slice(&[MARK, TUPLE, REDUCE]);
        return;
    }
    put_global("_codecs", "encode", out);
    out.push(MARK);
    put_unicode(&bytes.iter().copied().map(char::from).collect::<String>(), out);
    put_unicode("latin1", out);
    out.extend_from_slice(&[TUPLE, REDUCE]);
}

/// The extension of a transaction, from its pickle in the file.
fn put_extension(pickled: &[u8], out: &mut Vec<u8>) -> Result<(), NotPlain> {
    if pickled.is_empty() {
        out.push(EMPTY_DICT);
        return Ok(());
    }
    let accept = Accept { global: |_, _| false, persistent: false, nodes_max: 1 << 17 };
    let tree = read(pickled, accept).map_err(|_| NotPlain)?;
    let Node::Dict(_) = tree.node(tree.root()) else { return Err(NotPlain) };
    let mut writer = ExtensionWriter { tree: &tree, budget: Budget::for_len(tree.len()), out };
    writer.value(tree.root(), DEPTH_MAX)
}

/// Values in values of an extension.
const DEPTH_MAX: usize = 50;

/// Writes plain values.
struct ExtensionWriter<'t, 'a, 'o> {
    tree: &'t Tree<'a>,
    budget: Budget,
    out: &'o mut Vec<u8>,
}

impl ExtensionWriter<'_, '_, '_> {
    fn value(&mut self, id: NodeId, depth: usize) -> Result<(), NotPlain> {
        let depth = depth.checked_sub(1).ok_or(NotPlain)?;
        let dialect = Dialect::Python2;
        match self.tree.node(id) {
            Node::None => self.out.push(NONE),
            Node::Bool(value) => put_bool(dialect, *value, self.out),
            Node::Int(value) => put_int(dialect, *value, self.out),
            Node::BigInt(value) => put_big_int(value, self.out),
            Node::Float(value) => put_float(*value, self.out),
            // A `str` of Python 2: a `str` at both Pythons if that is possible.
            Node::Str(value) if value.is_ascii() => {
                self.spend(value.len())?;
                put_bytes(dialect, value, self.out);
            }
            Node::Str(value) | Node::Bytes(value) => {
                self.spend(value.len())?;
                put_encoded(value, self.out);
            }
            Node::Text(value) => {
                self.spend(value.len())?;
                put_unicode(std::str::from_utf8(value).map_err(|_| NotPlain)?, self.out);
            }
            Node::Tuple(items) => {
                self.out.push(MARK);
                self.values(items, depth)?;
                self.out.push(TUPLE);
            }
            Node::List(items) => {
                self.out.extend_from_slice(b"](");
                self.values(items, depth)?;
                self.out.push(b'e');
            }
            Node::Dict(pairs) => {
                self.out.extend_from_slice(&[EMPTY_DICT, MARK]);
                self.spend(pairs.len())?;
                for (key, value) in pairs {
                    self.value(*key, depth)?;
                    self.value(*value, depth)?;
                }
                self.out.push(SETITEMS);
            }
            Node::ByteArray(_)
            | Node::Set(_)
            | Node::FrozenSet(_)
            | Node::Global { .. }
            | Node::Extension(_)
            | Node::Persistent(_)
            | Node::Object(_) => return Err(NotPlain),
        }
        Ok(())
    }

    fn values(&mut self, items: &[NodeId], depth: usize) -> Result<(), NotPlain> {
        self.spend(items.len())?;
        items.iter().try_for_each(|item| self.value(*item, depth))
    }

    fn spend(&mut self, len: usize) -> Result<(), NotPlain> {
        self.budget.spend(len).map_err(|_| NotPlain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transaction(extension: &[u8]) -> Transaction {
        let meta = TransactionMeta {
            user: b"/ anna".to_vec(),
            description: "gr\u{fc}n".as_bytes().to_vec(),
            extension: extension.to_vec(),
        };
        Transaction { tid: Tid(0x03ee_0000_0000_00ff), status: b' ', meta }
    }

    fn round_trip(message: &Message) -> Message {
        let mut out = Vec::new();
        match message {
            Message::Transaction(transaction) => transaction.put(&mut out).unwrap(),
            Message::Record(record) => record.put(&mut out),
            Message::Commit { checksum } => put_commit(checksum, &mut out),
        }
        Message::parse(&out).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let record = RecordHead { oid: Oid(0x80ff), tid: Tid(7), data_txn: Some(Tid(5)), blocks: None };
        for message in [
            Message::Transaction(transaction(b"")),
            Message::Transaction(transaction(b"\x80\x03}q\x00X\x01\0\0\0aq\x01K\x01s.")),
            Message::Record(record),
            Message::Record(RecordHead { data_txn: None, blocks: Some(0), ..record }),
            Message::Record(RecordHead { blocks: Some(70_000), ..record }),
            Message::Commit { checksum: (0..=255).step_by(17).collect() },
        ] {
            assert_eq!(round_trip(&message), message);
        }
    }

    /// As a primary on Python 2 has sent it.
    #[test]
    fn python_2_sends_strings() {
        let parsed =
            Message::parse(b"(U\x01T(U\x08\x03\xee\0\0\0\0\0\xffU\x01 U\x06/ annaU\x05gr\xc3\xbcn}tt.");
        assert_eq!(parsed, Ok(Message::Transaction(transaction(b""))));
        let parsed = Message::parse(
            b"(U\x01T(U\x08\x03\xee\0\0\0\0\0\xffU\x01 U\x06/ annaU\x05gr\xc3\xbcn}U\x01aK\x01stt.",
        );
        assert_eq!(parsed, Ok(Message::Transaction(transaction(b"}q\x01U\x01aK\x01s."))));
        let record = RecordHead { oid: Oid(1), tid: Tid(2), data_txn: None, blocks: Some(0) };
        let parsed = Message::parse(b"(U\x01B(U\x08\0\0\0\0\0\0\0\x01U\x08\0\0\0\0\0\0\0\x02U\0NL0L\ntt.");
        assert_eq!(parsed, Ok(Message::Record(record)));
    }

    /// A `str` of Python 2 that is no ASCII cannot be one in Python 3.
    #[test]
    fn extensions_of_python_2_for_both() {
        let mut out = Vec::new();
        transaction(b"}q\x01(U\x01aU\x01bU\x01cU\x01\xffu.").put(&mut out).unwrap();
        let Ok(Message::Transaction(read)) = Message::parse(&out) else { panic!() };
        assert_eq!(read.meta.extension, b"}q\x01(U\x01aU\x01bU\x01cU\x01\xffu.");
    }

    #[test]
    fn instances_are_left_out() {
        let mut out = Vec::new();
        assert_eq!(transaction(b"}U\x01acos\nsystem\ns.").put(&mut out), Err(NotPlain));
        assert_eq!(Message::parse(&out), Ok(Message::Transaction(transaction(b""))));
    }

    #[test]
    fn nonsense_is_refused() {
        for (payload, why) in [
            (&b"K\x01."[..], "no tuple of 2"),
            (b"(U\x01X)t.", "the unknown kind 'X'"),
            (b"(U\x01C(t", "pickle"),
            (b"(U\x01C(tt.", "a tuple of 0, not 1"),
            (b"(U\x01S(U\x03abcU\x08abcdefghU\0Ntt.", "an id of 3 bytes"),
            (b"(U\x01S(U\x08abcdefghU\x08abcdefghU\x01vNtt.", "a version"),
            (b"(U\x01B(U\x08abcdefghU\x08abcdefghU\0NJ\xff\xff\xff\xfftt.", "negative"),
            (b"(U\x01T(U\x08abcdefghU\x02  U\0U\0}tt.", "status"),
            (b"(U\x01T(U\x08abcdefghU\x01\xa0U\0U\0}tt.", "status"),
            (b"(U\x01T(U\x08abcdefghU\x01 U\0U\0Ntt.", "no dict"),
        ] {
            let error = Message::parse(payload).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
