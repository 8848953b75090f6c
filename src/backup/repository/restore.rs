//! Restores databases as they were at a transaction, with their blobs.
//!
//! 1. The locks of all databases are taken, and kept until the end: no server runs.
//! 2. Blobs are added to the blob directories. Those that are there stay: the former file still needs them.
//! 3. The files are written beside the former ones, checked and made durable.
//! 4. Only then do they take their places; each former file is kept (see [`replace`](crate::backup::replace)).
//!
//! What is read is compared with its sum, so nothing that is damaged takes the place of a file. Whatever stops this,
//! the former files or the restored ones are there, and have all their blobs.

use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::blob_list::{Content, Revision};
use super::error::{BackupError, Result};
use super::join::{JoinError, join};
use super::known::for_each;
use super::manifest::{Database, Manifest, Segment, Stamp};
use super::object::{Kind, ObjectReader, RunningId};
use super::{Listener, Repository};
use crate::backup::replace::Replacement;
use crate::base::fs::dir_of;
use crate::base::ids::Tid;
use crate::storage::blob::BlobDir;
use crate::storage::media::{Appending, MediaFile, Readers};

const BUF_LEN: usize = 256 << 10;

/// Where a database is restored to.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its name in the repository.
    pub name: String,
    /// The `Data.fs`.
    pub path: PathBuf,
    /// `None`: blobs are not restored.
    pub blob_dir: Option<PathBuf>,
}

/// What to restore, and to where.
#[derive(Clone, Debug, Default)]
pub struct RestoreOptions {
    /// `None`: the newest backup that has the wanted state.
    pub stamp: Option<Stamp>,
    /// Transactions up to this one. `None`: all.
    pub until: Option<Tid>,
    pub targets: Vec<Target>,
}

/// A database that was restored.
#[derive(Debug)]
pub struct Restored {
    pub target: Target,
    /// The last transaction; zero if there is none.
    pub last_tid: Tid,
    pub len: u64,
    /// The name of the file that was there before.
    pub aside: Option<PathBuf>,
    /// Blobs that were added, and those that were there already.
    pub blobs_added: u64,
    pub blobs_kept: u64,
    /// Blobs that had no file when the backup was made.
    pub blobs_missing: u64,
}

/// Restores the databases. The caller has the lock of the repository, shared. Returns the backup that was used.
pub fn restore(
    repository: &Repository,
    options: &RestoreOptions,
    listener: &dyn Listener,
) -> Result<(Stamp, Vec<Restored>)> {
    let (stamp, manifest) = choose(repository, options)?;
    let until = options.until.unwrap_or(Tid(u64::MAX));
    let mut begun = Vec::new();
    for target in &options.targets {
        let database = find(&manifest, &stamp, &target.name)?;
        let replacement = Replacement::begin(repository.media.clone(), &target.path)?;
        begun.push((target, database, replacement));
    }
    let mut run = Run { repository, until, listener, done: 0 };
    let mut written = Vec::new();
    let mut failed = None;
    for (target, database, replacement) in &begun {
        match run.database(target, database, replacement) {
            Ok(restored) => written.push(restored),
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    if let Some(error) = failed {
        for (_, _, replacement) in begun {
            // Makes room. The first error is the one to report.
            let _ = replacement.give_up();
        }
        return Err(error);
    }
    for ((_, _, replacement), restored) in begun.into_iter().zip(&mut written) {
        restored.aside = replacement.finish()?.aside;
    }
    Ok((stamp, written))
}

fn find<'m>(manifest: &'m Manifest, stamp: &Stamp, name: &str) -> Result<&'m Database> {
    manifest.database(name).ok_or_else(|| {
        let names: Vec<&str> = manifest.databases.iter().map(|database| database.name.as_str()).collect();
        BackupError::NotThere(format!(
            "backup {stamp} has no database '{name}'; it has: {}",
            names.join(", ")
        ))
    })
}

/// The backup to restore from: the one that was named; otherwise the newest, or the oldest that has the state at the
/// wanted time, because later ones may have been packed.
fn choose(repository: &Repository, options: &RestoreOptions) -> Result<(Stamp, Manifest)> {
    let stamps = repository.backups()?;
    if let Some(stamp) = &options.stamp {
        if !stamps.contains(stamp) {
            return Err(BackupError::NotThere(format!(
                "{} has no backup {stamp}: 'zeobackup list' shows those that it has",
                repository.path.display()
            )));
        }
        let manifest = repository.manifest(stamp)?;
        return match options.until.is_none_or(|until| covers(&manifest, options, until)) {
            true => Ok((stamp.clone(), manifest)),
            false => Err(not_covered(&[(stamp.clone(), manifest)], options)),
        };
    }
    let Some(until) = options.until else {
        let newest = stamps.last().cloned().ok_or_else(|| {
            BackupError::NotThere(format!("{} has no backup yet", repository.path.display()))
        })?;
        let manifest = repository.manifest(&newest)?;
        return Ok((newest, manifest));
    };
    let mut seen = Vec::new();
    for stamp in stamps {
        let manifest = repository.manifest(&stamp)?;
        if covers(&manifest, options, until) {
            return Ok((stamp, manifest));
        }
        seen.push((stamp, manifest));
    }
    Err(not_covered(&seen, options))
}

