//! What the server calls: frames to [`Call`]s, and replies, errors and pushes to frames, for every [`Wire`].

use std::fmt;

use super::decode;
use super::encode;
use super::exception::PyException;
use super::protocol::Wire;
use super::push::Push;
use super::request::{Call, MsgId};
use super::value::Value;
use crate::base::ids::{Oid, Tid};

/// A message that is not one: Python's servers close the connection.
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

/// Which load is answered: the shape of its reply is the wire's business.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LoadShape {
    /// `loadBefore`: (data, serial, end)
    Before,
    /// `load`: (data, serial)
    Load,
    /// `loadEx`: (data, serial), or (data, serial, version) where versions are known
    LoadEx,
    /// `zeoLoad`: (data, serial, version, None, None)
    ZeoLoad,
    /// `loadSerial`: data
    Serial,
}

impl Wire {
    /// Understand a message. The payload of a frame, without length and message authentication code.
    pub fn decode<'a>(&self, payload: &'a [u8]) -> Result<Call<'a>, DecodeError> {
        decode::decode(*self, payload)
    }

    /// Append one frame: the result of call `id`.
    pub fn reply(&self, id: MsgId<'_>, value: &Value, out: &mut Vec<u8>) {
        encode::frame(*self, out, |e| {
            e.begin_reply(id, 0);
            e.value(value);
        });
    }

    /// Append a value, for a frame that is put together of several.
    pub fn value(&self, value: &Value, out: &mut Vec<u8>) {
        encode::Encoder { out, wire: *self }.value(value);
    }

    /// Append one frame: the result of call `id` is a list of `count` values, which are encoded already.
    pub fn list_reply(&self, id: MsgId<'_>, count: usize, encoded: &[u8], out: &mut Vec<u8>) {
        encode::frame(*self, out, |e| {
            e.begin_reply(id, 0);
            e.begin_list(count);
            e.out.extend_from_slice(encoded);
            e.end_list(count);
        });
    }

    /// Append one frame: call `id` raised this.
    pub fn error_reply(&self, id: MsgId<'_>, exception: &PyException, out: &mut Vec<u8>) {
        encode::error(*self, id, exception, out);
    }

    /// Append one frame: a call to the client that wants no reply.
    pub fn push(&self, push: &Push<'_>, out: &mut Vec<u8>) {
        encode::push(*self, push, out);
    }

    /// Append one frame: `receiveBlobChunk(oid, serial, chunk)` with room for a chunk of `len` bytes. Returns where in
    /// `out` the chunk is to be read to.
    pub fn blob_chunk(&self, oid: Oid, serial: Tid, len: usize, out: &mut Vec<u8>) -> usize {
        encode::blob_chunk(*self, oid, serial, len, out)
    }

    /// Append one frame: call `id` returned `None`.
    pub fn none_reply(&self, id: MsgId<'_>, out: &mut Vec<u8>) {
        encode::frame(*self, out, |e| {
            e.begin_reply(id, 0);
            e.none();
        });
    }

    /// Append one frame: call `id` returned a tid.
    pub fn tid_reply(&self, id: MsgId<'_>, tid: Tid, out: &mut Vec<u8>) {
        encode::frame(*self, out, |e| {
            e.begin_reply(id, 0);
            e.tid(tid);
        });
    }

    /// Append one frame: the result of getInvalidations, the last tid and what was changed up to it.
    pub fn invalidations_reply(&self, id: MsgId<'_>, tid: Tid, oids: &[Oid], out: &mut Vec<u8>) {
        encode::frame(*self, out, |e| {
            e.begin_reply(id, 0);
            e.invalidations(tid, oids);
        });
    }

    /// Bytes that must be free before the data of a load's reply. If exactly so many are free, the reply is completed
    /// without moving the data.
    pub fn load_headroom(&self, id: MsgId<'_>) -> usize {
        encode::load_headroom(*self, id)
    }

    /// Complete the reply to a load in place. The data of the record is `out[data_start..]`; before it, from
    /// `frame_start` on, is room for at least [`Wire::load_headroom`] bytes of header. Afterwards the frame is
    /// `out[frame_start..]`.
    #[allow(clippy::too_many_arguments)] // what varies in a reply
    pub fn load_reply(
        &self,
        shape: LoadShape,
        id: MsgId<'_>,
        serial: Tid,
        end: Option<Tid>,
        out: &mut Vec<u8>,
        frame_start: usize,
        data_start: usize,
    ) {
        encode::load_reply(*self, shape, id, serial, end, out, frame_start, data_start);
    }
}
