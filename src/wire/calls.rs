//! The client's side of the protocol: calls to a server, as frames. [`super::answers`] decodes what the server sends.
//!
//! One enum for servers of every generation; which of its calls a server has is in [`super::availability`], other
//! differences are methods of [`Wire`]. Each argument is copied once, into the frame; only the rare calls have
//! arguments that are [`Value`]s.

use super::availability::Method;
use super::encoder::{self, Encoder};
use super::protocol::{CANCEL_PACK, PLAN_PACK, QUIET, UndoCall, Wire};
use super::request::MsgId;
use super::value::Value;
use crate::base::ids::{Oid, Tid};

/// A call to a server. `txn` is the client's name for the open transaction, any number.
#[derive(Clone, Copy, Debug)]
pub enum Call<'a> {
    // -- before register
    GetAuthProtocol,
    Register {
        storage: &'a str,
        read_only: bool,
    },

    // -- about the storage
    GetInfo,
    LastTransaction,
    Ping,
    ServerStatus,
    SetClientLabel {
        label: &'a str,
    },
    /// [`QUIET`]
    Quiet,
    /// [`CANCEL_PACK`]
    CancelPack {
        own_plan: bool,
    },
    /// [`PLAN_PACK`]
    PlanPack {
        time: f64,
    },
    /// At most 100.
    NewOids {
        count: u32,
    },

    // -- cache verification
    GetInvalidations {
        tid: Tid,
    },
    Verify {
        oid: Oid,
        serial: Tid,
    },
    EndZeoVerify,

    // -- reads
    LoadBefore {
        oid: Oid,
        before: Tid,
    },
    /// `loadEx(oid)`: the current revision
    LoadEx {
        oid: Oid,
    },
    LoadSerial {
        oid: Oid,
        serial: Tid,
    },
    GetTid {
        oid: Oid,
    },
    /// The newest `count` revisions.
    History {
        oid: Oid,
        count: i64,
    },
    /// The first object if `None`.
    RecordIternext {
        next: Option<Oid>,
    },

    // -- transactions
    TpcBegin {
        txn: i64,
        user: &'a [u8],
        description: &'a [u8],
        /// A dict.
        extension: &'a Value,
        /// The tid of a copied transaction.
        tid: Option<Tid>,
        /// `' '`, or that of a copied transaction.
        status: char,
    },
    /// `storea`; `serial` is the one that was read, zero for a new object.
    Store {
        oid: Oid,
        serial: Tid,
        data: &'a [u8],
        txn: i64,
    },
    /// `restorea`; `data` is `None` for an object that was un-created.
    Restore {
        oid: Oid,
        serial: Tid,
        data: Option<&'a [u8]>,
        prev_txn: Option<Tid>,
        txn: i64,
    },
    DeleteObject {
        oid: Oid,
        serial: Tid,
        txn: i64,
    },
    CheckCurrentSerial {
        oid: Oid,
        serial: Tid,
        txn: i64,
    },
    /// `undo` or `undoa`, see [`Wire::undo_call`]; `undone` is the `id` of an entry of undoLog.
    Undo {
        undone: &'a [u8],
        txn: i64,
    },
    Vote {
        txn: i64,
    },
    TpcFinish {
        txn: i64,
    },
    TpcAbort {
        txn: i64,
    },

    // -- blobs
    StoreBlobStart,
    /// At most [`BLOB_CHUNK_LEN`] bytes.
    StoreBlobChunk {
        chunk: &'a [u8],
    },
    StoreBlobEnd {
        oid: Oid,
        serial: Tid,
        data: &'a [u8],
        txn: i64,
    },
    StoreBlobShared {
        oid: Oid,
        serial: Tid,
        data: &'a [u8],
        filename: &'a str,
        txn: i64,
    },
    SendBlob {
        oid: Oid,
        serial: Tid,
    },

    // -- undo, pack, iteration
    UndoLog {
        first: i64,
        last: i64,
    },
    UndoInfo {
        first: i64,
        last: i64,
        /// A dict, or `None`.
        specification: &'a Value,
    },
    /// `time` in seconds since 1970.
    Pack {
        time: f64,
        wait: bool,
    },
    IteratorStart {
        start: Option<Tid>,
        stop: Option<Tid>,
    },
    IteratorNext {
        iterator: i64,
    },
    IteratorRecordStart {
        iterator: i64,
        tid: Tid,
    },
    IteratorRecordNext {
        iterator: i64,
    },
    IteratorGc {
        iterators: &'a [i64],
    },

    /// A method of the authentication protocol or an extension method: `name(*args)`, with a reply.
    Other {
        name: &'a str,
        args: &'a [Value],
    },
}

