//! `Data.fs.tmp`: what the next start must know about the file that this process writes.
//!
//! Whether the file is the same. If an operator has put an older file in its place, clients may know transactions and
//! object ids that the older file does not have (see `familiar`).
//!
//! What a power cut may have left. A commit is one write and one sync, so after a power cut the length of a transaction
//! may be on the disk without all of its bytes: the missing blocks are zeros. They look like zeros that a client
//! stored, so this note lists the latter (an all-zero block is rare in pickles). It also says up to where the file was
//! certainly synced: damage before that position is damage, damage behind it is a torn commit.
//!
//! ```text
//!   0  magic 16
//!  16  start 8 | start_tid 8 | seen 8 | file 8 | boot 16 | digest 16 | state 1 | 0 7 | check 8
//!  96  synced 8 | synced_tid 8 | both again, inverted 16
//! 128  oid_mark 8 | inverted 8
//! 144  until 8 | inverted 8
//! 160  positions of all-zero blocks, 8 each
//!
//! start, start_tid   where the last transaction ended when the note was begun, and its tid
//! seen               the last transaction that clients have seen: later than start_tid if a pack has dropped it
//! file               inode and time of creation: the number of an inode alone may be reused
//! boot               the run of the operating system; zeros: not known
//! digest             of the DIGEST_LEN bytes before start, or as many as there are
//! state              'o' open, 'c' closed, 'd' a sync has failed, 's' another file is about to take the name
//! check              of the 72 bytes from start to state
//! synced             everything before this is durable; the tid of the transaction that ends there
//! until              the file was not changed by this process after this time
//! ```
//!
//! Fields that are written repeatedly are there twice, the second time with all bits inverted, so that an incomplete
//! write is noticed.
//!
//! Python uses the same name for its own commits and empties the file, so a note never describes what Python wrote.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use sha1::{Digest, Sha1};

use super::media::{Access, BOOT_LEN, Media, MediaFile, Time};
use crate::base::bytes::Reader;
use crate::base::fs::{dir_of, with_suffix};
use crate::base::ids::{Oid, Tid};
use crate::base::sync::{Mutex, MutexGuard, rank};

const MAGIC: &[u8; 16] = b"runzeo note 2\0\0\0";
const ABOUT_AT: u64 = 16;
const ABOUT_LEN: usize = 72;
const CHECK_LEN: usize = 8;
const SYNCED_AT: u64 = 96;
const OID_MARK_AT: u64 = 128;
const UNTIL_AT: u64 = 144;
const HEAD_LEN: usize = 160;
const _: () = assert!(8 + 8 + 8 + 8 + BOOT_LEN + FINGERPRINT_LEN + 1 + 7 == ABOUT_LEN);
const _: () = assert!(MAGIC.len() == ABOUT_AT as usize);
const _: () = assert!(ABOUT_AT as usize + ABOUT_LEN + CHECK_LEN == SYNCED_AT as usize);
const _: () = assert!(SYNCED_AT + 2 * (8 + 8) == OID_MARK_AT);
const _: () = assert!(OID_MARK_AT + 2 * 8 == UNTIL_AT);
const _: () = assert!(UNTIL_AT as usize + 2 * 8 == HEAD_LEN);
/// Up to this many zero blocks of one tail are listed. If there are more, zero blocks are not checked.
const ZEROS_MAX: usize = 1 << 20;
/// The digest covers this many bytes of the file before `start`.
pub const DIGEST_LEN: u64 = 64 << 10;
pub const FINGERPRINT_LEN: usize = 16;

/// The unit of bytes that a power cut may lose.
pub const BLOCK: u64 = 4096;

/// The note of an earlier process.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TailNote {
    /// `None` if that part cannot be read.
    pub about: Option<About>,
    /// Everything before this position was durable; the transaction with tid `synced_tid` ended here.
    pub synced: u64,
    pub synced_tid: Tid,
    /// Oids up to this one may have been given out.
    pub oid_mark: Oid,
    /// 0 if unknown.
    pub until: Time,
    /// Positions of blocks that are all zero and should be, ascending.
    pub zeros: Vec<u64>,
}

/// The file that a note is about.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct About {
    /// Where the last transaction ended, and its tid. Everything before was durable.
    pub start: u64,
    pub start_tid: Tid,
    /// The last transaction that clients have seen.
    pub seen: Tid,
    /// [`Identity::number`](super::media::Identity::number)
    pub file: u64,
    /// `None` if unknown.
    pub boot: Option<[u8; BOOT_LEN]>,
    pub digest: [u8; FINGERPRINT_LEN],
    pub state: State,
}

/// The state of the process when the note was last written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum State {
    #[default]
    Open,
    /// It closed in order.
    Closed,
    /// A sync has failed: the content of the disk is unknown.
    Doubt,
    /// Another file was about to take the name of this one. It has the same transactions, except those that a pack
    /// drops.
    Switching,
}

impl State {
    const ALL: [(State, u8); 4] =
        [(State::Open, b'o'), (State::Closed, b'c'), (State::Doubt, b'd'), (State::Switching, b's')];

