//! From a client's bytes, or a file in the shared directory, to a blob that waits for its transaction.
//!
//! Everything that is slow or can fail is done here, before the vote: the data is synced, the directories are made and
//! opened. Finish only has to rename.

use std::ffi::{OsStr, OsString};
use std::io;
use std::sync::Arc;

use log::warn;

use super::dir::{BlobDir, TMP_SUFFIX};
use super::home::Home;
use super::layout::Layout;
use super::names::{TARGET, remove_if_there};
use crate::base::fs::memory_available;
use crate::base::ids::{Oid, Tid};
use crate::base::log_rate::LogRate;
use crate::base::untrusted::{Untrusted, one_line};
use crate::storage::media::{Kind, MediaDir, MediaFile, Readers};
use crate::storage::{Refusal, Result, StorageError};

/// Bytes between two hints to the system to begin writing, so that the final sync has less to write.
const WRITE_BACK_LEN: u64 = 2 << 20;
/// Bytes of one write. It costs the file system half of what single chunks of a client cost, which begin and end in the
/// middle of pages; the additional copy costs less than that.
const WRITE_LEN: usize = 256 << 10;
/// A blob up to this length stays in the system's cache in any case. A blob that was just stored is often read next,
/// for example to make a picture smaller.
const CACHED_MIN: u64 = 64 << 20;
/// A longer blob stays too, up to this part (1/n) of the available memory. Beyond that it would displace other data,
/// and its first part would be gone before the last is written.
const CACHED_PART: u64 = 4;
/// If a blob does not stay, each part leaves the cache this many bytes after it was written.
const UNCACHED_BEHIND: u64 = 16 << 20;

/// Log lines that clients can cause at any rate.
static REFUSED_NAMES: LogRate = LogRate::new("bad names to storeBlobShared", 60, 60);
static REFUSED_FILES: LogRate = LogRate::new("files that storeBlobShared does not take", 60, 60);
/// Upper bound on the bytes of a message about a file.
const MESSAGE_MAX: usize = 1000;

/// A blob that is being received.
pub struct Upload {
    blob: StagedBlob,
    file: Arc<dyn MediaFile>,
    /// Bytes that were received and not yet written, less than [`WRITE_LEN`].
    gathered: Vec<u8>,
    /// Bytes that were written.
    len: u64,
    /// The system was asked to write everything before this to the disk.
    written_back: u64,
    /// Everything before this was removed from the cache.
    forgotten: u64,
    /// A longer blob does not stay in the cache. Determined once the blob is longer than [`CACHED_MIN`].
    cached_max: Option<u64>,
}

/// A blob that is complete and durable, but has no final name yet. Dropping this removes its temporary files.
pub struct StagedBlob {
    pub(super) blobs: Arc<BlobDir>,
    /// `None` once it was renamed, or if the next start must find it.
    pub(super) file: Option<Temporary>,
    /// An empty file in `tmp`, which leads the next start to the temporary file in the object's directory.
    leader: Option<Temporary>,
    /// `None` until the object is known.
    pub(super) home: Option<Home>,
}

pub(super) struct Temporary {
    /// `None`: the directory of the object.
    pub(super) dir: Option<Arc<dyn MediaDir>>,
    pub(super) name: OsString,
}

impl Temporary {
    fn in_tmp(tmp: &Arc<dyn MediaDir>, name: OsString) -> Temporary {
        Temporary { dir: Some(Arc::clone(tmp)), name }
    }
}

impl std::fmt::Debug for StagedBlob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("StagedBlob").field(&self.file.as_ref().map(|file| &file.name)).finish()
    }
}

impl BlobDir {
    /// Begins to receive a blob.
    pub fn begin(self: &Arc<Self>) -> Result<Upload> {
        let made = self.in_tmp(|tmp| {
            let name = self.temporary(None);
            Ok((tmp.create(&name, Readers::Owner)?, Temporary::in_tmp(tmp, name)))
        });
        let doing = || format!("creating a temporary file in {}", self.base().display());
        let (file, temporary) = made.map_err(|error| StorageError::Io { doing: doing(), error })?;
        let blob = StagedBlob { blobs: Arc::clone(self), file: Some(temporary), leader: None, home: None };
        Ok(Upload {
            blob,
            file,
            gathered: Vec::new(),
            len: 0,
            written_back: 0,
            forgotten: 0,
            cached_max: None,
        })
    }