/// Bytes of a blob in one message, as Python's clients send it.
pub const BLOB_CHUNK_LEN: usize = 59_000;

/// The numbers of a connection's calls: 1, 2, 3 … A call without a reply takes none.
#[derive(Debug, Default)]
pub struct CallIds {
    last: i64,
}

impl CallIds {
    /// The number of the next call.
    pub fn take(&mut self) -> i64 {
        self.last += 1;
        self.last
    }
}

impl Call<'_> {
    /// Length of the call's long arguments, in bytes: about that of its message, if it is long.
    pub fn data_len(&self) -> usize {
        match self {
            Call::Store { data, .. }
            | Call::Restore { data: Some(data), .. }
            | Call::StoreBlobEnd { data, .. }
            | Call::StoreBlobShared { data, .. }
            | Call::StoreBlobChunk { chunk: data } => data.len(),
            Call::Other { args, .. } => args.iter().filter_map(Value::string).map(<[u8]>::len).sum(),
            _ => 0,
        }
    }

    /// The method that servers of this wire have for the call; `None` for methods that only this program has, and
    /// [`Call::Other`].
    pub fn method(&self, wire: Wire) -> Option<Method> {
        Some(match self {
            Call::GetAuthProtocol => Method::GetAuthProtocol,
            Call::Register { .. } => Method::Register,
            Call::GetInfo => Method::GetInfo,
            Call::LastTransaction => Method::LastTransaction,
            Call::Ping => Method::Ping,
            Call::ServerStatus => Method::ServerStatus,
            Call::SetClientLabel { .. } => Method::SetClientLabel,
            Call::NewOids { .. } => Method::NewOids,
            Call::GetInvalidations { .. } => Method::GetInvalidations,
            Call::Verify { .. } => Method::Verify,
            Call::EndZeoVerify => Method::EndZeoVerify,
            Call::LoadBefore { .. } => Method::LoadBefore,
            Call::LoadEx { .. } => Method::LoadEx,
            Call::LoadSerial { .. } => Method::LoadSerial,
            Call::GetTid { .. } => Method::GetTid,
            Call::History { .. } => Method::History,
            Call::RecordIternext { .. } => Method::RecordIternext,
            Call::TpcBegin { .. } => Method::TpcBegin,
            Call::Store { .. } => Method::Store,
            Call::Restore { .. } => Method::Restore,
            Call::DeleteObject { .. } => Method::DeleteObject,
            Call::CheckCurrentSerial { .. } => Method::CheckCurrentSerial,
            Call::Undo { .. } => match wire.undo_call() {
                UndoCall::Answered => Method::Undo,
                UndoCall::Buffered => Method::Undoa,
            },
            Call::Vote { .. } => Method::Vote,
            Call::TpcFinish { .. } => Method::TpcFinish,
            Call::TpcAbort { .. } => Method::TpcAbort,
            Call::StoreBlobStart => Method::StoreBlobStart,
            Call::StoreBlobChunk { .. } => Method::StoreBlobChunk,
            Call::StoreBlobEnd { .. } => Method::StoreBlobEnd,
            Call::StoreBlobShared { .. } => Method::StoreBlobShared,
            Call::SendBlob { .. } => Method::SendBlob,
            Call::UndoLog { .. } => Method::UndoLog,
            Call::UndoInfo { .. } => Method::UndoInfo,
            Call::Pack { .. } => Method::Pack,
            Call::IteratorStart { .. } => Method::IteratorStart,
            Call::IteratorNext { .. } => Method::IteratorNext,
            Call::IteratorRecordStart { .. } => Method::IteratorRecordStart,
            Call::IteratorRecordNext { .. } => Method::IteratorRecordNext,
            Call::IteratorGc { .. } => Method::IteratorGc,
            Call::Quiet | Call::CancelPack { .. } | Call::PlanPack { .. } | Call::Other { .. } => {
                return None;
            }
        })
    }
}

