//! Chains: which files belong to one, which bytes of `Data.fs` each has, and what is wrong.
//!
//! A chain is its files in the order of their names; Python's repozo restores all of them. The dat file says which
//! bytes each has. A file without a line was written by a program that was killed before it wrote the line:
//!
//! - if it fits between its neighbours, or comes last, it is part of the chain (`Unlisted`);
//! - if the next line begins where it begins, a quick backup has written its bytes again (`Covered`): Python's repozo
//!   would restore them twice. It is no part of the chain.

use std::path::PathBuf;

use super::content::content_len;
use super::dat::{Dat, DatLine};
use super::error::{RepozoError, Result};
use super::name::DataFile;
use super::progress::{Listener, Progress};
use super::repository::Repository;
use crate::backup::copier::Md5Sum;

/// A backup, and which bytes of `Data.fs` it has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ChainPart {
    pub file: DataFile,
    pub start: u64,
    pub end: u64,
    /// `None`: the dat file has no line for it.
    pub sum: Option<Md5Sum>,
}

/// What is wrong with a chain, apart from the content of its files.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ChainFlaw {
    NoDat,
    /// The dat file cannot be read; the text says why.
    BadDat(String),
    /// Its last line is not complete.
    TornDat,
    Unlisted(DataFile),
    Covered {
        file: DataFile,
        by: DataFile,
    },
    Missing(DataFile),
    /// It has no line, and cannot be decompressed; the text says why.
    Unreadable(DataFile, String),
    /// The bytes from `end` of the one before to `start` of this one are in no backup.
    Gap {
        before: DataFile,
        end: u64,
        start: u64,
    },
    /// It begins before the end of the one before it.
    Overlap {
        file: DataFile,
        end: u64,
        start: u64,
    },
}

/// A full and its deltas.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Chain {
    pub full: DataFile,
    /// What a restore concatenates.
    pub parts: Vec<ChainPart>,
    /// Empty if there is none.
    pub dat: Dat,
    pub flaws: Vec<ChainFlaw>,
}

impl ChainFlaw {
    /// Whether a restore of the chain is impossible.
    pub fn breaks_restore(&self) -> bool {
        match self {
            ChainFlaw::Missing(_) | ChainFlaw::Unreadable(..) => true,
            ChainFlaw::Gap { .. } | ChainFlaw::Overlap { .. } => true,
            ChainFlaw::NoDat | ChainFlaw::BadDat(_) | ChainFlaw::TornDat => false,
            ChainFlaw::Unlisted(_) | ChainFlaw::Covered { .. } => false,
        }
    }

    /// Whether a verification fails. Not if the next backup mends it and all programs restore the chain rightly.
    pub fn is_damage(&self) -> bool {
        !matches!(self, ChainFlaw::TornDat | ChainFlaw::Unlisted(_))
    }
}

impl Chain {
    /// The chain for a restore as of `when`, which is compared with stamps as a text. `None`: there is no full.
    pub fn find(repository: &Repository, when: &str, listener: &dyn Listener) -> Result<Option<Chain>> {
        listener.report(Progress::Looking { when });
        let mut files = repository.data_files()?;
        files.retain(|file| file.stamp.as_str() <= when);
        let Some(full) = files.iter().rposition(DataFile::is_full) else {
            listener.report(Progress::FoundNothing);
            return Ok(None);
        };
        let files = files.split_off(full);
        let paths: Vec<PathBuf> = files.iter().map(|file| repository.join(file)).collect();
        listener.report(Progress::Found { when, files: &paths });
        Chain::read(repository, files, when).map(Some)
    }

    /// All chains, the newest first.
    pub fn all(repository: &Repository) -> Result<Vec<Chain>> {
        let mut files = repository.data_files()?;
        let mut chains = Vec::new();
        while let Some(full) = files.iter().rposition(DataFile::is_full) {
            chains.push(Chain::read(repository, files.split_off(full), "~")?);
        }
        Ok(chains)
    }

