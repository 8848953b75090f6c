//! Whether the file that is served still is the one that has its name.
//!
//! An operator may put a backup in the place of `Data.fs` and restart the server later. Commits in between would go
//! into a file without a name, or over the backup; a pack would rename its own file over it, and a close would cut it
//! to another length. So the file is checked before each group of commits (cheaply: does it have the expected length,
//! has it any name). Every few seconds, and before anything is renamed or cut off, its name is checked too. If the file
//! is not ours any more, the storage becomes read-only, and the other file is not touched.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use log::warn;

use super::handle::Serving;
use super::log::{Log, TARGET};
use super::media::{Access, Time};
use super::note_file::NoteFile;
use super::tail_note::{About, State};
use super::volume::Volume;
use super::{Core, familiar};
use crate::base::ids::Tid;

/// In nanoseconds: the note is renewed this long before its `until`, and for `RENEW_FOR`.
const RENEW_BEFORE: Time = 10_000_000_000;
pub const RENEW_FOR: Time = 60_000_000_000;

impl Serving for Core {
    fn is_intact(&self) -> bool {
        !self.closed.load(Ordering::Acquire) && self.broken().is_none()
    }

    fn volume(&self) -> Arc<Volume> {
        self.volume.get_owned()
    }

    fn is_ours(&self, volume: &Volume) -> bool {
        self.check_ours(volume).is_ok()
    }
}

impl Core {
    /// The checks that need no look-up of the name: one system call.
    pub fn check_handle(&self, volume: &Volume) -> Result<(), String> {
        // A failing query is not taken for an exchange.
        let Ok(identity) = volume.log.file().identity() else { return Ok(()) };
        let end = volume.log.end();
        // Not every file system counts links.
        if identity.links == 0
            && !self.media.identity(&self.path).is_ok_and(|named| named.is_same_file(&identity))
        {
            return Err("it was removed, or another file was put in its place".into());
        }
        if identity.len < end {
            return Err(format!(
                "it is {} bytes long and has to be {end} at least: it was cut off, or overwritten",
                identity.len
            ));
        }
        Ok(())
    }

    /// All checks. An error is certain only for the leader: otherwise the end may move during the check.
    pub fn check_ours(&self, volume: &Volume) -> Result<(), String> {
        self.check_handle(volume)?;
        let (end, last) = (volume.log.end(), volume.end_tid());
        let Ok(identity) = volume.log.file().identity() else { return Ok(()) };
        match self.media.identity(&self.path) {
            Ok(named) if named.is_same_file(&identity) => {}
            // A file system that invents inode numbers may report another one. If the named file has the same last
            // transaction at the same end, it is this file or a copy of it; the check before the next commit decides.
            Ok(named) if self.named_ends_at(named.len, end, last) => {}
            Ok(_) => return Err("another file was put in its place".into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err("it was renamed or removed".into());
            }
            Err(_) => {}
        }
        match volume.log.txn_before(end) {
            Ok(None) => Ok(()),
            Ok(Some((_, header))) if header.tid == last => Ok(()),
            Ok(Some(_)) => {
                Err(format!("transaction {last} does not end at {end} any more: it was overwritten"))
            }
            Err(error) => Err(format!("transaction {last} cannot be found any more: {error}")),
        }
    }

    /// Whether in the named file, which is `len` bytes long, transaction `last` ends at `end`.
    fn named_ends_at(&self, len: u64, end: u64, last: Tid) -> bool {
        let Ok(file) = self.media.open(&self.path, Access::Read) else { return false };
        let named = Log::new(self.path.clone(), file, len).txn_before(end);
        named.is_ok_and(|found| found.map_or(Tid::ZERO, |(_, header)| header.tid) == last)
    }

    /// The check of the file that is repeated every few seconds.
    pub fn watch_file(&self) {
        if self.broken().is_some() || self.check_ours(&self.volume.get_owned()).is_ok() {
            return;
        }
        // A commit or a pack may have changed the file during the check. Packs also hold the saver before they take the
        // lead.
        let _saving = self.hold_saver();
        let checked = self.lead_alone(|| {
            let volume = self.volume.get_owned();
            (self.check_ours(&volume), volume)
        });
        if let Some((Err(why), volume)) = checked {
            self.set_exchanged(&volume, &why);
        }
    }

    /// Makes the storage read-only: the named file is not the one that clients see.
    pub fn set_exchanged(&self, volume: &Volume, why: &str) {
        let path = self.path.display();
        let kept = volume.log.file().way_to().map_or_else(String::new, |way| {
            format!(
                " What was committed before can be read as long as this process runs: copy {} to a safe place \
                 first.",
                way.display()
            )
        });
        let why = format!("the file was exchanged while it was served: {why}");
        if self.broken.set(why.clone()).is_ok() {
            crate::critical!(
                target: TARGET,
                "{path}: {why}. The storage is now read-only, and the file that is there now is left as it is.{kept} Then \
                 restart the server: it will serve the file that then has this name"
            );
        }
    }

    /// Renews the note before the file is changed, if necessary.
    pub fn will_write(&self) {
        let Some(note) = &self.note else { return };
        if self.media.now().saturating_add(RENEW_BEFORE) <= note.until() {
            return;
        }
        if let Err(error) = note.set_until(self.write_until()) {
            let path = self.path.display();
            warn!(target: TARGET, "{path}.tmp: {error}. The next start will take the file for one that was restored");
        }
    }

    /// Makes the note describe this volume, which is durable. If that fails, only a crash is harder to recover from:
    /// the warning is returned.
    pub fn tell_note(&self, volume: &Volume) -> Option<String> {
        self.tell(volume, NoteFile::restart)
    }

    /// As [`Core::tell_note`], after transactions were cut off.
    pub fn tell_note_of_cut(&self, volume: &Volume) -> Option<String> {
        self.tell(volume, NoteFile::restart_cut)
    }

    fn tell(
        &self,
        volume: &Volume,
        tell: impl FnOnce(&NoteFile, About, Time) -> io::Result<()>,
    ) -> Option<String> {
        let note = self.note.as_ref()?;
        let about = familiar::about(&*self.media, volume, self.last_tid(), State::Open);
        let error = tell(note, about, self.write_until()).err()?;
        Some(format!("{}.tmp: {error}. A crash will be harder to recover from", self.path.display()))
    }

    /// The new `until` of a note that is written now.
    pub fn write_until(&self) -> Time {
        self.media.now().saturating_add(RENEW_FOR)
    }

    /// Called after a failed sync: the next start must not trust the end of the file.
    pub fn doubt(&self) {
        if let Some(note) = &self.note
            && let Err(error) = note.doubt()
        {
            warn!(target: TARGET, "{}.tmp: {error}", self.path.display());
        }
    }
}
