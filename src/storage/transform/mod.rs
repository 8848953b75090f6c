//! A layer whose records have another form than the clients': zlibstorage and the like.
//!
//! With `by_clients`, clients send records in the stored form, and the layer only decodes them to merge conflicting
//! states and to find references. Calls without records are passed on unchanged.

pub mod zlib;

use std::borrow::Cow;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::forward::forward;
use super::staged::OpKind;
use super::{
    Commit, DataRecord, History, Iterate, IternextRecord, Load, Loaded, NotVoted, Pack, PackPlan,
    PackRequest, RecordIterator, Refusal, Result, Staged, Storage, StorageError, TidAt, TransactionIterator,
    TransactionMeta, TransactionRecord, Undo, UndoEntry, VoteResult,
};
use crate::base::ids::{Oid, Tid};
use crate::base::memory;
use crate::conflict::{Resolver, ThreeStates, Unresolved};

const WRAPPER: (&str, &str) = ("ZODB.interfaces", "IStorageWrapper");

/// The form of the stored records. Records of a database may have been stored before the layer was there, or under
/// another setting of it, so a codec marks what it encodes if it has to tell them apart.
pub trait Codec: Send + Sync {
    /// The stored form of a record.
    fn encode<'a>(&self, record: &'a [u8]) -> Cow<'a, [u8]>;
    /// The decoded record. An error if it is longer than `len_max`.
    fn decode<'a>(&self, kept: &'a [u8], len_max: usize) -> io::Result<Cow<'a, [u8]>>;
    /// Upper bound on the length of a record that is stored in `kept_len` bytes.
    fn decoded_len_max(&self, kept_len: usize) -> usize {
        kept_len
    }
    /// Whether the decoded record is longer than `len_max`, without keeping it in memory.
    fn is_longer(&self, kept: &[u8], len_max: usize) -> bool {
        kept.len() > len_max
    }
}

/// Upper bound on the length of a message. A pack uses it even if `max-message-size` is smaller, for records that were
/// stored under a larger limit; there is one pack at a time.
const LEN_MAX: usize = 1 << 30;

/// The storage `base`, with records in the form of `codec`.
pub struct Transform {
    base: Arc<dyn Storage>,
    codec: Arc<dyn Codec>,
    by_clients: bool,
    len_max: usize,
}

impl Transform {
    /// `by_clients`: clients encode and decode the records.
    pub fn new(base: Arc<dyn Storage>, codec: Arc<dyn Codec>, by_clients: bool) -> Transform {
        Transform { base, codec, by_clients, len_max: LEN_MAX }
    }

    /// Sets the maximal length of a record: `max-message-size`, because a record arrives in a message.
    #[must_use]
    pub fn with_len_max(self, len_max: usize) -> Transform {
        Transform { len_max, ..self }
    }

    /// Refuses records that no client could load, also if a client has encoded them.
    fn check_lengths(&self, staged: &Staged) -> Result<()> {
        for op in staged.ops() {
            let has_data = matches!(op.kind, OpKind::Store { .. } | OpKind::Restore { has_data: true, .. });
            if !has_data || self.codec.decoded_len_max(op.len as usize) <= self.len_max {
                continue;
            }
            let record = staged.payload(op)?;
            if self.codec.is_longer(&record, self.len_max) {
                return Err(StorageError::Refused {
                    what: Refusal::Record,
                    message: format!(
                        "the record of object 0x{} is larger than the server permits once it is decompressed: max-message-size \
                         is {} bytes",
                        op.oid, self.len_max
                    ),
                });
            }
        }
        Ok(())
    }

    /// Decodes the data in `out` from `start` on, in place. After an error `out` is cut off at `base`.
    fn decode_tail(&self, oid: Oid, base: usize, start: usize, out: &mut Vec<u8>) -> Result<()> {
        if self.by_clients {
            return Ok(());
        }
        let decoded = match self.codec.decode(out.get(start..).unwrap_or_default(), self.len_max) {
            Ok(Cow::Borrowed(_)) => return Ok(()),
            Ok(Cow::Owned(decoded)) => decoded,
            Err(error) => {
                out.truncate(base);
                return Err(undecodable(oid, error));
            }
        };
        replace_tail(out, start, decoded).map_err(|error| {
            out.truncate(base);
            undecodable(oid, error)
        })
    }

