//! The last step: the packed file takes the name of the old one, its index replaces the old index.
//!
//! Commits are held, by taking the lead of the group commit, only to copy the last committed transactions, to check
//! that what voted transactions restore (there are hardly ever any) is kept with all that it refers to, for one sync of
//! the new file, two renames, one sync of the directory, and two small syncs of the tail note. Reads go on: a reader
//! that has taken the old volume reads the old file.
//!
//! A crash at any point leaves a whole `Data.fs`, the old one or the new one. Both have every acknowledged transaction,
//! and nothing is committed before all is durable. The saved index is removed before, because an index of the old file
//! might fit the new one by accident.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use log::warn;

use super::super::Core;
use super::super::index::Index;
use super::super::log::{Log, TARGET};
use super::super::media::MediaFile;
use super::super::pins::HeldPins;
use super::super::volume::{Ended, Volume};
use super::copy::Copier;
use super::run::{PackRun, Stop};
use crate::base::clock::Stopwatch;
use crate::base::fs::with_suffix;
use crate::storage::{Refusal, Result, StorageError};

/// The result, for the log.
pub struct Switched {
    pub old_end: u64,
    pub end: u64,
    pub object_count: u64,
    pub held: Duration,
}

/// How long a try waits for votes that point back, and the number of tries: other votes may begin in between.
const VOTE_TIMEOUT: Duration = Duration::from_secs(30);
const TRIES_MAX: usize = 10;

/// What is logged when commits go on: a log line may have to wait.
enum LogLater {
    /// The storage is read-only already.
    Broken(String),
    Warning(String),
}

impl LogLater {
    fn log(self, core: &Core) {
        match self {
            LogLater::Broken(why) => core.set_broken(why),
            LogLater::Warning(what) => warn!(target: TARGET, "{what}"),
        }
    }
}

/// The result of a try.
enum Tried {
    Done(Arc<Volume>, Option<Ended>),
    /// A vote is running, and it is not known yet what it will point to.
    Vote,
}

/// Replaces the old file by the packed one. `keep_old`: the old file gets the name `Data.fs.old`.
pub fn switch(
    pack: &mut PackRun<'_>,
    copier: &mut Copier<'_>,
    keep_old: bool,
) -> std::result::Result<Switched, Stop> {
    let core = pack.core;
    // From here on no other thread saves an index of the old file.
    let saving = core.hold_saver();
    let old = copier.old.clone();
    let switched =
        core.remove_index().map_err(Stop::from).and_then(|()| hold_and_replace(pack, copier, keep_old));
    let (volume, held) = match switched {
        Ok(done) => done,
        Err(error) => {
            // The old file is still the current one.
            if core.broken().is_none() && !core.closed.load(Ordering::Acquire) {
                // Logged if it fails, here and below: the next start then scans more.
                let _ = core.save_index_of(&saving, &old, old.published_end());
            }
            return Err(error);
        }
    };
    let _ = core.save_index_of(&saving, &volume, volume.published_end());
    if keep_old && let Err(error) = old.log.file().set_len(old.log.end()) {
        warn!(target: TARGET, "{}.old: giving back reserved space: {error}", core.path.display());
    }
    Ok(Switched {
        old_end: old.log.end(),
        end: volume.published_end(),
        object_count: volume.index.len(),
        held,
    })
}

/// Returns the new volume, and how long commits were held.
fn hold_and_replace(
    pack: &mut PackRun<'_>,
    copier: &mut Copier<'_>,
    keep_old: bool,
) -> std::result::Result<(Arc<Volume>, Duration), Stop> {
    let core = pack.core;
    for _ in 0..TRIES_MAX {
        // The last moment: what follows takes milliseconds, or waits for votes for at most `VOTE_TIMEOUT`.
        pack.check_wanted()?;
        let mut later = Vec::new();
        let tried = core.lead_alone(|| {
            let begun = Stopwatch::start();
            (replace(pack, copier, keep_old, &mut later), begun.passed())
        });
        later.into_iter().for_each(|line| line.log(core));
        let (tried, held) = tried.ok_or_else(|| core.closed())?;
        match tried? {
            Tried::Done(volume, ended) => {
                if let Some(ended) = ended {
                    warn!(target: TARGET, "{ended}");
                }
                return Ok((volume, held));
            }
            Tried::Vote => core.pins.wait_for_votes(VOTE_TIMEOUT),
        }
    }
    let message = "packing: the file could not be replaced, because transactions that undo or copy were always \
                   between vote and finish. The database is unchanged. Pack again";
    Err(Stop::Failed(StorageError::Refused { what: Refusal::Pack, message: message.into() }))
}

