//! Brings blobs into a repository.
//!
//! A blob's file never changes, so where the repository is on the same disk the object is a second name of it;
//! otherwise a copy. Both are read once, for their sum.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ProgressListener;
use super::blob_list::{BlobEntry, Content, Revision};
use super::error::{BackupError, Result};
use super::known::KnownBlobs;
use super::object::{ObjectKind, RunningId};
use super::writing::Writing;
use crate::base::fs::with_suffix;
use crate::storage::blob::{BlobDir, BlobFile, BlobPin};
use crate::storage::media::{Access, Media};

/// Bytes of a read.
const CHUNK_LEN: usize = 1 << 20;

/// Where the blobs of a database are.
pub struct BlobSource {
    dir: Arc<BlobDir>,
    /// What the last pack has removed is kept there until the next one.
    old: PathBuf,
    media: Arc<dyn Media>,
    _pin: Option<BlobPin>,
}

impl BlobSource {
    /// Opens a blob directory. From here on packs of our server keep the blobs; so this comes before the file of the
    /// database is opened.
    pub fn open(media: &Arc<dyn Media>, path: &Path, listener: &dyn ProgressListener) -> Result<BlobSource> {
        let dir = BlobDir::open_on(media.clone(), path, true)?;
        let pin = dir.pin().unwrap_or_else(|error| {
            let path = path.display();
            listener
                .warning(&format!("{path}: packs cannot be told to keep blobs during the backup: {error}"));
            None
        });
        let old = with_suffix(dir.base(), ".old");
        Ok(BlobSource { dir, old, media: media.clone(), _pin: pin })
    }

    fn find(&self, revision: &Revision) -> Result<Option<BlobFile>> {
        let Revision { oid, tid } = *revision;
        if let Some(file) = self.dir.find(oid, tid)? {
            return Ok(Some(file));
        }
        // A pack may have taken it out, also since the backup began.
        if !self.media.exists(&self.old) {
            return Ok(None);
        }
        Ok(BlobDir::open_on(self.media.clone(), &self.old, true)?.find(oid, tid)?)
    }
}

/// Stores those blobs that are not there yet. `each` hears how many bytes were read.
pub fn store(
    writing: &mut Writing<'_>,
    source: &BlobSource,
    known: &mut KnownBlobs<'_>,
    revisions: &[Revision],
    each: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<Vec<BlobEntry>> {
    let mut entries = Vec::with_capacity(revisions.len());
    for revision in revisions {
        let there = known.content(revision)?.filter(|content| writing.has(ObjectKind::Blob, &content.id));
        let content = match there {
            Some(content) => Some(content),
            None => match source.find(revision)? {
                Some(file) => Some(store_one(writing, &file, each)?),
                None => None,
            },
        };
        entries.push((*revision, content));
    }
    Ok(entries)
}

fn store_one(
    writing: &mut Writing<'_>,
    blob: &BlobFile,
    each: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<Content> {
    if let Some(path) = link(writing, blob) {
        let mut sum = RunningId::default();
        let len = read(blob, &mut |bytes| {
            sum.update(bytes);
            each(bytes.len() as u64)
        })?;
        let content = Content { len, id: sum.id() };
        writing.keep(&path, ObjectKind::Blob, &content.id, &*blob.file)?;
        return Ok(content);
    }
    let mut object = writing.object(ObjectKind::Blob)?;
    let path = object.path().to_owned();
    let len = read(blob, &mut |bytes| {
        object.write_all(bytes).map_err(BackupError::io(format!("writing {}", path.display())))?;
        each(bytes.len() as u64)
    })?;
    Ok(Content { len, id: writing.finish(object)?.id })
}

/// Gives the blob's file a second name in `tmp`. `None`: the file system cannot, or does not allow it.
fn link(writing: &mut Writing<'_>, blob: &BlobFile) -> Option<PathBuf> {
    let path = writing.temporary();
    let media = writing.repository().media.clone();
    media.link(&blob.path, &path).ok()?;
    // Other users may write to the directory of a blob: what was linked must be what was opened.
    let linked = media.open(&path, Access::Read).and_then(|file| file.identity());
    match (linked, blob.file.identity()) {
        (Ok(linked), Ok(opened)) if linked.is_same_file(&opened) => Some(path),
        _ => {
            writing.give_up(&path);
            None
        }
    }
}

/// Calls `each` with all bytes. Returns their number.
fn read(blob: &BlobFile, each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<u64> {
    let mut chunk = vec![0; usize::try_from(blob.len.clamp(1, CHUNK_LEN as u64)).unwrap_or(CHUNK_LEN)];
    let mut pos = 0;
    loop {
        let reading = BackupError::io(format!("reading {}", blob.path.display()));
        let len = blob.read_at(&mut chunk, pos).map_err(reading)?;
        if len == 0 {
            return Ok(pos);
        }
        each(chunk.get(..len).unwrap_or_default())?;
        pos += len as u64;
    }
}
