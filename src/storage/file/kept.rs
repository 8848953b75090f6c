//! A database of its own for transactions that are taken back (see `rewind`), beside the file: `Data.fs.lost-` and the
//! first of their ids. Its blobs are in a directory that is named in the same way.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use log::warn;

use super::FileStorage;
use super::format::FileFormat;
use super::log::TARGET;
use super::options::{FileStorageOptions, NewFileFormat};
use crate::base::fs::{dir_of, with_suffix};
use crate::base::ids::{Oid, Tid};
use crate::pickle::record::is_blob;
use crate::storage::{
    BlobDir, Bulk, DataRecord, Iterate, Result, Staged, Storage, StorageError, TransactionIterator,
    TransactionRecord,
};

/// Bytes of a transaction that are kept in memory; more of it is in a temporary file.
const MEMORY_MAX: usize = 8 << 20;
/// What a database may have beside its file.
const BESIDE: [&str; 5] = [".index", ".tmp", ".lock", ".sums", ".index_tmp"];

/// The database of what is taken back.
pub struct Kept {
    pub path: PathBuf,
    blob_dir: Option<PathBuf>,
    pub transactions: u64,
    /// The blobs whose files it has, too.
    pub blobs: Vec<(Oid, Tid)>,
}

impl Kept {
    /// Copies the transactions from `first` on, durably. After an error nothing is left of it.
    pub fn make(from: &FileStorage, first: Tid) -> Result<Kept> {
        let mut kept = Kept::named(from, first);
        match kept.fill(from, first) {
            Ok(()) => Ok(kept),
            Err(error) => {
                kept.remove(from);
                Err(error)
            }
        }
    }

    /// The first names that are free.
    fn named(from: &FileStorage, first: Tid) -> Kept {
        let (media, path) = (&from.core.media, &from.core.path);
        let blobs = from.core.blobs.as_ref().map(|blobs| blobs.base().to_owned());
        let mut number = 0;
        loop {
            let suffix = match number {
                0 => format!(".lost-{first}"),
                _ => format!(".lost-{first}.{number}"),
            };
            let path = with_suffix(path, &suffix);
            let blob_dir = blobs.as_ref().map(|dir| with_suffix(dir, &suffix));
            if !media.exists(&path) && !blob_dir.as_ref().is_some_and(|dir| media.exists(dir)) {
                return Kept { path, blob_dir, transactions: 0, blobs: Vec::new() };
            }
            number += 1;
        }
    }

    fn fill(&mut self, from: &FileStorage, first: Tid) -> Result<()> {
        let options = FileStorageOptions {
            blob_dir: self.blob_dir.clone(),
            new_file_format: match from.format() {
                FileFormat::FS21 => NewFileFormat::FS21,
                FileFormat::FS30 => NewFileFormat::FS30,
            },
            media: Arc::clone(&from.core.media),
            clock: Arc::clone(&from.options.clock),
            time: from.options.time.clone(),
            ..FileStorageOptions::new(&self.path)
        };
        let to = FileStorage::open(options)?;
        let copied = self.copy(from, &to, first);
        let closed = to.close();
        copied.and(closed)?;
        let dir = dir_of(&self.path);
        let synced = from.core.media.sync_dir(dir);
        synced.map_err(StorageError::io(format!("syncing {}", dir.display())))
    }

    fn copy(&mut self, from: &FileStorage, to: &FileStorage, first: Tid) -> Result<()> {
        let mut transactions = from.iterate(Some(first), None)?;
        let mut bulk = Bulk::begin(to)?;
        while let Some(txn) = transactions.next_transaction()? {
            let staged = self.stage(from, to, txn, &*transactions)?;
            bulk.add(staged)?;
            self.transactions += 1;
        }
        bulk.complete()
    }

    /// A copy of the transaction that was read last. Data that an earlier transaction has, which is not copied, becomes
    /// the record's own.
    fn stage(
        &mut self,
        from: &FileStorage,
        to: &FileStorage,
        txn: TransactionRecord,
        transactions: &dyn TransactionIterator,
    ) -> Result<Staged> {
        let mut staged = Staged::new(txn.meta, Some(txn.tid), txn.status, MEMORY_MAX);
        let mut records = transactions.records()?;
        while let Some(DataRecord { oid, tid, data, data_txn }) = records.next_record()? {
            staged
                .restore(oid, tid, data.as_deref(), data_txn)
                .map_err(StorageError::io("buffering a transaction in the temporary directory"))?;
            let dirs = from.core.blobs.as_ref().zip(to.core.blobs.as_ref());
            if data.as_deref().is_some_and(is_blob)
                && let Some((from, to)) = dirs
            {
                self.keep_blob(from, to, oid, tid, &mut staged)?;
            }
        }
        Ok(staged)
    }

    fn keep_blob(
        &mut self,
        from: &BlobDir,
        to: &Arc<BlobDir>,
        oid: Oid,
        tid: Tid,
        staged: &mut Staged,
    ) -> Result<()> {
        match to.again_from(from, oid, tid) {
            Ok(blob) => staged.add_blob(oid, blob),
            // It was missing before.
            Err(StorageError::NoBlob { .. }) => return Ok(()),
            Err(error) => return Err(error),
        }
        self.blobs.push((oid, tid));
        Ok(())
    }

    /// Removes the database again: nothing was taken back.
    pub fn remove(&self, from: &FileStorage) {
        let media = &from.core.media;
        for path in std::iter::once(self.path.clone()).chain(BESIDE.map(|end| with_suffix(&self.path, end))) {
            remove_if_there(|| media.remove(&path), &path);
        }
        // The lock is a file of the operating system.
        let lock = with_suffix(&self.path, ".lock");
        remove_if_there(|| std::fs::remove_file(&lock), &lock);
        if let Some(dir) = &self.blob_dir {
            remove_if_there(|| std::fs::remove_dir_all(dir), dir);
        }
    }
}

fn remove_if_there(remove: impl FnOnce() -> std::io::Result<()>, path: &Path) {
    if let Err(error) = remove()
        && error.kind() != std::io::ErrorKind::NotFound
    {
        warn!(target: TARGET, "{} is left over and cannot be removed: {error}", path.display());
    }
}
