//! The client's side of the protocol: what a server sends, decoded. [`super::calls`] has the calls.
//!
//! The front of a message says what it is. A result is decoded when it is asked for, as the type that the call has;
//! what is not of this type is an error that should close the connection. Results of loads, tids, lists of
//! invalidations and chunks of blobs are scanned in place; other results are read into a tree first, within the limits
//! that hold for clients' messages.

use std::fmt;

use super::decode::{DecodeError, error};
use super::exception::PyException;
use super::protocol::{Dialect, Encoding, Wire};
use super::scalars::{HEAD, Scalar, Slot, Slots};
use super::value::{self, Value};
use super::{msgpack, pickle};
use crate::base::ids::{Oid, Tid};
use crate::pickle::value::{Node, NodeId, Tree};

/// A message from a server.
#[derive(Debug)]
pub enum FromServer<'a> {
    /// The reply to the call with this number.
    Reply { id: i64, answer: Answer<'a> },
    /// A call to the client, without a reply.
    Push(ServerPush<'a>),
    /// Only to be ignored.
    KeepAlive,
}

/// What a server sends without a call.
#[derive(Debug, PartialEq)]
pub enum ServerPush<'a> {
    /// `invalidateTransaction`: these objects were changed by this transaction.
    Invalidate {
        tid: Tid,
        oids: Vec<Oid>,
    },
    /// Full verification: this object has changed.
    InvalidateVerify {
        oid: Oid,
    },
    /// Full verification: all objects that have changed were sent.
    EndVerify,
    /// Before the reply to vote (and, up to Z309, of undo): what became of stored objects.
    Serialnos(Vec<(Oid, Serialno)>),
    /// Length and size of the storage.
    Info(Value),
    BlobStart {
        oid: Oid,
        serial: Tid,
    },
    BlobChunk {
        oid: Oid,
        serial: Tid,
        chunk: &'a [u8],
    },
    BlobStop {
        oid: Oid,
        serial: Tid,
    },
}

/// What became of a stored object, before Z5.
#[derive(Debug, PartialEq)]
pub enum Serialno {
    /// The object has this serial.
    Stored(Tid),
    /// The server merged it with another change, so the client must load it again.
    Resolved,
    /// The transaction cannot be committed.
    Raised(Box<PyException>),
}

/// The result of a call, not yet decoded.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    wire: Wire,
    payload: &'a [u8],
    /// Offset of the result in the payload; 0 if the result was scanned.
    start: usize,
    /// The result if it is a scalar, or its items if it is a tuple of scalars.
    scalars: [Scalar<'a>; SCALARS],
    /// Number of `scalars`; `None` for a scalar that is no tuple.
    count: Option<usize>,
    is_scanned: bool,
    is_raised: bool,
}

/// Most scalars in a result that is scanned.
const SCALARS: usize = 4;

/// Why there is no result of the expected type.
#[derive(Debug)]
pub enum AnswerError {
    /// The server raised an exception.
    Raised(Box<PyException>),
    /// The result is of another type, or no value at all. The connection cannot be used any more.
    Broken(DecodeError),
}