impl Wire {
    /// Appends one frame: a call. The reply will have the number `id`; a call without a reply does not use it. The
    /// server must know the method ([`Wire::knows`]).
    pub fn put_call(&self, id: i64, call: &Call<'_>, out: &mut Vec<u8>) {
        let method = call.method(*self);
        debug_assert!(method.is_none_or(|method| self.knows(method)), "{self:?} has no {method:?}");
        encoder::frame(*self, out, |e| {
            match (method, call) {
                (Some(method), _) if self.is_one_way(method) => e.begin_call(method.name()),
                (Some(method), _) => e.begin_request(id, method.name()),
                (None, Call::Other { name, .. }) => e.begin_request(id, name),
                (None, Call::Quiet) => e.begin_request(id, QUIET),
                (None, Call::CancelPack { .. }) => e.begin_request(id, CANCEL_PACK),
                (None, Call::PlanPack { .. }) => e.begin_request(id, PLAN_PACK),
                (None, _) => {}
            }
            e.arguments(call);
        });
    }

    /// Appends one frame: a keep-alive message, which servers do not answer.
    pub fn put_keep_alive(&self, out: &mut Vec<u8>) {
        encoder::frame(*self, out, |e| {
            e.begin_reply(MsgId::Int(-1), 0);
            e.none();
        });
    }
}

