//! What a primary sends, as transactions that can be stored.

use std::io;
use std::os::fd::OwnedFd;

use super::message::{BLOCK_LEN, MESSAGE_LEN_MAX, Message, RecordHead, Transaction};
use super::outgoing::Checksum;
use crate::base::ids::{Oid, Tid};
use crate::base::sync::Arc;
use crate::net::stream::Stream;
use crate::pickle::record::is_blob;
use crate::replication::frames::Incoming;
use crate::replication::python2::is_of_python2;
use crate::storage::blob::StagedBlob;
use crate::storage::{BlobDir, Staged, StorageError};

/// Longest record.
const RECORD_LEN_MAX: usize = 1 << 30;
/// Longest frame of a blob. A primary of Python sends [`BLOCK_LEN`].
const BLOCK_LEN_MAX: usize = 256 * BLOCK_LEN;
/// Bytes of a transaction that are kept in memory; more of it is in a temporary file.
const MEMORY_MAX: usize = 256 << 10;

/// Why the stream of a primary cannot be followed any further.
#[derive(Debug)]
pub enum ReceiveError {
    /// The connection is lost.
    Lost(io::Error),
    /// What came makes no sense; it may make sense on another connection.
    Wrong(String),
    /// What came cannot be stored here.
    Storage(StorageError),
}

impl From<io::Error> for ReceiveError {
    fn from(error: io::Error) -> ReceiveError {
        match error.kind() {
            io::ErrorKind::InvalidData => ReceiveError::Wrong(error.to_string()),
            _ => ReceiveError::Lost(error),
        }
    }
}

impl From<StorageError> for ReceiveError {
    fn from(error: StorageError) -> ReceiveError {
        ReceiveError::Storage(error)
    }
}

/// The transactions on a stream.
pub struct TransactionStream<'a> {
    incoming: Incoming,
    checksum: Checksum,
    /// `None`: this secondary keeps no blobs.
    blobs: Option<Arc<BlobDir>>,
    frame: Vec<u8>,
    /// Called when nothing comes for a while.
    idle: &'a mut dyn FnMut() -> io::Result<()>,
}

impl<'a> TransactionStream<'a> {
    /// `start`: as it was sent in the greeting.
    pub fn new(
        incoming: Incoming,
        start: Tid,
        blobs: Option<Arc<BlobDir>>,
        idle: &'a mut dyn FnMut() -> io::Result<()>,
    ) -> TransactionStream<'a> {
        TransactionStream { incoming, checksum: Checksum::new(start), blobs, frame: Vec::new(), idle }
    }

    /// The next transaction. `None`: the primary has ended the connection behind the last one.
    pub fn next(&mut self) -> Result<Option<Staged>, ReceiveError> {
        if !self.frame(MESSAGE_LEN_MAX)? {
            return Ok(None);
        }
        let Message::Transaction(Transaction { tid, status, meta }) = self.message()? else {
            return Err(ReceiveError::Wrong("a record without a transaction".into()));
        };
        let mut staged = Staged::new(meta, Some(tid), status, MEMORY_MAX);
        let mut is_python2 = None;
        loop {
            let before = self.checksum.now();
            self.inner_frame(MESSAGE_LEN_MAX)?;
            match self.message()? {
                Message::Record(record) => self.record(record, &mut staged, &mut is_python2)?,
                Message::Commit { checksum } if checksum == before => {
                    staged.set_python2(is_python2.unwrap_or(false));
                    return Ok(Some(staged));
                }
                Message::Commit { .. } => {
                    let what = format!("the checksum of transaction {tid} does not fit its content");
                    return Err(ReceiveError::Wrong(what));
                }
                Message::Transaction(_) => {
                    let what = format!("another transaction within {tid}");
                    return Err(ReceiveError::Wrong(what));
                }
            }
        }
    }

    fn record(
        &mut self,
        RecordHead { oid, tid, data_txn, blocks }: RecordHead,
        staged: &mut Staged,
        is_python2: &mut Option<bool>,
    ) -> Result<(), ReceiveError> {
        self.inner_frame(RECORD_LEN_MAX)?;
        let data = Some(self.frame.as_slice()).filter(|data| !data.is_empty());
        let buffering = StorageError::io("buffering a transaction in the temporary directory");
        staged.restore(oid, tid, data, data_txn).map_err(buffering)?;
        *is_python2 = is_python2.or(data.map(|data| is_of_python2(data, RECORD_LEN_MAX)));
        let is_blob = data.is_some_and(is_blob);
        match blocks {
            // A primary of Python sends an empty blob as one in no frames. One without a file of it sends a record.
            Some(blocks) if is_blob => {
                let blob = self.blob(oid, blocks)?;
                staged.add_blob(oid, blob);
                Ok(())
            }
            Some(0) | None => Ok(()),
            Some(_) => {
                Err(ReceiveError::Wrong(format!("a blob of object 0x{oid}, whose record is no blob's")))
            }
        }
    }

    fn blob(&mut self, oid: Oid, blocks: u64) -> Result<StagedBlob, ReceiveError> {
        let mut upload = self.blobs.clone().ok_or_else(StorageError::no_blobs)?.begin()?;
        for _ in 0..blocks {
            self.inner_frame(BLOCK_LEN_MAX)?;
            upload.write(&self.frame).map_err(StorageError::io("writing a blob"))?;
        }
        Ok(upload.end(oid)?)
    }

    fn message(&self) -> Result<Message, ReceiveError> {
        Message::parse(&self.frame).map_err(ReceiveError::Wrong)
    }

    /// The next frame. False: the stream has ended.
    fn frame(&mut self, len_max: usize) -> Result<bool, ReceiveError> {
        let there = self.incoming.next(len_max, &mut self.frame, self.idle)?;
        if there {
            self.checksum.add(&self.frame);
        }
        Ok(there)
    }

    /// A frame that must come.
    fn inner_frame(&mut self, len_max: usize) -> Result<(), ReceiveError> {
        match self.frame(len_max)? {
            true => Ok(()),
            false => Err(ReceiveError::Lost(io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

/// Calls `each` with what arrives on a socket, until it ends or makes no sense.
pub fn transactions(socket: OwnedFd, each: &mut dyn FnMut(Staged)) {
    let Ok(stream) = Stream::new(socket.into(), false, None, None) else { return };
    let mut idle = || Ok(());
    let mut receiver = TransactionStream::new(Incoming::new(Arc::new(stream)), Tid::ZERO, None, &mut idle);
    while let Ok(Some(staged)) = receiver.next() {
        each(staged);
    }
}
