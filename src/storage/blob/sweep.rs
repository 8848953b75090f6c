//! Removing the blobs of revisions that a pack leaves out of the storage.
//!
//! During the copy the pack reports the revisions that it leaves out. Those of blobs are written to the file
//! `.removed`, in Python's format: the oid in hex if nothing of the object is kept, otherwise oid and tid. Once the
//! packed storage has replaced the old one, the files are removed. If the old storage is kept, they are moved to
//! `DIR.old`, and all others are linked there, so that the old storage and its blobs belong together. Nothing waits for
//! this.
//!
//! Invariant: the list is durable before the packed storage replaces the old one, and stays until all of it is done. So
//! what a crash or an error interrupts is finished at the next start or pack. A power cut may bring back a file whose
//! removal was not durable: it takes space, but no client can read it.

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::sync::Arc;

use log::{info, warn};

use super::dir::BlobDir;
use super::layout::{BLOB_SUFFIX, MARKER};
use super::names::{TARGET, below, exists, make_dirs, remove_if_there};
use super::staged::copy;
use crate::base::fs::{dir_of, with_suffix};
use crate::base::ids::{Oid, Tid};
use crate::base::sync::{Mutex, rank};
use crate::pickle::record::may_be_blob;
use crate::storage::media::{Kind, MediaDir, MediaFile, Readers};
use crate::storage::{Refusal, Removals, Result, StorageError};

const REMOVED: &str = ".removed";
/// Bytes of the list that are written together.
const BUFFER_LEN: usize = 64 << 10;
/// No blob is deeper than this in any layout. Other users may have made any depth of directories.
const LEVELS_MAX: usize = 16;

/// Whether the storage does not have this revision, and never will.
pub type IsGone<'a> = dyn Fn(Oid, Tid) -> Result<bool> + Sync + 'a;

/// The blobs that a pack leaves out.
pub struct Sweep<'a> {
    dir: Arc<BlobDir>,
    keep_old: bool,
    /// Checked again before a file is removed: an object that was garbage may have a new revision.
    is_gone: &'a IsGone<'a>,
    list: Mutex<List, rank::SweepList>,
}

struct List {
    file: Arc<dyn MediaFile>,
    buf: Vec<u8>,
    len: u64,
    /// The packed storage has replaced the old one, or may have: the list stays until all blobs on it are removed.
    is_needed: bool,
}

impl<'a> Sweep<'a> {
    /// Called before a pack. Removes what the last pack kept, unless a backup needs it: then the blobs of both packs
    /// are kept together. `keep_old`: whether the old storage is kept.
    ///
    /// Errors: `Refused` if a backup needs what the last pack has not removed; `Io`.
    pub fn begin(dir: &Arc<BlobDir>, keep_old: bool, is_gone: &'a IsGone<'a>) -> Result<Sweep<'a>> {
        if !dir.is_pinned() {
            dir.remove_old()?;
        }
        // What the last pack could not remove.
        dir.finish_sweep(false, &|oid, tid| Ok(!is_gone(oid, tid)?))?;
        if dir.open_list().map_err(StorageError::io(format!("reading {}", dir.list_path())))?.is_some() {
            return Err(StorageError::Refused {
                what: Refusal::BlobsNotPacked,
                message: format!(
                    "a backup needs blobs in {} that the last pack has taken out: pack when it has ended",
                    dir.base().display()
                ),
            });
        }
        let file = dir.root().and_then(|root| root.create(REMOVED.as_ref(), Readers::Owner));
        let file = file.map_err(StorageError::io(format!("creating {}", dir.list_path())))?;
        let list = Mutex::new(List { file, buf: Vec::new(), len: 0, is_needed: false });
        Ok(Sweep { dir: Arc::clone(dir), keep_old, is_gone, list })
    }
}