/// One try, while commits are held.
fn replace(
    pack: &mut PackRun<'_>,
    copier: &mut Copier<'_>,
    keep_old: bool,
    later: &mut Vec<LogLater>,
) -> std::result::Result<Tried, Stop> {
    let core = pack.core;
    if let Some(why) = core.broken() {
        return Err(StorageError::Closed(format!("the storage is read-only: {why}")).into());
    }
    let pins = core.pins.hold();
    if pins.any_votes() {
        return Ok(Tried::Vote);
    }
    copier.copy_rest(pack, false)?;
    check_pins(pack, copier, &pins)?;
    copier.sync()?;
    if let Err(why) = core.check_ours(&copier.old) {
        drop(pins);
        core.set_exchanged(&copier.old, &why);
        return Err(StorageError::Closed(format!("packing {}: {why}", core.path.display())).into());
    }
    let (file, end) = copier.finished()?;
    let reserved = core.space.prepare_move(file.clone(), end, growth(&pins)?);
    reserved.map_err(StorageError::io(format!(
        "packing {}: no room for the transactions that have voted",
        core.path.display()
    )))?;
    let moved = take_place(core, copier, file, end, keep_old, later);
    core.space.end_move(moved.is_ok());
    let (volume, ended) = moved?;
    Ok(Tried::Done(volume, ended))
}

/// Makes the packed file the one that is served.
fn take_place(
    core: &Core,
    copier: &mut Copier<'_>,
    file: Arc<dyn MediaFile>,
    end: u64,
    keep_old: bool,
    later: &mut Vec<LogLater>,
) -> Result<(Arc<Volume>, Option<Ended>)> {
    core.keep_oids(&copier.old)?;
    if let Some(note) = &core.note {
        note.suspend(core.last_tid())
            .map_err(StorageError::io(format!("writing {}.tmp", core.path.display())))?;
    }
    if let Err(error) = rename(core, keep_old) {
        // Commits go on with the old file.
        later.extend(tell_note(core, &copier.old));
        return Err(error);
    }
    if let Err(error) = core.dir.sync() {
        // It is unknown which of the two files would have this name after a power cut.
        let why = format!("syncing the directory after a pack failed: {error}");
        let _ = core.broken.set(why.clone());
        later.push(LogLater::Broken(why));
        return Err(StorageError::io(format!("packing {}", core.path.display()))(error));
    }

    let index = std::mem::replace(&mut copier.reach.index, Index::new());
    let log = Log::new(core.path.clone(), file, end);
    let volume = Arc::new(Volume::new(log, index, copier.last_tid, copier.old.rewinds));
    core.writer.lock().end = end;
    let ended = core.volume.replace(volume.clone());
    later.extend(tell_note(core, &volume));
    Ok((volume, ended))
}

/// Upper bound on the bytes by which voted transactions grow if the targets of their back-pointers are packed away.
fn growth(pins: &HeldPins<'_>) -> Result<u64> {
    let mut len = 0;
    pins.for_each(|volume, oid, back| {
        len += volume.log.follow(oid, back)?.map_or(0, |(_, header)| header.data_len);
        Ok(())
    })?;
    Ok(len)
}

/// Checks that all objects are kept to which the revisions refer that voted transactions restore.
fn check_pins(pack: &PackRun<'_>, copier: &Copier<'_>, pins: &HeldPins<'_>) -> std::result::Result<(), Stop> {
    if copier.reach.searched_to.is_none() {
        return Ok(());
    }
    let (mut data, mut oids) = (Vec::new(), Vec::new());
    pins.for_each(|volume, oid, back| pack.restored_references(volume, oid, back, &mut data, &mut oids))?;
    oids.into_iter().try_for_each(|oid| copier.check_kept(oid, None))
}

/// Makes the tail note describe the new file. If that fails, only a crash is harder to recover from: a
/// warning.
fn tell_note(core: &Core, volume: &Volume) -> Option<LogLater> {
    core.tell_note(volume).map(LogLater::Warning)
}

/// Renames `Data.fs.pack` to `Data.fs`. If the file system has hard links, `Data.fs` exists at every moment.
fn rename(core: &Core, keep_old: bool) -> Result<()> {
    let (media, path) = (&core.media, &core.path);
    let (old, pack) = (with_suffix(path, ".old"), with_suffix(path, ".pack"));
    let mut linked = false;
    let mut renamed = || -> io::Result<()> {
        if keep_old {
            match media.link(path, &old) {
                Ok(()) => linked = true,
                Err(error) if cannot_link(&error) => {
                    // After a crash between these two renames, `leftovers` restores the name.
                    media.rename(path, &old)?;
                    return media.rename(&pack, path).inspect_err(|_| _ = media.rename(&old, path));
                }
                Err(error) => return Err(error),
            }
        }
        media.rename(&pack, path)
    };
    renamed().map_err(|error| {
        if linked {
            // It is only a second name. If it cannot be removed, the next pack removes it.
            let _ = media.remove(&old);
        }
        StorageError::io(format!("renaming {} to {}", pack.display(), path.display()))(error)
    })
}

/// The file system has no hard links.
fn cannot_link(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied)
}