    /// `files` begins with the full. Lines of backups after `until` do not count.
    fn read(repository: &Repository, files: Vec<DataFile>, until: &str) -> Result<Chain> {
        let mut flaws = Vec::new();
        let Some(full) = files.first().cloned() else { return Err(RepozoError::NoFiles { before: None }) };
        let mut dat = match repository.dat(&full.stamp)? {
            Some(Ok(dat)) => dat,
            None => {
                flaws.push(ChainFlaw::NoDat);
                Dat::default()
            }
            Some(Err(what)) => {
                flaws.push(ChainFlaw::BadDat(what));
                Dat::default()
            }
        };
        if dat.is_torn {
            flaws.push(ChainFlaw::TornDat);
        }
        dat.lines.dedup();
        dat.lines.retain(|line| line.file.stamp.as_str() <= until);
        flaws.extend(
            dat.lines
                .iter()
                .filter(|line| !files.contains(&line.file))
                .map(|line| ChainFlaw::Missing(line.file.clone())),
        );
        let mut matching = Matching { pos: 0, parts: Vec::new(), flaws, waiting: Vec::new() };
        for file in files {
            match dat.lines.iter().find(|line| line.file == file) {
                Some(line) => matching.listed(line),
                None => match content_len(repository, &file) {
                    Ok(len) => matching.waiting.push((file, len)),
                    Err(RepozoError::Damaged(what)) => matching.flaws.push(ChainFlaw::Unreadable(file, what)),
                    Err(error) => return Err(error),
                },
            }
        }
        matching.accept_waiting();
        let Matching { parts, flaws, .. } = matching;
        Ok(Chain { full, parts, dat, flaws })
    }

    /// Where the last backup ends in `Data.fs`.
    pub fn end(&self) -> u64 {
        self.parts.last().map_or(0, |part| part.end)
    }

    /// What is wrong, and what follows, for the operator.
    pub fn explain(&self, flaw: &ChainFlaw, repository: &Repository) -> String {
        let shown = |name: String| repository.join(name).display().to_string();
        let dat = shown(self.full.stamp.dat());
        match flaw {
            ChainFlaw::NoDat => format!(
                "{dat} is missing, so that backups cannot be compared with their sums. A backup writes it again if \
                 Data.fs still has their bytes"
            ),
            ChainFlaw::BadDat(what) => format!("{dat}: {what}"),
            ChainFlaw::TornDat => {
                format!(
                    "{dat}: the last line is not complete: a program was killed while it wrote it. The next backup mends it"
                )
            }
            ChainFlaw::Unlisted(file) => format!(
                "{} has no line in {dat}: a program was killed. If this chain is the newest, the next backup of this program mends it, and \
                 a quick one of Python's repozo would write its bytes again",
                shown(file.to_string())
            ),
            ChainFlaw::Covered { file, by } => format!(
                "{} has no line in {dat}, and {} begins with the same range: the program that wrote it was killed, and a quick \
                 backup of Python's repozo wrote its bytes again. Python's repozo would restore them twice; this program leaves it out, \
                 and its next backup removes it",
                shown(file.to_string()),
                shown(by.to_string())
            ),
            ChainFlaw::Missing(file) => format!("{} is missing", shown(file.to_string())),
            ChainFlaw::Unreadable(_, what) => format!("{what}. It has no line in {dat} either"),
            ChainFlaw::Gap { before, end, start } => format!(
                "{} begins at {start}, the backup before it ends at {end}: the bytes between are in no backup. Make a full backup (-F); \
                 what is before can be restored (-D)",
                shown(before.to_string())
            ),
            ChainFlaw::Overlap { file, end, start } => format!(
                "{} begins at {start}, before the end of the backup before it at {end}: transactions would be restored twice. Make a full \
                 backup (-F); what is before can be restored (-D)",
                shown(file.to_string())
            ),
        }
    }
}

/// Goes through the files of a chain.
struct Matching {
    /// Where the last part ends.
    pos: u64,
    parts: Vec<ChainPart>,
    flaws: Vec<ChainFlaw>,
    /// Files without a line since the last one with a line, and their lengths.
    waiting: Vec<(DataFile, u64)>,
}

impl Matching {
    fn listed(&mut self, line: &DatLine) {
        let len = self.waiting.iter().fold(0u64, |sum, (_, len)| sum.saturating_add(*len));
        if self.pos.checked_add(len) == Some(line.start) {
            self.accept_waiting();
        } else if self.pos == line.start {
            let covered =
                self.waiting.drain(..).map(|(file, _)| ChainFlaw::Covered { file, by: line.file.clone() });
            self.flaws.extend(covered);
        } else if self.pos < line.start {
            self.waiting.clear();
            self.flaws.push(ChainFlaw::Gap { before: line.file.clone(), end: self.pos, start: line.start });
        } else {
            self.waiting.clear();
            self.flaws.push(ChainFlaw::Overlap { file: line.file.clone(), end: self.pos, start: line.start });
        }
        let DatLine { file, start, end, sum, .. } = line.clone();
        self.parts.push(ChainPart { file, start, end, sum: Some(sum) });
        self.pos = end;
    }

    fn accept_waiting(&mut self) {
        for (file, len) in self.waiting.drain(..) {
            let end = self.pos.saturating_add(len);
            self.flaws.push(ChainFlaw::Unlisted(file.clone()));
            self.parts.push(ChainPart { file, start: self.pos, end, sum: None });
            self.pos = end;
        }
    }
}