impl Removals for Sweep<'_> {
    fn left_out(&self, oid: Oid, tid: Option<Tid>, data: &[u8]) -> Result<()> {
        if !may_be_blob(data) {
            return Ok(());
        }
        let path = tid.map_or_else(|| self.dir.layout_path(oid), |tid| self.dir.below(oid, tid));
        if !self.dir.has(&path) {
            return Ok(());
        }
        let mut list = self.list.lock();
        let tid = tid.map_or_else(String::new, |tid| tid.to_string());
        list.buf.extend_from_slice(format!("{oid}{tid}\n").as_bytes());
        if list.buf.len() > BUFFER_LEN { self.flush(&mut list) } else { Ok(()) }
    }

    fn complete(&self) -> Result<()> {
        let mut list = self.list.lock();
        list.is_needed = true;
        let synced = list.sync().and_then(|()| self.dir.root()?.sync());
        synced.map_err(StorageError::io(format!("writing {}", self.dir.list_path())))
    }

    fn packed(&self) -> Result<()> {
        let mut list = self.list.lock();
        let swept = self.sweep(&list);
        list.is_needed = !matches!(swept, Ok(true));
        swept.map(drop).map_err(|error| {
            let what = "the storage is packed, but some blobs that the pack dropped cannot be removed; the next pack or \
                        start tries again";
            match error {
                StorageError::Io { doing, error } => StorageError::Io { doing: format!("{what}: {doing}"), error },
                other => {
                    StorageError::Refused { what: Refusal::BlobsNotPacked, message: format!("{what}: {other}") }
                }
            }
        })
    }
}

impl Sweep<'_> {
    fn flush(&self, list: &mut List) -> Result<()> {
        list.flush().map_err(StorageError::io(format!("writing {}", self.dir.list_path())))
    }

    /// Returns whether all was done.
    fn sweep(&self, list: &List) -> Result<bool> {
        if !self.keep_old && self.dir.is_pinned() {
            info!(
                target: TARGET,
                "{}: a backup needs the blobs that the pack has taken out; the next pack or start removes them",
                self.dir.base().display()
            );
            return Ok(false);
        }
        let count = self.dir.sweep_listed(&*list.file, self.keep_old, self.is_gone)?;
        info!(target: TARGET, "{}: {count} blobs were {}", self.dir.base().display(), self.dir.fate(self.keep_old));
        Ok(true)
    }

    /// The pack has failed, and the old storage is still the current one.
    pub fn give_up(&self) {
        self.list.lock().is_needed = false;
    }
}

impl Drop for Sweep<'_> {
    fn drop(&mut self) {
        let list = self.list.get_mut();
        if list.is_needed {
            return;
        }
        if let Err(error) = self.dir.root().and_then(|root| root.remove(REMOVED.as_ref())) {
            warn!(target: TARGET, "cannot remove {}: {error}", self.dir.list_path());
        }
    }
}

impl List {
    fn flush(&mut self) -> io::Result<()> {
        self.file.write_at(&self.buf, self.len)?;
        self.len += self.buf.len() as u64;
        self.buf.clear();
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.flush()?;
        self.file.sync()
    }
}

impl BlobDir {
    fn list_path(&self) -> String {
        self.base().join(REMOVED).display().to_string()
    }

    /// The directory for the blobs of the storage before the last pack: its parent, and its name there.
    fn old(&self) -> io::Result<(Arc<dyn MediaDir>, OsString)> {
        let path = with_suffix(self.base(), ".old");
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        Ok((self.media.dir(dir_of(&path))?, name.to_owned()))
    }

    /// What a sweep does with the blobs on its list, for the log.
    fn fate(&self, keep_old: bool) -> String {
        if keep_old { format!("moved to {}.old", self.base().display()) } else { "removed".into() }
    }

    fn make_old(&self) -> io::Result<Arc<dyn MediaDir>> {
        let (above, name) = self.old()?;
        above.create_dir(&name)?;
        above.dir(name.as_ref())
    }

    fn remove_old(&self) -> Result<()> {
        let doing = || StorageError::io(format!("removing {}.old", self.base().display()));
        let (above, name) = self.old().map_err(doing())?;
        if !exists(&*above, &name).map_err(doing())? {
            return Ok(());
        }
        remove_tree(&above, &name, LEVELS_MAX)
    }

