//! What a pack leaves out of the storage is taken out of the blob directory, too.
//!
//! While the pack copies, it tells which revisions it leaves out; those of blobs are written to `.removed`, as Python does: the
//! oid in hex if nothing is kept of the object, else oid and tid. Once the packed storage has taken the place of the old
//! one, the files are removed; or, if the old storage is kept, moved to `DIR.old`, where all others are linked to, so
//! that the two belong together. Nothing of that holds anything up. What a crash interrupts is finished at the next start.

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use log::{info, warn};

use super::dir::{BlobDir, TARGET};
use super::layout::{BLOB_SUFFIX, MARKER};
use crate::base::fs::{dir_of, with_suffix};
use crate::base::ids::{Oid, Tid};
use crate::pickle::record::may_be_blob;
use crate::storage::media::{Access, MediaFile};
use crate::storage::{Removals, Result, StorageError};

const REMOVED: &str = ".removed";
/// Bytes of the list that are written together.
const BUFFER_LEN: usize = 64 << 10;

/// Whether the storage has no such revision, and never will.
pub type IsGone<'a> = dyn Fn(Oid, Tid) -> Result<bool> + Sync + 'a;

/// The blobs that a pack leaves out.
pub struct Sweep<'a> {
    dir: Arc<BlobDir>,
    keep_old: bool,
    /// Asked once more before a file is taken out: an object that was garbage may have a new revision.
    is_gone: &'a IsGone<'a>,
    list: Mutex<List>,
}

struct List {
    path: PathBuf,
    file: Arc<dyn MediaFile>,
    buf: Vec<u8>,
    len: u64,
    /// The storage is packed, and not all that is listed is taken out: the list stays.
    is_left_to_do: bool,
}

impl<'a> Sweep<'a> {
    /// Before a pack. What the last one kept is removed. `keep_old`: as for the storage itself.
    pub fn begin(dir: &Arc<BlobDir>, keep_old: bool, is_gone: &'a IsGone<'a>) -> Result<Sweep<'a>> {
        let old = dir.old_base();
        if dir.media.exists(&old) {
            dir.remove_tree(&old)?;
        }
        // What the last one could not remove.
        dir.finish_sweep(&|oid, tid| Ok(!is_gone(oid, tid)?))?;
        let path = dir.base().join(REMOVED);
        let file = dir.media.open(&path, Access::Truncate);
        let file = file.map_err(StorageError::io(format!("creating {}", path.display())))?;
        let list = Mutex::new(List { path, file, buf: Vec::new(), len: 0, is_left_to_do: false });
        Ok(Sweep { dir: Arc::clone(dir), keep_old, is_gone, list })
    }
}

impl Removals for Sweep<'_> {
    fn left_out(&self, oid: Oid, tid: Option<Tid>, data: &[u8]) -> Result<()> {
        if !may_be_blob(data) {
            return Ok(());
        }
        let path = tid.map_or_else(|| self.dir.oid_dir(oid), |tid| self.dir.path(oid, tid));
        if !self.dir.media.exists(&path) {
            return Ok(());
        }
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let tid = tid.map_or_else(String::new, |tid| tid.to_string());
        list.buf.extend_from_slice(format!("{oid}{tid}\n").as_bytes());
        if list.buf.len() > BUFFER_LEN { list.flush() } else { Ok(()) }
    }

    fn packed(&self) -> Result<()> {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let swept = self.sweep(&mut list);
        list.is_left_to_do = swept.is_err();
        swept.map_err(|error| {
            let what = "the storage is packed, but not all blobs that it left out are taken out; the next pack or start goes on";
            match error {
                StorageError::Io { doing, error } => StorageError::Io { doing: format!("{what}: {doing}"), error },
                other => {
                    let class = ("ZODB.POSException", "StorageError");
                    StorageError::Refused { class, message: format!("{what}: {other}") }
                }
            }
        })
    }
}

impl Sweep<'_> {
    fn sweep(&self, list: &mut List) -> Result<()> {
        list.flush()?;
        let old = self.keep_old.then(|| self.dir.old_base());
        let doing = || StorageError::io(format!("sweeping the blobs in {}", self.dir.base().display()));
        if let Some(old) = &old {
            self.dir.create_dirs(old).map_err(doing())?;
            self.dir.link_or_copy(&self.dir.base().join(MARKER), &old.join(MARKER)).map_err(doing())?;
        }
        let count = self.dir.take_out(&*list.file, old.as_deref(), self.is_gone)?;
        if let Some(old) = &old {
            self.dir.link_all(self.dir.base(), old).map_err(doing())?;
        }
        let done = if self.keep_old { "moved to the old ones" } else { "removed" };
        info!(target: TARGET, "{}: {count} blobs were {done}", self.dir.base().display());
        Ok(())
    }
}

/// The pack is over, or has failed: then nothing was taken out.
impl Drop for Sweep<'_> {
    fn drop(&mut self) {
        let list = self.list.get_mut().unwrap_or_else(PoisonError::into_inner);
        if list.is_left_to_do {
            return;
        }
        if let Err(error) = self.dir.media.remove(&list.path) {
            warn!(target: TARGET, "cannot remove {}: {error}", list.path.display());
        }
    }
}

impl List {
    fn flush(&mut self) -> Result<()> {
        let written = self.file.write_at(&self.buf, self.len);
        written.map_err(StorageError::io(format!("writing {}", self.path.display())))?;
        self.len += self.buf.len() as u64;
        self.buf.clear();
        Ok(())
    }
}

