//! All methods that clients of any generation may call, as one enum.
//!
//! Shapes that only old generations have (version arguments, `load` for `loadBefore`) become the current ones where the
//! answer is the same, and are separate variants where the reply's shape differs.

use std::borrow::Cow;

use super::value::Value;
use crate::base::ids::{Oid, Tid};

/// A decoded message from a client.
#[derive(Debug)]
pub struct Call<'a> {
    pub id: MsgId<'a>,
    /// No reply is expected, not even an error.
    pub is_async: bool,
    pub request: Request<'a>,
}

/// The message id, which the reply repeats: an integer, or for loads of ZEO 5 and 6 the tuple (oid, tid).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum MsgId<'a> {
    Int(i64),
    Load(Oid, Tid),
    /// Any other value: its encoded bytes, repeated verbatim.
    Raw(&'a [u8]),
}

impl MsgId<'_> {
    /// A copy that outlives the frame, for later replies.
    pub fn owned(self) -> OwnedMsgId {
        match self {
            MsgId::Int(id) => OwnedMsgId::Int(id),
            MsgId::Load(oid, tid) => OwnedMsgId::Load(oid, tid),
            MsgId::Raw(bytes) => OwnedMsgId::Raw(bytes.into()),
        }
    }
}

/// An owned [`MsgId`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum OwnedMsgId {
    Int(i64),
    Load(Oid, Tid),
    Raw(Box<[u8]>),
}

impl OwnedMsgId {
    /// The borrowed form, for the codecs.
    pub fn get(&self) -> MsgId<'_> {
        match self {
            OwnedMsgId::Int(id) => MsgId::Int(*id),
            OwnedMsgId::Load(oid, tid) => MsgId::Load(*oid, *tid),
            OwnedMsgId::Raw(bytes) => MsgId::Raw(bytes),
        }
    }
}

/// A client's request.
#[derive(Debug)]
pub enum Request<'a> {
    // -- before register
    Register {
        storage: Cow<'a, str>,
        read_only: bool,
    },
    GetAuthProtocol,

    // -- about the storage
    GetInfo,
    /// `get_size_info`
    GetSizeInfo,
    GetExtensionMethods,
    /// A method of the authentication protocol, a method from `getExtensionMethods`, or an unknown one: `name(*args)`.
    Other {
        name: Cow<'a, str>,
        args: Vec<Value>,
    },
    LastTransaction,
    Ping,
    ServerStatus,
    SetClientLabel {
        label: Cow<'a, str>,
    },
    /// [`QUIET`](super::protocol::QUIET)
    Quiet,
    /// [`CANCEL_PACK`](super::protocol::CANCEL_PACK)
    CancelPack {
        /// Only the dry run of this connection.
        own_plan: bool,
    },
    /// [`PLAN_PACK`](super::protocol::PLAN_PACK)
    PlanPack {
        /// Seconds since 1970.
        time: f64,
    },
    NewOid,
    NewOids {
        count: i64,
    },

    // -- cache verification
    GetInvalidations {
        tid: Tid,
    },
    /// Older verification: `(oid, serial)`; the shapes with versions before Z309 are decoded to the same.
    ZeoVerify {
        oid: Oid,
        serial: Tid,
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
    /// `load(oid)` of Z309 … Z4: (data, serial)
    Load {
        oid: Oid,
    },
    /// `loadEx(oid)`, the load of Z3101 and older: (data, serial) or, before Z309, (data, serial, version)
    LoadEx {
        oid: Oid,
    },
    /// `zeoLoad(oid)`, before Z309: (data, serial, version, pickle in the version, its serial)
    ZeoLoad {
        oid: Oid,
    },
    LoadSerial {
        oid: Oid,
        serial: Tid,
    },
    GetSerial {
        oid: Oid,
    },
    GetTid {
        oid: Oid,
    },
    /// `None` as oid, or a count that is no number, is answered with the error of Python's server.
    History {
        oid: Option<Oid>,
        count: Option<i64>,
    },
    RecordIternext {
        next: Option<Oid>,
    },
    /// Versions were removed in ZODB 3.9: the answer says that there are none.
    ModifiedInVersion {
        oid: Oid,
    },
    Versions {
        max: Option<i64>,
    },
    VersionEmpty {
        version: Cow<'a, [u8]>,
    },

    // -- transactions. `id` is the client's name for the transaction: any value, compared as encoded bytes.
    TpcBegin(TpcBegin<'a>),
    Store {
        oid: Oid,
        serial: Tid,
        data: Cow<'a, [u8]>,
        id: TxnId<'a>,
    },
    CheckCurrentSerial {
        oid: Oid,
        serial: Tid,
        id: TxnId<'a>,
    },
    DeleteObject {
        oid: Oid,
        serial: Tid,
        id: TxnId<'a>,
    },
    /// `restorea`; `data` is `None` for an object that was un-created.
    Restore {
        oid: Oid,
        serial: Tid,
        data: Option<Cow<'a, [u8]>>,
        prev_txn: Option<Tid>,
        id: TxnId<'a>,
    },
    Vote {
        id: TxnId<'a>,
    },
    TpcFinish {
        id: TxnId<'a>,
    },
    TpcAbort {
        id: TxnId<'a>,
    },

    // -- blobs
    StoreBlobStart,
    StoreBlobChunk {
        chunk: Cow<'a, [u8]>,
    },
    StoreBlobEnd {
        oid: Oid,
        serial: Tid,
        data: Cow<'a, [u8]>,
        id: TxnId<'a>,
    },
    StoreBlobShared {
        oid: Oid,
        serial: Tid,
        data: Cow<'a, [u8]>,
        filename: Cow<'a, str>,
        id: TxnId<'a>,
    },
    SendBlob {
        oid: Oid,
        serial: Tid,
    },

    // -- undo, pack, iteration
    Undo {
        tid_id: Value,
        id: TxnId<'a>,
    },
    UndoLog {
        first: i64,
        last: i64,
    },
    UndoInfo {
        first: i64,
        last: i64,
        specification: Value,
    },
    /// Before Z310 `abortVersion`, `commitVersion`: refused.
    VersionOperation {
        name: &'static str,
    },
    Pack {
        time: f64,
        wait: Option<bool>,
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
        iterators: Vec<i64>,
    },

    /// A reply without a call: the keep-alive of clients, `(-1, 0, '.reply', None)`.
    KeepAlive,
    /// The method exists, but not with these arguments: the answer is this exception (TypeError…).
    Malformed {
        method: Cow<'a, str>,
        exception: super::exception::PyException,
    },
}

/// A transaction id as the client encoded it.
pub type TxnId<'a> = Cow<'a, [u8]>;

/// `tpc_begin(id, user, description, extension, tid, status)`
#[derive(Debug)]
pub struct TpcBegin<'a> {
    pub id: TxnId<'a>,
    pub user: Cow<'a, [u8]>,
    pub description: Cow<'a, [u8]>,
    /// The pickled extension dict for the file; empty for an empty dict.
    pub extension: Vec<u8>,
    /// The tid of a copied transaction.
    pub tid: Option<Tid>,
    /// `b' '` unless given
    pub status: u8,
}
