//! A database of its own for transactions that are taken back (see `rewind`), beside the file: `Data.fs.lost-` and the
//! first of their ids. Its blobs are in a directory that is named in the same way.
//!
//! Until the transactions are gone from the file, both names end with `.part`. After a crash the next start finds such
//! names: if the file still has the transactions, it removes what may be a part of a copy; if not, the copy is whole,
//! and gets its name.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use log::{info, warn};

use super::FileStorage;
use super::format::FileFormat;
use super::log::TARGET;
use super::options::{FileStorageOptions, NewFileFormat};
use crate::base::fs::{dir_of, with_suffix};
use crate::base::ids::{Oid, Tid};
use crate::pickle::record::is_blob;
use crate::storage::media::{Kind, MediaDir};
use crate::storage::{
    BlobDir, Bulk, DataRecord, Iterate, Result, Staged, Storage, StorageError, TransactionIterator,
    TransactionRecord,
};

/// Bytes of a transaction that are kept in memory; more of it is in a temporary file.
const MEMORY_MAX: usize = 8 << 20;
/// What a database may have beside its file.
const BESIDE: [&str; 5] = [".index", ".tmp", ".lock", ".sums", ".index.index_tmp"];

/// Behind the identifier of the first transaction, as long as the file has it.
const PART: &str = ".part";

