//! What the next start must know if another file takes the place of a `Data.fs` while no server runs.
//!
//! Clients know the transactions and the object ids of the file that is there now. Our server finds out at its start
//! that the file is another one, if its note (`tail_note`) tells about the former one. If Python's server wrote last,
//! there is no note; if the server was killed, the note may lack the last transactions. So before the file is replaced,
//! a note is written that has all. Python's server ignores it.

use std::path::Path;
use std::sync::Arc;

use super::familiar;
use super::format::MAGIC_LEN;
use super::index_file;
use super::log::Log;
use super::media::Media;
use super::note_file::NoteFile;
use super::snapshot::Snapshot;
use super::tail_note::{About, State, TailNote};
use crate::base::ids::{Oid, Tid};
use crate::storage::{Result, StorageError};

/// Makes sure that a durable note tells about the file `path` as it is now. The caller has the lock of the database. A
/// file that cannot be read is described by the note and the index that it has; the reason is returned then.
///
/// If nothing is left that tells about it, clients may still know what was there. Then the note says that they know
/// everything up to `now`, the present time.
pub fn remember(media: &Arc<dyn Media>, path: &Path, now: Tid) -> Result<Option<StorageError>> {
    let note = TailNote::read(&**media, path);
    let known =
        note.as_ref().and_then(|note| note.about.as_ref().map(|about| about.seen.max(note.synced_tid)));
    let mark = note.as_ref().map(|note| note.oid_mark);
    if !media.exists(path) {
        remember_index(media, path, known, mark, now)?;
        return Ok(None);
    }
    let old = match Snapshot::open(media, path) {
        Ok(old) => old,
        Err(error) => {
            remember_index(media, path, known, mark, now)?;
            return Ok(Some(error));
        }
    };
    if old.end() <= MAGIC_LEN {
        remember_index(media, path, known, mark, now)?;
        return Ok(None);
    }
    let oid_mark = mark.max(old.oid_mark()).unwrap_or(Oid::ZERO);
    if known.is_some_and(|known| known >= old.max_tid()) && mark >= Some(oid_mark) {
        return Ok(None);
    }
    let log = Log::new(path.to_owned(), old.file().clone(), old.end());
    let seen = old.max_tid().max(known.unwrap_or(Tid::ZERO));
    let about = familiar::about_log(&**media, &log, old.last_tid(), seen, State::Closed);
    let changed = old.file().identity().map_or(0, |identity| identity.changed);
    write(media, path, about, oid_mark, changed).map(|()| None)
}

/// Without a readable file and without a note (`known`) the saved index tells where the file ended.
fn remember_index(
    media: &Arc<dyn Media>,
    path: &Path,
    known: Option<Tid>,
    mark: Option<Oid>,
    now: Tid,
) -> Result<()> {
    if known.is_some() {
        return Ok(());
    }
    // An index that cannot be read tells nothing, and the next start says so.
    let saved = index_file::load(&**media, path).ok().flatten().filter(|saved| saved.pos > MAGIC_LEN);
    let (start, mark) = match &saved {
        Some(saved) => (saved.pos, mark.max(saved.oid_mark).max(saved.objects().map(|(oid, _)| oid).last())),
        None => (MAGIC_LEN, mark),
    };
    let about = About { start, seen: now, state: State::Closed, ..About::default() };
    write(media, path, about, mark.unwrap_or(Oid::ZERO), 0)
}

fn write(media: &Arc<dyn Media>, path: &Path, about: About, oid_mark: Oid, until: u64) -> Result<()> {
    NoteFile::create(&**media, path, about, oid_mark, until)
        .map(drop)
        .map_err(StorageError::io(format!("writing {}.tmp", path.display())))
}
