//! Replies: results and errors of calls, as frames. The reply to a load is written around its data, which was read into
//! place.

use super::encoder::{Encoder, frame};
use super::exception::PyException;
use super::frame::end_frame;
use super::protocol::{Encoding, Wire};
use super::request::MsgId;
use super::value::Value;
use super::{msgpack, pickle};
use crate::base::ids::{Oid, Tid};

/// Flag of an error message, since Z5.
const FLAG_ERROR: i64 = 2;

/// The kind of load that is answered. It decides the reply's shape.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LoadShape {
    /// `loadBefore`: (data, serial, end)
    Before,
    /// `load`: (data, serial)
    Load,
    /// `loadEx`: (data, serial), or (data, serial, version) for generations with versions.
    LoadEx,
    /// `zeoLoad`: (data, serial, version, None, None)
    ZeoLoad,
    /// `loadSerial`: data
    Serial,
}

impl Wire {
    /// Appends one frame: the result of call `id`.
    pub fn reply(&self, id: MsgId<'_>, value: &Value, out: &mut Vec<u8>) {
        frame(*self, out, |e| {
            e.begin_reply(id, 0);
            e.value(value);
        });
    }

    /// Appends a value, for a frame that is composed of several.
    pub fn value(&self, value: &Value, out: &mut Vec<u8>) {
        Encoder { out, wire: *self }.value(value);
    }

    /// Appends one frame: the result of call `id`, a list of `count` encoded values.
    pub fn list_reply(&self, id: MsgId<'_>, count: usize, encoded: &[u8], out: &mut Vec<u8>) {
        frame(*self, out, |e| {
            e.begin_reply(id, 0);
            e.begin_list(count);
            e.out.extend_from_slice(encoded);
            e.end_list(count);
        });
    }

    /// Appends one frame: the exception of call `id`.
    pub fn error_reply(&self, id: MsgId<'_>, exception: &PyException, out: &mut Vec<u8>) {
        frame(*self, out, |e| {
            if self.pickles_exceptions() {
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

    /// Appends one frame: `None`, the result of call `id`.
    pub fn none_reply(&self, id: MsgId<'_>, out: &mut Vec<u8>) {
        frame(*self, out, |e| {
            e.begin_reply(id, 0);
            e.none();
        });
    }

    /// Appends one frame: a tid, the result of call `id`.
    pub fn tid_reply(&self, id: MsgId<'_>, tid: Tid, out: &mut Vec<u8>) {
        frame(*self, out, |e| {
            e.begin_reply(id, 0);
            e.tid(tid);
        });
    }

    /// Appends one frame: the result of getInvalidations, the last tid and the objects changed up to it.
    pub fn invalidations_reply(&self, id: MsgId<'_>, tid: Tid, oids: &[Oid], out: &mut Vec<u8>) {
        frame(*self, out, |e| {
            e.begin_reply(id, 0);
            e.invalidations(tid, oids);
        });
    }

    /// Bytes that must be free before the data of a load's reply, for any length of the data: the length always takes
    /// four bytes. If exactly this many are free, the reply is completed without moving the data.
    pub fn load_headroom(&self, id: MsgId<'_>) -> usize {
        let (rest, load) = match self.encoding {
            Encoding::Pickle(dialect) => (pickle::load_header_len(dialect), pickle::load_id_len(dialect)),
            Encoding::Msgpack => (msgpack::LOAD_HEADER_LEN, msgpack::LOAD_ID_LEN),
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

    /// Completes the reply to a load in place. The data of the record is `out[data_start..]`; before it, from
    /// `frame_start` on, there must be room for at least [`Wire::load_headroom`] bytes of header. Afterwards the frame
    /// is `out[frame_start..]`.
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
        let versions = self.knows_versions();
        let data_len = out.len().saturating_sub(data_start);
        let count = match shape {
            LoadShape::Serial => 0,
            LoadShape::Load => 2,
            LoadShape::LoadEx if !versions => 2,
            LoadShape::LoadEx | LoadShape::Before => 3,
            LoadShape::ZeoLoad => 5,
        };
        let mut e = Encoder { out, wire: *self };
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

        // The header is written after the data, and then copied to its place before the data.
        let message_end = e.out.len();
        e.out.extend_from_slice(&[0; 4]);
        e.begin_reply(id, 0);
        let data_len = u32::try_from(data_len).unwrap_or(u32::MAX);
        match self.encoding {
            Encoding::Pickle(dialect) => pickle::begin_load(dialect, count, data_len, e.out),
            Encoding::Msgpack => msgpack::begin_load(count, data_len, e.out),
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
                // less headroom than required
                let header = out.split_off(message_end);
                out.splice(frame_start..data_start.min(message_end), header);
            }
        }
        end_frame(out, frame_start);
    }
}

/// Upper bound on the bytes of a 64-bit integer as text, with its opcode.
const INT_LEN_MAX: usize = 22;
