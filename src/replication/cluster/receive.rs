//! What the server sends that is followed, as transactions that can be stored.

use std::io;

use super::link::{Receiving, wrong};
use super::message::{Message, News};
use crate::base::ids::{Oid, Tid};
use crate::base::sync::Arc;
use crate::replication::python2::is_of_python2;
use crate::storage::blob::{StagedBlob, Upload};
use crate::storage::{BlobDir, Staged, StorageError};

/// Bytes of a transaction that are kept in memory; more of it is in a temporary file.
const MEMORY_MAX: usize = 256 << 10;
/// Bytes of a record that tell which Python has written it.
const RECORD_LEN_MAX: usize = 1 << 30;

/// Why the stream cannot be followed any further.
#[derive(Debug)]
pub enum ReceiveError {
    /// The connection is lost, or what came makes no sense.
    Link(io::Error),
    /// What came cannot be stored here.
    Storage(StorageError),
}

impl From<io::Error> for ReceiveError {
    fn from(error: io::Error) -> ReceiveError {
        ReceiveError::Link(error)
    }
}

impl From<StorageError> for ReceiveError {
    fn from(error: StorageError) -> ReceiveError {
        ReceiveError::Storage(error)
    }
}

/// What came.
#[derive(Debug)]
pub enum Received {
    Transaction(Box<Arrived>),
    News(News),
    Pack { time: f64 },
}

/// A transaction, and the one before it at the server that has sent it.
#[derive(Debug)]
pub struct Arrived {
    pub after: Tid,
    pub staged: Staged,
}

impl Arrived {
    pub fn tid(&self) -> Tid {
        self.staged.tid.unwrap_or(Tid::ZERO)
    }
}

/// The transactions and news of a connection.
pub struct TransactionStream {
    pub receiving: Receiving,
    /// `None`: this replica keeps no blobs.
    pub blobs: Option<Arc<BlobDir>>,
}

/// A transaction that is arriving.
struct Arriving {
    after: Tid,
    staged: Staged,
    is_python2: Option<bool>,
    blob: Option<ArrivingBlob>,
}

struct ArrivingBlob {
    oid: Oid,
    upload: Upload,
    left: u64,
}

impl TransactionStream {
    /// What comes next. `None`: the connection was ended behind the last transaction.
    pub fn next_received(&mut self) -> Result<Option<Received>, ReceiveError> {
        let mut arriving = match self.receiving.next_message()? {
            None => return Ok(None),
            Some(Message::News(news)) => return Ok(Some(Received::News(news))),
            Some(Message::Pack { time }) => return Ok(Some(Received::Pack { time })),
            Some(Message::Transaction { tid, after, status, meta }) => {
                let staged = Staged::new(meta, Some(tid), status, MEMORY_MAX);
                Arriving { after, staged, is_python2: None, blob: None }
            }
            Some(other) => return Err(unexpected(&other).into()),
        };
        loop {
            let computed = self.receiving.checksum();
            match self.receiving.next_message()? {
                None => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Some(Message::End { checksum }) if arriving.blob.is_none() => {
                    if checksum != computed {
                        let what = format!("the checksum of transaction {:?} is wrong", arriving.staged.tid);
                        return Err(wrong(what).into());
                    }
                    arriving.staged.set_python2(arriving.is_python2.unwrap_or(false));
                    let Arriving { after, staged, .. } = arriving;
                    return Ok(Some(Received::Transaction(Box::new(Arrived { after, staged }))));
                }
                Some(message) => arriving.add(message, self.blobs.as_ref())?,
            }
        }
    }
}

impl Arriving {
    fn add(&mut self, message: Message<'_>, blobs: Option<&Arc<BlobDir>>) -> Result<(), ReceiveError> {
        match (message, &mut self.blob) {
            (Message::Record { oid, tid, data_txn, data }, None) => {
                let buffering = StorageError::io("buffering a transaction in the temporary directory");
                self.staged.restore(oid, tid, data, data_txn).map_err(buffering)?;
                self.is_python2 = self.is_python2.or(data.map(|data| is_of_python2(data, RECORD_LEN_MAX)));
            }
            (Message::Blob { oid, len }, None) => {
                let upload = blobs.ok_or_else(StorageError::no_blobs)?.begin()?;
                self.blob = Some(ArrivingBlob { oid, upload, left: len });
                self.end_blob()?;
            }
            (Message::BlobBytes(bytes), Some(blob)) => {
                let left = blob.left.checked_sub(bytes.len() as u64).filter(|_| !bytes.is_empty());
                blob.left = left.ok_or_else(|| wrong("more of a blob than it has"))?;
                blob.upload.write(bytes).map_err(StorageError::io("writing a blob"))?;
                self.end_blob()?;
            }
            (other, _) => return Err(unexpected(&other).into()),
        }
        Ok(())
    }

    /// Adds the blob to the transaction, if it is whole.
    fn end_blob(&mut self) -> Result<(), ReceiveError> {
        if let Some(ArrivingBlob { oid, upload, .. }) = self.blob.take_if(|blob| blob.left == 0) {
            let blob: StagedBlob = upload.end(oid)?;
            self.staged.add_blob(oid, blob);
        }
        Ok(())
    }
}

fn unexpected(message: &Message<'_>) -> io::Error {
    let what = match message {
        Message::Refusal(why) => return wrong(why.clone()),
        Message::Standing(_) => "the server is not the primary any more",
        Message::Record { .. } | Message::Blob { .. } | Message::BlobBytes(_) | Message::End { .. } => {
            "a part of a transaction where none is expected"
        }
        Message::Transaction { tid, .. } => return wrong(format!("transaction {tid} within another one")),
        _ => "a message that is not expected",
    };
    wrong(what)
}
