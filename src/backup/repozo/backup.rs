//! Writes a backup.
//!
//! Each file is written as `NAME.part`, synced, renamed, and the directory synced. The order: the index; of a full, its
//! dat file; the data; of a delta, its line in the dat file. A kill between two of them leaves an index without data or
//! a dat file without a full, which are not looked at, or a delta without a line, which `mend` handles.

use std::io::Write;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use super::chain::Chain;
use super::content::{reader, unreadable};
use super::dat::{Dat, DatLine};
use super::error::{RepozoError, Result};
use super::mend::mend;
use super::name::{DataFile, Extent, Stamp};
use super::plan::{BackupPlan, plan};
use super::progress::{Listener, Progress};
use super::repository::{PART, Repository};
use crate::backup::boundaries::Boundaries;
use crate::backup::copier::{Copied, CopyError, Md5Sum, copy};
use crate::backup::gzip::GzipWriter;
use crate::base::clock::TimeSource;
use crate::base::fs::with_suffix;
use crate::storage::file::snapshot::Snapshot;
use crate::storage::media::{Access, Appending, Reading};

/// The level of gzip: higher ones take several times as long and save little of pickles.
const LEVEL: u32 = 1;
/// Temporary files of Python's repozo are left alone for this time: it may be running.
const FOREIGN_AGE: Duration = Duration::from_secs(24 * 3600);
/// Names have seconds; the second of the backup before passes soon.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSES_MAX: u32 = 40;

/// What to back up, and how.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BackupOptions {
    pub file: PathBuf,
    /// A full in any case.
    pub full: bool,
    pub quick: bool,
    pub gzip: bool,
    /// Removes all older backups after a full that was verified.
    pub kill_old: bool,
}

/// Makes a backup. The caller has the lock of the repository.
pub fn backup(
    repository: &Repository,
    options: &BackupOptions,
    time: &TimeSource,
    listener: &dyn Listener,
) -> Result<()> {
    for name in repository.remove_leftovers(FOREIGN_AGE)? {
        let what = format!(
            "{} was left by a program that was killed; it was removed",
            repository.join(name).display()
        );
        listener.report(Progress::Mended { what: &what });
    }
    let now = Stamp::of(time.system_time());
    let found = Chain::find(repository, now.as_str(), listener)?;
    let source = Snapshot::open(&repository.media, &options.file)?;
    let run = Run { repository, options, time, listener, source };
    let Some(chain) = found.filter(|_| !options.full) else {
        listener.report(Progress::DoingFull);
        return run.full();
    };
    let Some(chain) = mend(repository, chain, &run.source, listener)? else {
        listener.report(Progress::DoingFull);
        return run.full();
    };
    match plan(repository, &chain, &run.source, options.quick, listener)? {
        BackupPlan::Nothing => Ok(()),
        BackupPlan::Delta { start } => run.delta(chain, start),
        BackupPlan::Full => run.full(),
    }
}

struct Run<'a> {
    repository: &'a Repository,
    options: &'a BackupOptions,
    time: &'a TimeSource,
    listener: &'a dyn Listener,
    source: Snapshot,
}

