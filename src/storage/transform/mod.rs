//! A layer that keeps records in another form than clients send: zlibstorage and its like.
//!
//! Or clients send them in that form, and the storage needs to look inside only to merge conflicting states and to find
//! references. Everything that has no record in it goes through as it is.

#[cfg(feature = "test-storages")]
pub mod hex;
pub mod zlib;

use std::borrow::Cow;
use std::sync::Arc;

use super::forward::forward;
use super::{
    Clash, DataRecord, IternextRecord, Loaded, PackRequest, RecordIterator, Resolver, Result, Staged,
    Storage, StorageError, TidAt, TransactionIterator, TransactionMeta, TransactionRecord, Unresolved, Voted,
};
use crate::base::ids::{Oid, Tid};

const WRAPPER: (&str, &str) = ("ZODB.interfaces", "IStorageWrapper");

/// How records are kept.
pub trait Codec: Send + Sync {
    fn encode<'a>(&self, record: &'a [u8]) -> Cow<'a, [u8]>;
    fn decode<'a>(&self, kept: &'a [u8]) -> std::result::Result<Cow<'a, [u8]>, String>;
}

/// See the module.
pub struct Transform {
    base: Arc<dyn Storage>,
    codec: Arc<dyn Codec>,
    by_clients: bool,
}

impl Transform {
    /// `by_clients`: they encode and decode themselves.
    pub fn new(base: Arc<dyn Storage>, codec: Arc<dyn Codec>, by_clients: bool) -> Transform {
        Transform { base, codec, by_clients }
    }

    /// Decodes what stands in `out` from `start`, in place. If it cannot be, `out` is cut off at `base`.
    fn decode_tail(&self, oid: Oid, base: usize, start: usize, out: &mut Vec<u8>) -> Result<()> {
        if self.by_clients {
            return Ok(());
        }
        let decoded = match self.codec.decode(out.get(start..).unwrap_or_default()) {
            Ok(Cow::Borrowed(_)) => return Ok(()),
            Ok(Cow::Owned(decoded)) => decoded,
            Err(reason) => {
                out.truncate(base);
                return Err(undecodable(oid, &reason));
            }
        };
        out.truncate(start);
        out.extend_from_slice(&decoded);
        Ok(())
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
        staged.map_records(|oid, record| decoded(self.codec.as_ref(), oid, record))
    }

    /// A conflict's record tells the class of the object; what the client is to merge is as it sent it.
    fn decode_error(&self, error: StorageError) -> StorageError {
        let decode = |data: &mut Vec<u8>| {
            if let Ok(Cow::Owned(decoded)) = self.codec.decode(data) {
                *data = decoded;
            }
        };
        match error {
            StorageError::Conflict(mut conflict) => {
                decode(&mut conflict.data);
                StorageError::Conflict(conflict)
            }
            StorageError::Unmerged { mut conflicts, staged } if !self.by_clients => {
                conflicts.iter_mut().for_each(|conflict| decode(&mut conflict.data));
                match self.decode_staged(*staged) {
                    Ok(staged) => StorageError::Unmerged { conflicts, staged: Box::new(staged) },
                    Err(error) => error,
                }
            }
            StorageError::Postponed(staged) if !self.by_clients => match self.decode_staged(*staged) {
                Ok(staged) => StorageError::Postponed(Box::new(staged)),
                Err(error) => error,
            },
            other => other,
        }
    }
}

fn decoded(codec: &dyn Codec, oid: Oid, record: &[u8]) -> Result<Vec<u8>> {
    codec.decode(record).map(Cow::into_owned).map_err(|reason| undecodable(oid, &reason))
}

fn undecodable(oid: Oid, reason: &str) -> StorageError {
    StorageError::Refused {
        class: ("ZODB.POSException", "StorageError"),
        message: format!("the record of object 0x{oid} cannot be decoded: {reason}"),
    }
}

impl Storage for Transform {
    forward!(
        base: name, is_read_only, object_count, size, extension_methods, extension_method,
        last_transaction, tids_after, new_oids, expect_read, get_tid, revisions, last_invalidations, finish, abort,
        set_publisher, supports_undo, undo_log, undo_oids, blob_dir, load_blob, close
    );

    fn interfaces(&self) -> Vec<(&'static str, &'static str)> {
        let mut interfaces = self.base.interfaces();
        if !interfaces.contains(&WRAPPER) {
            // The interface of everything is the last.
            interfaces.insert(interfaces.len().saturating_sub(1), WRAPPER);
        }
        interfaces
    }

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

