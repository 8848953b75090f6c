//! A file storage as its caretakers see it: which file is served now, and up to where it is durable.
//!
//! Options and their clones share a handle, so that a caretaker of the file need not know the layers around the
//! storage.

use std::fmt;
use std::sync::{Arc, OnceLock, Weak};

use super::media::MediaFile;
use super::volume::Volume;

/// Leads to the storage that was opened with the options that have it.
#[derive(Clone, Default)]
pub struct FileHandle(Arc<OnceLock<Opened>>);

/// What a handle asks the storage.
pub(super) trait Serving: Send + Sync {
    /// Whether the storage is open, and not read-only because of an error.
    fn is_intact(&self) -> bool;
    fn volume(&self) -> Arc<Volume>;
    /// Whether no other program has written into the file of the volume, or put another one in its place.
    fn is_ours(&self, volume: &Volume) -> bool;
}

struct Opened {
    storage: Weak<dyn Serving>,
    /// The file was as this program had left it.
    is_as_left: bool,
}

/// The file that is served at a moment. What is before `end` does not change in it as long as it is current.
pub struct Served {
    storage: Arc<dyn Serving>,
    volume: Arc<Volume>,
    /// Where the last transaction ends that is durable and visible.
    pub end: u64,
    /// See [`Identity::number`](super::media::Identity::number). 0 if it is not known.
    pub number: u64,
}

impl FileHandle {
    pub(super) fn set(&self, storage: Weak<dyn Serving>, is_as_left: bool) {
        // Options that are used twice lead to the first storage.
        let _ = self.0.set(Opened { storage, is_as_left });
    }

    /// What is served now. `None`: the storage is not open, or may not be trusted any more.
    pub fn served(&self) -> Option<Served> {
        let storage = self.0.get()?.storage.upgrade().filter(|storage| storage.is_intact())?;
        let volume = storage.volume();
        let end = volume.published_end();
        let number = volume.log.file().identity().map_or(0, |identity| identity.number());
        Some(Served { storage, volume, end, number })
    }

    /// Whether the file was, when it was opened, the one that this program had served last, and untouched since.
    pub fn was_as_left(&self) -> bool {
        self.0.get().is_some_and(|opened| opened.is_as_left)
    }
}

impl Served {
    /// The file.
    pub fn file(&self) -> Arc<dyn MediaFile> {
        self.volume.log.file_shared()
    }

    /// How often transactions of the file were taken back. What was known before of places behind its end is not so any
    /// more.
    pub fn rewinds(&self) -> u64 {
        self.volume.rewinds
    }

    /// Whether it still is the file that is served: no pack has replaced it, none of it was taken back, and the storage
    /// is open.
    pub fn is_current(&self) -> bool {
        self.storage.is_intact() && Arc::ptr_eq(&self.volume, &self.storage.volume())
    }

    /// Whether no other program has written into it, or put another file in its place, as far as that can be seen. An
    /// error is certain only if no transaction is committed at the same time.
    pub fn is_ours(&self) -> bool {
        self.is_current() && self.storage.is_ours(&self.volume)
    }
}

impl fmt::Debug for FileHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileHandle").finish_non_exhaustive()
    }
}
