//! Messages that the server sends without a call, and their encoding.

use super::encoder::{Encoder, frame};
use super::protocol::Wire;
use super::value::Value;
use crate::base::ids::{Oid, Tid};

/// An asynchronous message to a client. Encoded once per [`Wire`] and sent to many.
#[derive(Clone, Debug)]
pub enum Push<'a> {
    /// `invalidateTransaction(tid, oids)`; (oid, '') pairs before Z309
    Invalidate { tid: Tid, oids: &'a [Oid] },
    /// `info({'length': …, 'size': …})`
    Info(Value),
    /// `serialnos([(oid, serial | exception)])`, sent before the reply to vote by protocols before Z5
    Serialnos(Vec<(Oid, Value)>),
    /// Older verification: `invalidateVerify(oid)`; an (oid, '') pair before Z309
    InvalidateVerify { oid: Oid },
    /// Older verification: `endVerify()`
    EndVerify,
    /// `receiveBlobStart(oid, serial)`; then come the chunks, see
    /// [`Wire::blob_chunk`](super::protocol::Wire::blob_chunk)
    BlobStart { oid: Oid, serial: Tid },
    /// `receiveBlobStop(oid, serial)`
    BlobStop { oid: Oid, serial: Tid },
}

impl Wire {
    /// Appends one frame: a call to the client without a reply.
    pub fn push(&self, push: &Push<'_>, out: &mut Vec<u8>) {
        frame(*self, out, |e| match push {
            Push::Invalidate { tid, oids } => {
                e.begin_call("invalidateTransaction");
                e.invalidations(*tid, oids);
            }
            Push::Info(info) => {
                e.begin_call("info");
                e.begin_tuple(1);
                e.value(info);
                e.end_tuple(1);
            }
            Push::Serialnos(serials) => {
                e.begin_call("serialnos");
                e.begin_tuple(1);
                e.begin_list(serials.len());
                for (oid, serial) in serials {
                    e.begin_tuple(2);
                    e.oid(*oid);
                    e.value(serial);
                    e.end_tuple(2);
                }
                e.end_list(serials.len());
                e.end_tuple(1);
            }
            Push::InvalidateVerify { oid } => {
                e.begin_call("invalidateVerify");
                e.begin_tuple(1);
                e.oid_with_version(*oid);
                e.end_tuple(1);
            }
            Push::EndVerify => {
                e.begin_call("endVerify");
                e.begin_tuple(0);
                e.end_tuple(0);
            }
            Push::BlobStart { oid, serial } => call_about_revision(e, "receiveBlobStart", *oid, *serial),
            Push::BlobStop { oid, serial } => call_about_revision(e, "receiveBlobStop", *oid, *serial),
        });
    }

    /// Appends one frame: `receiveBlobChunk(oid, serial, chunk)` with room for a chunk of `len` bytes. Returns the
    /// offset in `out` for the chunk.
    pub fn blob_chunk(&self, oid: Oid, serial: Tid, len: usize, out: &mut Vec<u8>) -> usize {
        let mut chunk_start = 0;
        frame(*self, out, |e| {
            e.begin_call("receiveBlobChunk");
            e.begin_tuple(3);
            e.oid(oid);
            e.tid(serial);
            e.bytes(&vec![0; len]);
            chunk_start = e.out.len() - len;
            e.end_tuple(3);
        });
        chunk_start
    }
}

/// A call with an oid and a serial.
fn call_about_revision(e: &mut Encoder<'_>, method: &str, oid: Oid, serial: Tid) {
    e.begin_call(method);
    e.begin_tuple(2);
    e.oid(oid);
    e.tid(serial);
    e.end_tuple(2);
}
