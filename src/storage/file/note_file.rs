//! Keeps `Data.fs.tmp` up to date while the process writes; `tail_note` has its layout.
//!
//! Writes are small and at fixed places. A field that is written during commits is not synced, because an older one is
//! true as well; what must be durable before something else happens is synced.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::media::{Access, Media, MediaFile, Time};
use super::tail_note::{
    ABOUT_AT, About, HEAD_LEN, OID_MARK_AT, SYNCED_AT, State, UNTIL_AT, ZEROS_MAX, head, synced_twice, twice,
};
use crate::base::fs::{dir_of, with_suffix};
use crate::base::ids::{Oid, Tid};
use crate::base::sync::{Mutex, MutexGuard, rank};

/// Keeps the note of this process up to date.
pub struct NoteFile {
    file: Arc<dyn MediaFile>,
    /// Number of listed zero blocks. Only the thread that appends to the log adds to it.
    zero_count: AtomicUsize,
    until: AtomicU64,
    /// Held while the note is written.
    says: Mutex<Says, rank::Note>,
}

/// The content of the note.
struct Says {
    about: About,
    synced: u64,
    oid_mark: Oid,
    /// The file that it is about.
    file_no: FileNo,
}

/// Number of a file: counts the files that packs have put in the place of the first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FileNo(u64);

impl NoteFile {
    /// Begins a new note and makes it durable.
    pub fn create(
        media: &dyn Media,
        path: &Path,
        about: About,
        oid_mark: Oid,
        until: Time,
    ) -> io::Result<NoteFile> {
        let path = with_suffix(path, ".tmp");
        // In the order of `restart`: an older head must never be in front of a list that is cut off already.
        let file = media.open(&path, Access::Create)?;
        write_head(&*file, &about, oid_mark, until)?;
        file.sync()?;
        file.set_len(HEAD_LEN as u64)?;
        media.sync_dir(dir_of(&path))?;
        let synced = about.start;
        Ok(NoteFile {
            file,
            zero_count: AtomicUsize::new(0),
            until: AtomicU64::new(until),
            says: Mutex::new(Says { about, synced, oid_mark, file_no: FileNo(0) }),
        })
    }