    fn decode_loaded(
        &self,
        oid: Oid,
        base: usize,
        loaded: Result<Option<Loaded>>,
        out: &mut Vec<u8>,
    ) -> Result<Option<Loaded>> {
        let loaded = loaded?;
        if let Some(loaded) = &loaded {
            self.decode_tail(oid, base, loaded.start, out)?;
        }
        Ok(loaded)
    }

    fn encode_staged(&self, staged: Staged) -> Result<Staged> {
        staged.map_records(|_, record| Ok(self.codec.encode(record).into_owned()))
    }

    fn decode_staged(&self, staged: Staged) -> Result<Staged> {
        staged.map_records(|oid, record| decoded(self.codec.as_ref(), self.len_max, oid, record))
    }

    /// Decodes the records of conflicts, for the class of the object and for a merge by the client, and those of a
    /// transaction that comes back.
    fn decode_not_voted(&self, not_voted: NotVoted) -> NotVoted {
        let decode = |data: &mut Vec<u8>| {
            if let Ok(Cow::Owned(decoded)) = self.codec.decode(data, self.len_max) {
                *data = decoded;
            }
        };
        match not_voted {
            NotVoted::Failed(StorageError::Conflict(mut conflict)) => {
                decode(&mut conflict.data);
                NotVoted::Failed(StorageError::Conflict(conflict))
            }
            NotVoted::Unmerged { mut conflicts, staged } if !self.by_clients => {
                conflicts.iter_mut().for_each(|conflict| decode(&mut conflict.data));
                match self.decode_staged(*staged) {
                    Ok(staged) => NotVoted::Unmerged { conflicts, staged: Box::new(staged) },
                    Err(error) => NotVoted::Failed(error),
                }
            }
            NotVoted::Postponed(staged) if !self.by_clients => match self.decode_staged(*staged) {
                Ok(staged) => NotVoted::Postponed(Box::new(staged)),
                Err(error) => NotVoted::Failed(error),
            },
            other => other,
        }
    }
}

/// Replaces everything from `start` on by a record. A long record is not copied: the bytes before `start` are inserted
/// in front of it.
fn replace_tail(out: &mut Vec<u8>, start: usize, mut record: Vec<u8>) -> io::Result<()> {
    out.truncate(start);
    if record.len() <= memory::LARGE {
        return memory::append(out, &record);
    }
    let len = out.len() + record.len();
    memory::reserve(&mut record, len)?;
    record.splice(..0, out.iter().copied());
    *out = record;
    Ok(())
}

fn decoded(codec: &dyn Codec, len_max: usize, oid: Oid, record: &[u8]) -> Result<Vec<u8>> {
    let decoded = codec.decode(record, len_max);
    decoded.map(Cow::into_owned).map_err(|error| undecodable(oid, error))
}

fn undecodable(oid: Oid, error: io::Error) -> StorageError {
    if error.kind() == io::ErrorKind::OutOfMemory {
        return StorageError::io(format!("decoding the record of object 0x{oid}"))(error);
    }
    StorageError::Refused {
        what: Refusal::Record,
        message: format!("the record of object 0x{oid} cannot be decoded: {error}"),
    }
}

impl Storage for Transform {
    forward!(
        base: name, is_read_only, object_count, size, last_transaction, new_oids, close, blobs, extension_methods,
        cache_counts, sync_counts, replication, secondaries, remote, failure, pulse, save_index, sync_later,
        catch_up
    );

    fn interfaces(&self) -> Vec<(&'static str, &'static str)> {
        let mut interfaces = self.base.interfaces();
        if !interfaces.contains(&WRAPPER) {
            // The last one is `zope.interface.Interface`.
            interfaces.insert(interfaces.len().saturating_sub(1), WRAPPER);
        }
        interfaces
    }