/// The databases that are wanted, as far as this backup has them.
fn wanted<'m>(manifest: &'m Manifest, options: &'m RestoreOptions) -> impl Iterator<Item = &'m Database> {
    options.targets.iter().filter_map(|target| manifest.database(&target.name))
}

/// The state at which the databases of a backup end: that of the time when it was made.
fn end_of(manifest: &Manifest, database: &Database) -> Tid {
    let made = Stamp::parse(&manifest.made)
        .map_or(Tid::ZERO, |made| Tid::from_unix(made.to_unix_millis() as f64 / 1000.0));
    made.max(database.last_tid)
}

fn covers(manifest: &Manifest, options: &RestoreOptions, until: Tid) -> bool {
    wanted(manifest, options).count() == options.targets.len()
        && wanted(manifest, options)
            .all(|database| database.packed_tid <= until && until <= end_of(manifest, database))
}

fn not_covered(seen: &[(Stamp, Manifest)], options: &RestoreOptions) -> BackupError {
    let until = options.until.unwrap_or(Tid::ZERO);
    let mut what = format!("no backup has the state at {} ({until})", until.to_text());
    for (stamp, manifest) in seen {
        for database in wanted(manifest, options) {
            let end = end_of(manifest, database).to_text();
            let from = match database.packed_tid {
                Tid::ZERO => "its first transaction".into(),
                packed => format!("{}, when it was packed,", packed.to_text()),
            };
            what.push_str(&format!("\n{stamp}: database {} from {from} to {end}", database.name));
        }
    }
    BackupError::NotThere(what)
}

struct Run<'a> {
    repository: &'a Repository,
    until: Tid,
    listener: &'a dyn Listener,
    /// Bytes that were written.
    done: u64,
}

