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
/// everything up to `now`, the present time. `given`: ids up to this one were given out, says another source.
pub fn remember(media: &Arc<dyn Media>, path: &Path, now: Tid, given: Oid) -> Result<Option<StorageError>> {
    let note = TailNote::read(&**media, path);
    let noted = note.as_ref().map_or(Oid::ZERO, |note| note.oid_mark);
    let about = note.and_then(|note| {
        let about = note.about?;
        Some(About { seen: about.seen.max(note.synced_tid), ..about })
    });
    let left = LeftBehind { about, noted, given, now };
    if !media.exists(path) {
        left.remember_index(media, path)?;
        return Ok(None);
    }
    let old = match Snapshot::open(media, path) {
        Ok(old) => old,
        Err(error) => {
            left.remember_index(media, path)?;
            return Ok(Some(error));
        }
    };
    if old.end() <= MAGIC_LEN {
        left.remember_index(media, path)?;
        return Ok(None);
    }
    let oid_mark = old.oid_mark().unwrap_or(Oid::ZERO).max(noted).max(given);
    let seen = left.about.as_ref().map_or(Tid::ZERO, |about| about.seen);
    if seen >= old.max_tid() && noted >= oid_mark {
        return Ok(None);
    }
    let log = Log::new(path.to_owned(), old.file().clone(), old.end());
    let about = familiar::about_log(&**media, &log, old.last_tid(), old.max_tid().max(seen), State::Closed);
    let changed = old.file().identity().map_or(0, |identity| identity.changed);
    write(media, path, about, oid_mark, changed).map(|()| None)
}

/// What is known without the file.
struct LeftBehind {
    /// What the note tells, if there is one; `seen` is everything that it knows of.
    about: Option<About>,
    /// The mark of the note.
    noted: Oid,
    /// See [`remember`].
    given: Oid,
    now: Tid,
}

impl LeftBehind {
    /// Without a readable file and without a note the saved index tells where the file ended.
    fn remember_index(self, media: &Arc<dyn Media>, path: &Path) -> Result<()> {
        let mark = self.noted.max(self.given);
        if let Some(about) = self.about {
            return if self.noted == mark { Ok(()) } else { write(media, path, about, mark, 0) };
        }
        // An index that cannot be read tells nothing, and the next start says so.
        let saved = index_file::load(&**media, path).ok().flatten().filter(|saved| saved.pos > MAGIC_LEN);
        let (start, indexed) = match &saved {
            Some(saved) => (saved.pos, saved.oid_mark.max(saved.objects().map(|(oid, _)| oid).last())),
            None => (MAGIC_LEN, None),
        };
        let about = About { start, seen: self.now, state: State::Closed, ..About::default() };
        write(media, path, about, mark.max(indexed.unwrap_or(Oid::ZERO)), 0)
    }
}

fn write(media: &Arc<dyn Media>, path: &Path, about: About, oid_mark: Oid, until: u64) -> Result<()> {
    NoteFile::create(&**media, path, about, oid_mark, until)
        .map(drop)
        .map_err(StorageError::io(format!("writing {}.tmp", path.display())))
}