impl From<DecodeError> for AnswerError {
    fn from(error: DecodeError) -> AnswerError {
        AnswerError::Broken(error)
    }
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AnswerError::Raised(exception) => write!(f, "the server raised {exception}"),
            AnswerError::Broken(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for AnswerError {}

/// The result of a load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoadAnswer<'a> {
    pub data: &'a [u8],
    pub serial: Tid,
    /// The next revision's tid; `None` for the current one.
    pub end: Option<Tid>,
}

impl Wire {
    /// Decodes the front of a server's message: the payload of a frame, without length and message authentication code.
    pub fn from_server<'a>(&self, payload: &'a [u8]) -> Result<FromServer<'a>, DecodeError> {
        let mut slots = [Slot::EMPTY; 11];
        let scanned = match self.encoding {
            Encoding::Pickle(_) => pickle::scan(payload, &mut slots),
            Encoding::Msgpack => msgpack::scan(payload, &mut slots),
        };
        let mut start = 0;
        if scanned.is_none() {
            let head = match self.encoding {
                Encoding::Pickle(_) => pickle::head(payload, &mut slots),
                Encoding::Msgpack => msgpack::head(payload, &mut slots),
            };
            start = head.ok_or_else(|| error("it is no message of a server"))?;
        }
        let [id, flag, method, ..] = &slots;
        let (Scalar::Bytes(method) | Scalar::Str(method) | Scalar::Text(method)) = method.scalar else {
            return Err(error("the name of the method is no string"));
        };
        let mut body = Answer {
            wire: *self,
            payload,
            start,
            scalars: scalars(&slots),
            count: scanned.and_then(|scanned| scanned.args),
            is_scanned: scanned.is_some(),
            is_raised: false,
        };
        if method != b".reply" {
            return body.push(method).map(FromServer::Push);
        }
        let Scalar::Int(id) = id.scalar else { return Err(error("the number of a reply is no integer")) };
        if id == -1 {
            return Ok(FromServer::KeepAlive);
        }
        body.is_raised = match self.pickles_exceptions() {
            true => !body.is_scanned && pickle::is_class(payload, start),
            false => flag.scalar == Scalar::Int(FLAG_RAISED),
        };
        Ok(FromServer::Reply { id, answer: body })
    }
}

/// Flag of an exception, since Z5.
const FLAG_RAISED: i64 = 2;

fn scalars<'a>(slots: &Slots<'a>) -> [Scalar<'a>; SCALARS] {
    let mut scalars = [Scalar::None; SCALARS];
    let results = slots.iter().skip(HEAD);
    scalars.iter_mut().zip(results).for_each(|(scalar, slot)| *scalar = slot.scalar);
    scalars
}

impl<'a> Answer<'a> {
    /// Any result; its value does not matter.
    pub fn done(&self) -> Result<(), AnswerError> {
        self.not_raised()
    }

    /// A tid.
    pub fn tid(&self) -> Result<Tid, AnswerError> {
        self.optional_tid()?.ok_or_else(|| self.broken("a tid"))
    }

    /// A tid or `None`: of register, which is `None` before Z5, and of lastTransaction.
    pub fn optional_tid(&self) -> Result<Option<Tid>, AnswerError> {
        self.not_raised()?;
        match self.scalar() {
            Some(Scalar::None) => Ok(None),
            Some(scalar) => {
                id8(scalar).map(|tid| Some(Tid::from_bytes(tid))).ok_or_else(|| self.broken("a tid"))
            }
            None => Err(self.broken("a tid")),
        }
    }

