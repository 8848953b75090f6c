//! What an open does with a file that is not as this server left it, and the note that the open begins.

#![cfg_attr(not(test), deny(clippy::cast_possible_truncation))]

use std::sync::Arc;

use log::{error, info, warn};

use super::familiar::{self, Familiarity, OID_STRIDE};
use super::log::{Log, TARGET};
use super::media::MediaFile;
use super::note_file::NoteFile;
use super::open_read::Found;
use super::options::FileStorageOptions;
use super::recover;
use super::tail_note::{About, State, TailNote};
use super::{Oids, ours};
use crate::base::fs::{dir_of, with_suffix};
use crate::base::ids::{Oid, Tid};
use crate::storage::{Result, StorageError};

/// In seconds. A last transaction that is further in the future than this is a sign of a wrong clock.
const FUTURE_MAX: f64 = 30.0 * 60.0;

/// If the file is not as it was left: logs it, and appends the marker if clients must notice. Returns the oid after
/// which new oids begin.
pub fn mark_if_unfamiliar(
    options: &FileStorageOptions,
    file: &dyn MediaFile,
    note: Option<&TailNote>,
    found: &mut Found,
) -> Result<Oid> {
    let marks = [note.map(|note| note.oid_mark), found.oid_mark, found.index.max_oid()];
    let mut last_oid = marks.into_iter().flatten().max().unwrap_or(Oid::ZERO);
    let familiarity = &found.familiarity;
    if options.read_only || !(familiarity.needs_stride() || familiarity.needs_marker()) {
        return Ok(last_oid);
    }
    if familiarity.needs_stride() {
        last_oid = Oid(last_oid.0.saturating_add(OID_STRIDE).min(Oid::MAX.0));
    }
    let path = options.path.display();
    if !found.familiarity.needs_marker() {
        info!(
            target: TARGET,
            "{path} was last written by another program, or comes from elsewhere: new object ids follow 0x{last_oid}"
        );
        return Ok(last_oid);
    }
    // Later than everything that clients have seen, and than the file.
    let noted = note.map_or(Tid::ZERO, |note| {
        note.synced_tid.max(note.about.as_ref().map_or(Tid::ZERO, |about| about.seen))
    });
    let seen = noted.max(found.max_tid);
    let tid = options.clock.now().later_than(seen);
    match familiar::append_marker(file, found.end, tid) {
        Ok(end) => (found.end, found.last_tid, found.max_tid) = (end, tid, tid),
        Err(error) => {
            // Clients with lost transactions cannot connect then, which does no harm; the others are served.
            error!(
                target: TARGET,
                "{path} is not as it was left, and the empty transaction that tells clients so cannot be written: {error}. \
                 Clients that know later transactions cannot connect until it is written. Make room, and restart the server"
            );
            found.is_to_be_judged_again = true;
            // Removes the part of the marker that was written.
            recover::cut(file, &options.path, found.end)?;
            return Ok(last_oid);
        }
    }
    let what_follows = format!(
        "An empty transaction {tid} was added, so that clients do not go on with states that are lost, and new object ids \
         follow 0x{last_oid}"
    );
    match &found.familiarity {
        Familiarity::Other(what) => warn!(
            target: TARGET,
            "{path} is not as it was left: {what}. {what_follows}. If it was restored from a backup, nothing need be done; \
             if not, look for the file that it replaced"
        ),
        Familiarity::Shortened => {
            info!(target: TARGET, "{path}: a pack has dropped the last transactions. {what_follows}")
        }
        _ => info!(target: TARGET, "{path} was copied, moved or touched since it was left. {what_follows}"),
    }
    Ok(last_oid)
}

/// Logs it if the last transaction is later than now.
pub fn warn_of_future(options: &FileStorageOptions, last: Tid) {
    let now = options.clock.now();
    if last > now {
        let path = options.path.display();
        let seconds = last.to_unix() - now.to_unix();
        if seconds > FUTURE_MAX {
            crate::critical!(target: TARGET, "{path} Database records {seconds:.0} seconds in the future");
        } else {
            warn!(target: TARGET, "{path} Database records {seconds:.0} seconds in the future");
        }
    }
}

/// The state of the oids, and the note that this process keeps. `cuts`: those of the note before.
pub fn oids_and_note(
    options: &FileStorageOptions,
    file: &Arc<dyn MediaFile>,
    last: Oid,
    found: &Found,
    cuts: u32,
) -> Result<(Oids, Option<NoteFile>)> {
    let FileStorageOptions { path, media, .. } = options;
    let oids = Oids { last: last.0, mark: last.0 };
    if options.read_only || found.is_to_be_judged_again {
        return Ok((oids, None));
    }
    let log = Log::new(path.clone(), file.clone(), found.end);
    let about = familiar::about_log(&**media, &log, found.last_tid, found.last_tid, State::Open);
    let about = About { cuts, ..about };
    match NoteFile::create(&**media, path, about, last, media.now().saturating_add(ours::RENEW_FOR)) {
        Ok(note) => Ok((oids, Some(note))),
        Err(error) => {
            let doing = format!("writing {}.tmp", path.display());
            warn!(target: TARGET, "{doing}: {error}. A crash will be harder to recover from");
            // An old note would describe a file without the new transactions, also if a power cut brought it back.
            let _ = media.remove(&with_suffix(path, ".tmp")).and_then(|()| media.sync_dir(dir_of(path)));
            match TailNote::read(&**media, path) {
                None => Ok((oids, None)),
                Some(_) => Err(StorageError::Io { doing, error }),
            }
        }
    }
}