/// The database of what is taken back.
pub struct Kept {
    /// The names that it is to have.
    pub path: PathBuf,
    blob_dir: Option<PathBuf>,
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
            let is_taken = |path: &Path| media.exists(path) || media.exists(&with_suffix(path, PART));
            if !is_taken(&path) && !blob_dir.as_deref().is_some_and(is_taken) {
                return Kept { path, blob_dir, blobs: Vec::new() };
            }
            number += 1;
        }
    }

    /// Where it is made.
    fn part(&self) -> (PathBuf, Option<PathBuf>) {
        (with_suffix(&self.path, PART), self.blob_dir.as_ref().map(|dir| with_suffix(dir, PART)))
    }

    fn fill(&mut self, from: &FileStorage, first: Tid) -> Result<()> {
        let (path, blob_dir) = self.part();
        let options = FileStorageOptions {
            blob_dir,
            new_file_format: match from.format() {
                FileFormat::FS21 => NewFileFormat::FS21,
                FileFormat::FS30 => NewFileFormat::FS30,
            },
            media: Arc::clone(&from.core.media),
            clock: Arc::clone(&from.options.clock),
            time: from.options.time.clone(),
            ..FileStorageOptions::new(path)
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

    /// Gives it its names: the file does not have the transactions any more. Returns where it is.
    pub fn settle(&self, from: &FileStorage) -> PathBuf {
        let (part, blob_part) = self.part();
        let media = &from.core.media;
        self.remove_beside(from, &part);
        let rename = || {
            if let (Some(part), Some(dir)) = (blob_part, &self.blob_dir)
                && media.exists(&part)
            {
                media.rename(&part, dir)?;
                media.sync_dir(dir_of(dir))?;
            }
            // The last step: by this name a start after a crash finds what is to be done.
            media.rename(&part, &self.path)?;
            media.sync_dir(dir_of(&self.path))
        };
        match rename() {
            Ok(()) => self.path.clone(),
            Err(error) => {
                warn!(target: TARGET, "{} cannot get its name: {error}", part.display());
                part
            }
        }
    }

    /// Removes the database again: nothing was taken back.
    pub fn remove(&self, from: &FileStorage) {
        let (part, blob_part) = self.part();
        let media = &from.core.media;
        self.remove_beside(from, &part);
        if let Some(dir) = &blob_part {
            remove_if_there(
                || remove_dir(&*media.dir(dir_of(dir))?, dir.file_name().unwrap_or_default()),
                dir,
            );
        }
        remove_if_there(|| media.remove(&part), &part);
    }

    /// What was of use only to its storage.
    fn remove_beside(&self, from: &FileStorage, part: &Path) {
        for path in BESIDE.map(|end| with_suffix(part, end)) {
            remove_if_there(|| from.core.media.remove(&path), &path);
        }
        // The lock is a file of the operating system.
        let lock = with_suffix(part, ".lock");
        remove_if_there(|| std::fs::remove_file(&lock), &lock);
    }
}

/// At the start: ends rewinds that a crash has interrupted. An error is logged, and is no reason not to serve.
pub fn end_interrupted(storage: &FileStorage) {
    let path = &storage.core.path;
    let found = storage.core.dir.list().unwrap_or_default();
    let begin = path.file_name().map(|name| format!("{}.lost-", name.to_string_lossy())).unwrap_or_default();
    // Also what is beside such a file, of which there are several.
    let names = found.iter().filter_map(|name| name.to_str()?.strip_prefix(&begin)?.split_once(PART));
    for suffix in names.map(|(suffix, _)| suffix).collect::<BTreeSet<_>>() {
        let Some(first) = suffix.get(..16).and_then(|digits| u64::from_str_radix(digits, 16).ok()) else {
            continue;
        };
        let named = |path: &Path| with_suffix(path, &format!(".lost-{suffix}"));
        let blob_dir = storage.core.blobs.as_ref().map(|blobs| named(blobs.base()));
        let kept = Kept { path: named(path), blob_dir, blobs: Vec::new() };
        if let Err(error) = kept.end(storage, Tid(first)) {
            let part = kept.part().0;
            warn!(target: TARGET, "{} is left over and cannot be looked at: {error}", part.display());
        }
    }
}

impl Kept {
    fn end(&self, storage: &FileStorage, first: Tid) -> Result<()> {
        if !storage.core.media.exists(&self.part().0) {
            self.remove_beside(storage, &self.part().0);
            return Ok(());
        }
        let next = storage.iterate(Some(first), None)?.next_transaction()?;
        if next.is_some_and(|next| next.tid == first) {
            info!(target: TARGET, "removing {}: its transactions were not taken back", self.part().0.display());
            self.remove(storage);
            return Ok(());
        }
        let options = FileStorageOptions {
            media: Arc::clone(&storage.core.media),
            read_only: true,
            ..FileStorageOptions::new(self.part().0)
        };
        let part = FileStorage::open(options)?;
        let (mut transactions, mut count) = (part.iterate(None, None)?, 0_u64);
        while transactions.next_transaction()?.is_some() {
            count += 1;
            let mut records = transactions.records()?;
            while let Some(DataRecord { oid, tid, data, .. }) = records.next_record()? {
                if let Some(blobs) =
                    storage.core.blobs.as_ref().filter(|_| data.as_deref().is_some_and(is_blob))
                    && !storage.has_revision(oid, tid)?
                {
                    blobs.remove(oid, tid);
                }
            }
        }
        part.close()?;
        let path = self.settle(storage);
        warn!(
            target: TARGET,
            "{}: {count} transactions from {first} on had been taken back when the server ended. They are kept in {}",
            storage.core.path.display(),
            path.display()
        );
        Ok(())
    }
}

/// A directory with all that is in it.
fn remove_dir(above: &dyn MediaDir, name: &OsStr) -> io::Result<()> {
    let dir = above.dir(name.as_ref())?;
    for name in dir.list()? {
        match dir.entry(name.as_ref())?.kind {
            Kind::Directory => remove_dir(&*dir, &name)?,
            _ => dir.remove(&name)?,
        }
    }
    above.remove_dir(name)
}

fn remove_if_there(remove: impl FnOnce() -> io::Result<()>, path: &Path) {
    if let Err(error) = remove()
        && error.kind() != io::ErrorKind::NotFound
    {
        warn!(target: TARGET, "{} is left over and cannot be removed: {error}", path.display());
    }
}
