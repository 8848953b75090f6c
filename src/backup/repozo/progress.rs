//! What the runs report while they work. `commands` has the texts: those of Python's repozo where it reports the same.

use std::path::{Path, PathBuf};

use crate::backup::copier::Md5Sum;

/// One thing to report.
#[derive(Clone, Debug)]
pub enum Progress<'a> {
    /// The chain of this date is looked for.
    Looking {
        when: &'a str,
    },
    /// The files of the chain.
    Found {
        when: &'a str,
        files: &'a [PathBuf],
    },
    FoundNothing,
    /// A full backup begins, because it was asked for or there is no chain.
    DoingFull,
    /// A full backup begins, because the file is shorter than the backups.
    Shrunk,
    /// A full backup begins, because what was backed up has changed.
    Changed,
    /// The dat file names the last backup.
    LastBackup {
        file: &'a str,
        sum: Md5Sum,
    },
    /// The same bytes in the source.
    SourceRange {
        start: u64,
        end: u64,
        sum: Md5Sum,
    },
    /// All backups of the chain together.
    RepositoryState {
        len: u64,
        sum: Md5Sum,
    },
    /// The source, to its end.
    SourceState {
        len: u64,
        sum: Md5Sum,
    },
    /// The source, as far as it was backed up.
    BackedUpState {
        len: u64,
        sum: Md5Sum,
    },
    NoChanges,
    DoingDelta {
        start: u64,
    },
    WritingIndex,
    WritingFull {
        len: u64,
        path: &'a Path,
    },
    WritingDelta {
        len: u64,
        path: &'a Path,
    },
    /// A backup of an older chain is removed.
    Removing {
        name: &'a str,
    },
    /// Recovering to this file, or to the standard output.
    Recovering {
        to: Option<&'a Path>,
    },
    /// One backup was recovered and has its size and its sum.
    RecoveredChunk {
        path: &'a Path,
        len: u64,
        sum: Md5Sum,
    },
    RecoveredTotal {
        len: u64,
    },
    Recovered {
        len: u64,
        sum: Md5Sum,
    },
    RestoringIndex {
        from: &'a Path,
        to: &'a Path,
    },
    NoIndex {
        path: &'a Path,
    },
    /// The file that was there before.
    SetAside {
        path: &'a Path,
    },
    Verifying {
        path: &'a Path,
    },
    /// The chain was brought in order: what was done.
    Mended {
        what: &'a str,
    },
    /// Something is wrong that does not end the run. Printed in any case.
    Warning {
        what: &'a str,
    },
}

/// Receives the reports.
pub trait Listener {
    fn report(&self, progress: Progress<'_>);
    /// Whether sums that are only reported are wanted. They cost time.
    fn wants_sums(&self) -> bool;
}