impl Run<'_> {
    fn full(&self) -> Result<()> {
        let file = self.fresh(Extent::Full)?;
        self.write_full(&file)
            .inspect_err(|_| self.clean(&file))
            .and_then(|written| if self.options.kill_old { self.kill_old(&file, written) } else { Ok(()) })
    }

    fn write_full(&self, file: &DataFile) -> Result<Copied> {
        let repository = self.repository;
        let end = self.source.end();
        self.write_index(&file.stamp)?;
        let path = repository.join(file);
        self.listener.report(Progress::WritingFull { len: end, path: &path });
        let sum = self.write_part(file, 0, end)?;
        let line = DatLine::new(&repository.path, file, 0, end, sum);
        repository.write_dat(&file.stamp, &Dat { lines: vec![line], is_torn: false })?;
        self.put(file)?;
        Ok(Copied { len: end, sum })
    }

    fn kill_old(&self, file: &DataFile, written: Copied) -> Result<()> {
        self.verify(file, written)?;
        self.remove_older(file)
    }

    /// Makes room after a failure. The error of before is the one to report.
    fn clean(&self, file: &DataFile) {
        let mut names = vec![format!("{file}{PART}")];
        if !self.repository.media.exists(&self.repository.join(file)) {
            names.push(file.stamp.index());
            if file.is_full() {
                names.push(file.stamp.dat());
            }
        }
        let _ = self.repository.remove(&names);
    }

    fn delta(&self, chain: Chain, start: u64) -> Result<()> {
        let file = self.fresh(Extent::Delta)?;
        self.write_delta(&file, chain, start).inspect_err(|_| self.clean(&file))
    }

    fn write_delta(&self, file: &DataFile, mut chain: Chain, start: u64) -> Result<()> {
        let repository = self.repository;
        let end = self.source.end();
        self.write_index(&file.stamp)?;
        let path = repository.join(file);
        self.listener.report(Progress::WritingDelta { len: end - start, path: &path });
        let sum = self.write_part(file, start, end)?;
        self.put(file)?;
        chain.dat.lines.push(DatLine::new(&repository.path, file, start, end, sum));
        repository.write_dat(&chain.full.stamp, &chain.dat)
    }

    /// A name that is later than all others: a full and a delta of one second would be in the wrong order.
    fn fresh(&self, extent: Extent) -> Result<DataFile> {
        let files = self.repository.data_files()?;
        for _ in 0..PAUSES_MAX {
            let stamp = Stamp::of(self.time.system_time());
            if !files.iter().any(|file| file.stamp == stamp) {
                if let Some(later) = files.iter().find(|file| file.stamp > stamp) {
                    let what = format!(
                        "{} is later than now: is the clock right? Backups are found by their times",
                        self.repository.join(later).display()
                    );
                    self.listener.report(Progress::Warning { what: &what });
                }
                return Ok(DataFile { stamp, extent, gzip: self.options.gzip });
            }
            thread::sleep(PAUSE);
        }
        let stamp = Stamp::of(self.time.system_time());
        Err(RepozoError::Exists(self.repository.join(DataFile { stamp, extent, gzip: self.options.gzip })))
    }

    fn write_index(&self, stamp: &Stamp) -> Result<()> {
        self.listener.report(Progress::WritingIndex);
        self.repository.write_whole(&stamp.index(), |out| self.source.write_index(out))
    }

    /// Writes a part of the source under a preliminary name, durably.
    fn write_part(&self, file: &DataFile, start: u64, end: u64) -> Result<Md5Sum> {
        let path = with_suffix(&self.repository.join(file), PART);
        let doing = || RepozoError::io(format!("writing {}", path.display()));
        let part = self.repository.media.open(&path, Access::Truncate).map_err(doing())?;
        let mut boundaries = if start == 0 { Boundaries::of_file() } else { Boundaries::from(start) };
        let mut range = Reading::range(self.source.file().clone(), start, end);
        let mut each = |bytes: &[u8]| boundaries.feed(bytes);
        let mut out = Appending::new(part.clone());
        let copied = if file.gzip {
            let mut out = GzipWriter::new(out, LEVEL).map_err(doing())?;
            copy(&mut range, Some(&mut out), &mut each)
                .and_then(|copied| out.finish().map(|_| copied).map_err(CopyError::Target))
        } else {
            copy(&mut range, Some(&mut out), &mut each)
                .and_then(|copied| out.flush().map(|()| copied).map_err(CopyError::Target))
        };
        let copied = copied.map_err(|error| match error {
            CopyError::Source(error) => {
                RepozoError::Io { doing: format!("reading {}", self.source.path().display()), error }
            }
            CopyError::Target(error) => doing()(error),
        })?;
        if copied.len != end - start {
            return Err(RepozoError::Damaged(format!(
                "{} was cut while it was read: it ended at {end} and ends at {} now. Nothing was backed up; try again",
                self.source.path().display(),
                start + copied.len
            )));
        }
        if self.source.is_cut() {
            return Err(RepozoError::Damaged(format!(
                "transactions of {} were taken back while it was read. Nothing was backed up; try again",
                self.source.path().display()
            )));
        }
        part.sync().map_err(doing())?;
        if let Some(misfit) = boundaries.misfit() {
            let what = format!(
                "{} is damaged {misfit}. It is backed up as it is; keep the older backups",
                self.source.path().display()
            );
            self.listener.report(Progress::Warning { what: &what });
        }
        Ok(copied.sum)
    }

    /// Gives the complete file its name, durably.
    fn put(&self, file: &DataFile) -> Result<()> {
        let path = self.repository.join(file);
        let doing = RepozoError::io(format!("renaming {}{PART}", path.display()));
        self.repository.media.rename(&with_suffix(&path, PART), &path).map_err(doing)?;
        self.repository.sync()
    }

    /// Reads a full again, before older backups are removed.
    fn verify(&self, file: &DataFile, written: Copied) -> Result<()> {
        let mut boundaries = Boundaries::of_file();
        let mut content = reader(self.repository, file)?;
        let found =
            copy(&mut *content, None, &mut |bytes| boundaries.feed(bytes)).map_err(|error| match error {
                CopyError::Source(error) | CopyError::Target(error) => {
                    unreadable(self.repository, file, error)
                }
            })?;
        let what = match boundaries.misfit() {
            _ if found != written => "it does not have the bytes that were written".into(),
            Some(misfit) => misfit.to_string(),
            None => return Ok(()),
        };
        let path = self.repository.join(file);
        Err(RepozoError::Damaged(format!(
            "{} is damaged: {what}. The older backups are kept",
            path.display()
        )))
    }

    /// Removes all older backups, each chain from its end, and each line before its file, so that what is left of a
    /// chain is one.
    fn remove_older(&self, newest: &DataFile) -> Result<()> {
        let repository = self.repository;
        let older: Vec<DataFile> =
            repository.data_files()?.into_iter().filter(|file| file.stamp < newest.stamp).collect();
        for (at, file) in older.iter().enumerate().rev() {
            self.listener.report(Progress::Removing { name: &file.to_string() });
            let full = older.get(..at).unwrap_or_default().iter().rfind(|file| file.is_full());
            if let Some(full) = full.filter(|_| !file.is_full())
                && let Some(Ok(mut dat)) = repository.dat(&full.stamp)?
                && dat.lines.iter().any(|line| line.file == *file)
            {
                dat.lines.retain(|line| line.file != *file);
                repository.write_dat(&full.stamp, &dat)?;
            }
            repository.remove(&[file.to_string()])?;
            repository.remove(&[file.stamp.index(), file.stamp.dat()])?;
        }
        Ok(())
    }
}