    /// A byte string: of loadSerial.
    pub fn bytes(&self) -> Result<&'a [u8], AnswerError> {
        self.not_raised()?;
        match self.scalar() {
            Some(Scalar::Bytes(bytes) | Scalar::Str(bytes)) => Ok(bytes),
            _ => Err(self.broken("bytes")),
        }
    }

    /// An integer: of iterator_start and iterator_record_start.
    pub fn int(&self) -> Result<i64, AnswerError> {
        self.not_raised()?;
        match self.scalar() {
            Some(Scalar::Int(value)) => Ok(value),
            _ => Err(self.broken("an integer")),
        }
    }

    /// Of loadBefore and loadEx. `None`: there was no such revision.
    pub fn loaded(&self) -> Result<Option<LoadAnswer<'a>>, AnswerError> {
        self.not_raised()?;
        let [data, serial, end, _] = self.scalars;
        let end = match (self.is_scanned, self.count, end) {
            (true, None, _) if data == Scalar::None => return Ok(None),
            (true, Some(2), _) => None,
            // The version, of loadEx of Z308.
            (true, Some(3), Scalar::None | Scalar::Bytes([]) | Scalar::Str([]) | Scalar::Text([])) => None,
            (true, Some(3), end) => Some(id8(end).ok_or_else(|| self.broken("a revision"))?),
            _ => return Err(self.broken("a revision")),
        };
        let (Scalar::Bytes(data) | Scalar::Str(data)) = data else { return Err(self.broken("a revision")) };
        let serial = id8(serial).ok_or_else(|| self.broken("a revision"))?;
        Ok(Some(LoadAnswer { data, serial: Tid::from_bytes(serial), end: end.map(Tid::from_bytes) }))
    }

    /// Of getInvalidations: the last tid, and the objects changed up to it. `None`: the server does not know them any
    /// more. Of undo, up to Z309: tid and objects of the transaction.
    pub fn invalidations(&self) -> Result<Option<(Tid, Vec<Oid>)>, AnswerError> {
        self.not_raised()?;
        match self.scalar() {
            Some(Scalar::None) => Ok(None),
            _ => Ok(Some(self.tid_and_oids()?)),
        }
    }

    /// Any plain value.
    pub fn value(&self) -> Result<Value, AnswerError> {
        self.not_raised()?;
        let tree = self.tree()?;
        Ok(self.value_of(&tree, result(&tree)?)?)
    }

    /// The exception, if the server raised one.
    pub fn raised(&self) -> Result<Option<PyException>, DecodeError> {
        if !self.is_raised {
            return Ok(None);
        }
        let tree = self.tree()?;
        let exception = value::raised_by_server(self.dialect(), &tree, result(&tree)?);
        exception.map(Some).ok_or_else(|| error("it has no exception"))
    }

    #[inline]
    pub(super) fn not_raised(&self) -> Result<(), AnswerError> {
        match self.raised()? {
            None => Ok(()),
            Some(exception) => Err(AnswerError::Raised(Box::new(exception))),
        }
    }

    /// The result, if it is a scalar.
    fn scalar(&self) -> Option<Scalar<'a>> {
        let [first, ..] = self.scalars;
        (self.is_scanned && self.count.is_none()).then_some(first)
    }

    /// That of the message: the wire has the dialect in which the server reads.
    fn dialect(&self) -> Dialect {
        match self.wire.of_first_reply(self.payload).encoding {
            Encoding::Pickle(dialect) => dialect,
            Encoding::Msgpack => Dialect::Python3,
        }
    }

    pub(super) fn tree(&self) -> Result<Tree<'a>, DecodeError> {
        match self.wire.encoding {
            Encoding::Pickle(_) => pickle::tree_of_server(self.payload).map_err(|e| error(e.to_string())),
            Encoding::Msgpack => msgpack::tree(self.payload).map_err(error),
        }
    }

    pub(super) fn value_of(&self, tree: &Tree<'_>, id: NodeId) -> Result<Value, DecodeError> {
        value::of_server(self.dialect(), tree, id)
            .map_err(|e| error(format!("it has a value that cannot be used: {}", e.0)))
    }

    #[cold]
    pub(super) fn broken(&self, expected: &str) -> AnswerError {
        AnswerError::Broken(error(format!("a reply is not {expected}")))
    }

    fn tid_and_oids(&self) -> Result<(Tid, Vec<Oid>), DecodeError> {
        let mut oids = Vec::new();
        let tid = match self.wire.encoding {
            _ if self.is_scanned => None,
            Encoding::Pickle(_) => pickle::oids(self.payload, self.start, &mut oids),
            Encoding::Msgpack => msgpack::oids(self.payload, self.start, &mut oids),
        };
        if let Some(tid) = tid {
            return Ok((tid, oids));
        }
        // A tuple of oids, for example.
        let tree = self.tree()?;
        let wrong = || error("it has no tid and oids");
        let &[tid, list] = items(&tree, result(&tree)?).ok_or_else(wrong)? else { return Err(wrong()) };
        let tid = node_id8(&tree, tid).ok_or_else(wrong)?;
        let list = items(&tree, list).ok_or_else(wrong)?;
        let oids = list.iter().map(|oid| oid_of(&tree, *oid)).collect::<Option<Vec<Oid>>>();
        Ok((Tid::from_bytes(tid), oids.ok_or_else(wrong)?))
    }

    /// A call to the client; its arguments are in the place of a result.
    fn push(&self, method: &[u8]) -> Result<ServerPush<'a>, DecodeError> {
        let wrong = || error(format!("it has other arguments than {}", method.escape_ascii()));
        let [first, second, third, _] = self.scalars;
        let (oid, serial) = (
            id8(first).map(Oid::from_bytes).ok_or_else(wrong),
            id8(second).map(Tid::from_bytes).ok_or_else(wrong),
        );
        match (method, self.count) {
            (b"invalidateTransaction", _) => {
                self.tid_and_oids().map(|(tid, oids)| ServerPush::Invalidate { tid, oids })
            }
            (b"receiveBlobStart", Some(2)) => Ok(ServerPush::BlobStart { oid: oid?, serial: serial? }),
            (b"receiveBlobChunk", Some(3)) => match third {
                Scalar::Bytes(chunk) | Scalar::Str(chunk) => {
                    Ok(ServerPush::BlobChunk { oid: oid?, serial: serial?, chunk })
                }
                _ => Err(wrong()),
            },
            (b"receiveBlobStop", Some(2)) => Ok(ServerPush::BlobStop { oid: oid?, serial: serial? }),
            (b"endVerify", Some(0)) => Ok(ServerPush::EndVerify),
            (b"invalidateVerify", Some(1)) => Ok(ServerPush::InvalidateVerify { oid: oid? }),
            (b"invalidateVerify" | b"info" | b"serialnos", _) => {
                let tree = self.tree()?;
                let &[argument] = items(&tree, result(&tree)?).ok_or_else(wrong)? else {
                    return Err(wrong());
                };
                match method {
                    b"info" => Ok(ServerPush::Info(self.value_of(&tree, argument)?)),
                    b"serialnos" => self.serialnos(&tree, argument).ok_or_else(wrong),
                    _ => {
                        let oid = oid_of(&tree, argument).ok_or_else(wrong)?;
                        Ok(ServerPush::InvalidateVerify { oid })
                    }
                }
            }
            (b"receiveBlobStart" | b"receiveBlobChunk" | b"receiveBlobStop" | b"endVerify", _) => {
                Err(wrong())
            }
            _ => Err(error(format!("it calls an unknown method, '{}'", method.escape_ascii()))),
        }
    }

    fn serialnos(&self, tree: &Tree<'_>, list: NodeId) -> Option<ServerPush<'a>> {
        let serialno = |id: &NodeId| {
            let &[oid, serial] = items(tree, *id)? else { return None };
            let serial = match tree.node(serial) {
                Node::Bytes(serial) | Node::Str(serial) | Node::Text(serial) if &**serial == b"rs" => {
                    Serialno::Resolved
                }
                Node::Bytes(serial) | Node::Str(serial) => Serialno::Stored(Tid::from_slice(serial)?),
                _ => match self.value_of(tree, serial).ok()? {
                    Value::Exception(exception) => Serialno::Raised(exception),
                    _ => return None,
                },
            };
            Some((Oid::from_bytes(node_id8(tree, oid)?), serial))
        };
        items(tree, list)?.iter().map(serialno).collect::<Option<Vec<_>>>().map(ServerPush::Serialnos)
    }
}

