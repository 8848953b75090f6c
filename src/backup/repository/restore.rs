//! Restores databases as they were at a transaction, with their blobs.
//!
//! 1. The locks of all databases are taken, and kept until the end: no server runs.
//! 2. Blobs are added to the blob directories. Those that are there stay: the former file still needs them.
//! 3. The files are written beside the former ones, checked and made durable.
//! 4. Only then do they take their places; each former file is kept (see [`replace`](crate::backup::replace)).
//!
//! What is read is compared with its sum, so nothing that is damaged takes the place of a file. Whatever stops this,
//! the former files or the restored ones are there, and have all their blobs.

use std::collections::BTreeSet;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::blob_list::{Content, Revision};
use super::error::{BackupError, Result};
use super::join::{JoinError, join};
use super::known::for_each;
use super::manifest::{Database, Manifest, Segment, Stamp};
use super::object::{ObjectKind, ObjectReader, sum_of_file};
use super::read_ahead::read_ahead;
use super::{ProgressListener, Repository};
use crate::backup::replace::Replacement;
use crate::base::fs::dir_of;
use crate::base::ids::Tid;
use crate::storage::blob::BlobDir;
use crate::storage::media::{Appending, Readers};

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
    /// The backup that it is from.
    pub stamp: Stamp,
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