impl BlobDir {
    /// Where the blobs of the storage before the last pack are.
    pub(super) fn old_base(&self) -> PathBuf {
        with_suffix(self.base(), ".old")
    }

    /// Finishes what a crash has interrupted: takes out what is listed and not in the storage any more. Of an object that is
    /// gone, `is_committed` knows no revision.
    pub(super) fn finish_sweep(&self, is_committed: &dyn Fn(Oid, Tid) -> Result<bool>) -> Result<()> {
        let path = self.base().join(REMOVED);
        if !self.media.exists(&path) {
            return Ok(());
        }
        let doing = || StorageError::io(format!("reading {}", path.display()));
        let file = self.media.open(&path, Access::Read).map_err(doing())?;
        let unknown = Cell::new(None);
        let count = self.take_out(&*file, None, &|oid, tid| match is_committed(oid, tid) {
            Ok(is_committed) => Ok(!is_committed),
            // Damaged: kept, but in no way of the others.
            Err(error) => {
                unknown.set(Some(error));
                Ok(false)
            }
        })?;
        if count > 0 {
            info!(target: TARGET, "{}: removed {count} blobs, as a pack had begun to", self.base().display());
        }
        if let Some(error) = unknown.into_inner() {
            return Err(error);
        }
        self.media.remove(&path).map_err(StorageError::io(format!("removing {}", path.display())))
    }

    /// Removes the blobs on the list, or moves them to `old`; how many.
    fn take_out(
        &self,
        list: &dyn MediaFile,
        old: Option<&Path>,
        is_gone: &dyn Fn(Oid, Tid) -> Result<bool>,
    ) -> Result<u64> {
        let (mut pos, mut count) = (0, 0);
        let mut chunk = vec![0; BUFFER_LEN];
        loop {
            let reading = "reading the list of blobs to be removed";
            let len = list.read_at(&mut chunk, pos).map_err(StorageError::io(reading))?;
            let read = chunk.get(..len).unwrap_or_default();
            let Some(end) = read.iter().rposition(|&byte| byte == b'\n') else { return Ok(count) };
            for line in read.get(..end).unwrap_or_default().split(|&byte| byte == b'\n') {
                let Some((oid, tid)) = parse(line) else {
                    warn!(target: TARGET, "a bad line in {REMOVED}: {}", line.escape_ascii());
                    continue;
                };
                let tids = match tid {
                    Some(tid) => vec![tid],
                    None => self.revisions(oid),
                };
                for tid in tids {
                    if is_gone(oid, tid)? {
                        count += u64::from(self.take_out_one(oid, tid, old));
                    }
                }
            }
            pos += end as u64 + 1;
        }
    }

    fn take_out_one(&self, oid: Oid, tid: Tid, old: Option<&Path>) -> bool {
        let path = self.path(oid, tid);
        let taken = match (old, path.strip_prefix(self.base())) {
            (Some(old), Ok(relative)) => {
                let to = old.join(relative);
                self.create_dirs(dir_of(&to)).and_then(|_| self.media.rename(&path, &to))
            }
            _ => self.media.remove(&path),
        };
        match taken {
            Ok(()) => {
                self.remove_empty_above(&path);
                true
            }
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    warn!(target: TARGET, "cannot remove {}: {error}", path.display());
                }
                false
            }
        }
    }

    /// Removes the directories that have become empty, up to the blob directory. Whoever is about to put a blob there makes
    /// them again.
    pub(super) fn remove_empty_above(&self, path: &Path) {
        let above = path.ancestors().skip(1).take_while(|above| *above != self.base());
        for dir in above.filter(|dir| dir.starts_with(self.base())) {
            if self.media.remove_dir(dir).is_err() {
                return;
            }
        }
    }

    fn link_or_copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.media.link(from, to).or_else(|_| {
            self.copy(from, to)?;
            // It is ours, whoever owns the other one.
            self.media.protect(to, dir_of(from))
        })
    }

    /// Gives all blobs below `from` a second name below `to`.
    fn link_all(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut is_made = false;
        for name in self.media.list(from)? {
            let (path, other) = (from.join(&name), to.join(&name));
            if self.media.is_file(&path) {
                if name.as_encoded_bytes().ends_with(BLOB_SUFFIX.as_bytes()) {
                    if !is_made {
                        self.create_dirs(to)?;
                        is_made = true;
                    }
                    match self.link_or_copy(&path, &other) {
                        // Nobody waits for the sweep: a later pack cannot have removed it, but an abort can.
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                        result => result?,
                    }
                }
            } else {
                match self.link_all(&path, &other) {
                    // An empty directory that another thread has removed, or something that is none.
                    Err(error)
                        if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                    }
                    result => result?,
                }
            }
        }
        Ok(())
    }

    fn remove_tree(&self, dir: &Path) -> Result<()> {
        let removing = |path: &Path| StorageError::io(format!("removing {}", path.display()));
        for name in self.media.list(dir).map_err(removing(dir))? {
            let path = dir.join(name);
            let Err(error) = self.media.remove(&path) else { continue };
            // A directory; else that error is the one to tell.
            match self.media.list(&path) {
                Ok(_) => self.remove_tree(&path)?,
                Err(_) => return Err(removing(&path)(error)),
            }
        }
        self.media.remove_dir(dir).map_err(removing(dir))
    }
}

/// 16 hex digits of an oid, and perhaps as many of a tid.
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
