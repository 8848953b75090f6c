//! Blobs on a link: asking for one, and sending one that is to be committed.

use super::incoming::IncomingBlobs;
use super::kinds::OutgoingBlob;
use crate::base::cancel::Cancel;
use crate::base::ids::{Oid, Tid};
use crate::client::link::Link;
use crate::exceptions::meaning::Meaning;
use crate::storage::blob::cache::BlobDownload;
use crate::storage::{BlobFile, Result, StorageError};
use crate::wire::answers::AnswerError;
use crate::wire::calls::{BLOB_CHUNK_LEN, Call};
use crate::wire::exception::PyException;

/// What became of a request for a blob.
pub enum Fetched {
    /// It is in the cache.
    Done(BlobFile),
    /// The link has ended: the request can be made on another one.
    LinkEnded(BlobDownload),
    /// The server raised an exception that is not about the blob.
    Raised(Box<PyException>),
}

/// The record that belongs to a blob, which is sent with it.
#[derive(Clone, Copy, Debug)]
pub struct BlobRecord<'a> {
    /// The object.
    pub oid: Oid,
    /// The revision that the transaction starts from.
    pub serial: Tid,
    /// The state of the object.
    pub data: &'a [u8],
}

/// Asks a server for a blob and waits until it is there. `incoming`: gets what arrives on the link.
///
/// Errors: `NoBlob` if the server has no such blob; `Io` if it cannot be stored.
pub fn fetch(link: &Link, incoming: &IncomingBlobs, download: BlobDownload) -> Result<Fetched> {
    let (oid, serial, path) = (download.oid(), download.serial(), download.path());
    let doing = || StorageError::io(format!("storing the blob {}", path.display()));
    incoming.expect(download);
    let answer = link.call(&Call::SendBlob { oid, serial }, None, |answer| answer.done());
    let Some((download, arrived)) = incoming.take(oid, serial) else {
        // Only this thread takes it.
        return Err(doing()(std::io::ErrorKind::NotFound.into()));
    };
    match answer {
        Err(_) => return Ok(Fetched::LinkEnded(download)),
        Ok(Err(AnswerError::Broken(what))) => {
            link.fail(&what.to_string());
            return Ok(Fetched::LinkEnded(download));
        }
        Ok(Err(AnswerError::Raised(exception))) => {
            return match Meaning::of(&exception) {
                Meaning::NoBlob { .. } | Meaning::NoSuchObject(_) => {
                    Err(StorageError::NoBlob { oid, serial, path })
                }
                _ => Ok(Fetched::Raised(exception)),
            };
        }
        Ok(Ok(())) => {}
    }
    match arrived {
        Ok(true) => Ok(Fetched::Done(download.finish()?)),
        // It said that it has sent it.
        Ok(false) => Err(StorageError::NoBlob { oid, serial, path }),
        Err(error) => Err(doing()(error)),
    }
}

/// Sends a blob with its record. It is read while it is sent, no faster than the server takes it. No other thread may
/// send a blob on the link at the same time.
///
/// Errors: it cannot be read, or `cancel` was cancelled. Then the transaction must be aborted. If the
/// link has ended, the next call returns its error.
pub fn send(
    link: &Link,
    outgoing: &OutgoingBlob,
    record: BlobRecord<'_>,
    txn: i64,
    cancel: &Cancel,
) -> Result<()> {
    let BlobRecord { oid, serial, data } = record;
    let blob = match outgoing {
        OutgoingBlob::Shared(filename) => {
            link.send(&Call::StoreBlobShared { oid, serial, data, filename, txn });
            return Ok(());
        }
        OutgoingBlob::Bytes(blob) => blob,
    };
    link.send(&Call::StoreBlobStart);
    let sent = send_chunks(link, blob, cancel);
    // After an error, too: servers of Python keep a blob that was begun beyond the end of its transaction, and then
    // refuse the next.
    link.send(&Call::StoreBlobEnd { oid, serial, data, txn });
    sent
}

fn send_chunks(link: &Link, blob: &BlobFile, cancel: &Cancel) -> Result<()> {
    let mut chunk = vec![0; BLOB_CHUNK_LEN];
    let mut pos = 0;
    loop {
        if cancel.is_cancelled() {
            return Err(StorageError::Transaction("the transaction was given up".into()));
        }
        let len = blob
            .read_at(&mut chunk, pos)
            .map_err(StorageError::io(format!("reading the blob {}", blob.path.display())))?;
        let Some(part) = chunk.get(..len).filter(|part| !part.is_empty()) else { return Ok(()) };
        if link.has_ended() {
            return Ok(());
        }
        link.send(&Call::StoreBlobChunk { chunk: part });
        pos += len as u64;
    }
}
