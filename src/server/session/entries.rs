//! Answers that are lists of transactions: undoLog, undoInfo, history.
//!
//! What describes a transaction in the file may be short and stand for many values, so no more than one entry is in
//! memory as values: each is encoded before the next is read. An answer has a limit of bytes as well as of entries.

use crate::server::connection::Connection;
use crate::wire::protocol::Wire;
use crate::wire::request::OwnedMsgId;
use crate::wire::value::Value;

/// Bytes of one answer, unless its first entry is longer.
const LEN_MAX: usize = 4 << 20;

/// The entries so far.
pub struct Entries {
    wire: Wire,
    encoded: Vec<u8>,
    count: usize,
    count_max: usize,
}

impl Entries {
    /// At most `count_max` of them.
    pub fn new(connection: &Connection, count_max: usize) -> Entries {
        Entries { wire: connection.wire(), encoded: Vec::new(), count: 0, count_max }
    }

    /// No further entry is wanted.
    pub fn is_full(&self) -> bool {
        self.count >= self.count_max
    }

    /// Adds an entry; if there is no room for it, the answer is full.
    pub fn push(&mut self, entry: &Value) {
        let before = self.encoded.len();
        self.wire.value(entry, &mut self.encoded);
        if self.encoded.len() > LEN_MAX && self.count > 0 {
            self.encoded.truncate(before);
            self.count_max = self.count;
            return;
        }
        self.count += 1;
    }

    /// The frame that answers call `id`.
    pub fn frame(&self, id: &OwnedMsgId) -> Vec<u8> {
        let mut frame = Vec::with_capacity(self.encoded.len() + 64);
        self.wire.list_reply(id.get(), self.count, &self.encoded, &mut frame);
        frame
    }
}