    /// Takes over the file `name` that a client has put into the directory of `oid`. The name is checked: a client that
    /// does not share the directory must not get access to other files. A cache is not shared.
    pub fn adopt(self: &Arc<Self>, oid: Oid, name: &str) -> Result<StagedBlob> {
        if self.layout() == Layout::Zeocache {
            let message = format!(
                "the blob directory {} is a cache, which clients cannot share",
                self.base().display()
            );
            return Err(StorageError::Refused { what: Refusal::BlobFile, message });
        }
        let bad_name = || {
            if REFUSED_NAMES.admits(None, name) {
                let name = Untrusted(name);
                crate::critical!(target: TARGET, "We're under attack! (bad filename to storeBlobShared, '{name}')");
            }
            StorageError::Refused { what: Refusal::BlobFile, message: name.into() }
        };
        // As Python's check: `….tmp`, or `….tmp` and one more character.
        let mut but_one = name.chars();
        but_one.next_back();
        let is_temporary = name.ends_with(TMP_SUFFIX) || but_one.as_str().ends_with(TMP_SUFFIX);
        if name.contains(['/', '\0']) || !is_temporary {
            return Err(bad_name());
        }
        let below = self.layout_path(oid).join(name);
        let path = self.base().join(&below);
        let take = |tmp: &Arc<dyn MediaDir>| {
            let named = self.temporary(Some(oid));
            let taken = self.root()?.take_over(&below, &**tmp, &named)?;
            Ok((taken, Temporary::in_tmp(tmp, named)))
        };
        let (taken, named) = match self.in_tmp(take) {
            Ok(taken) => taken,
            // A link, a directory, a pipe, or a file with other names. Clients do not make these, but administrators
            // may.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                let message = format!("{}: {error}", path.display());
                if REFUSED_FILES.admits(None, &message) {
                    let message = one_line(MESSAGE_MAX, format_args!("{message}"));
                    log::error!(target: TARGET, "storeBlobShared: the file of a blob is refused: {message}");
                }
                return Err(StorageError::Refused { what: Refusal::BlobFile, message });
            }
            Err(error) => {
                return Err(StorageError::Io { doing: format!("opening {}", path.display()), error });
            }
        };
        // From here on an abort removes the file, as in Python.
        let file = if taken.moved { named } else { Temporary { dir: None, name: name.into() } };
        let mut blob = StagedBlob { blobs: Arc::clone(self), file: Some(file), leader: None, home: None };
        let home = Home::keep(self, oid, &taken.dir).map_err(StorageError::io("taking over a blob"))?;
        blob.home = Some(home);
        let doing = || StorageError::io("taking over a blob");
        taken.file.sync().map_err(doing())?;
        // The client may have made the directories just before.
        self.sync_above(oid).map_err(doing())?;
        Ok(blob)
    }

    /// A second name for the blob that `oid` had in transaction `from`, for undo. Shares the data with it.
    pub fn again(self: &Arc<Self>, oid: Oid, from: Tid) -> Result<StagedBlob> {
        self.again_from(self, oid, from)
    }

    /// As [`BlobDir::again`], for a blob of the directory `source`.
    pub(crate) fn again_from(self: &Arc<Self>, source: &BlobDir, oid: Oid, from: Tid) -> Result<StagedBlob> {
        let path = source.path(oid, from);
        let name = OsString::from(source.layout().file_name(oid, from));
        let doing = || StorageError::io(format!("copying {}", path.display()));
        let found = source.home(oid).and_then(|home| Ok((home.entry(name.as_ref())?, home)));
        let (entry, from_home) = match found {
            Ok(found) => found,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Err(StorageError::NoBlob { oid, serial: from, path });
            }
            Err(error) => return Err(doing()(error)),
        };
        let home = match std::ptr::eq(&**self, source) {
            true => Arc::clone(&from_home),
            false => {
                let (home, is_new) = self.make_home(oid).map_err(doing())?;
                if is_new {
                    self.sync_above(oid).map_err(doing())?;
                }
                home
            }
        };
        let made = self.in_tmp(|tmp| {
            let named = self.temporary(Some(oid));
            let mut blob = StagedBlob { blobs: Arc::clone(self), file: None, leader: None, home: None };
            blob.home = Some(Home::keep(self, oid, &home)?);
            let is_beside = home.is_on_disk_of(&**tmp);
            if !is_beside {
                tmp.create(&named, Readers::Owner)?;
                blob.leader = Some(Temporary::in_tmp(tmp, named.clone()));
            }
            let dir = if is_beside { tmp } else { &home };
            blob.file = Some(Temporary { dir: is_beside.then(|| Arc::clone(tmp)), name: named.clone() });
            // The target of a link is copied, because `link` would give the link itself another name.
            if entry.kind != Kind::File || from_home.link(&name, &**dir, &named).is_err() {
                copy(&*from_home.read(name.as_ref())?, &**dir, &named, home.readers()?)?;
            }
            Ok(blob)
        });
        made.map_err(doing())
    }
}

