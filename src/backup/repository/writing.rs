//! How objects get into a repository: written to `tmp`, made durable, and renamed to the name of their sum.
//!
//! The directories are synced at the end, once each. Nothing refers to an object before that.

use std::collections::BTreeSet;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{BackupError, Result};
use super::object::{ObjectId, ObjectKind, RunningId};
use super::{OBJECTS, Repository, TMP};
use crate::backup::zstd::{ZstdStream, ZstdWriter, zstd_stream};
use crate::base::fs::dir_of;
use crate::storage::media::{Access, Appending, MediaFile};

/// The level of compression: a tenth of the time of the highest, for some percents of the size.
const LEVEL: u32 = 1;
const BUF_LEN: usize = 256 << 10;

/// A run that adds objects.
pub struct Writing<'r> {
    repository: &'r Repository,
    next_name: u64,
    /// Directories that are not durable yet.
    dirs: BTreeSet<PathBuf>,
    /// Bytes of the objects that were added.
    added: u64,
    /// Compresses without threads, little at once.
    is_gentle: bool,
}

/// An object that was written, or was there already.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Written {
    pub id: ObjectId,
    /// Of its content.
    pub len: u64,
}

impl<'r> Writing<'r> {
    /// Removes what a run that was stopped has left in `tmp`.
    pub fn begin(repository: &'r Repository) -> Result<Writing<'r>> {
        let doing = BackupError::io(format!("emptying {}", repository.path.join(TMP).display()));
        empty(repository).map_err(doing)?;
        Ok(Writing { repository, next_name: 0, dirs: BTreeSet::new(), added: 0, is_gentle: false })
    }

    /// Compresses without threads from now on, little at once.
    pub fn be_gentle(&mut self) {
        self.is_gentle = true;
    }

    pub fn repository(&self) -> &'r Repository {
        self.repository
    }

    /// Bytes that were added, as they are on the disk.
    pub fn added(&self) -> u64 {
        self.added
    }

    /// A new name in `tmp`.
    pub fn temporary(&mut self) -> PathBuf {
        self.next_name += 1;
        self.repository.path.join(TMP).join(self.next_name.to_string())
    }

    /// Begins an object. [`Writing::finish`] ends it.
    pub fn object(&mut self, kind: ObjectKind) -> Result<ObjectWriter> {
        let path = self.temporary();
        let doing = || BackupError::io(format!("writing {}", path.display()));
        let file = self.repository.media.open(&path, Access::Truncate).map_err(doing())?;
        let out = BufWriter::with_capacity(BUF_LEN, Appending::new(file.clone()));
        let out = match (kind.is_compressed(), self.is_gentle) {
            (true, true) => Out::ZstdStream(zstd_stream(out, LEVEL).map_err(doing())?),
            (true, false) => Out::Zstd(ZstdWriter::new(out, LEVEL)),
            (false, _) => Out::Plain(out),
        };
        Ok(ObjectWriter { kind, path, file, out, sum: RunningId::default(), len: 0 })
    }

    /// Makes the object durable and gives it its name. If there is one with this sum, the new one is removed.
    pub fn finish(&mut self, object: ObjectWriter) -> Result<Written> {
        let ObjectWriter { kind, path, file, out, sum, len } = object;
        let doing = || BackupError::io(format!("writing {}", path.display()));
        let written = Written { id: sum.id(), len };
        let ended = match out {
            Out::Plain(out) => out.into_inner().map(drop).map_err(io::IntoInnerError::into_error),
            Out::Zstd(out) => out.finish().and_then(|mut out| out.flush()),
            Out::ZstdStream(out) => out.finish().and_then(|mut out| out.flush()),
        };
        ended.map_err(doing())?;
        self.keep(&path, kind, &written.id, &*file)?;
        Ok(written)
    }

    /// As [`Writing::finish`], for a complete file in `tmp`.
    pub fn keep(&mut self, path: &Path, kind: ObjectKind, id: &ObjectId, file: &dyn MediaFile) -> Result<()> {
        let media = &self.repository.media;
        let doing = || BackupError::io(format!("writing {}", path.display()));
        if self.has(kind, id) {
            return media.remove(path).map_err(doing());
        }
        file.sync().map_err(doing())?;
        self.added += file.len().map_err(doing())?;
        let name = self.repository.object_path(kind, id);
        let dir = dir_of(&name);
        if media.create_dir(dir).map_err(doing())? {
            self.dirs.insert(self.repository.path.join(OBJECTS));
        }
        media.rename(path, &name).map_err(doing())?;
        self.dirs.insert(dir.to_owned());
        Ok(())
    }

    /// An object with this content.
    pub fn bytes(&mut self, kind: ObjectKind, bytes: &[u8]) -> Result<Written> {
        let written = Written { id: ObjectId::of(bytes), len: bytes.len() as u64 };
        if self.has(kind, &written.id) {
            return Ok(written);
        }
        let mut object = self.object(kind)?;
        let path = object.path.clone();
        object.write_all(bytes).map_err(BackupError::io(format!("writing {}", path.display())))?;
        self.finish(object)
    }

    /// Whether there is such an object. A run that was stopped may have written it, so it is made durable, too.
    pub fn has(&mut self, kind: ObjectKind, id: &ObjectId) -> bool {
        let has = self.repository.has(kind, id);
        if has {
            self.dirs.insert(dir_of(&self.repository.object_path(kind, id)).to_owned());
        }
        has
    }

    /// Removes what is not complete: the run has failed.
    pub fn give_up_all(&self) {
        // Makes room. The error of before is the one to report, and the next run empties `tmp`.
        let _ = empty(self.repository);
    }

    /// Gives up an object that is not complete.
    pub fn give_up(&self, path: &Path) {
        // Makes room. The error of before is the one to report, and the next run empties `tmp`.
        let _ = self.repository.media.remove(path);
    }

    /// Makes the names of all objects durable.
    pub fn sync(&mut self) -> Result<()> {
        while let Some(dir) = self.dirs.pop_first() {
            let doing = BackupError::io(format!("syncing {}", dir.display()));
            self.repository.media.sync_dir(&dir).map_err(doing)?;
        }
        Ok(())
    }
}

/// Removes all files in `tmp`.
fn empty(repository: &Repository) -> io::Result<()> {
    repository
        .list(TMP)?
        .iter()
        .try_for_each(|name| repository.media.remove(&repository.path.join(TMP).join(name)))
}

/// An object that is being written.
pub struct ObjectWriter {
    kind: ObjectKind,
    path: PathBuf,
    file: Arc<dyn MediaFile>,
    out: Out,
    sum: RunningId,
    len: u64,
}

enum Out {
    Plain(BufWriter<Appending>),
    Zstd(ZstdWriter<BufWriter<Appending>>),
    ZstdStream(ZstdStream<BufWriter<Appending>>),
}

impl ObjectWriter {
    /// Where it is until it has its name.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Write for ObjectWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum.update(bytes);
        self.len += bytes.len() as u64;
        match &mut self.out {
            Out::Plain(out) => out.write_all(bytes),
            Out::Zstd(out) => out.write_all(bytes),
            Out::ZstdStream(out) => out.write_all(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
