//! Replies: results and errors of calls, as frames. The reply to a load is completed around data that was
//! read into its place.

use super::encoder::{Encoder, frame};
use super::exception::PyException;
use super::frame::end_frame;
use super::protocol::{Encoding, Wire};
use super::request::MsgId;
use super::value::Value;
use super::{msgpack, pickle};
use crate::base::ids::{Oid, Tid};

/// A flag of messages: an error, since Z5.
const FLAG_ERROR: i64 = 2;

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
    /// Append one frame: the result of call `id`.
    pub fn reply(&self, id: MsgId<'_>, value: &Value, out: &mut Vec<u8>) {
        frame(*self, out, |e| {
            e.begin_reply(id, 0);
            e.value(value);
        });
    }

    /// Append a value, for a frame that is put together of several.
    pub fn value(&self, value: &Value, out: &mut Vec<u8>) {
        Encoder { out, wire: *self }.value(value);
    }

    /// Append one frame: the result of call `id` is a list of `count` values, which are encoded already.
    pub fn list_reply(&self, id: MsgId<'_>, count: usize, encoded: &[u8], out: &mut Vec<u8>) {
        frame(*self, out, |e| {
            e.begin_reply(id, 0);
            e.begin_list(count);
            e.out.extend_from_slice(encoded);
            e.end_list(count);
        });
    }

    /// Append one frame: call `id` raised this.
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

    /// Append one frame: call `id` returned `None`.
    pub fn none_reply(&self, id: MsgId<'_>, out: &mut Vec<u8>) {
        frame(*self, out, |e| {
            e.begin_reply(id, 0);
            e.none();
        });
    }

    /// Append one frame: call `id` returned a tid.
    pub fn tid_reply(&self, id: MsgId<'_>, tid: Tid, out: &mut Vec<u8>) {
        frame(*self, out, |e| {
            e.begin_reply(id, 0);
            e.tid(tid);
        });
    }

    /// Append one frame: the result of getInvalidations, the last tid and what was changed up to it.
    pub fn invalidations_reply(&self, id: MsgId<'_>, tid: Tid, oids: &[Oid], out: &mut Vec<u8>) {
        frame(*self, out, |e| {
            e.begin_reply(id, 0);
            e.invalidations(tid, oids);
        });
    }

    /// Bytes that must be free before the data of a load's reply, whatever its length: that is always
    /// written in four bytes. If exactly this many are free, the reply is completed without moving the data.
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

    /// Complete the reply to a load in place. The data of the record is `out[data_start..]`; before it, from
    /// `frame_start` on, is room for at least [`Wire::load_headroom`] bytes of header. Afterwards the frame
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

        // The header is written behind everything, and then copied to its place before the data.
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
                // less headroom than was asked for
                let header = out.split_off(message_end);
                out.splice(frame_start..data_start.min(message_end), header);
            }
        }
        end_frame(out, frame_start);
    }
}

/// An integer of 64 bits as text, and its opcode.
const INT_LEN_MAX: usize = 22;
