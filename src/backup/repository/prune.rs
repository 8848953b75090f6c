//! Removes backups that are not to be kept, and then the objects that no backup needs.
//!
//! Nothing is removed unless the newest backup of each set of databases was read and is whole, and all backups can be
//! read. Backups are removed first, durably: a run that is stopped leaves objects that the next one removes.

use std::collections::{BTreeMap, HashSet};

use super::error::{BackupError, Result};
use super::known::for_each;
use super::manifest::{Segment, Stamp};
use super::object::{ObjectId, ObjectKind};
use super::retention::Retention;
use super::sent::{self, SendProgress};
use super::verify::verify;
use super::{BACKUPS, OBJECTS, ProgressListener, Repository};

/// What was removed, or would be.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Pruned {
    pub kept: Vec<Stamp>,
    pub removed: Vec<Stamp>,
    /// Objects that no backup needs, and their bytes.
    pub objects: u64,
    pub len: u64,
}

/// Removes what is not to be kept. The caller has the lock of the repository. `is_trial`: nothing is removed.
pub fn prune(
    repository: &Repository,
    retention: &Retention,
    is_trial: bool,
    listener: &dyn ProgressListener,
) -> Result<Pruned> {
    let stamps = repository.backups()?;
    let groups = groups(repository, &stamps)?;
    let mut kept: Vec<Stamp> = groups.values().flat_map(|group| retention.kept(group)).cloned().collect();
    kept.sort();
    let removed: Vec<Stamp> = stamps.iter().filter(|stamp| !kept.contains(stamp)).cloned().collect();
    let mut needed = needed(repository, &kept)?;
    add_needed_to_send(repository, &mut needed)?;
    if !is_trial && !removed.is_empty() {
        for newest in groups.values().filter_map(|group| group.last()) {
            verify_newest(repository, newest, listener)?;
        }
        for stamp in &removed {
            let path = repository.manifest_path(stamp);
            let doing = BackupError::io(format!("removing {}", path.display()));
            repository.media.remove(&path).map_err(doing)?;
        }
        let dir = repository.path.join(BACKUPS);
        let doing = BackupError::io(format!("syncing {}", dir.display()));
        repository.media.sync_dir(&dir).map_err(doing)?;
    }
    let (objects, len) = sweep(repository, &needed, is_trial)?;
    Ok(Pruned { kept, removed, objects, len })
}

/// The backups of the same databases belong together: those of others do not take their places.
fn groups(repository: &Repository, stamps: &[Stamp]) -> Result<BTreeMap<Vec<String>, Vec<Stamp>>> {
    let mut groups: BTreeMap<Vec<String>, Vec<Stamp>> = BTreeMap::new();
    for stamp in stamps {
        let manifest = repository.manifest(stamp).map_err(|error| unknown(stamp, error))?;
        let mut names: Vec<String> = manifest.databases.into_iter().map(|database| database.name).collect();
        names.sort();
        groups.entry(names).or_default().push(stamp.clone());
    }
    Ok(groups)
}

/// It is unknown what a damaged backup needs.
fn unknown(stamp: &Stamp, error: BackupError) -> BackupError {
    match error {
        BackupError::Damaged(what) => BackupError::Damaged(format!(
            "nothing was removed, because it is unknown what backup {stamp} needs: {what}. Remove its file in {BACKUPS} \
             if it is given up"
        )),
        error => error,
    }
}

fn verify_newest(repository: &Repository, newest: &Stamp, listener: &dyn ProgressListener) -> Result<()> {
    let verified = verify(repository, std::slice::from_ref(newest), listener)?;
    match verified.findings.first() {
        Some((_, what)) => Err(BackupError::Damaged(format!(
            "nothing was removed, because the newest backup {newest} is damaged: {what}. Make a new one"
        ))),
        None => Ok(()),
    }
}

/// The first 8 bytes of the sums of what these backups need. An object that begins alike stays, too.
fn needed(repository: &Repository, stamps: &[Stamp]) -> Result<HashSet<u64>> {
    let mut needed = HashSet::new();
    for stamp in stamps {
        let added = repository.manifest(stamp).and_then(|manifest| {
            manifest.segments().try_for_each(|it| add_needed(repository, it, &mut needed))
        });
        added.map_err(|error| unknown(stamp, error))?;
    }
    Ok(needed)
}

/// A backup that is being sent is read without a lock, and may have been replaced or removed. The lists of blobs of the
/// last one that has arrived say which blobs need not be sent again.
fn add_needed_to_send(repository: &Repository, needed: &mut HashSet<u64>) -> Result<()> {
    for (progress, sent) in sent::all(repository)? {
        for segment in sent.manifest.segments() {
            match progress {
                SendProgress::Arrived => needed.extend(segment.blobs.list.map(|list| list.short())),
                SendProgress::UnderWay => match add_needed(repository, segment, needed) {
                    // What was begun may be of a server that has ended long ago.
                    Err(BackupError::Damaged(_)) => {}
                    other => other?,
                },
            }
        }
    }
    Ok(())
}

fn add_needed(repository: &Repository, segment: &Segment, needed: &mut HashSet<u64>) -> Result<()> {
    needed.extend([segment.data.short(), segment.pointers.short()]);
    let Some(list) = segment.blobs.list else { return Ok(()) };
    if needed.insert(list.short()) {
        for_each(repository, segment, &mut |(_, content)| {
            needed.extend(content.map(|content| content.id.short()));
            Ok(())
        })?;
    }
    Ok(())
}

/// Removes the objects that are not needed. Returns how many there are, and their bytes.
fn sweep(repository: &Repository, needed: &HashSet<u64>, is_trial: bool) -> Result<(u64, u64)> {
    let doing = || BackupError::io(format!("removing from {}", repository.path.join(OBJECTS).display()));
    let (mut objects, mut len) = (0, 0);
    for name in repository.list(OBJECTS).map_err(doing())? {
        let below = format!("{OBJECTS}/{name}");
        for object in repository.list(&below).map_err(doing())? {
            let is_unneeded = |(_, id): &(ObjectKind, ObjectId)| !needed.contains(&id.short());
            if ObjectKind::of_name(&object).as_ref().is_some_and(is_unneeded) {
                let path = repository.path.join(&below).join(&object);
                objects += 1;
                len += repository.media.identity(&path).map_err(doing())?.len;
                if !is_trial {
                    repository.media.remove(&path).map_err(doing())?;
                }
            }
        }
    }
    Ok((objects, len))
}