    fn iteration(&self) -> Option<&dyn Iterate> {
        self.base.iteration().map(|base| if self.by_clients { base } else { self })
    }

    fn undo(&self) -> Option<&dyn Undo> {
        self.base.undo().map(|base| if self.by_clients { base } else { self })
    }

    fn packing(&self) -> Option<&dyn Pack> {
        self.base.packing().map(|_| self as &dyn Pack)
    }
}

impl Load for Transform {
    forward!(base: expect_read, get_tid);

    fn load_before(
        &self,
        oid: Oid,
        before: Tid,
        headroom: usize,
        out: &mut Vec<u8>,
    ) -> Result<Option<Loaded>> {
        let base = out.len();
        let loaded = self.base.load_before(oid, before, headroom, out);
        self.decode_loaded(oid, base, loaded, out)
    }

    fn load_before_now(
        &self,
        oid: Oid,
        before: Tid,
        headroom: usize,
        out: &mut Vec<u8>,
    ) -> Option<Result<Option<Loaded>>> {
        let base = out.len();
        let loaded = self.base.load_before_now(oid, before, headroom, out)?;
        Some(self.decode_loaded(oid, base, loaded, out))
    }

    fn load_serial(&self, oid: Oid, serial: Tid, headroom: usize, out: &mut Vec<u8>) -> Result<Loaded> {
        let base = out.len();
        let loaded = self.base.load_serial(oid, serial, headroom, out)?;
        self.decode_tail(oid, base, loaded.start, out)?;
        Ok(loaded)
    }
}

impl History for Transform {
    forward!(base: revisions, last_invalidations);

    fn record_iternext(&self, next: Option<Oid>) -> Result<Option<IternextRecord>> {
        let mut record = self.base.record_iternext(next)?;
        if let Some(record) = &mut record {
            self.decode_tail(record.oid, 0, 0, &mut record.data)?;
        }
        Ok(record)
    }
}

impl Commit for Transform {
    forward!(base: tids_after, finish, abort, set_publisher);

    fn vote(&self, staged: Staged, tid_at: TidAt) -> VoteResult {
        self.check_lengths(&staged)?;
        let staged = if self.by_clients { staged } else { self.encode_staged(staged)? };
        self.base.vote(staged, tid_at).map_err(|not_voted| self.decode_not_voted(not_voted))
    }

    fn set_resolver(&self, resolver: Arc<dyn Resolver>) {
        let (codec, len_max) = (Arc::clone(&self.codec), self.len_max);
        self.base.set_resolver(Arc::new(Translator { resolver, codec, len_max }));
    }
}

impl Iterate for Transform {
    fn iterate(&self, start: Option<Tid>, stop: Option<Tid>) -> Result<Box<dyn TransactionIterator>> {
        let base = self.base.require_iteration()?.iterate(start, stop)?;
        Ok(Box::new(Transactions { base, codec: Arc::clone(&self.codec), len_max: self.len_max }))
    }
}

impl Undo for Transform {
    fn undo_log(&self, each: &mut dyn FnMut(UndoEntry) -> ControlFlow<()>) -> Result<()> {
        self.base.require_undo()?.undo_log(each)
    }

    fn undo_oids(&self, tid: Tid) -> Result<Vec<Oid>> {
        self.base.require_undo()?.undo_oids(tid)
    }

    fn undo_now(&self, staged: &mut Staged) -> Result<(Tid, Vec<Oid>)> {
        let base = self.base.require_undo()?;
        let nothing = Staged::new(TransactionMeta::default(), None, b' ', 0);
        let mut encoded = self.encode_staged(std::mem::replace(staged, nothing))?;
        let result = base.undo_now(&mut encoded);
        *staged = self.decode_staged(encoded)?;
        result
    }
}

