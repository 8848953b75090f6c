//! Verifies all chains of a repository, the newest first: sizes, sums, and the boundaries of transactions; or, quick,
//! sizes only. All that is wrong is reported, not only the first.

use super::chain::{Chain, ChainFlaw};
use super::content::{content_len, has_len, reader, unreadable};
use super::error::{RepozoError, Result};
use super::name::Stamp;
use super::progress::{Listener, Progress};
use super::repository::Repository;
use super::restore::{check_boundaries, check_part};
use crate::backup::boundaries::Boundaries;
use crate::backup::copier::{CopyError, copy};
use crate::base::clock::TimeSource;

/// Verifies the repository. The error has a line for each fault.
pub fn verify(
    repository: &Repository,
    quick: bool,
    time: &TimeSource,
    listener: &dyn Listener,
) -> Result<()> {
    let now = Stamp::of(time.system_time());
    let newest = Chain::find(repository, now.as_str(), listener)?;
    let Some(newest) = newest else { return Err(RepozoError::NoFiles { before: None }) };
    let others = Chain::all(repository)?.into_iter().filter(|chain| chain.full != newest.full);
    let others: Vec<Chain> = others.collect();
    let mut wrong = Vec::new();
    for chain in std::iter::once(&newest).chain(&others) {
        verify_chain(repository, chain, quick, listener, &mut wrong)?;
    }
    if wrong.is_empty() { Ok(()) } else { Err(RepozoError::Damaged(wrong.join("\n"))) }
}

fn verify_chain(
    repository: &Repository,
    chain: &Chain,
    quick: bool,
    listener: &dyn Listener,
    wrong: &mut Vec<String>,
) -> Result<()> {
    let before = wrong.len();
    let mut boundaries = Boundaries::of_file();
    for part in &chain.parts {
        let path = repository.join(&part.file);
        listener.report(Progress::Verifying { path: &path });
        let len = part.end - part.start;
        let checked = if quick {
            has_len(repository, &part.file, len).and_then(|fits| {
                let found = if fits { len } else { content_len(repository, &part.file)? };
                let sum = part.sum.map(|sum| sum.to_string()).unwrap_or_default();
                check_part(&path, part, found, &sum).map_err(RepozoError::Damaged)
            })
        } else {
            let mut content = reader(repository, &part.file)?;
            copy(&mut *content, None, &mut |bytes| boundaries.feed(bytes))
                .map_err(|error| match error {
                    CopyError::Source(error) | CopyError::Target(error) => {
                        unreadable(repository, &part.file, error)
                    }
                })
                .and_then(|copied| {
                    let sum = copied.sum.to_string();
                    check_part(&path, part, copied.len, &sum).map_err(RepozoError::Damaged)
                })
        };
        match checked {
            Ok(()) => {}
            Err(RepozoError::Damaged(what)) => wrong.push(what),
            Err(error) => return Err(error),
        }
    }
    for flaw in &chain.flaws {
        let what = chain.explain(flaw, repository);
        match flaw {
            // The lines of a dat file that cannot be read are not known, so each file is without a line.
            ChainFlaw::Unlisted(_) if chain.dat.lines.is_empty() => {}
            flaw if flaw.is_damage() => wrong.push(what),
            _ => listener.report(Progress::Warning { what: &what }),
        }
    }
    // After another fault the boundaries would tell the same again.
    if !quick && wrong.len() == before {
        wrong.extend(check_boundaries(repository, chain, &boundaries).err());
    }
    Ok(())
}