    fn record_iternext(&self, next: Option<Oid>) -> Result<Option<IternextRecord>> {
        let mut record = self.base.record_iternext(next)?;
        if let Some(record) = &mut record {
            self.decode_tail(record.oid, 0, 0, &mut record.data)?;
        }
        Ok(record)
    }

    fn iterate(&self, start: Option<Tid>, stop: Option<Tid>) -> Result<Box<dyn TransactionIterator>> {
        let base = self.base.iterate(start, stop)?;
        if self.by_clients {
            return Ok(base);
        }
        Ok(Box::new(Transactions { base, codec: Arc::clone(&self.codec) }))
    }

    fn vote(&self, staged: Staged, tid_at: TidAt) -> Result<Box<dyn Voted>> {
        let staged = if self.by_clients { staged } else { self.encode_staged(staged)? };
        self.base.vote(staged, tid_at).map_err(|error| self.decode_error(error))
    }

    fn undo_now(&self, staged: &mut Staged) -> Result<(Tid, Vec<Oid>)> {
        if self.by_clients {
            return self.base.undo_now(staged);
        }
        let nothing = Staged::new(TransactionMeta::default(), None, b' ', 0);
        let mut encoded = self.encode_staged(std::mem::replace(staged, nothing))?;
        let result = self.base.undo_now(&mut encoded);
        *staged = self.decode_staged(encoded)?;
        result
    }

    fn set_resolver(&self, resolver: Arc<dyn Resolver>) {
        self.base.set_resolver(Arc::new(Translator { resolver, codec: Arc::clone(&self.codec) }));
    }

    fn pack(&self, request: &PackRequest<'_>) -> Result<()> {
        let references =
            |record: &[u8], oids: &mut Vec<Oid>| (request.references)(&self.codec.decode(record)?, oids);
        self.base.pack(&PackRequest { references: &references, ..*request })
    }
}

/// Merges states in the form in which they are kept.
struct Translator {
    resolver: Arc<dyn Resolver>,
    codec: Arc<dyn Codec>,
}

impl Translator {
    fn decode<'a>(&self, clash: &Clash<'a>) -> std::result::Result<[Cow<'a, [u8]>; 3], Unresolved> {
        let decode = |state| self.codec.decode(state).map_err(|reason| Unresolved { reason });
        Ok([decode(clash.old)?, decode(clash.committed)?, decode(clash.new)?])
    }

    fn encode(&self, merged: Vec<u8>) -> Vec<u8> {
        self.codec.encode(&merged).into_owned()
    }
}

impl Resolver for Translator {
    fn resolve(&self, clash: &Clash<'_>) -> std::result::Result<Vec<u8>, Unresolved> {
        let [old, committed, new] = &self.decode(clash)?;
        self.resolver.resolve(&Clash { old, committed, new, ..*clash }).map(|merged| self.encode(merged))
    }

    fn resolve_now(&self, clash: &Clash<'_>) -> Option<std::result::Result<Vec<u8>, Unresolved>> {
        match &self.decode(clash) {
            Ok([old, committed, new]) => {
                let merged = self.resolver.resolve_now(&Clash { old, committed, new, ..*clash })?;
                Some(merged.map(|merged| self.encode(merged)))
            }
            Err(unresolved) => Some(Err(unresolved.clone())),
        }
    }
}

/// Transactions whose records are decoded.
struct Transactions {
    base: Box<dyn TransactionIterator>,
    codec: Arc<dyn Codec>,
}

impl TransactionIterator for Transactions {
    fn next_transaction(&mut self) -> Result<Option<TransactionRecord>> {
        self.base.next_transaction()
    }

    fn records(&self) -> Result<Box<dyn RecordIterator>> {
        Ok(Box::new(Records { base: self.base.records()?, codec: Arc::clone(&self.codec) }))
    }
}

struct Records {
    base: Box<dyn RecordIterator>,
    codec: Arc<dyn Codec>,
}

impl RecordIterator for Records {
    fn next_record(&mut self) -> Result<Option<DataRecord>> {
        let Some(mut record) = self.base.next_record()? else { return Ok(None) };
        if let Some(data) = &mut record.data {
            *data = decoded(self.codec.as_ref(), record.oid, data)?;
        }
        Ok(Some(record))
    }
}