impl Transform {
    /// The references of stored records.
    fn references(
        &self,
        request: &PackRequest<'_>,
        record: &[u8],
        oids: &mut Vec<Oid>,
    ) -> std::result::Result<(), String> {
        let decoded = self.codec.decode(record, LEN_MAX).map_err(|error| error.to_string())?;
        (request.references)(&decoded, oids)
    }
}

impl Pack for Transform {
    fn pack(&self, request: &PackRequest<'_>) -> Result<()> {
        let references = |record: &[u8], oids: &mut Vec<Oid>| self.references(request, record, oids);
        self.base.require_packing()?.pack(&PackRequest { references: &references, ..*request })
    }

    fn plan(&self, request: &PackRequest<'_>) -> Result<PackPlan> {
        let references = |record: &[u8], oids: &mut Vec<Oid>| self.references(request, record, oids);
        self.base.require_packing()?.plan(&PackRequest { references: &references, ..*request })
    }
}

/// A resolver for stored records: decodes the states and encodes the result.
struct Translator {
    resolver: Arc<dyn Resolver>,
    codec: Arc<dyn Codec>,
    len_max: usize,
}

impl Translator {
    fn decode<'a>(&self, states: &ThreeStates<'a>) -> std::result::Result<[Cow<'a, [u8]>; 3], Unresolved> {
        let unresolved = |error: io::Error| Unresolved { reason: error.to_string() };
        let decode = |state| self.codec.decode(state, self.len_max).map_err(unresolved);
        Ok([decode(states.old)?, decode(states.committed)?, decode(states.new)?])
    }

    fn encode(&self, merged: Vec<u8>) -> Vec<u8> {
        self.codec.encode(&merged).into_owned()
    }
}

impl Resolver for Translator {
    fn resolve(&self, states: &ThreeStates<'_>) -> std::result::Result<Vec<u8>, Unresolved> {
        let [old, committed, new] = &self.decode(states)?;
        self.resolver
            .resolve(&ThreeStates { old, committed, new, ..*states })
            .map(|merged| self.encode(merged))
    }

    fn resolve_now(&self, states: &ThreeStates<'_>) -> Option<std::result::Result<Vec<u8>, Unresolved>> {
        match &self.decode(states) {
            Ok([old, committed, new]) => {
                let merged = self.resolver.resolve_now(&ThreeStates { old, committed, new, ..*states })?;
                Some(merged.map(|merged| self.encode(merged)))
            }
            Err(unresolved) => Some(Err(unresolved.clone())),
        }
    }
}

/// Transactions with decoded records.
struct Transactions {
    base: Box<dyn TransactionIterator>,
    codec: Arc<dyn Codec>,
    len_max: usize,
}

impl TransactionIterator for Transactions {
    fn next_transaction(&mut self) -> Result<Option<TransactionRecord>> {
        self.base.next_transaction()
    }

    fn records(&self) -> Result<Box<dyn RecordIterator>> {
        let (base, codec, len_max) = (self.base.records()?, Arc::clone(&self.codec), self.len_max);
        Ok(Box::new(Records { base, codec, len_max, pending: None }))
    }
}

struct Records {
    base: Box<dyn RecordIterator>,
    codec: Arc<dyn Codec>,
    len_max: usize,
    /// A record that could not be decoded for want of memory; the caller may try again.
    pending: Option<DataRecord>,
}

impl RecordIterator for Records {
    fn next_record(&mut self) -> Result<Option<DataRecord>> {
        let next = match self.pending.take() {
            Some(pending) => Some(pending),
            None => self.base.next_record()?,
        };
        let Some(mut record) = next else { return Ok(None) };
        let data = record.data.as_deref();
        match data.map(|data| decoded(self.codec.as_ref(), self.len_max, record.oid, data)).transpose() {
            Ok(data) => {
                record.data = data;
                Ok(Some(record))
            }
            Err(error) => {
                self.pending = matches!(error, StorageError::Io { .. }).then_some(record);
                Err(error)
            }
        }
    }
}