/// Copies a file, durably. `readers`: the permission bits for reading the copy.
pub(super) fn copy(source: &dyn MediaFile, to: &dyn MediaDir, name: &OsStr, readers: u32) -> io::Result<()> {
    let target = to.create(name, Readers::Owner)?;
    let mut buf = vec![0; 1 << 20];
    let mut pos = 0;
    loop {
        let len = source.read_at(&mut buf, pos)?;
        let Some(part) = buf.get(..len).filter(|part| !part.is_empty()) else { break };
        target.write_at(part, pos)?;
        pos += len as u64;
    }
    target.protect(readers)?;
    target.sync()
}

impl Upload {
    /// Appends bytes to the blob.
    pub fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = WRITE_LEN - self.gathered.len();
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.gathered.extend_from_slice(now);
            bytes = later;
            if self.gathered.len() == WRITE_LEN {
                self.write_gathered()?;
            }
        }
        Ok(())
    }

    fn write_gathered(&mut self) -> io::Result<()> {
        self.file.write_at(&self.gathered, self.len)?;
        self.len += self.gathered.len() as u64;
        self.gathered.clear();
        if self.len - self.written_back >= WRITE_BACK_LEN {
            self.file.write_back(self.written_back, self.len - self.written_back);
            self.written_back = self.len;
            if !self.stays_cached() {
                let before = self.len.saturating_sub(UNCACHED_BEHIND);
                self.file.forget(self.forgotten, before - self.forgotten);
                self.forgotten = before;
            }
        }
        Ok(())
    }

    fn stays_cached(&mut self) -> bool {
        let max = self.cached_max.unwrap_or(CACHED_MIN);
        if self.len <= max || self.cached_max.is_some() {
            return self.len <= max;
        }
        self.len <= *self.cached_max.insert(cached_max(memory_available()))
    }

    /// Ends the upload: the blob belongs to `oid`. Waits until the data is durable.
    pub fn end(mut self, oid: Oid) -> Result<StagedBlob> {
        self.write_gathered().map_err(StorageError::io("storing a blob"))?;
        let stays_cached = self.stays_cached();
        let Upload { mut blob, file, len, .. } = self;
        let mut end = || {
            let (home, is_new) = blob.blobs.make_home(oid)?;
            blob.seal(&*file, &home, oid)?;
            // Together with the parts that were still being written when they should have been forgotten.
            if !stays_cached {
                file.forget(0, len);
            }
            // After the data: most file systems have made the directories durable with it.
            if is_new { blob.blobs.sync_above(oid) } else { Ok(()) }
        };
        end().map_err(StorageError::io("storing a blob"))?;
        Ok(blob)
    }
}

/// Maximal length in bytes of a blob that stays in the cache.
fn cached_max(available: Option<u64>) -> u64 {
    available.map_or(CACHED_MIN, |memory| CACHED_MIN.max(memory / CACHED_PART))
}

impl StagedBlob {
    /// Gives the file a temporary name that names the object, and the permissions of a committed blob; then waits until
    /// it is durable.
    fn seal(&mut self, file: &dyn MediaFile, home: &Arc<dyn MediaDir>, oid: Oid) -> io::Result<()> {
        self.home = Some(Home::keep(&self.blobs, oid, home)?);
        let Some(Temporary { dir: Some(tmp), name }) = &mut self.file else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let named = self.blobs.temporary(Some(oid));
        tmp.rename(name, &**tmp, &named)?;
        *name = named.clone();
        if home.is_on_disk_of(&**tmp) {
            file.protect(home.readers()?)?;
            return file.sync();
        }
        // Done here, so that finish has nothing to copy.
        self.leader = self.file.replace(Temporary { dir: None, name: named.clone() });
        copy(file, &**home, &named, home.readers()?)?;
        file.set_len(0)
    }

