//! Whether a backup is a full, a delta, or not needed.
//!
//! - By default the whole chain is compared with `Data.fs`, byte by byte. Python's repozo compares sums.
//! - A quick backup compares the last backup only, by its sum in the dat file, and does not read the chain.

use super::chain::Chain;
use super::concatenation::Concatenation;
use super::error::{RepozoError, Result};
use super::progress::{Listener, Progress};
use super::repository::Repository;
use crate::backup::copier::{CopyError, Md5Sum, RunningSum, copy, fill};
use crate::storage::file::snapshot::Snapshot;
use crate::storage::media::Reading;

/// What a backup has to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BackupPlan {
    Nothing,
    /// Everything from here on.
    Delta {
        start: u64,
    },
    Full,
}

const BUF_LEN: usize = 256 * 1024;

/// Compares a chain without flaws with the source.
pub fn plan(
    repository: &Repository,
    chain: &Chain,
    source: &Snapshot,
    quick: bool,
    listener: &dyn Listener,
) -> Result<BackupPlan> {
    let backed_up = chain.end();
    let is_same = if quick {
        if source.len() < backed_up {
            listener.report(Progress::Shrunk);
            return Ok(BackupPlan::Full);
        }
        last_is_in_source(chain, source, listener)?
    } else {
        match compare(repository, chain, source, listener) {
            Ok(is_same) => is_same,
            Err(RepozoError::Damaged(what)) => {
                listener.report(Progress::Warning { what: &what });
                false
            }
            Err(error) => return Err(error),
        }
    };
    if source.end() < backed_up {
        listener.report(Progress::Shrunk);
        return Ok(BackupPlan::Full);
    }
    if !is_same {
        listener.report(Progress::Changed);
        return Ok(BackupPlan::Full);
    }
    // Bytes behind the last whole transaction are none to back up; Python's repozo makes an empty delta of them.
    if source.end() == backed_up {
        listener.report(Progress::NoChanges);
        return Ok(BackupPlan::Nothing);
    }
    listener.report(Progress::DoingDelta { start: backed_up });
    Ok(BackupPlan::Delta { start: backed_up })
}

fn reading(source: &Snapshot) -> impl FnOnce(std::io::Error) -> RepozoError {
    RepozoError::io(format!("reading {}", source.path().display()))
}

/// Whether the source has the bytes of the last backup.
fn last_is_in_source(chain: &Chain, source: &Snapshot, listener: &dyn Listener) -> Result<bool> {
    let Some((last, Some(sum))) = chain.parts.last().map(|part| (part, part.sum)) else { return Ok(false) };
    let mut range = Reading::range(source.file().clone(), last.start, last.end);
    let found = copy(&mut range, None, &mut |_| ()).map_err(|error| match error {
        CopyError::Source(error) | CopyError::Target(error) => reading(source)(error),
    })?;
    let line = chain.dat.lines.iter().find(|line| line.file == last.file);
    let file = line.map_or_else(|| last.file.to_string(), |line| line.path.clone());
    listener.report(Progress::LastBackup { file: &file, sum });
    listener.report(Progress::SourceRange { start: last.start, end: last.end, sum: found.sum });
    Ok(found.sum == sum && found.len == last.end - last.start)
}

/// The sums of both sides; one for both as long as they are the same.
struct Sums {
    repository: RunningSum,
    /// If it differs.
    source: Option<RunningSum>,
}

/// Whether the source begins with the bytes of the chain. Reads on after a difference only for sums that are wanted.
fn compare(
    repository: &Repository,
    chain: &Chain,
    source: &Snapshot,
    listener: &dyn Listener,
) -> Result<bool> {
    let mut sums = listener.wants_sums().then(|| Sums { repository: RunningSum::default(), source: None });
    let mut content = Concatenation::new(repository, &chain.parts);
    let mut range = Reading::range(source.file().clone(), 0, source.len());
    let (mut ours, mut theirs) = (vec![0; BUF_LEN], vec![0; BUF_LEN]);
    let (mut len, mut is_same) = (0, true);
    loop {
        let count = content.fill(&mut ours)?;
        len += count as u64;
        let (ours, theirs) =
            (ours.get(..count).unwrap_or_default(), theirs.get_mut(..count).unwrap_or_default());
        let found = fill(&mut range, theirs).map_err(reading(source))?;
        let theirs = theirs.get(..found).unwrap_or_default();
        let is_equal = ours == theirs;
        if let Some(sums) = &mut sums {
            if !is_equal && sums.source.is_none() {
                sums.source = Some(sums.repository.clone());
            }
            sums.repository.update(ours);
            sums.source.iter_mut().for_each(|sum| sum.update(theirs));
        }
        is_same &= is_equal;
        if count < BUF_LEN || !is_same && sums.is_none() {
            break;
        }
    }
    if let Some(Sums { repository: ours, source: theirs }) = sums {
        let backed_up = theirs.unwrap_or_else(|| ours.clone());
        report_states(len, ours, backed_up, &mut range, source, listener)?;
    }
    Ok(is_same)
}

/// The three lines of Python's repozo. `rest`: the source behind what was backed up.
fn report_states(
    len: u64,
    repository: RunningSum,
    backed_up: RunningSum,
    rest: &mut Reading,
    source: &Snapshot,
    listener: &dyn Listener,
) -> Result<()> {
    let mut whole = backed_up.clone();
    let mut buf = vec![0; BUF_LEN];
    loop {
        let count = fill(rest, &mut buf).map_err(reading(source))?;
        whole.update(buf.get(..count).unwrap_or_default());
        if count < BUF_LEN {
            break;
        }
    }
    let sums: [Md5Sum; 3] = [repository.sum(), whole.sum(), backed_up.sum()];
    let [repository, whole, backed_up] = sums;
    listener.report(Progress::RepositoryState { len, sum: repository });
    listener.report(Progress::SourceState { len: source.len(), sum: whole });
    listener.report(Progress::BackedUpState { len, sum: backed_up });
    Ok(())
}