/// An argument of a call.
#[derive(Clone, Copy)]
enum Arg<'a> {
    Oid(Oid),
    Tid(Tid),
    OptionalTid(Option<Tid>),
    Int(i64),
    Float(f64),
    Bool(bool),
    Bytes(&'a [u8]),
    Text(&'a str),
    Value(&'a Value),
    None,
    /// An empty version, for servers that know versions.
    Version,
}

impl Encoder<'_> {
    /// The arguments of a call, a tuple.
    fn arguments(&mut self, call: &Call<'_>) {
        use Arg::{Bool, Bytes, Int, OptionalTid, Text, Value, Version};
        match *call {
            Call::GetAuthProtocol
            | Call::GetInfo
            | Call::LastTransaction
            | Call::Ping
            | Call::ServerStatus
            | Call::Quiet
            | Call::CancelPack { own_plan: false }
            | Call::EndZeoVerify
            | Call::StoreBlobStart => self.args(&[]),
            Call::Register { storage, read_only } => self.args(&[Text(storage), Bool(read_only)]),
            Call::CancelPack { own_plan } => self.args(&[Bool(own_plan)]),
            Call::PlanPack { time } => self.args(&[Arg::Float(time)]),
            Call::SetClientLabel { label } => self.args(&[Text(label)]),
            Call::NewOids { count } => self.args(&[Int(count.into())]),
            Call::GetInvalidations { tid } => self.args(&[Arg::Tid(tid)]),
            Call::Verify { oid, serial } => self.args(&[Arg::Oid(oid), Version, Arg::Tid(serial)]),
            Call::LoadBefore { oid, before } => self.args(&[Arg::Oid(oid), Arg::Tid(before)]),
            Call::LoadEx { oid } => self.args(&[Arg::Oid(oid), Version]),
            Call::LoadSerial { oid, serial } | Call::SendBlob { oid, serial } => {
                self.args(&[Arg::Oid(oid), Arg::Tid(serial)]);
            }
            Call::GetTid { oid } => self.args(&[Arg::Oid(oid)]),
            Call::History { oid, count } => self.args(&[Arg::Oid(oid), Version, Int(count)]),
            Call::RecordIternext { next } => self.args(&[next.map_or(Arg::None, Arg::Oid)]),
            Call::TpcBegin { txn, user, description, extension, tid, status } => self.args(&[
                Int(txn),
                Bytes(user),
                Bytes(description),
                Value(extension),
                OptionalTid(tid),
                Text(status.encode_utf8(&mut [0; 4])),
            ]),
            Call::Store { oid, serial, data, txn } | Call::StoreBlobEnd { oid, serial, data, txn } => {
                self.args(&[Arg::Oid(oid), Arg::Tid(serial), Bytes(data), Version, Int(txn)]);
            }
            Call::Restore { oid, serial, data, prev_txn, txn } => self.args(&[
                Arg::Oid(oid),
                Arg::Tid(serial),
                data.map_or(Arg::None, Bytes),
                OptionalTid(prev_txn),
                Int(txn),
            ]),
            Call::DeleteObject { oid, serial, txn } | Call::CheckCurrentSerial { oid, serial, txn } => {
                self.args(&[Arg::Oid(oid), Arg::Tid(serial), Int(txn)]);
            }
            Call::Undo { undone, txn } => self.args(&[Bytes(undone), Int(txn)]),
            Call::Vote { txn } | Call::TpcFinish { txn } | Call::TpcAbort { txn } => self.args(&[Int(txn)]),
            Call::StoreBlobChunk { chunk } => self.args(&[Bytes(chunk)]),
            Call::StoreBlobShared { oid, serial, data, filename, txn } => {
                self.args(&[Arg::Oid(oid), Arg::Tid(serial), Bytes(data), Text(filename), Version, Int(txn)])
            }
            Call::UndoLog { first, last } => self.args(&[Int(first), Int(last)]),
            Call::UndoInfo { first, last, specification } => {
                self.args(&[Int(first), Int(last), Value(specification)]);
            }
            Call::Pack { time, wait } => self.args(&[Arg::Float(time), Bool(wait)]),
            Call::IteratorStart { start, stop } => self.args(&[OptionalTid(start), OptionalTid(stop)]),
            Call::IteratorNext { iterator } | Call::IteratorRecordNext { iterator } => {
                self.args(&[Int(iterator)]);
            }
            Call::IteratorRecordStart { iterator, tid } => self.args(&[Int(iterator), Arg::Tid(tid)]),
            Call::IteratorGc { iterators } => {
                self.begin_tuple(1);
                self.begin_list(iterators.len());
                iterators.iter().for_each(|iterator| self.int(*iterator));
                self.end_list(iterators.len());
                self.end_tuple(1);
            }
            Call::Other { args, .. } => {
                self.begin_tuple(args.len());
                args.iter().for_each(|arg| self.value(arg));
                self.end_tuple(args.len());
            }
        }
    }

    fn args(&mut self, args: &[Arg<'_>]) {
        let versions = self.wire.knows_versions();
        let count = args.iter().filter(|arg| versions || !matches!(arg, Arg::Version)).count();
        self.begin_tuple(count);
        for arg in args {
            match *arg {
                Arg::Oid(oid) => self.oid(oid),
                Arg::Tid(tid) | Arg::OptionalTid(Some(tid)) => self.tid(tid),
                Arg::OptionalTid(None) | Arg::None => self.none(),
                Arg::Int(value) => self.int(value),
                Arg::Float(value) => self.float(value),
                Arg::Bool(value) => self.bool(value),
                Arg::Bytes(value) => self.bytes(value),
                Arg::Text(value) => self.text(value),
                Arg::Value(value) => self.value(value),
                Arg::Version if versions => self.text(""),
                Arg::Version => {}
            }
        }
        self.end_tuple(count);
    }
}
