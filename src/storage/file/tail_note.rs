//! `Data.fs.tmp`: what recovery must know about the end of a file that was not closed.
//!
//! A commit is one write and one sync, so a power cut may leave a transaction whose length has reached the disk but
//! not all of its bytes: blocks of zeros. They cannot be told from zeros that a client stored, so this note keeps a
//! list of the latter (an all-zero block is rare in pickles). It also says up to where the file was certainly
//! synced: damage before that is damage, behind it a torn commit.
//!
//! ```text
//! "runzeo tail note" 16 | start 8 | start_tid 8 | synced 8, inverted 8 | oid_mark 8, inverted 8
//! positions of all-zero blocks, 8 each
//! ```
//!
//! What is written again and again stands twice, the second time with all bits inverted, so that a write that was cut
//! short is noticed.
//!
//! Python opens the same name for its own commits and empties it, so a note never speaks of what Python wrote.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::media::{Access, Media, MediaFile};
use crate::base::bytes::Reader;
use crate::base::fs::{dir_of, with_suffix};
use crate::base::ids::{Oid, Tid};

const MAGIC: &[u8; 16] = b"runzeo tail note";
const START_AT: u64 = 16;
const SYNCED_AT: u64 = 32;
const OID_MARK_AT: u64 = 48;
const HEAD_LEN: usize = 64;
/// More zero blocks than this in one tail are not remembered, and not checked either.
const ZEROS_MAX: usize = 1 << 20;

/// The unit in which a disk may have lost what was written.
pub const BLOCK: u64 = 4096;

/// What an earlier process left.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TailNote {
    /// The file's length when that process opened it, and the last tid then. All before `start` was durable.
    pub start: u64,
    pub start_tid: Tid,
    /// All before this was durable at some later time.
    pub synced: u64,
    /// Oids up to this one may have been given out.
    pub oid_mark: Oid,
    /// Positions of blocks that are rightly all zero, ascending.
    pub zeros: Vec<u64>,
}

impl TailNote {
    /// The note beside the database `path`, if there is one.
    pub fn read(media: &dyn Media, path: &Path) -> Option<TailNote> {
        let file = media.open(&with_suffix(path, ".tmp"), Access::Read).ok()?;
        let len = usize::try_from(file.len().ok()?).ok()?.min(HEAD_LEN + 8 * ZEROS_MAX + 8);
        let mut bytes = vec![0; len];
        let len = file.read_at(&mut bytes, 0).ok()?;
        bytes.truncate(len);
        TailNote::parse(&bytes)
    }

    pub fn parse(bytes: &[u8]) -> Option<TailNote> {
        let mut r = Reader::new(bytes);
        if r.take(MAGIC.len())? != MAGIC {
            return None;
        }
        let (start, start_tid) = (r.u64_be()?, Tid(r.u64_be()?));
        let (synced, synced_again) = (r.u64_be()?, !r.u64_be()?);
        let (mark, mark_again) = (r.u64_be()?, !r.u64_be()?);
        let mut note = TailNote {
            start,
            start_tid,
            synced: if synced == synced_again { synced } else { start },
            // Too high does no harm, but what zeros in place of the second half make of it is no oid.
            oid_mark: Oid([mark, mark_again]
                .into_iter()
                .filter(|&mark| mark <= Oid::MAX.0)
                .max()
                .unwrap_or(0)),
            zeros: Vec::new(),
        };
        while let Some(pos) = r.u64_be() {
            note.zeros.push(pos);
        }
        note.zeros.sort_unstable();
        Some(note)
    }

    /// Damage from here on is a commit that was cut short.
    pub fn suspect_from(&self) -> u64 {
        self.start.max(self.synced)
    }

    /// Whether the list of zero blocks is complete.
    pub fn knows_zeros(&self) -> bool {
        self.zeros.len() <= ZEROS_MAX
    }

    pub fn is_rightly_zero(&self, block: u64) -> bool {
        self.zeros.binary_search(&block).is_ok()
    }
}

/// Keeps the note of this process up to date.
pub struct NoteFile {
    file: Arc<dyn MediaFile>,
    /// Only the thread that appends to the log adds zeros.
    zero_count: AtomicUsize,
    /// Held while the note is written.
    says: Mutex<Says>,
}

/// What the note says.
struct Says {
    synced: u64,
    /// Which file it is about.
    about: FileNo,
}

/// Counts the files that a pack put in the place of the first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FileNo(u64);

impl NoteFile {
    /// Begins a new note and makes it durable.
    pub fn create(
        media: &dyn Media,
        path: &Path,
        start: u64,
        start_tid: Tid,
        oid_mark: Oid,
    ) -> io::Result<NoteFile> {
        let path = with_suffix(path, ".tmp");
        let file = media.open(&path, Access::Truncate)?;
        let mut head = MAGIC.to_vec();
        head.extend_from_slice(&about(start, start_tid, start));
        head.extend_from_slice(&twice(oid_mark.0));
        file.write_at(&head, 0)?;
        file.sync()?;
        media.sync_dir(dir_of(&path))?;
        Ok(NoteFile {
            file,
            zero_count: AtomicUsize::new(0),
            says: Mutex::new(Says { synced: start, about: FileNo(0) }),
        })
    }

