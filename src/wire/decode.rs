//! Messages to [`Call`]s: the fast way ([`super::scan`]) or the slow, then one match over the names of methods.
//!
//! Tolerant as Python is: names and ids may be text or bytes, defaults may be left out. Where Python's server would
//! answer with a TypeError and the like, so does [`Request::Malformed`]; only what Python cannot decode at all is an
//! error here.

use std::borrow::Cow;

use super::codec::DecodeError;
use super::exception::PyException;
use super::protocol::{Codec, Wire};
use super::request::{Call, MsgId, Request, TpcBegin, TxnId};
use super::scan::{self, Item, Scanned, Slot};
use super::unpack::unpack;
use super::value::Value;
use crate::base::ids::{Oid, Tid};
use crate::pickle::read::{Accept, read};
use crate::pickle::rewrite::rewrite;
use crate::pickle::value::{Budget, Node, NodeId, Tree};
use crate::pickle::{Dialect, globals};

/// Names, types and number of a message's globals and values.
const ACCEPT: Accept = Accept { global: globals::in_message, persistent: false, nodes_max: 1 << 20 };

/// The exception that a call is answered with instead of being made.
type Refused = Box<PyException>;

/// See [`Wire::decode`].
pub(super) fn decode<'a>(wire: Wire, frame: &'a [u8]) -> Result<Call<'a>, DecodeError> {
    let mut slots = [Slot::EMPTY; 11];
    let scanned = match wire.codec {
        Codec::Pickle(_) => scan::pickle(frame, &mut slots),
        Codec::Msgpack => scan::msgpack(frame, &mut slots),
    };
    let Some(Scanned { args: count }) = scanned else { return decode_slowly(wire, frame) };
    let [id, flag, method, args @ ..] = &slots;
    let args = Args { slots: args.get(..count.unwrap_or(0)).unwrap_or_default(), tree: None, wire };
    let id = match id.item {
        Item::Int(id) => MsgId::Int(id),
        Item::Load(oid, tid) => MsgId::Load(oid, tid),
        _ => MsgId::Raw(id.encoded),
    };
    let (Item::Bytes(method) | Item::Str(method) | Item::Text(method)) = method.item else {
        return Err(error("the name of the method is no string"));
    };
    finish(id, is_true(flag.item), Cow::Borrowed(method), count.is_some(), &args)
}

/// A message that is not just scalars: by way of a tree.
#[cold]
pub(super) fn decode_slowly<'a>(wire: Wire, frame: &'a [u8]) -> Result<Call<'a>, DecodeError> {
    let tree = match wire.codec {
        Codec::Pickle(_) => read(frame, ACCEPT).map_err(|e| error(e.to_string()))?,
        Codec::Msgpack => unpack(frame).map_err(error)?,
    };
    let (Node::Tuple(parts) | Node::List(parts)) = tree.node(tree.root()) else {
        return Err(error("it is no tuple"));
    };
    let [id, flag, method, arguments] = parts.as_slice() else {
        return Err(error(format!("it has {} parts instead of 4", parts.len())));
    };
    let id_slot = slot(&tree, *id);
    let id = match id_slot.item {
        Item::Int(id) => MsgId::Int(id),
        _ => MsgId::Raw(tree.encoded(*id).ok_or_else(|| error("the message id refers to the memo"))?),
    };
    let method = match tree.node(*method) {
        Node::Bytes(name) | Node::Str(name) | Node::Text(name) => name.clone(),
        _ => return Err(error("the name of the method is no string")),
    };
    let slots: Option<Vec<Slot<'a>>> = match tree.node(*arguments) {
        Node::Tuple(args) | Node::List(args) => Some(args.iter().map(|arg| slot(&tree, *arg)).collect()),
        Node::None => None,
        _ => return Err(error("the arguments are no tuple")),
    };
    let has_args = slots.is_some();
    let slots = slots.unwrap_or_default();
    let args = Args { slots: &slots, tree: Some(&tree), wire };
    finish(id, is_true(slot(&tree, *flag).item), method, has_args, &args)
}