impl Run<'_> {
    fn database(
        &mut self,
        target: &Target,
        database: &Database,
        replacement: &Replacement,
    ) -> Result<Restored> {
        let mut restored = Restored {
            target: target.clone(),
            last_tid: Tid::ZERO,
            len: 0,
            aside: None,
            blobs_added: 0,
            blobs_kept: 0,
            blobs_missing: 0,
        };
        self.check_room(database, replacement)?;
        if let Some(dir) = &target.blob_dir {
            self.blobs(database, dir, &mut restored)?;
        }
        self.file(database, replacement, &mut restored)?;
        Ok(restored)
    }

    /// Fails early if the file cannot fit.
    fn check_room(&self, database: &Database, replacement: &Replacement) -> Result<()> {
        let dir = dir_of(replacement.part());
        let doing = BackupError::io(format!("looking for room in {}", dir.display()));
        let free = self.repository.media.free_space(dir).map_err(doing)?;
        if free >= database.len || self.until != Tid(u64::MAX) {
            return Ok(());
        }
        let full = io::Error::new(
            io::ErrorKind::StorageFull,
            format!(
                "{} bytes are needed, {free} are free. The former file is kept, so there must be room for both",
                database.len
            ),
        );
        Err(BackupError::io(format!("restoring to {}", dir.display()))(full))
    }

    fn file(
        &mut self,
        database: &Database,
        replacement: &Replacement,
        restored: &mut Restored,
    ) -> Result<()> {
        let part = replacement.part().to_owned();
        let writing = || BackupError::io(format!("writing {}", part.display()));
        let mut out = BufWriter::with_capacity(BUF_LEN, Appending::new(Arc::clone(replacement.file())));
        out.write_all(database.magic.as_bytes()).map_err(writing())?;
        restored.len = database.magic.len() as u64;
        for segment in &database.segments {
            if segment.first > self.until {
                break;
            }
            let joined = self.segment(segment, &mut out, &part)?;
            restored.last_tid = restored.last_tid.max(joined.last);
            restored.len = joined.end;
            self.done += joined.end - segment.start;
            self.listener.progress(self.done);
            if joined.is_cut {
                break;
            }
            if joined.end != segment.end() {
                let what = format!(
                    "a segment of {} ends at {}, should end at {}",
                    database.name,
                    joined.end,
                    segment.end()
                );
                return Err(BackupError::Damaged(what));
            }
        }
        out.flush().map_err(writing())
    }

    fn segment(&self, segment: &Segment, out: &mut dyn Write, part: &Path) -> Result<super::join::Joined> {
        let mut content = self.repository.object(Kind::Data, &segment.data, segment.len)?;
        let mut pointers = self.repository.object(Kind::Pointers, &segment.pointers, segment.pointers_len)?;
        let joined = join(
            &mut BufReader::with_capacity(BUF_LEN, &mut content),
            &mut BufReader::new(&mut pointers),
            segment.start,
            self.until,
            out,
        );
        match joined {
            Ok(joined) => {
                content.finish()?;
                pointers.finish()?;
                Ok(joined)
            }
            Err(JoinError::Target(error)) => {
                Err(BackupError::io(format!("writing {}", part.display()))(error))
            }
            Err(JoinError::Source(error)) => {
                let error = content.unreadable(error);
                // If a sum is wrong, that is the reason.
                content.finish()?;
                pointers.finish()?;
                Err(error)
            }
        }
    }

    fn blobs(&mut self, database: &Database, dir: &Path, restored: &mut Restored) -> Result<()> {
        if !database.has_blobs {
            if database.segments.iter().any(|segment| segment.blobs.count > 0) {
                self.listener.warning(&format!(
                    "the backup has no blobs of {}: it was made without a blob directory",
                    database.name
                ));
            }
            return Ok(());
        }
        let blobs = BlobDir::open_on(self.repository.media.clone(), dir, false)?;
        let until = self.until;
        for segment in database.segments.iter().filter(|segment| segment.first <= until) {
            for_each(self.repository, segment, &mut |(revision, content)| {
                if revision.tid > until {
                    return Ok(());
                }
                let Some(content) = content else {
                    restored.blobs_missing += 1;
                    return Ok(());
                };
                let doing = || {
                    BackupError::io(format!("restoring {}", blobs.path(revision.oid, revision.tid).display()))
                };
                match self.blob(&blobs, &revision, &content).map_err(|error| match error {
                    BlobError::Disk(error) => doing()(error),
                    BlobError::Backup(error) => error,
                })? {
                    true => restored.blobs_added += 1,
                    false => restored.blobs_kept += 1,
                }
                self.done += content.len;
                self.listener.progress(self.done);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Returns whether the blob was added.
    fn blob(
        &self,
        blobs: &BlobDir,
        revision: &Revision,
        content: &Content,
    ) -> std::result::Result<bool, BlobError> {
        let Revision { oid, tid } = *revision;
        let object = self.repository.object_path(Kind::Blob, &content.id);
        if let Some(there) = blobs.find(oid, tid)?
            && there.len == content.len
            && sum_of(&*there.file).map_err(BlobError::Disk)? == content.id
        {
            return Ok(false);
        }
        let media = &self.repository.media;
        let mut failed = None;
        let put = blobs.put(oid, tid, &mut |dir, name| {
            let path = dir.path().join(name);
            let mut from = self.repository.object(Kind::Blob, &content.id, content.len);
            let made = match &mut from {
                _ if media.link(&object, &path).is_ok() => dir.read(name.as_ref()),
                Ok(from) => dir.create(name, Readers::Owner).and_then(|file| {
                    io::copy(from, &mut Appending::new(file.clone()))?;
                    Ok(file)
                }),
                // Said below.
                Err(_) => Err(io::ErrorKind::NotFound.into()),
            };
            match from.and_then(ObjectReader::finish) {
                Err(error) => {
                    failed = Some(error);
                    Err(io::ErrorKind::InvalidData.into())
                }
                Ok(()) => made,
            }
        });
        match (failed, put) {
            (Some(error), _) => Err(BlobError::Backup(error)),
            (None, put) => put.map(|()| true).map_err(BlobError::Disk),
        }
    }
}

enum BlobError {
    Disk(io::Error),
    Backup(BackupError),
}

impl From<BackupError> for BlobError {
    fn from(error: BackupError) -> BlobError {
        BlobError::Backup(error)
    }
}

impl From<crate::storage::StorageError> for BlobError {
    fn from(error: crate::storage::StorageError) -> BlobError {
        BlobError::Backup(error.into())
    }
}

fn sum_of(file: &dyn MediaFile) -> io::Result<super::object::ObjectId> {
    let (mut sum, mut pos, mut chunk) = (RunningId::default(), 0, vec![0; BUF_LEN]);
    loop {
        let len = file.read_at(&mut chunk, pos)?;
        if len == 0 {
            return Ok(sum.id());
        }
        sum.update(chunk.get(..len).unwrap_or_default());
        pos += len as u64;
    }
}