    /// The list that a crash or a failure has left.
    fn open_list(&self) -> io::Result<Option<Arc<dyn MediaFile>>> {
        let root = self.root()?;
        let entry = match root.entry(REMOVED.as_ref()) {
            Ok(entry) => entry,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if entry.kind == Kind::Other {
            // The server makes no such entry, and a pack must not fail because of it.
            warn!(target: TARGET, "{} is not a regular file and is removed", self.list_path());
            remove_if_there(&**root, REMOVED.as_ref())?;
            return Ok(None);
        }
        root.read(REMOVED.as_ref()).map(Some)
    }

    /// Finishes what a crash has interrupted: takes out the listed blobs that are not in the storage any more.
    /// `keep_old`: whether the old storage was kept. `is_committed` must be false for all revisions of a removed
    /// object.
    pub(super) fn finish_sweep(
        &self,
        keep_old: bool,
        is_committed: &dyn Fn(Oid, Tid) -> Result<bool>,
    ) -> Result<()> {
        let doing = || StorageError::io(format!("reading {}", self.list_path()));
        let Some(file) = self.open_list().map_err(doing())? else { return Ok(()) };
        if !keep_old && self.is_pinned() {
            return Ok(());
        }
        let unknown = Cell::new(None);
        let count = self.sweep_listed(&*file, keep_old, &|oid, tid| match is_committed(oid, tid) {
            Ok(is_committed) => Ok(!is_committed),
            // The revision cannot be checked: its blob is kept, and the others are handled.
            Err(error) => {
                unknown.set(Some(error));
                Ok(false)
            }
        })?;
        if count > 0 {
            let (base, fate) = (self.base().display(), self.fate(keep_old));
            info!(target: TARGET, "{base}: {count} blobs that an interrupted pack had dropped were {fate}");
        }
        if let Some(error) = unknown.into_inner() {
            return Err(error);
        }
        let removed = self.root().and_then(|root| remove_if_there(&**root, REMOVED.as_ref()));
        removed.map_err(StorageError::io(format!("removing {}", self.list_path())))
    }

    /// Takes out the blobs on the list. If the old storage is kept, all its blobs come together in the directory beside
    /// it. Returns how many were taken out.
    fn sweep_listed(
        &self,
        list: &dyn MediaFile,
        keep_old: bool,
        is_gone: &dyn Fn(Oid, Tid) -> Result<bool>,
    ) -> Result<u64> {
        let doing = || StorageError::io(format!("sweeping the blobs in {}", self.base().display()));
        let root = self.root().map_err(doing())?;
        let old = if keep_old { Some(self.make_old().map_err(doing())?) } else { None };
        if let Some(old) = &old {
            link_or_copy(&**root, MARKER.as_ref(), &**old).map_err(doing())?;
        }
        let count = self.take_out(list, old.as_ref(), is_gone)?;
        if let Some(old) = &old {
            link_all(root, old, Path::new(""), LEVELS_MAX).map_err(doing())?;
        }
        Ok(count)
    }

    /// Removes the blobs on the list, or moves them to `old`. Returns how many. What fails is passed over, and the
    /// first such error returned in the end.
    fn take_out(
        &self,
        list: &dyn MediaFile,
        old: Option<&Arc<dyn MediaDir>>,
        is_gone: &dyn Fn(Oid, Tid) -> Result<bool>,
    ) -> Result<u64> {
        let (mut pos, mut count, mut bad) = (0, 0, 0);
        let mut failed = None;
        let mut chunk = vec![0; BUFFER_LEN];
        loop {
            let reading = "reading the list of blobs to be removed";
            let len = list.read_at(&mut chunk, pos).map_err(StorageError::io(reading))?;
            let read = chunk.get(..len).unwrap_or_default();
            let Some(end) = read.iter().rposition(|&byte| byte == b'\n') else { break };
            for line in read.get(..end).unwrap_or_default().split(|&byte| byte == b'\n') {
                let Some((oid, tid)) = parse(line) else {
                    bad += 1;
                    continue;
                };
                let tids = match tid {
                    Some(tid) => vec![tid],
                    None => self.revisions(oid),
                };
                for tid in tids {
                    if !is_gone(oid, tid)? {
                        continue;
                    }
                    match self.take_out_one(oid, tid, old) {
                        Ok(taken) => count += u64::from(taken),
                        Err(error) => {
                            let path = self.path(oid, tid);
                            warn!(target: TARGET, "cannot remove {}: {error}", path.display());
                            failed.get_or_insert(StorageError::Io {
                                doing: format!("removing {}", path.display()),
                                error,
                            });
                        }
                    }
                }
            }
            pos += end as u64 + 1;
        }
        if bad > 0 {
            warn!(target: TARGET, "{} has {bad} lines that name no blob; they are ignored", self.list_path());
        }
        failed.map_or(Ok(count), Err)
    }

    /// False: there is no such blob.
    fn take_out_one(&self, oid: Oid, tid: Tid, old: Option<&Arc<dyn MediaDir>>) -> io::Result<bool> {
        let name = OsString::from(self.layout().file_name(oid, tid));
        let taken = self.home(oid).and_then(|home| match old {
            None => home.remove(&name),
            Some(old) => {
                let (to, _) = make_dirs(old, &self.layout_path(oid))?;
                match home.rename(&name, &*to, &name) {
                    // If both names are of one file, because an earlier pack has linked it, nothing was renamed.
                    Ok(()) => remove_if_there(&*home, &name),
                    // A part of the directory is on another disk.
                    Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                        copy(&*home.read(name.as_ref())?, &*to, &name, home.readers()?)?;
                        home.remove(&name)
                    }
                    Err(error) => Err(error),
                }
            }
        });
        match taken {
            Ok(()) => {
                self.remove_empty_above(oid);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes the directories of an object that have become empty, up to the blob directory. A new blob makes them
    /// again.
    pub(super) fn remove_empty_above(&self, oid: Oid) {
        let path = self.layout_path(oid);
        let _ = path.ancestors().try_for_each(|dir| {
            let (Some(above), Some(name)) = (dir.parent(), dir.file_name()) else { return Ok(()) };
            // The first directory that is not empty ends the loop.
            below(self.root()?, above)?.remove_dir(name)
        });
    }
}

fn link_or_copy(from: &dyn MediaDir, name: &OsStr, to: &dyn MediaDir) -> io::Result<()> {
    // A link was made by the administrator, and its target belongs to the old blobs. A copy belongs to this process.
    // The owner of the original does not matter.
    let entry = from.entry(name.as_ref())?;
    if entry.kind == Kind::File {
        let is_linked = || to.entry(name.as_ref()).is_ok_and(|there| there.is_same_file(&entry));
        if from.link(name, to, name).is_ok() || is_linked() {
            return Ok(());
        }
    }
    copy(&*from.read(name.as_ref())?, to, name, from.readers()?)
}

/// Gives all blobs in `from` a second name in the directory `path` below `old`.
fn link_all(
    from: &Arc<dyn MediaDir>,
    old: &Arc<dyn MediaDir>,
    path: &Path,
    levels_left: usize,
) -> io::Result<()> {
    let mut made = None;
    for name in from.list()? {
        let entry = match from.entry(name.as_ref()) {
            // Commits go on during the sweep, so an abort may have removed the entry.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entry => entry?,
        };
        if entry.kind != Kind::Directory && name.as_encoded_bytes().ends_with(BLOB_SUFFIX.as_bytes()) {
            let to = match &made {
                Some(to) => to,
                None => made.insert(make_dirs(old, path)?.0),
            };
            match link_or_copy(&**from, &name, &**to) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => passed_over(from, &name, &error),
                result => result?,
            }
            continue;
        }
        if entry.kind == Kind::File {
            continue;
        }
        let Some(levels_left) = levels_left.checked_sub(1) else { continue };
        let linked =
            from.dir(name.as_ref()).and_then(|below| link_all(&below, old, &path.join(&name), levels_left));
        match linked {
            // An empty directory that another thread has removed, or no directory.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            // A link of another user.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => passed_over(from, &name, &error),
            result => result?,
        }
    }
    Ok(())
}

fn passed_over(dir: &Arc<dyn MediaDir>, name: &OsStr, error: &io::Error) {
    warn!(target: TARGET, "{} is skipped: {error}", dir.path().join(name).display());
}

fn remove_tree(above: &Arc<dyn MediaDir>, name: &OsStr, levels_left: usize) -> Result<()> {
    let path = above.path().join(name);
    let removing = || StorageError::io(format!("removing {}", path.display()));
    let dir = above.dir(name.as_ref()).map_err(removing())?;
    for name in dir.list().map_err(removing())? {
        match dir.entry(name.as_ref()).map_err(removing())?.kind {
            Kind::Directory => {
                let too_deep = || io::Error::other("directories are nested too deeply");
                let levels_left = levels_left.checked_sub(1).ok_or_else(too_deep).map_err(removing())?;
                remove_tree(&dir, &name, levels_left)?;
            }
            _ => dir.remove(&name).map_err(removing())?,
        }
    }
    above.remove_dir(name).map_err(removing())
}

/// 16 hex digits of an oid, optionally followed by 16 of a tid.
fn parse(line: &[u8]) -> Option<(Oid, Option<Tid>)> {
    let number = |digits: &[u8]| u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
    match line.trim_ascii() {
        oid @ [..] if oid.len() == 16 => Some((Oid(number(oid)?), None)),
        both @ [..] if both.len() == 32 => {
            let (oid, tid) = both.split_at(16);
            Some((Oid(number(oid)?), Some(Tid(number(tid)?))))
        }
        _ => None,
    }
}