    fn says(&self) -> MutexGuard<'_, Says> {
        self.says.lock()
    }

    /// The number of the current file.
    pub fn file_no(&self) -> FileNo {
        self.says().file_no
    }

    /// Records that everything before `end`, where transaction `tid` ends, is durable. Not synced: an older note is
    /// true as well.
    pub fn set_synced(&self, file: FileNo, end: u64, tid: Tid) -> io::Result<()> {
        let mut says = self.says();
        // Two groups may call at the same time, the later one first; a pack may come between them.
        if file == says.file_no && end > says.synced {
            self.file.write_at(&synced_twice(end, tid), SYNCED_AT)?;
            says.synced = end;
        }
        Ok(())
    }

    /// As `set_synced`, but durable on return. Needs no disk space.
    pub fn set_durable(&self, file: FileNo, end: u64, tid: Tid) -> io::Result<()> {
        self.set_synced(file, end, tid)?;
        self.file.sync()
    }

    /// Records that the file will be changed up to this time; durable on return.
    pub fn set_until(&self, until: Time) -> io::Result<()> {
        let _says = self.says();
        self.file.write_at(&twice(until), UNTIL_AT)?;
        self.file.sync()?;
        self.until.store(until, Ordering::Relaxed);
        Ok(())
    }

    pub fn until(&self) -> Time {
        self.until.load(Ordering::Relaxed)
    }

    /// Another file is about to take the name of this one. Until [`NoteFile::restart`] the note describes both files,
    /// which are durable, and nothing is written. `seen`: the last transaction that clients have seen.
    pub fn suspend(&self, seen: Tid) -> io::Result<()> {
        let mut says = self.says();
        says.file_no.0 += 1;
        says.synced = u64::MAX;
        let about =
            About { start: 0, start_tid: Tid::ZERO, seen, state: State::Switching, ..says.about.clone() };
        self.say(&mut says, about)
    }

    /// Makes the note describe the file that ends at `about.start`, all of it durable.
    pub fn restart(&self, about: About, until: Time) -> io::Result<()> {
        let mut says = self.says();
        self.rewrite(&mut says, about, until)
    }

    /// Transactions are about to be taken back: to be called before the file is cut off, and again, with
    /// [`NoteFile::restart_cut`], when it is.
    pub fn will_cut(&self) -> io::Result<()> {
        let mut says = self.says();
        let about = About { cuts: says.about.cuts.wrapping_add(1), ..says.about.clone() };
        self.say(&mut says, about)
    }

    /// As [`NoteFile::restart`], for a file that was cut off.
    pub fn restart_cut(&self, about: About, until: Time) -> io::Result<()> {
        let mut says = self.says();
        says.about.cuts = says.about.cuts.wrapping_add(1);
        self.rewrite(&mut says, about, until)
    }

    /// The last change of this process: `about` is closed, and oids were given out up to `last_oid`.
    pub fn close(&self, about: About, last_oid: Oid, until: Time) -> io::Result<()> {
        let mut says = self.says();
        says.oid_mark = last_oid;
        self.rewrite(&mut says, about, until)
    }

    fn rewrite(&self, says: &mut Says, about: About, until: Time) -> io::Result<()> {
        let about = About { cuts: says.about.cuts, ..about };
        write_head(&*self.file, &about, says.oid_mark, until)?;
        self.file.sync()?;
        says.synced = about.start;
        says.about = about;
        self.until.store(until, Ordering::Relaxed);
        // Last: superfluous blocks on the list do no harm, a missing one does.
        self.file.set_len(HEAD_LEN as u64)?;
        self.zero_count.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Records that a sync has failed.
    pub fn doubt(&self) -> io::Result<()> {
        let mut says = self.says();
        let about = About { state: State::Doubt, ..says.about.clone() };
        self.say(&mut says, about)
    }

    fn say(&self, says: &mut Says, about: About) -> io::Result<()> {
        self.file.write_at(&about.to_bytes(), ABOUT_AT)?;
        self.file.sync()?;
        says.about = about;
        Ok(())
    }

    /// Records that oids up to this one may be given out. Not synced: it matters if the process dies, less if the
    /// machine does.
    pub fn set_oid_mark(&self, oid: Oid) -> io::Result<()> {
        let mut says = self.says();
        self.file.write_at(&twice(oid.0), OID_MARK_AT)?;
        says.oid_mark = oid;
        Ok(())
    }

    /// Lists blocks of zeros that are about to be written; durable on return.
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
}

/// Writes all but the zero blocks. First what follows `about`: it holds for the file of before as well, unless another
/// one was about to take its place, and then nothing but `about` counts.
fn write_head(file: &dyn MediaFile, about: &About, oid_mark: Oid, until: Time) -> io::Result<()> {
    let head = head(about, oid_mark, until);
    let (about, rest) = head.split_at(SYNCED_AT as usize);
    file.write_at(rest, SYNCED_AT)?;
    file.write_at(about, 0)
}

#[cfg(test)]
mod tests {
    use super::super::media::{BOOT_LEN, RealMedia};
    use super::super::tail_note::{TailNote, fingerprint};
    use super::*;

    fn about(start: u64, tid: u64) -> About {
        About {
            start,
            start_tid: Tid(tid),
            seen: Tid(tid),
            file: 5,
            boot: Some([7; BOOT_LEN]),
            digest: fingerprint(b"bytes"),
            state: State::Open,
            cuts: 0,
        }
    }

    #[test]
    fn says_what_it_was_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("Data.fs");
        let read = || TailNote::read(&RealMedia, &path).unwrap();
        assert_eq!(TailNote::read(&RealMedia, &path), None);
        let note = NoteFile::create(&RealMedia, &path, about(100, 7), Oid(3), 50).unwrap();
        let expected = TailNote {
            about: Some(about(100, 7)),
            synced: 100,
            synced_tid: Tid(7),
            oid_mark: Oid(3),
            until: 50,
            zeros: vec![],
        };
        assert_eq!(read(), expected);
        note.set_synced(note.file_no(), 500, Tid(8)).unwrap();
        note.add_zeros(&[8192, 4096]).unwrap();
        note.set_oid_mark(Oid(1000)).unwrap();
        note.set_until(60).unwrap();
        let expected = TailNote {
            synced: 500,
            synced_tid: Tid(8),
            oid_mark: Oid(1000),
            until: 60,
            zeros: vec![4096, 8192],
            ..expected
        };
        assert_eq!(read(), expected);
        assert!(read().is_rightly_zero(8192) && !read().is_rightly_zero(0));
        note.doubt().unwrap();
        assert_eq!(read().about.unwrap().state, State::Doubt);