    fn byte(self) -> u8 {
        State::ALL.iter().find(|(state, _)| *state == self).map_or(b'o', |(_, byte)| *byte)
    }

    fn of_byte(byte: u8) -> Option<State> {
        State::ALL.iter().find(|(_, known)| *known == byte).map(|(state, _)| *state)
    }
}

impl About {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(ABOUT_LEN + CHECK_LEN);
        for number in [self.start, self.start_tid.0, self.seen.0, self.file] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(&self.boot.unwrap_or_default());
        bytes.extend_from_slice(&self.digest);
        bytes.extend_from_slice(&[self.state.byte(), 0, 0, 0, 0, 0, 0, 0]);
        let check = check(&bytes);
        bytes.extend_from_slice(&check);
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<About> {
        let (about, found) = bytes.split_at_checked(ABOUT_LEN)?;
        if check(about) != found {
            return None;
        }
        let mut r = Reader::new(about);
        let (start, start_tid, seen) = (r.u64_be()?, Tid(r.u64_be()?), Tid(r.u64_be()?));
        let file = r.u64_be()?;
        let boot = *r.take(BOOT_LEN)?.first_chunk()?;
        let digest = *r.take(FINGERPRINT_LEN)?.first_chunk()?;
        let boot = (boot != [0; BOOT_LEN]).then_some(boot);
        Some(About { start, start_tid, seen, file, boot, digest, state: State::of_byte(r.u8()?)? })
    }
}

fn check(bytes: &[u8]) -> [u8; CHECK_LEN] {
    fingerprint(bytes).first_chunk().copied().unwrap_or_default()
}

/// A digest that tells whether bytes are the same.
pub fn fingerprint(bytes: &[u8]) -> [u8; FINGERPRINT_LEN] {
    Sha1::digest(bytes).first_chunk().copied().unwrap_or_default()
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
        let about = About::parse(r.take(ABOUT_LEN + CHECK_LEN)?);
        let synced = [r.u64_be()?, r.u64_be()?];
        let synced_again = [!r.u64_be()?, !r.u64_be()?];
        let (mark, mark_again) = (r.u64_be()?, !r.u64_be()?);
        let (until, until_again) = (r.u64_be()?, !r.u64_be()?);
        let start = about.as_ref().map_or([0, 0], |about| [about.start, about.start_tid.0]);
        let [synced, synced_tid] = if synced == synced_again { synced } else { start };
        let mut note = TailNote {
            about,
            synced,
            synced_tid: Tid(synced_tid),
            // A mark that is too high does no harm. But if zeros are in place of the second half, the result is no oid.
            oid_mark: Oid([mark, mark_again]
                .into_iter()
                .filter(|&mark| mark <= Oid::MAX.0)
                .max()
                .unwrap_or(0)),
            until: if until == until_again { until } else { 0 },
            zeros: Vec::new(),
        };
        while let Some(pos) = r.u64_be() {
            note.zeros.push(pos);
        }
        note.zeros.sort_unstable();
        Some(note)
    }

    /// After a power cut, damage from this position on is an incomplete commit.
    pub fn suspect_from(&self) -> u64 {
        self.synced
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

    /// The last change of this process: `about` is closed, and oids were given out up to `last_oid`.
    pub fn close(&self, about: About, last_oid: Oid, until: Time) -> io::Result<()> {
        let mut says = self.says();
        says.oid_mark = last_oid;
        self.rewrite(&mut says, about, until)
    }

    fn rewrite(&self, says: &mut Says, about: About, until: Time) -> io::Result<()> {
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

/// The content of the note except the zero blocks.
fn head(about: &About, oid_mark: Oid, until: Time) -> Vec<u8> {
    let mut head = MAGIC.to_vec();
    head.extend_from_slice(&about.to_bytes());
    head.extend_from_slice(&synced_twice(about.start, about.start_tid));
    head.extend_from_slice(&twice(oid_mark.0));
    head.extend_from_slice(&twice(until));
    debug_assert_eq!(head.len(), HEAD_LEN);
    head
}

fn synced_twice(end: u64, tid: Tid) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (to, number) in bytes.chunks_exact_mut(8).zip([end, tid.0, !end, !tid.0]) {
        to.copy_from_slice(&number.to_be_bytes());
    }
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

    fn about(start: u64, tid: u64) -> About {
        About {
            start,
            start_tid: Tid(tid),
            seen: Tid(tid),
            file: 5,
            boot: Some([7; BOOT_LEN]),
            digest: fingerprint(b"bytes"),
            state: State::Open,
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
            about: Some(about(60, 9)),
            synced: 70,
            synced_tid: Tid(11),
            oid_mark: Oid(1000),
            until: 70,
            zeros: vec![],
        };
        assert_eq!(read(), expected);
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

    #[test]
    fn anything_else_is_no_note() {
        assert_eq!(TailNote::parse(b""), None);
        assert_eq!(TailNote::parse(MAGIC), None);
        assert_eq!(TailNote::parse(&[0; 1000]), None);
    }
}
