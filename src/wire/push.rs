//! What the server sends unasked.

use super::value::Value;
use crate::base::ids::{Oid, Tid};

/// An asynchronous message to a client. Encoded once per [`Wire`](super::protocol::Wire) and sent to many.
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
    /// `receiveBlobStart(oid, serial)`; then come the chunks, see [`Wire::blob_chunk`](super::protocol::Wire::blob_chunk)
    BlobStart { oid: Oid, serial: Tid },
    /// `receiveBlobStop(oid, serial)`
    BlobStop { oid: Oid, serial: Tid },
}