    /// Gives the file its final name in the returned directory; the temporary name stays. Not durable before that
    /// directory is synced.
    pub(crate) fn place(&mut self, tid: Tid) -> io::Result<Home> {
        let (Some(file), Some(home)) = (&self.file, &mut self.home) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let to = OsString::from(self.blobs.layout().file_name(home.oid(), tid));
        let is_there =
            |file: &Temporary| file.dir.as_ref().is_some_and(|dir| dir.entry(file.name.as_ref()).is_ok());
        let dir = home.open(&self.blobs);
        let named = match dir.and_then(|dir| give_name(&self.blobs, file, &dir, &to)) {
            // A pack has removed the empty directory.
            Err(error) if error.kind() == io::ErrorKind::NotFound && is_there(file) => {
                give_name(&self.blobs, file, &home.make_again(&self.blobs)?, &to)
            }
            named => named,
        };
        let home = home.clone();
        if named? == Named::Renamed {
            self.file = None;
        }
        Ok(home)
    }

    /// Leaves the temporary file for the next start.
    pub(super) fn leave(&mut self) {
        (self.file, self.leader) = (None, None);
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Named {
    /// The temporary name still exists.
    Also,
    Renamed,
}

fn give_name(blobs: &BlobDir, file: &Temporary, home: &Arc<dyn MediaDir>, to: &OsStr) -> io::Result<Named> {
    let Temporary { dir, name } = file;
    let from = dir.as_ref().unwrap_or(home);
    match from.link(name, &**home, to) {
        Ok(()) => Ok(Named::Also),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(error),
        // A part of the directory that is also mounted elsewhere, on a kernel that does not report this.
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            let aside = blobs.temporary(None);
            let copied = blobs.descriptors.in_need(|| {
                remove_if_there(&**home, &aside)?;
                copy(&*from.read(name.as_ref())?, &**home, &aside, home.readers()?)
            });
            if let Err(error) = copied.and_then(|()| home.rename(&aside, &**home, to)) {
                // This name is never looked up.
                let _ = home.remove(&aside);
                return Err(error);
            }
            Ok(Named::Also)
        }
        // An existing file of the final name is one that no record refers to. Not all file systems have hard links, and
        // files of other users may not always be linked.
        Err(_) => from.rename(name, &**home, to).map(|()| Named::Renamed),
    }
}

impl Drop for StagedBlob {
    fn drop(&mut self) {
        for Temporary { dir, name } in [self.file.take(), self.leader.take()].into_iter().flatten() {
            let dir = match (dir, &self.home) {
                (Some(dir), _) => Ok(dir),
                (None, Some(home)) => home.open(&self.blobs),
                (None, None) => continue,
            };
            if let Err(error) = dir.and_then(|dir| remove_if_there(&*dir, &name)) {
                let base = self.blobs.base().display();
                warn!(target: TARGET, "{base}: cannot remove the temporary file {}: {error}", name.display());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use rustix::io::{Errno, ReadWriteFlags, preadv2};

    use super::*;
    use crate::storage::media::Identity;

    /// Records the calls of the system and keeps no data.
    #[derive(Default)]
    struct Recorded {
        written_to: Mutex<u64>,
        written_back_to: Mutex<u64>,
        forgotten: Mutex<Vec<(u64, u64)>>,
    }

    impl MediaFile for Recorded {
        fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
            Ok(0)
        }

        fn write_at(&self, buf: &[u8], pos: u64) -> io::Result<()> {
            *self.written_to.lock().unwrap() = pos + buf.len() as u64;
            Ok(())
        }

        fn len(&self) -> io::Result<u64> {
            Ok(*self.written_to.lock().unwrap())
        }

        fn set_len(&self, _: u64) -> io::Result<()> {
            Ok(())
        }

        fn sync(&self) -> io::Result<()> {
            *self.written_back_to.lock().unwrap() = *self.written_to.lock().unwrap();
            Ok(())
        }

        fn reserve(&self, _: u64, _: u64) -> io::Result<bool> {
            Ok(false)
        }

        fn identity(&self) -> io::Result<Identity> {
            Ok(Identity::default())
        }

        fn write_back(&self, pos: u64, len: u64) {
            let mut to = self.written_back_to.lock().unwrap();
            assert_eq!(pos, *to);
            *to = pos + len;
        }

        fn forget(&self, pos: u64, len: u64) {
            assert!(pos + len <= *self.written_back_to.lock().unwrap(), "not yet written");
            if len > 0 {
                self.forgotten.lock().unwrap().push((pos, pos + len));
            }
        }
    }

    /// The parts that are forgotten while a blob arrives, and when it is complete, if a blob of `cached_max` bytes may
    /// stay.
    fn forgotten(blob_len: u64, cached_max: Option<u64>) -> [Vec<(u64, u64)>; 2] {
        let dir = tempfile::tempdir().unwrap();
        let blobs = BlobDir::open(&dir.path().join("blobs"), false).unwrap();
        let mut upload = blobs.begin().unwrap();
        let recorded = Arc::new(Recorded::default());
        upload.file = Arc::clone(&recorded) as Arc<dyn MediaFile>;
        upload.cached_max = cached_max;
        let chunk = vec![1; 1 << 20];
        for _ in 0..blob_len >> 20 {
            upload.write(&chunk).unwrap();
        }
        assert_eq!(upload.cached_max.is_some(), cached_max.is_some() || blob_len > CACHED_MIN);
        let arriving = std::mem::take(&mut *recorded.forgotten.lock().unwrap());
        upload.end(Oid(1)).unwrap();
        let at_the_end = std::mem::take(&mut *recorded.forgotten.lock().unwrap());
        [arriving, at_the_end]
    }

    #[test]
    fn blobs_that_would_fill_the_cache_leave_it_as_they_are_written() {
        assert_eq!(forgotten(CACHED_MIN, None), [vec![], vec![]]);
        let max = 32 << 20;
        assert_eq!(forgotten(max, Some(max)), [vec![], vec![]]);
        let len = max + 2 * WRITE_BACK_LEN;
        let before = |len| len - UNCACHED_BEHIND;
        let first = before(max + WRITE_BACK_LEN);
        assert_eq!(forgotten(len, Some(max)), [vec![(0, first), (first, before(len))], vec![(0, len)]]);
    }

    #[test]
    fn how_long_a_blob_may_be_depends_on_the_memory() {
        assert_eq!(cached_max(Some(40 << 30)), 10 << 30);
        assert_eq!(cached_max(Some(100 << 20)), CACHED_MIN);
        assert_eq!(cached_max(None), CACHED_MIN);
        assert!(memory_available().is_some());
    }

    /// Sites often make pictures smaller right after storing them. The first read of a blob of more than 16 MB used to
    /// come from the disk, because its pages had left the cache during the write.
    #[test]
    fn what_was_just_uploaded_is_read_from_memory() {
        // Beside this program, because `TMPDIR` may not be on a disk.
        let program = std::env::current_exe().unwrap();
        let dir = tempfile::tempdir_in(program.parent().unwrap()).unwrap();
        let blobs = BlobDir::open(&dir.path().join("blobs"), false).unwrap();
        let mut upload = blobs.begin().unwrap();
        let chunk = vec![1; 1 << 20];
        let count = 40;
        for _ in 0..count {
            upload.write(&chunk).unwrap();
        }
        let blob = upload.end(Oid(1)).unwrap();
        let file =
            std::fs::File::open(blobs.base().join("tmp").join(&blob.file.as_ref().unwrap().name)).unwrap();
        let mut buf = vec![0; 4096];
        let mut in_memory = 0;
        for page in 0..count << 8 {
            let buf = &mut [io::IoSliceMut::new(&mut buf)];
            match preadv2(&file, buf, page << 12, ReadWriteFlags::NOWAIT) {
                Ok(_) => in_memory += 1,
                Err(Errno::AGAIN) => {}
                Err(Errno::OPNOTSUPP) => return eprintln!("SKIPPED: this file system cannot tell"),
                Err(error) => panic!("{error}"),
            }
        }
        // The system may take the memory at any time.
        assert!(in_memory * 2 > count << 8, "{in_memory} pages of {}", count << 8);
    }
}
