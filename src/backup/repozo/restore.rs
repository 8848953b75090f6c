//! Restores a `Data.fs` from a repository.
//!
//! Sizes, sums and the boundaries of transactions are checked while the bytes pass by, whether asked for or not: a file
//! takes the place of another one only if all is right. Flaws that are known before the first byte end the run before
//! anything is written.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::chain::{Chain, ChainFlaw, ChainPart};
use super::content::{reader, unreadable};
use super::error::{RepozoError, Result};
use super::name::Stamp;
use super::progress::{Listener, Progress};
use super::repository::Repository;
use crate::backup::boundaries::Boundaries;
use crate::backup::copier::{CopyError, RunningSum, copy};
use crate::backup::replace::Replacement;
use crate::base::clock::TimeSource;
use crate::base::fs::with_suffix;
use crate::storage::media::{Access, Appending, Reading, write_whole};

/// What to restore, and to where.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RestoreOptions {
    /// As of this time; compared with the names of files as a text.
    pub date: Option<String>,
    /// `None`: the standard output.
    pub output: Option<PathBuf>,
    /// Every backup must have a sum to compare it with.
    pub with_verify: bool,
}

/// Restores to a file, or to `out`.
pub fn restore(
    repository: &Repository,
    options: &RestoreOptions,
    time: &TimeSource,
    out: &mut (dyn Write + Send),
    listener: &dyn Listener,
) -> Result<()> {
    let when = options.date.clone().unwrap_or_else(|| Stamp::of(time.system_time()).as_str().to_string());
    let chain = Chain::find(repository, &when, listener)?;
    let chain = chain.ok_or_else(|| RepozoError::NoFiles { before: options.date.clone() })?;
    for flaw in &chain.flaws {
        let what = chain.explain(flaw, repository);
        let lacks_sums = matches!(flaw, ChainFlaw::NoDat | ChainFlaw::BadDat(_) | ChainFlaw::Unlisted(_));
        if flaw.breaks_restore() || options.with_verify && lacks_sums {
            return Err(RepozoError::Damaged(what));
        }
        listener.report(Progress::Warning { what: &what });
    }
    let recovery = Recovery { repository, chain: &chain, with_verify: options.with_verify, listener };
    let Some(output) = &options.output else {
        listener.report(Progress::Recovering { to: None });
        recovery.write(out, "the standard output")?;
        return out.flush().map_err(RepozoError::io("writing to the standard output"));
    };
    let replacement = Replacement::begin(repository.media.clone(), output)?;
    listener.report(Progress::Recovering { to: Some(output) });
    let part = replacement.part().to_owned();
    let written = recovery
        .write(&mut Appending::new(replacement.file().clone()), &part.display().to_string())
        .and_then(|()| recovery.copy_index(output, &replacement.part_index()));
    match written {
        Ok(()) => {
            let replaced = replacement.finish()?;
            if let Some(path) = replaced.aside {
                listener.report(Progress::SetAside { path: &path });
            }
            Ok(())
        }
        Err(RepozoError::Damaged(what)) => Err(RepozoError::Damaged(format!(
            "{what}. {} is as it was; {} has what was recovered",
            output.display(),
            part.display()
        ))),
        Err(error) => {
            // Makes room. The first error is the one to report.
            let _ = replacement.give_up();
            Err(error)
        }
    }
}

struct Recovery<'a> {
    repository: &'a Repository,
    chain: &'a Chain,
    with_verify: bool,
    listener: &'a dyn Listener,
}