/// Restores the databases. The caller has the lock of the repository, shared.
pub fn restore(
    repository: &Repository,
    options: &RestoreOptions,
    listener: &dyn ProgressListener,
) -> Result<Vec<Restored>> {
    let mut begun = Vec::new();
    for (target, (stamp, database)) in options.targets.iter().zip(choose(repository, options, listener)?) {
        let mut replacement = Replacement::begin(repository.media.clone(), &target.path)?;
        replacement.oids_given(database.oid_mark);
        begun.push((target, stamp, database, replacement));
    }
    let until = options.until.unwrap_or(Tid(u64::MAX));
    let mut run = Restoring { repository, until, listener, done: 0 };
    let mut written = Vec::new();
    let mut failed = None;
    for (target, stamp, database, replacement) in &begun {
        match run.database(target, stamp, database, replacement) {
            Ok(restored) => written.push(restored),
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    if let Some(error) = failed {
        for (_, _, _, replacement) in begun {
            // Makes room. The first error is the one to report.
            let _ = replacement.give_up();
        }
        return Err(error);
    }
    for ((_, _, _, replacement), restored) in begun.into_iter().zip(&mut written) {
        restored.aside = replacement.finish()?.aside;
    }
    Ok(written)
}

/// For each target the backup to restore from, and the database in it.
fn choose(
    repository: &Repository,
    options: &RestoreOptions,
    listener: &dyn ProgressListener,
) -> Result<Vec<(Stamp, Database)>> {
    let all = repository.backups()?;
    let stamps = match &options.stamp {
        Some(stamp) if !all.contains(stamp) => {
            return Err(BackupError::NotThere(format!(
                "{} has no backup {stamp}: 'zeobackup list' shows those that it has",
                repository.path.display()
            )));
        }
        Some(stamp) => vec![stamp.clone()],
        None => all,
    };
    if stamps.is_empty() {
        return Err(BackupError::NotThere(format!("{} has no backup yet", repository.path.display())));
    }
    let mut seen: Vec<(Stamp, Manifest)> = Vec::new();
    // The newest backup of a database need not be the newest in the repository.
    for stamp in stamps.iter().rev() {
        let has =
            |target: &Target| seen.iter().any(|(_, manifest)| manifest.database(&target.name).is_some());
        if options.until.is_none() && options.targets.iter().all(has) {
            break;
        }
        match repository.manifest(stamp) {
            Ok(manifest) => seen.push((stamp.clone(), manifest)),
            // Another backup that has the wanted state is as good. The newest one is not replaced by an older one.
            Err(BackupError::Damaged(what)) if options.until.is_some() && options.stamp.is_none() => {
                listener.warning(&what);
            }
            Err(error) => return Err(error),
        }
    }
    seen.reverse();
    options.targets.iter().map(|target| choose_one(&seen, &target.name, options.until)).collect()
}

/// The oldest backup that has the wanted state and later transactions: later backups may have been packed. If none is
/// later, the newest backup, if it was made later.
fn choose_one(seen: &[(Stamp, Manifest)], name: &str, until: Option<Tid>) -> Result<(Stamp, Database)> {
    let all: Vec<(&Stamp, &Database)> =
        seen.iter().filter_map(|(stamp, manifest)| Some((stamp, manifest.database(name)?))).collect();
    let Some((stamp, newest)) = all.last() else {
        let all = seen.iter().flat_map(|(_, manifest)| &manifest.databases);
        let names: BTreeSet<&str> = all.map(|database| database.name.as_str()).collect();
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        let what = format!("there is no backup of a database '{name}'; there are some of: {names}");
        return Err(BackupError::NotThere(what));
    };
    let Some(until) = until else { return Ok(((*stamp).clone(), (*newest).clone())) };
    // Before its first transaction a database is empty: such a state is not restored, because it is a mistyped time.
    let first = |database: &Database| database.segments.first().map_or(Tid::ZERO, |segment| segment.first);
    let has =
        |database: &Database, end: Tid| database.packed_tid.max(first(database)) <= until && until <= end;
    let found = all.iter().find(|(_, database)| has(database, database.last_tid));
    let newest = all.last().filter(|(stamp, database)| has(database, time_of(stamp)));
    match found.or(newest) {
        Some((stamp, database)) => Ok(((*stamp).clone(), (*database).clone())),
        None => Err(not_covered(&all, until)),
    }
}

/// When a backup was made.
fn time_of(stamp: &Stamp) -> Tid {
    Tid::from_unix(stamp.to_unix_millis() as f64 / 1000.0)
}

fn not_covered(seen: &[(&Stamp, &Database)], until: Tid) -> BackupError {
    let mut what = format!("no backup has the state at {} ({until})", until.to_text());
    let last = seen.len().saturating_sub(1);
    for (at, (stamp, database)) in seen.iter().enumerate() {
        let end = if at == last { database.last_tid.max(time_of(stamp)) } else { database.last_tid };
        let from = match database.packed_tid {
            Tid::ZERO => database.segments.first().map_or(String::new(), |segment| segment.first.to_text()),
            packed => format!("{}, when it was packed,", packed.to_text()),
        };
        what.push_str(&format!("\n{stamp}: database {} from {from} to {}", database.name, end.to_text()));
    }
    BackupError::NotThere(what)
}

struct Restoring<'a> {
    repository: &'a Repository,
    until: Tid,
    listener: &'a dyn ProgressListener,
    /// Bytes that were written.
    done: u64,
}

impl Restoring<'_> {
    fn database(
        &mut self,
        target: &Target,
        stamp: &Stamp,
        database: &Database,
        replacement: &Replacement,
    ) -> Result<Restored> {
        let mut restored = Restored {
            target: target.clone(),
            stamp: stamp.clone(),
            last_tid: Tid::ZERO,
            len: 0,
            aside: None,
            blobs_added: 0,
            blobs_kept: 0,
            blobs_missing: 0,
        };
        self.check_room(database, replacement)?;
        match &target.blob_dir {
            Some(dir) => self.blobs(database, dir, &mut restored)?,
            None if has_blobs(database) => {
                let name = &database.name;
                self.listener
                    .warning(&format!("the blobs of {name} are not restored: no blob directory is given"));
            }
            None => {}
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
        let content = self.repository.object(ObjectKind::Data, &segment.data, segment.len)?;
        let mut pointers =
            self.repository.object(ObjectKind::Pointers, &segment.pointers, segment.pointers_len)?;
        let (joined, read) = read_ahead(content, |content| {
            join(content, &mut BufReader::new(&mut pointers), segment.start, self.until, out)
        });
        if let Err(JoinError::Target(error)) = joined {
            return Err(BackupError::io(format!("writing {}", part.display()))(error));
        }
        // If a sum is wrong, that is the reason for all else.
        read?;
        match joined {
            Ok(joined) => pointers.finish().map(|()| joined),
            Err(JoinError::Source(error) | JoinError::Target(error)) => {
                let error = pointers.unreadable(error);
                pointers.finish()?;
                Err(error)
            }
        }
    }

    fn blobs(&mut self, database: &Database, dir: &Path, restored: &mut Restored) -> Result<()> {
        if !database.has_blobs {
            if has_blobs(database) {
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
        let object = self.repository.object_path(ObjectKind::Blob, &content.id);
        if let Some(there) = blobs.find(oid, tid)?
            && there.len == content.len
            && sum_of_file(there.file, ObjectKind::Blob).map_err(BlobError::Disk)? == content.id
        {
            return Ok(false);
        }
        let media = &self.repository.media;
        let mut failed = None;
        let put = blobs.put(oid, tid, &mut |dir, name| {
            let path = dir.path().join(name);
            let mut from = self.repository.object(ObjectKind::Blob, &content.id, content.len);
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

fn has_blobs(database: &Database) -> bool {
    database.segments.iter().any(|segment| segment.blobs.count > 0)
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