/// The bytes of an oid or a tid.
fn id8(scalar: Scalar<'_>) -> Option<[u8; 8]> {
    match scalar {
        Scalar::Bytes(id) | Scalar::Str(id) => id.try_into().ok(),
        _ => None,
    }
}

// -- parts of trees

/// The result of a message, or the arguments.
pub(super) fn result(tree: &Tree<'_>) -> Result<NodeId, DecodeError> {
    match items(tree, tree.root()) {
        Some(&[_, _, _, result]) => Ok(result),
        _ => Err(error("it is no tuple of four parts")),
    }
}

/// The items of a list or a tuple, which msgpack does not distinguish.
pub(super) fn items<'t>(tree: &'t Tree<'_>, id: NodeId) -> Option<&'t [NodeId]> {
    match tree.node(id) {
        Node::Tuple(items) | Node::List(items) => Some(items),
        _ => None,
    }
}

/// The bytes of an oid or a tid.
pub(super) fn node_id8(tree: &Tree<'_>, id: NodeId) -> Option<[u8; 8]> {
    match tree.node(id) {
        Node::Bytes(id) | Node::Str(id) => id.as_ref().try_into().ok(),
        _ => None,
    }
}

/// An oid, perhaps in a pair with something else.
pub(super) fn oid_of(tree: &Tree<'_>, id: NodeId) -> Option<Oid> {
    let id = match items(tree, id) {
        Some(&[oid, _]) => oid,
        Some(_) => return None,
        None => id,
    };
    node_id8(tree, id).map(Oid::from_bytes)
}