impl Recovery<'_> {
    /// Writes the content of all parts, and checks it.
    fn write(&self, out: &mut (dyn Write + Send), name: &str) -> Result<()> {
        let mut boundaries = Boundaries::of_file();
        // This sum is only reported.
        let mut total = (!self.with_verify && self.listener.wants_sums()).then(RunningSum::default);
        for part in &self.chain.parts {
            let path = self.repository.join(&part.file);
            let mut content = reader(self.repository, &part.file)?;
            let mut each = |bytes: &[u8]| {
                boundaries.feed(bytes);
                total.iter_mut().for_each(|total| total.update(bytes));
            };
            let copied = copy(&mut *content, Some(out), &mut each).map_err(|error| match error {
                CopyError::Source(error) => unreadable(self.repository, &part.file, error),
                CopyError::Target(error) => RepozoError::Io { doing: format!("writing {name}"), error },
            })?;
            check_part(&path, part, copied.len, &copied.sum.to_string()).map_err(RepozoError::Damaged)?;
            if self.with_verify {
                self.listener.report(Progress::RecoveredChunk {
                    path: &path,
                    len: copied.len,
                    sum: copied.sum,
                });
            }
        }
        let len = boundaries.pos();
        check_boundaries(self.repository, self.chain, &boundaries).map_err(RepozoError::Damaged)?;
        if self.with_verify {
            self.listener.report(Progress::RecoveredTotal { len });
        } else if let Some(total) = total {
            self.listener.report(Progress::Recovered { len, sum: total.sum() });
        }
        Ok(())
    }

    /// The index of the last part saves a scan.
    fn copy_index(&self, output: &Path, to: &Path) -> Result<()> {
        let Some(last) = self.chain.parts.last() else { return Ok(()) };
        let from = self.repository.join(last.file.stamp.index());
        let media = &self.repository.media;
        if !media.exists(&from) {
            self.listener.report(Progress::NoIndex { path: &from });
            return Ok(());
        }
        self.listener.report(Progress::RestoringIndex { from: &from, to: &with_suffix(output, ".index") });
        let doing = || RepozoError::io(format!("copying {} to {}", from.display(), to.display()));
        let mut index = Reading::whole(media.open(&from, Access::Read).map_err(doing())?);
        let copy = |out: &mut dyn Write| io::copy(&mut index, out).map(drop);
        write_whole(&**media, to, &with_suffix(to, ".tmp"), copy).map_err(doing())
    }
}

/// Whether a backup has the size and the sum that its line says.
pub fn check_part(path: &Path, part: &ChainPart, len: u64, sum: &str) -> std::result::Result<(), String> {
    let (path, decompressed) = (path.display(), if part.file.gzip { " (when uncompressed)" } else { "" });
    let expected = part.end - part.start;
    if len != expected {
        return Err(format!("{path} is {len} bytes{decompressed}, should be {expected} bytes"));
    }
    match part.sum.map(|sum| sum.to_string()) {
        Some(listed) if listed != sum => {
            Err(format!("{path} has checksum {sum}{decompressed} instead of {listed}"))
        }
        _ => Ok(()),
    }
}

/// Whether the parts of a chain together are whole transactions, none of them twice.
pub fn check_boundaries(
    repository: &Repository,
    chain: &Chain,
    boundaries: &Boundaries,
) -> std::result::Result<(), String> {
    let shown = |pos: u64| {
        let part = chain.parts.iter().find(|part| part.start <= pos && pos < part.end).or(chain.parts.last());
        part.map_or_else(String::new, |part| repository.join(&part.file).display().to_string())
    };
    if let Some(misfit) = boundaries.misfit() {
        return Err(format!(
            "{} does not fit the backups before it, {misfit}: Data.fs was packed while Python's repozo copied it, or it was damaged. \
             Make a full backup (-F)",
            shown(misfit.pos)
        ));
    }
    // Ranges in the dat file that follow each other have nothing twice: a tid that does not ascend is the database's
    // own.
    let mut parts = chain.parts.iter().skip_while(|part| part.sum.is_some()).map(|part| part.start);
    let doubtful_from = parts.next().unwrap_or(u64::MAX);
    let is_seam =
        |pos: u64| pos >= doubtful_from && chain.parts.iter().any(|part| part.start == pos && pos > 0);
    match boundaries.reductions().iter().find(|reduction| is_seam(reduction.pos)) {
        Some(reduction) => Err(format!(
            "{} begins with transaction {}, which the backups before it have already: a quick backup of Python's repozo has \
             written it again. Make a full backup (-F)",
            shown(reduction.pos),
            reduction.tid
        )),
        None => Ok(()),
    }
}