    fn says(&self) -> MutexGuard<'_, Says> {
        self.says.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file that is current.
    pub fn file_no(&self) -> FileNo {
        self.says().about
    }

    /// Everything before `end` is durable. Not synced itself: an older note is true as well.
    pub fn set_synced(&self, file: FileNo, end: u64) -> io::Result<()> {
        let mut says = self.says();
        // Two groups may come at once, the later one first; and a pack between them.
        if file == says.about && end > says.synced {
            self.file.write_at(&twice(end), SYNCED_AT)?;
            says.synced = end;
        }
        Ok(())
    }

    /// Another file is about to take the name of this one: until [`NoteFile::restart`] the note speaks of none, but keeps its
    /// mark of object ids. All of both files is durable and nothing is written meanwhile, so there is nothing to tell.
    pub fn suspend(&self) -> io::Result<()> {
        let mut says = self.says();
        says.about.0 += 1;
        says.synced = u64::MAX;
        // No transaction has this tid.
        self.file.write_at(&about(0, Tid(u64::MAX), 0), START_AT)?;
        self.file.sync()
    }

    /// The note speaks of the file that ends at `start`, all of it durable.
    pub fn restart(&self, start: u64, start_tid: Tid) -> io::Result<()> {
        let mut says = self.says();
        self.file.set_len(HEAD_LEN as u64)?;
        self.zero_count.store(0, Ordering::Relaxed);
        self.file.write_at(&about(start, start_tid, start), START_AT)?;
        self.file.sync()?;
        says.synced = start;
        Ok(())
    }

    /// Oids up to this one may be given out. Not synced: it matters when the process dies, less when the machine does.
    pub fn set_oid_mark(&self, oid: Oid) -> io::Result<()> {
        self.file.write_at(&twice(oid.0), OID_MARK_AT)
    }

    /// These blocks, about to be written, are all zero; durable on return.
    pub fn add_zeros(&self, blocks: &[u64]) -> io::Result<()> {
        let count = self.zero_count.load(Ordering::Relaxed);
        if count > ZEROS_MAX {
            return Ok(());
        }
        let bytes: Vec<u8> = blocks.iter().flat_map(|block| block.to_be_bytes()).collect();
        self.file.write_at(&bytes, (HEAD_LEN + 8 * count) as u64)?;
        self.file.sync()?;
        self.zero_count.store(count + blocks.len(), Ordering::Relaxed);
        Ok(())
    }

    /// The file was closed in order: nothing to tell.
    pub fn clear(&self) -> io::Result<()> {
        self.file.set_len(0)
    }
}

/// The part that tells of which file the note speaks, and what of it is durable.
fn about(start: u64, start_tid: Tid, synced: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    let (head, tail) = bytes.split_at_mut(16);
    head.copy_from_slice(&(u128::from(start) << 64 | u128::from(start_tid.0)).to_be_bytes());
    tail.copy_from_slice(&twice(synced));
    bytes
}

fn twice(number: u64) -> [u8; 16] {
    let both = u128::from(number) << 64 | u128::from(!number);
    both.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::media::RealMedia;
    use super::*;

    #[test]
    fn says_what_it_was_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("Data.fs");
        assert_eq!(TailNote::read(&RealMedia, &path), None);
        let note = NoteFile::create(&RealMedia, &path, 100, Tid(7), Oid(3)).unwrap();
        note.set_synced(note.file_no(), 500).unwrap();
        note.add_zeros(&[8192, 4096]).unwrap();
        note.set_oid_mark(Oid(1000)).unwrap();
        let read = TailNote::read(&RealMedia, &path).unwrap();
        let zeros = vec![4096, 8192];
        assert_eq!(read, TailNote { start: 100, start_tid: Tid(7), synced: 500, oid_mark: Oid(1000), zeros });
        assert!(read.is_rightly_zero(8192) && !read.is_rightly_zero(0));
        note.file.write_at(&7u64.to_be_bytes(), SYNCED_AT).unwrap();
        assert_eq!(TailNote::read(&RealMedia, &path).unwrap().synced, 100);
        let old = note.file_no();
        note.suspend().unwrap();
        note.set_synced(note.file_no(), 501).unwrap();
        let read = TailNote::read(&RealMedia, &path).unwrap();
        assert_eq!((read.start_tid, read.suspect_from(), read.oid_mark), (Tid(u64::MAX), 0, Oid(1000)));
        note.restart(60, Tid(9)).unwrap();
        note.set_synced(old, 502).unwrap();
        note.set_synced(note.file_no(), 70).unwrap();
        let read = TailNote::read(&RealMedia, &path).unwrap();
        let zeros = Vec::new();
        assert_eq!(read, TailNote { start: 60, start_tid: Tid(9), synced: 70, oid_mark: Oid(1000), zeros });
        note.clear().unwrap();
        assert_eq!(TailNote::read(&RealMedia, &path), None);
    }

    #[test]
    fn anything_else_is_no_note() {
        assert_eq!(TailNote::parse(b""), None);
        assert_eq!(TailNote::parse(b"runzeo tail note\0\0"), None);
        assert_eq!(TailNote::parse(&[0; 100]), None);
    }
}