/// An argument from a tree.
fn slot<'a>(tree: &Tree<'a>, id: NodeId) -> Slot<'a> {
    let item = match tree.node(id) {
        Node::None => Item::None,
        Node::Bool(value) => Item::Bool(*value),
        Node::Int(value) => Item::Int(*value),
        Node::Float(value) => Item::Float(*value),
        Node::Bytes(Cow::Borrowed(value)) => Item::Bytes(value),
        Node::Str(Cow::Borrowed(value)) => Item::Str(value),
        Node::Text(Cow::Borrowed(value)) => Item::Text(value),
        _ => Item::Node(id),
    };
    Slot { item, encoded: tree.encoded(id).unwrap_or_default() }
}

fn finish<'a>(
    id: MsgId<'a>,
    is_async: bool,
    method: Cow<'a, [u8]>,
    has_args: bool,
    args: &Args<'_, 'a>,
) -> Result<Call<'a>, DecodeError> {
    if id == MsgId::Int(-1) || method.as_ref() == b".reply" {
        return Ok(Call { id, is_async, request: Request::KeepAlive });
    }
    if !has_args {
        return Err(error("the arguments are no tuple"));
    }
    let request = match args.request(&method) {
        Ok(Some(request)) => request,
        Ok(None) => match args.values() {
            Ok(args) => Request::Other { name: name(method), args },
            Err(exception) => Request::Malformed { method: name(method), exception: *exception },
        },
        Err(exception) => Request::Malformed { method: name(method), exception: *exception },
    };
    Ok(Call { id, is_async, request })
}

fn error(what: impl Into<String>) -> DecodeError {
    DecodeError { what: what.into() }
}

/// The truth of a scalar, as `if x:` has it.
fn is_true(item: Item<'_>) -> bool {
    match item {
        Item::None => false,
        Item::Bool(value) => value,
        Item::Int(value) => value != 0,
        Item::Float(value) => value != 0.0,
        Item::Bytes(value) | Item::Str(value) | Item::Text(value) => !value.is_empty(),
        Item::Load(..) | Item::Node(_) => true,
    }
}