        note.will_cut().unwrap();
        assert_eq!(read().about.unwrap().cuts, 1);
        note.restart_cut(about(90, 6), 60).unwrap();
        let cut = read().about.unwrap();
        assert_eq!((cut.start, cut.cuts), (90, 2));
        note.set_synced(note.file_no(), 500, Tid(8)).unwrap();
        let old = note.file_no();
        note.suspend(Tid(8)).unwrap();
        note.set_synced(note.file_no(), 501, Tid(9)).unwrap();
        let switching = read();
        assert_eq!((switching.synced, switching.oid_mark), (500, Oid(1000)));
        let said = switching.about.unwrap();
        assert_eq!((said.start, said.seen, said.state), (0, Tid(8), State::Switching));
        note.restart(about(60, 9), 70).unwrap();
        note.set_synced(old, 502, Tid(10)).unwrap();
        note.set_synced(note.file_no(), 70, Tid(11)).unwrap();
        let expected = TailNote {
            about: Some(About { cuts: 2, ..about(60, 9) }),
            synced: 70,
            synced_tid: Tid(11),
            oid_mark: Oid(1000),
            until: 70,
            zeros: vec![],
        };
        assert_eq!(read(), expected);
    }

    /// Takes a number of bytes, and then fails.
    struct Torn {
        bytes: Mutex<Vec<u8>, rank::Note>,
        left: AtomicUsize,
    }

    impl MediaFile for Torn {
        fn write_at(&self, buf: &[u8], pos: u64) -> io::Result<()> {
            let taken = buf.len().min(self.left.load(Ordering::Relaxed));
            let at = pos as usize;
            self.bytes.lock()[at..at + taken].copy_from_slice(&buf[..taken]);
            self.left.fetch_sub(taken, Ordering::Relaxed);
            if taken == buf.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
        }
        fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
            Ok(0)
        }
        fn len(&self) -> io::Result<u64> {
            Ok(HEAD_LEN as u64)
        }
        fn set_len(&self, _: u64) -> io::Result<()> {
            Ok(())
        }
        fn sync(&self) -> io::Result<()> {
            Ok(())
        }
        fn reserve(&self, _: u64, _: u64) -> io::Result<bool> {
            Ok(true)
        }
        fn identity(&self) -> io::Result<super::super::media::Identity> {
            Ok(Default::default())
        }
    }

    /// The note said where the packed file begins, and up to where the file of before was written: the next start took
    /// the packed file for a restored one.
    #[test]
    fn a_torn_head_never_mixes_two_files() {
        let switching = About { state: State::Switching, ..about(0, 0) };
        let mut before = head(&switching, Oid(3), 50);
        before[SYNCED_AT as usize..OID_MARK_AT as usize].copy_from_slice(&synced_twice(500, Tid(8)));
        for taken in 0..=HEAD_LEN {
            let file = Torn { bytes: Mutex::new(before.clone()), left: AtomicUsize::new(taken) };
            let written = write_head(&file, &about(60, 9), Oid(3), 70);
            assert_eq!(written.is_ok(), taken == HEAD_LEN);
            let note = TailNote::parse(&file.bytes.lock()).unwrap();
            if note.about.is_some_and(|about| about.state == State::Open) {
                assert_eq!(note.synced, 60, "after {taken} bytes");
            }
        }
    }

    #[test]
    fn what_was_half_written_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("Data.fs");
        let note = NoteFile::create(&RealMedia, &path, about(100, 7), Oid(3), 50).unwrap();
        note.set_synced(note.file_no(), 500, Tid(8)).unwrap();
        let bytes = std::fs::read(with_suffix(&path, ".tmp")).unwrap();
        for at in 16..HEAD_LEN {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            let read = TailNote::parse(&damaged).unwrap();
            assert_eq!(read.about.is_none(), at < SYNCED_AT as usize, "{at}");
            if (SYNCED_AT..OID_MARK_AT).contains(&(at as u64)) {
                assert_eq!((read.synced, read.synced_tid), (100, Tid(7)), "{at}");
            }
            assert_eq!(read.until == 0, at >= UNTIL_AT as usize, "{at}");
        }
    }
}
