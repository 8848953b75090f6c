//! Brings a chain in order before a backup goes on with it: what a program left that was killed between its two writes.
//!
//! A file without a line gets one if `Data.fs` has its bytes at its place; a file whose bytes another one has as well
//! is removed. The dat file is written first, and the chain means the same before and after each step, so a crash does
//! no harm. Nothing else is removed: if the chain stays wrong, a full backup begins a new one.

use std::io::Read;

use super::chain::{Chain, ChainFlaw, ChainPart};
use super::content::{begins_with, reader, unreadable};
use super::dat::{Dat, DatLine};
use super::error::{RepozoError, Result};
use super::progress::{Listener, Progress};
use super::repository::Repository;
use crate::backup::copier::{Copied, CopyError, Md5Sum, copy};
use crate::storage::file::snapshot::Snapshot;
use crate::storage::media::Reading;

/// Mends the chain. `None`: it cannot go on; a warning says why.
pub fn mend(
    repository: &Repository,
    mut chain: Chain,
    source: &Snapshot,
    listener: &dyn Listener,
) -> Result<Option<Chain>> {
    if chain.flaws.is_empty() {
        return Ok(Some(chain));
    }
    let warn = |what: &str| listener.report(Progress::Warning { what });
    if let Some(flaw) = chain.flaws.iter().find(|f| f.breaks_restore() || matches!(f, ChainFlaw::BadDat(_))) {
        warn(&chain.explain(flaw, repository));
        return Ok(None);
    }
    let mut superfluous = Vec::new();
    for flaw in &chain.flaws {
        if let ChainFlaw::Covered { file, by } = flaw {
            match begins_with(repository, by, file) {
                Ok(true) => superfluous.push(file.clone()),
                Ok(false) | Err(RepozoError::Damaged(_)) => {
                    warn(&chain.explain(flaw, repository));
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
    }
    let mut dat = Dat::default();
    for part in &mut chain.parts {
        let line = chain.dat.lines.iter().find(|line| line.file == part.file);
        let line = match line {
            Some(line) => line.clone(),
            None => match sum_in_source(repository, part, source)? {
                Some(sum) => {
                    part.sum = Some(sum);
                    DatLine::new(&repository.path, &part.file, part.start, part.end, sum)
                }
                None => {
                    warn(&format!(
                        "{} has no line in its .dat file, and {} does not have its bytes at {}",
                        repository.join(&part.file).display(),
                        source.path().display(),
                        part.start
                    ));
                    return Ok(None);
                }
            },
        };
        dat.lines.push(line);
    }
    let flaws = std::mem::take(&mut chain.flaws);
    repository.write_dat(&chain.full.stamp, &dat)?;
    let names = superfluous.iter().flat_map(|file| [file.to_string(), file.stamp.index()]);
    repository.remove(&names.collect::<Vec<_>>())?;
    for flaw in &flaws {
        listener.report(Progress::Mended { what: &chain.explain(flaw, repository) });
    }
    chain.dat = dat;
    Ok(Some(chain))
}

/// The sum of a backup, if the source has the same bytes at its place.
fn sum_in_source(repository: &Repository, part: &ChainPart, source: &Snapshot) -> Result<Option<Md5Sum>> {
    if part.end > source.end() {
        return Ok(None);
    }
    let own = match sum_of(&mut *reader(repository, &part.file)?) {
        Ok(own) => own,
        Err(error) => match unreadable(repository, &part.file, error) {
            RepozoError::Damaged(_) => return Ok(None),
            error => return Err(error),
        },
    };
    let mut range = Reading::range(source.file().clone(), part.start, part.end);
    let doing = RepozoError::io(format!("reading {}", source.path().display()));
    let there = sum_of(&mut range).map_err(doing)?;
    Ok((own == there).then_some(own.sum))
}

fn sum_of(from: &mut dyn Read) -> std::io::Result<Copied> {
    copy(from, None, &mut |_| ()).map_err(|error| match error {
        CopyError::Source(error) | CopyError::Target(error) => error,
    })
}