fn name(bytes: Cow<'_, [u8]>) -> Cow<'_, str> {
    match bytes {
        Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

/// The arguments of a call.
struct Args<'s, 'a> {
    slots: &'s [Slot<'a>],
    tree: Option<&'s Tree<'a>>,
    wire: Wire,
}

impl<'a> Args<'_, 'a> {
    /// The request that this method and these arguments make; `None` if the peer's generation has no such method.
    fn request(&self, method: &[u8]) -> Result<Option<Request<'a>>, Refused> {
        // The order is that of how often a call comes, as far as that can matter.
        Ok(Some(match method {
            b"loadBefore" => {
                self.arity("loadBefore", &["oid", "tid"], 2)?;
                Request::LoadBefore { oid: self.oid(0)?, before: self.tid(1)? }
            }
            b"storea" if !self.wire.knows_versions() => {
                self.arity("storea", &["oid", "serial", "data", "id"], 4)?;
                Request::Store {
                    oid: self.oid(0)?,
                    serial: self.serial(1)?,
                    data: self.bytes(2)?,
                    id: self.txn_id(3)?,
                }
            }
            b"vote" => {
                self.arity("vote", &["tid"], 1)?;
                Request::Vote { id: self.txn_id(0)? }
            }
            b"tpc_finish" => {
                self.arity("tpc_finish", &["id"], 1)?;
                Request::TpcFinish { id: self.txn_id(0)? }
            }
            b"tpc_begin" => {
                self.arity("tpc_begin", &["id", "user", "description", "ext", "tid", "status"], 4)?;
                Request::TpcBegin(self.tpc_begin()?)
            }
            b"tpc_abort" => {
                self.arity("tpc_abort", &["tid"], 1)?;
                Request::TpcAbort { id: self.txn_id(0)? }
            }
            b"checkCurrentSerialInTransaction" => {
                self.arity("checkCurrentSerialInTransaction", &["oid", "serial", "id"], 3)?;
                Request::CheckCurrentSerial {
                    oid: self.oid(0)?,
                    serial: self.serial(1)?,
                    id: self.txn_id(2)?,
                }
            }
            b"new_oids" => {
                self.arity("new_oids", &["n"], 0)?;
                Request::NewOids { count: self.int_or(0, 100)? }
            }
            b"getInvalidations" => {
                self.arity("getInvalidations", &["tid"], 1)?;
                Request::GetInvalidations { tid: self.tid(0)? }
            }
            b"ping" if !self.wire.knows_authentication() => {
                self.arity("ping", &[], 0)?;
                Request::Ping
            }
            b"lastTransaction" => {
                self.arity("lastTransaction", &[], 0)?;
                Request::LastTransaction
            }
            b"register" => {
                self.arity("register", &["storage_id", "read_only"], 2)?;
                Request::Register { storage: self.text(0)?, read_only: self.truth(1) }
            }
            b"get_info" => {
                self.arity("get_info", &[], 0)?;
                Request::GetInfo
            }
            b"server_status" => {
                self.arity("server_status", &[], 0)?;
                Request::ServerStatus
            }
            b"set_client_label" => {
                self.arity("set_client_label", &["label"], 1)?;
                Request::SetClientLabel { label: self.text(0)? }
            }
            b"new_oid" => {
                self.arity("new_oid", &[], 0)?;
                Request::NewOid
            }
            b"getTid" => {
                self.arity("getTid", &["oid"], 1)?;
                Request::GetTid { oid: self.oid(0)? }
            }
            b"loadSerial" => {
                self.arity("loadSerial", &["oid", "serial"], 2)?;
                Request::LoadSerial { oid: self.oid(0)?, serial: self.tid(1)? }
            }
            b"history" if !self.wire.knows_versions() => {
                self.arity("history", &["tid", "size"], 1)?;
                Request::History { oid: self.optional_oid(0)?, count: self.optional_int_or(1, 1) }
            }
            b"record_iternext" => {
                self.arity("record_iternext", &["next"], 0)?;
                Request::RecordIternext { next: self.optional_oid(0)? }
            }
            b"deleteObject" => {
                self.arity("deleteObject", &["oid", "serial", "id"], 3)?;
                Request::DeleteObject { oid: self.oid(0)?, serial: self.serial(1)?, id: self.txn_id(2)? }
            }
            b"restorea" => {
                self.arity("restorea", &["oid", "serial", "data", "prev_txn", "id"], 5)?;
                Request::Restore {
                    oid: self.oid(0)?,
                    serial: self.tid(1)?,
                    data: if self.is_none(2) { None } else { Some(self.bytes(2)?) },
                    prev_txn: self.optional_tid(3)?,
                    id: self.txn_id(4)?,
                }
            }
            b"storeBlobStart" => {
                self.arity("storeBlobStart", &[], 0)?;
                Request::StoreBlobStart
            }
            b"storeBlobChunk" => {
                self.arity("storeBlobChunk", &["chunk"], 1)?;
                Request::StoreBlobChunk { chunk: self.bytes(0)? }
            }
            b"storeBlobEnd" if !self.wire.knows_versions() => {
                self.arity("storeBlobEnd", &["oid", "serial", "data", "id"], 4)?;
                Request::StoreBlobEnd {
                    oid: self.oid(0)?,
                    serial: self.serial(1)?,
                    data: self.bytes(2)?,
                    id: self.txn_id(3)?,
                }
            }
            b"storeBlobShared" if !self.wire.knows_versions() => {
                self.arity("storeBlobShared", &["oid", "serial", "data", "filename", "id"], 5)?;
                Request::StoreBlobShared {
                    oid: self.oid(0)?,
                    serial: self.serial(1)?,
                    data: self.bytes(2)?,
                    filename: self.text(3)?,
                    id: self.txn_id(4)?,
                }
            }
            b"sendBlob" => {
                self.arity("sendBlob", &["oid", "serial"], 2)?;
                Request::SendBlob { oid: self.oid(0)?, serial: self.tid(1)? }
            }
            b"pack" => {
                self.arity("pack", &["time", "wait"], 1)?;
                let wait = (self.slots.len() > 1).then(|| self.truth(1));
                Request::Pack { time: self.float(0)?, wait }
            }
            b"undoa" => {
                self.arity("undoa", &["trans_id", "tid"], 2)?;
                Request::Undo { tid_id: self.value(0)?, id: self.txn_id(1)? }
            }
            b"undoLog" => {
                self.arity("undoLog", &["first", "last"], 2)?;
                Request::UndoLog { first: self.int(0)?, last: self.int(1)? }
            }
            b"undoInfo" => {
                self.arity("undoInfo", &["first", "last", "spec"], 3)?;
                Request::UndoInfo { first: self.int(0)?, last: self.int(1)?, specification: self.value(2)? }
            }
            b"iterator_start" => {
                self.arity("iterator_start", &["start", "stop"], 2)?;
                Request::IteratorStart { start: self.optional_tid(0)?, stop: self.optional_tid(1)? }
            }
            b"iterator_next" => {
                self.arity("iterator_next", &["iid"], 1)?;
                Request::IteratorNext { iterator: self.iterator(0)? }
            }
            b"iterator_record_start" => {
                self.arity("iterator_record_start", &["txn_iid", "tid"], 2)?;
                Request::IteratorRecordStart { iterator: self.iterator(0)?, tid: self.tid(1)? }
            }
            b"iterator_record_next" => {
                self.arity("iterator_record_next", &["iid"], 1)?;
                Request::IteratorRecordNext { iterator: self.iterator(0)? }
            }
            b"iterator_gc" => {
                self.arity("iterator_gc", &["iids"], 1)?;
                Request::IteratorGc { iterators: self.ints(0)? }
            }
            _ if !self.wire.knows_authentication() => return Ok(None),
            _ => return self.legacy_request(method),
        }))
    }

    /// What only servers before ZEO 5 have.
    fn legacy_request(&self, method: &[u8]) -> Result<Option<Request<'a>>, Refused> {
        if self.wire.knows_versions()
            && let Some(request) = self.request_with_versions(method)?
        {
            return Ok(Some(request));
        }
        Ok(Some(match method {
            b"getAuthProtocol" => {
                self.arity("getAuthProtocol", &[], 0)?;
                Request::GetAuthProtocol
            }
            b"getExtensionMethods" => {
                self.arity("getExtensionMethods", &[], 0)?;
                Request::GetExtensionMethods
            }
            b"get_size_info" => {
                self.arity("get_size_info", &[], 0)?;
                Request::GetSizeInfo
            }
            b"loadEx" => {
                self.arity("loadEx", &["oid"], 1)?;
                Request::LoadEx { oid: self.oid(0)? }
            }
            b"load" => {
                self.arity("load", &["oid", "version"], 1)?;
                self.no_version(1)?;
                Request::Load { oid: self.oid(0)? }
            }
            b"zeoVerify" => {
                self.arity("zeoVerify", &["oid", "s"], 2)?;
                Request::ZeoVerify { oid: self.oid(0)?, serial: self.serial(1)? }
            }
            b"verify" => {
                self.arity("verify", &["oid", "tid"], 2)?;
                Request::Verify { oid: self.oid(0)?, serial: self.serial(1)? }
            }
            b"endZeoVerify" => {
                self.arity("endZeoVerify", &[], 0)?;
                Request::EndZeoVerify
            }
            b"undo" => match self.wire.undo_call() {
                super::protocol::UndoCall::Answered => {
                    self.arity("undo", &["trans_id", "id"], 2)?;
                    Request::Undo { tid_id: self.value(0)?, id: self.txn_id(1)? }
                }
                super::protocol::UndoCall::Buffered => return Err(refused("NotImplementedError", "")),
            },
            _ => return Ok(None),
        }))
    }

    /// Calls that have a version among their arguments, which must be empty, and calls about versions.
    fn request_with_versions(&self, method: &[u8]) -> Result<Option<Request<'a>>, Refused> {
        Ok(Some(match method {
            b"loadEx" => {
                self.arity("loadEx", &["oid", "version"], 1)?;
                self.no_version(1)?;
                Request::LoadEx { oid: self.oid(0)? }
            }
            b"storea" => {
                self.arity("storea", &["oid", "serial", "data", "version", "id"], 5)?;
                self.no_version(3)?;
                Request::Store {
                    oid: self.oid(0)?,
                    serial: self.serial(1)?,
                    data: self.bytes(2)?,
                    id: self.txn_id(4)?,
                }
            }
            b"storeBlobEnd" => {
                self.arity("storeBlobEnd", &["oid", "serial", "data", "version", "id"], 5)?;
                self.no_version(3)?;
                Request::StoreBlobEnd {
                    oid: self.oid(0)?,
                    serial: self.serial(1)?,
                    data: self.bytes(2)?,
                    id: self.txn_id(4)?,
                }
            }
            b"storeBlobShared" => {
                let names = ["oid", "serial", "data", "filename", "version", "id"];
                self.arity("storeBlobShared", &names, 6)?;
                self.no_version(4)?;
                Request::StoreBlobShared {
                    oid: self.oid(0)?,
                    serial: self.serial(1)?,
                    data: self.bytes(2)?,
                    filename: self.text(3)?,
                    id: self.txn_id(5)?,
                }
            }
            b"history" => {
                self.arity("history", &["oid", "version", "size"], 2)?;
                if self.slots.get(1).is_some_and(|version| is_true(version.item)) {
                    return Err(refused("ValueError", "Versions aren't supported."));
                }
                Request::History { oid: self.optional_oid(0)?, count: self.optional_int_or(2, 1) }
            }
            b"verify" => {
                self.arity("verify", &["oid", "version", "tid"], 3)?;
                self.no_version(1)?;
                Request::Verify { oid: self.oid(0)?, serial: self.serial(2)? }
            }
            b"zeoVerify" => {
                self.arity("zeoVerify", &["oid", "s", "sv"], 2)?;
                self.no_version(2)?;
                Request::ZeoVerify { oid: self.oid(0)?, serial: self.serial(1)? }
            }
            b"zeoLoad" => {
                self.arity("zeoLoad", &["oid"], 1)?;
                Request::ZeoLoad { oid: self.oid(0)? }
            }
            b"getSerial" => {
                self.arity("getSerial", &["oid"], 1)?;
                Request::GetSerial { oid: self.oid(0)? }
            }
            b"modifiedInVersion" => {
                self.arity("modifiedInVersion", &["oid"], 1)?;
                Request::ModifiedInVersion { oid: self.oid(0)? }
            }
            b"versions" => {
                self.arity("versions", &["max"], 0)?;
                Request::Versions { max: self.optional_int_or(0, i64::MAX) }
            }
            b"versionEmpty" => {
                self.arity("versionEmpty", &["version"], 1)?;
                Request::VersionEmpty { version: self.bytes(0)? }
            }
            b"commitVersion" => Request::VersionOperation { name: "commitVersion" },
            b"abortVersion" => Request::VersionOperation { name: "abortVersion" },
            _ => return Ok(None),
        }))
    }

    fn tpc_begin(&self) -> Result<TpcBegin<'a>, Refused> {
        let status = match self.slots.get(5) {
            None => b' ',
            Some(_) => match self.utf8(5)?.as_ref() {
                [status] => *status,
                _ => return Err(refused("ValueError", "a transaction's status must be one character")),
            },
        };
        Ok(TpcBegin {
            id: self.txn_id(0)?,
            user: self.utf8(1)?,
            description: self.utf8(2)?,
            extension: self.extension(3)?,
            tid: self.optional_tid(4)?,
            status,
        })
    }

    /// The extension as Python's server would write it: pickled by the Python that the peer's server would have run on.
    fn extension(&self, at: usize) -> Result<Vec<u8>, Refused> {
        match self.slots.get(at).map(|slot| slot.item) {
            None | Some(Item::None) => Ok(Vec::new()),
            // ZODB 5 and later hand on the bytes of a transaction that is copied.
            Some(Item::Bytes(pickled) | Item::Str(pickled)) => Ok(pickled.to_vec()),
            Some(Item::Node(id)) => {
                let Some(tree) = self.tree else { return Ok(Vec::new()) };
                match tree.node(id) {
                    Node::Dict(pairs) if pairs.is_empty() => Ok(Vec::new()),
                    _ => {
                        let dialect = match self.wire.codec {
                            Codec::Pickle(dialect) => dialect,
                            Codec::Msgpack => Dialect::Python3,
                        };
                        rewrite(tree, id, dialect)
                            .map_err(|_| refused("ValueError", "the extension cannot be pickled"))
                    }
                }
            }
            Some(_) => Err(refused("TypeError", "the extension of a transaction must be a dictionary")),
        }
    }

    // -- single arguments

    /// Too few or too many arguments are the TypeError that the peer's Python would raise.
    #[inline]
    fn arity(&self, method: &str, names: &[&str], required: usize) -> Result<(), Refused> {
        let given = self.slots.len();
        if given >= required && given <= names.len() {
            Ok(())
        } else {
            Err(self.wrong_arity(method, names, required))
        }
    }

    #[cold]
    fn wrong_arity(&self, method: &str, names: &[&str], required: usize) -> Refused {
        let given = self.slots.len();
        let python2 = self.wire.codec == Codec::Pickle(Dialect::Python2);
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        // `self` counts in both
        let message = if python2 {
            let (how, count) = match (required == names.len(), given < required) {
                (true, _) => ("exactly", required + 1),
                (false, true) => ("at least", required + 1),
                (false, false) => ("at most", names.len() + 1),
            };
            format!("{method}() takes {how} {count} argument{} ({} given)", plural(count), given + 1)
        } else if given < required {
            let missing: Vec<String> =
                names.iter().take(required).skip(given).map(|name| format!("'{name}'")).collect();
            let list = match missing.as_slice() {
                [one] => one.clone(),
                [one, two] => format!("{one} and {two}"),
                [first @ .., last] => format!("{}, and {last}", first.join(", ")),
                [] => String::new(),
            };
            let count = missing.len();
            format!(
                "ZEOStorage.{method}() missing {count} required positional argument{}: {list}",
                plural(count)
            )
        } else {
            let most = names.len() + 1;
            let takes = match required + 1 {
                least if least == most => format!("{most} positional argument{}", plural(most)),
                least => format!("from {least} to {most} positional arguments"),
            };
            format!("ZEOStorage.{method}() takes {takes} but {} were given", given + 1)
        };
        refused("TypeError", message)
    }

    fn item(&self, at: usize) -> Item<'a> {
        self.slots.get(at).map_or(Item::None, |slot| slot.item)
    }

    fn is_none(&self, at: usize) -> bool {
        self.item(at) == Item::None
    }

    fn truth(&self, at: usize) -> bool {
        match (self.item(at), self.tree) {
            (Item::Node(id), Some(tree)) => match tree.node(id) {
                Node::Tuple(items) | Node::List(items) => !items.is_empty(),
                Node::Dict(pairs) => !pairs.is_empty(),
                Node::Bytes(value) | Node::Str(value) | Node::Text(value) => !value.is_empty(),
                _ => true,
            },
            (item, _) => is_true(item),
        }
    }

    #[inline]
    fn oid(&self, at: usize) -> Result<Oid, Refused> {
        match self.item(at) {
            Item::Bytes(oid) | Item::Str(oid) if oid.len() == 8 => {
                Ok(Oid::from_slice(oid).unwrap_or_default())
            }
            _ => self.odd_id(at, "oid").map(Oid::from_bytes),
        }
    }

    #[inline]
    fn tid(&self, at: usize) -> Result<Tid, Refused> {
        match self.item(at) {
            Item::Bytes(tid) | Item::Str(tid) if tid.len() == 8 => {
                Ok(Tid::from_slice(tid).unwrap_or_default())
            }
            _ => self.odd_id(at, "tid").map(Tid::from_bytes),
        }
    }

    /// A serial that a client has read: `None` and nothing mean a new object.
    fn serial(&self, at: usize) -> Result<Tid, Refused> {
        match self.item(at) {
            Item::None | Item::Bytes([]) | Item::Str([]) | Item::Text([]) => Ok(Tid::ZERO),
            _ => self.tid(at),
        }
    }

    fn optional_oid(&self, at: usize) -> Result<Option<Oid>, Refused> {
        if self.is_none(at) { Ok(None) } else { self.oid(at).map(Some) }
    }

    fn optional_tid(&self, at: usize) -> Result<Option<Tid>, Refused> {
        if self.is_none(at) { Ok(None) } else { self.tid(at).map(Some) }
    }

    /// An id that came as a text of Latin-1 characters; or what Python's storage says to what is no id.
    #[cold]
    fn odd_id(&self, at: usize, what: &str) -> Result<[u8; 8], Refused> {
        let bytes: Vec<u8> = match (self.item(at), self.tree) {
            (Item::Text(text), _) => {
                latin1(text).ok_or_else(|| refused("TypeError", format!("invalid {what}")))?
            }
            (Item::Bytes(bytes) | Item::Str(bytes), _) => bytes.to_vec(),
            (Item::Node(id), Some(tree)) => match tree.node(id) {
                Node::Bytes(bytes) | Node::Str(bytes) => bytes.to_vec(),
                Node::Text(text) => {
                    latin1(text).ok_or_else(|| refused("TypeError", format!("invalid {what}")))?
                }
                _ => return Err(refused("TypeError", format!("invalid {what} {}", self.shown(at)))),
            },
            _ => return Err(refused("TypeError", format!("invalid {what} {}", self.shown(at)))),
        };
        <[u8; 8]>::try_from(bytes.as_slice()).map_err(|_| {
            // no object can have it
            let args = vec![Value::Bytes(bytes)];
            Box::new(PyException::new("ZODB.POSException", "POSKeyError", args))
        })
    }

    fn shown(&self, at: usize) -> String {
        match self.item(at) {
            Item::None => "None".to_string(),
            Item::Bool(true) => "True".to_string(),
            Item::Bool(false) => "False".to_string(),
            Item::Int(value) => value.to_string(),
            Item::Float(value) => format!("{value:?}"),
            _ => format!("in argument {}", at + 1),
        }
    }

    /// A byte string; a text as UTF-8.
    #[inline]
    fn bytes(&self, at: usize) -> Result<Cow<'a, [u8]>, Refused> {
        match (self.item(at), self.tree) {
            (Item::Bytes(bytes) | Item::Str(bytes) | Item::Text(bytes), _) => Ok(Cow::Borrowed(bytes)),
            (Item::Node(id), Some(tree)) => match tree.node(id) {
                Node::Bytes(bytes) | Node::Str(bytes) | Node::Text(bytes) => Ok(Cow::Owned(bytes.to_vec())),
                Node::ByteArray(bytes) => Ok(Cow::Borrowed(bytes)),
                _ => Err(self.not_a("bytes-like object", at)),
            },
            _ => Err(self.not_a("bytes-like object", at)),
        }
    }

    /// A text or a byte string, as the bytes that ZODB writes; `None` as nothing.
    fn utf8(&self, at: usize) -> Result<Cow<'a, [u8]>, Refused> {
        if self.is_none(at) { Ok(Cow::Borrowed(b"")) } else { self.bytes(at) }
    }

    /// A text, a byte string, or whatever `str()` makes of a number.
    fn text(&self, at: usize) -> Result<Cow<'a, str>, Refused> {
        match self.item(at) {
            Item::None | Item::Bool(_) | Item::Int(_) | Item::Float(_) => Ok(self.shown(at).into()),
            _ => Ok(match self.bytes(at)? {
                Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
                Cow::Owned(bytes) => String::from_utf8_lossy(&bytes).into_owned().into(),
            }),
        }
    }

    fn int(&self, at: usize) -> Result<i64, Refused> {
        match self.item(at) {
            Item::Int(value) => Ok(value),
            Item::Bool(value) => Ok(value.into()),
            _ => Err(self.not_a("integer", at)),
        }
    }

    fn int_or(&self, at: usize, default: i64) -> Result<i64, Refused> {
        if self.slots.len() > at { self.int(at) } else { Ok(default) }
    }

    /// The integer, `default` if the argument is left out, `None` if it is something else.
    fn optional_int_or(&self, at: usize, default: i64) -> Option<i64> {
        self.int_or(at, default).ok()
    }

    fn float(&self, at: usize) -> Result<f64, Refused> {
        match self.item(at) {
            Item::Float(value) => Ok(value),
            #[allow(clippy::cast_precision_loss)] // seconds since 1970
            Item::Int(value) => Ok(value as f64),
            _ => Err(self.not_a("float", at)),
        }
    }

    /// The number of an iterator. What is no number names no iterator.
    fn iterator(&self, at: usize) -> Result<i64, Refused> {
        self.int(at).or_else(|_| {
            let key = self.value(at)?;
            Err(Box::new(PyException::new(super::exception::BUILTINS, "KeyError", vec![key])))
        })
    }

    fn ints(&self, at: usize) -> Result<Vec<i64>, Refused> {
        match self.value(at)? {
            Value::List(items) | Value::Tuple(items) => Ok(items
                .into_iter()
                .filter_map(|item| match item {
                    Value::Int(value) => Some(value),
                    _ => None, // names no iterator, so there is nothing to forget
                })
                .collect()),
            _ => Err(self.not_a("sequence", at)),
        }
    }

    /// A transaction id, as it was encoded.
    fn txn_id(&self, at: usize) -> Result<TxnId<'a>, Refused> {
        match self.slots.get(at) {
            Some(slot) if !slot.encoded.is_empty() => Ok(Cow::Borrowed(slot.encoded)),
            Some(Slot { item: Item::Node(id), .. }) => {
                match self.tree.map(|tree| rewrite(tree, *id, Dialect::Python3)) {
                    Some(Ok(encoded)) => Ok(Cow::Owned(encoded)),
                    _ => Err(refused("TypeError", "a transaction id that cannot be compared")),
                }
            }
            _ => Err(refused("TypeError", "a transaction id that cannot be compared")),
        }
    }

    fn value(&self, at: usize) -> Result<Value, Refused> {
        self.value_within(&mut self.budget(), at)
    }

    fn budget(&self) -> Budget {
        Budget::for_len(self.tree.map_or(0, Tree::len))
    }

    fn value_within(&self, budget: &mut Budget, at: usize) -> Result<Value, Refused> {
        Ok(match self.item(at) {
            Item::None => Value::None,
            Item::Bool(value) => Value::Bool(value),
            Item::Int(value) => Value::Int(value),
            Item::Float(value) => Value::Float(value),
            Item::Bytes(value) | Item::Str(value) => Value::bytes(value),
            Item::Text(value) => Value::Text(String::from_utf8_lossy(value).into_owned()),
            Item::Load(oid, tid) => Value::Tuple(vec![oid.into(), tid.into()]),
            Item::Node(id) => match self.tree {
                Some(tree) => Value::from_tree_within(budget, tree, id).map_err(|e| {
                    refused("TypeError", format!("argument {} cannot be used: {}", at + 1, e.0))
                })?,
                None => Value::None,
            },
        })
    }

    fn values(&self) -> Result<Vec<Value>, Refused> {
        let mut budget = self.budget();
        (0..self.slots.len()).map(|at| self.value_within(&mut budget, at)).collect()
    }

    /// Versions ended with ZODB 3.9; only the empty one is left.
    fn no_version(&self, at: usize) -> Result<(), Refused> {
        if self.truth(at) {
            let message = vec![Value::text("Versions aren't supported.")];
            return Err(Box::new(PyException::new("ZEO.StorageServer", "StorageServerError", message)));
        }
        Ok(())
    }

    #[cold]
    fn not_a(&self, what: &str, at: usize) -> Refused {
        refused("TypeError", format!("argument {} must be a {what}: {}", at + 1, self.shown(at)))
    }
}

fn refused(name: &'static str, message: impl Into<String>) -> Refused {
    Box::new(PyException::builtin(name, message))
}

/// The bytes of a text that has only Latin-1 characters.
fn latin1(text: &[u8]) -> Option<Vec<u8>> {
    str::from_utf8(text).ok()?.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect()
}
