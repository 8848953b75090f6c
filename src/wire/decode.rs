//! Decodes the messages of clients into [`Call`]s. A message whose arguments are all scalars is scanned in place; any
//! other is read into a tree. Then [`super::methods`] finds the method.
//!
//! Where Python's server would answer with an exception, the result is [`Request::Malformed`]; only what Python cannot
//! decode at all is an error here.

use std::borrow::Cow;
use std::fmt;

use super::arguments::{Args, is_true};
use super::methods;
use super::protocol::{Encoding, Wire};
use super::request::{Call, MsgId, Request};
use super::scalars::{Scalar, Scanned, Slot, Slots};
use super::{msgpack, pickle};
use crate::pickle::value::{Node, NodeId, Tree};

/// The bytes are no message: Python's servers close the connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DecodeError {
    pub what: String,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "can't decode message: {}", self.what)
    }
}

impl std::error::Error for DecodeError {}

impl Wire {
    /// Decodes a message: the payload of a frame, without length and message authentication code.
    pub fn decode<'a>(&self, payload: &'a [u8]) -> Result<Call<'a>, DecodeError> {
        let mut slots = [Slot::EMPTY; 11];
        let scanned = match self.encoding {
            Encoding::Pickle(_) => pickle::scan(payload, &mut slots),
            Encoding::Msgpack => msgpack::scan(payload, &mut slots),
        };
        match scanned {
            Some(scanned) => call_of_scalars(*self, scanned, &slots),
            None => decode_tree(*self, payload),
        }
    }
}

/// The call of a message that was scanned.
fn call_of_scalars<'a>(wire: Wire, scanned: Scanned, slots: &Slots<'a>) -> Result<Call<'a>, DecodeError> {
    let [id, flag, method, args @ ..] = slots;
    let (Scalar::Bytes(method) | Scalar::Str(method) | Scalar::Text(method)) = method.scalar else {
        return Err(error("the name of the method is no string"));
    };
    let count = scanned.args;
    if count.is_none() && args.first().is_some_and(|slot| slot.scalar != Scalar::None) {
        return Err(error("the arguments are no tuple"));
    }
    let args = Args { method, slots: args.get(..count.unwrap_or(0)).unwrap_or_default(), tree: None, wire };
    let id = match id.scalar {
        Scalar::Int(id) => MsgId::Int(id),
        Scalar::Load(oid, tid) => MsgId::Load(oid, tid),
        _ => MsgId::Raw(id.encoded),
    };
    call(id, is_true(flag.scalar), Cow::Borrowed(method), count.is_some(), &args)
}

/// The call of a message with any arguments, read into a tree.
#[cold]
pub(super) fn decode_tree<'a>(wire: Wire, frame: &'a [u8]) -> Result<Call<'a>, DecodeError> {
    let tree = match wire.encoding {
        Encoding::Pickle(_) => pickle::tree(frame).map_err(|e| error(e.to_string()))?,
        Encoding::Msgpack => msgpack::tree(frame).map_err(error)?,
    };
    let (Node::Tuple(parts) | Node::List(parts)) = tree.node(tree.root()) else {
        return Err(error("it is no tuple"));
    };
    let [id, flag, method, arguments] = parts.as_slice() else {
        return Err(error(format!("it has {} parts instead of 4", parts.len())));
    };
    let id_slot = slot(&tree, *id);
    let id = match id_slot.scalar {
        Scalar::Int(id) => MsgId::Int(id),
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
    let args = Args { method: &method, slots: &slots, tree: Some(&tree), wire };
    call(id, is_true(slot(&tree, *flag).scalar), method.clone(), has_args, &args)
}

/// An argument from a tree.
fn slot<'a>(tree: &Tree<'a>, id: NodeId) -> Slot<'a> {
    let scalar = match tree.node(id) {
        Node::None => Scalar::None,
        Node::Bool(value) => Scalar::Bool(*value),
        Node::Int(value) => Scalar::Int(*value),
        Node::Float(value) => Scalar::Float(*value),
        Node::Bytes(Cow::Borrowed(value)) => Scalar::Bytes(value),
        Node::Str(Cow::Borrowed(value)) => Scalar::Str(value),
        Node::Text(Cow::Borrowed(value)) => Scalar::Text(value),
        _ => Scalar::Node(id),
    };
    Slot { scalar, encoded: tree.encoded(id).unwrap_or_default() }
}

/// The call that a message makes.
fn call<'a>(
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
    let request = match methods::request(args) {
        Ok(Some(request)) => request,
        Ok(None) => match args.values() {
            Ok(args) => Request::Other { name: name(method), args },
            Err(exception) => Request::Malformed { method: name(method), exception: *exception },
        },
        Err(exception) => Request::Malformed { method: name(method), exception: *exception },
    };
    Ok(Call { id, is_async, request })
}

pub(super) fn error(what: impl Into<String>) -> DecodeError {
    DecodeError { what: what.into() }
}

fn name(bytes: Cow<'_, [u8]>) -> Cow<'_, str> {
    match bytes {
        Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
    }
}
