//! `Data.fs.tmp`: what the next start must know about the file that this process writes. Here is the layout of the
//! note; `note_file` writes it.
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
//!  16  start 8 | start_tid 8 | seen 8 | file 8 | boot 16 | digest 16 | state 1 | 0 3 | cuts 4 | check 8
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
//! cuts               grows before and after transactions are taken back that a reader of the file may have seen
//! check              of the 72 bytes from start to cuts
//! synced             everything before this is durable; the tid of the transaction that ends there
//! until              the file was not changed by this process after this time
//! ```
//!
//! Fields that are written repeatedly are there twice, the second time with all bits inverted, so that an incomplete
//! write is noticed.
//!
//! Python uses the same name for its own commits and empties the file, so a note never describes what Python wrote.

#![cfg_attr(not(test), deny(clippy::cast_possible_truncation))]

use std::path::Path;

use sha1::{Digest, Sha1};

use super::media::{Access, BOOT_LEN, Media, Time};
use crate::base::bytes::Reader;
use crate::base::fs::with_suffix;
use crate::base::ids::{Oid, Tid};

const MAGIC: &[u8; 16] = b"runzeo note 2\0\0\0";
pub const ABOUT_AT: u64 = 16;
const ABOUT_LEN: usize = 72;
const CHECK_LEN: usize = 8;
pub const SYNCED_AT: u64 = 96;
pub const OID_MARK_AT: u64 = 128;
pub const UNTIL_AT: u64 = 144;
pub const HEAD_LEN: usize = 160;
const _: () = assert!(8 + 8 + 8 + 8 + BOOT_LEN + FINGERPRINT_LEN + 1 + 3 + 4 == ABOUT_LEN);
const _: () = assert!(MAGIC.len() as u64 == ABOUT_AT);
const _: () = assert!(ABOUT_AT + (ABOUT_LEN + CHECK_LEN) as u64 == SYNCED_AT);
const _: () = assert!(SYNCED_AT + 2 * (8 + 8) == OID_MARK_AT);
const _: () = assert!(OID_MARK_AT + 2 * 8 == UNTIL_AT);
const _: () = assert!(UNTIL_AT + 2 * 8 == HEAD_LEN as u64);
/// Up to this many zero blocks of one tail are listed. If there are more, zero blocks are not checked.
pub const ZEROS_MAX: usize = 1 << 20;
/// The digest covers this many bytes of the file before `start`.
pub const DIGEST_LEN: u64 = 64 << 10;
pub const FINGERPRINT_LEN: usize = 16;

/// The unit of bytes that a power cut may lose.
pub const BLOCK: u64 = BLOCK_LEN as u64;
pub const BLOCK_LEN: usize = 4096;

/// The note of an earlier process.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TailNote {
    /// `None` if that part cannot be read.
    pub about: Option<About>,
    /// Everything before this position was durable; the transaction with tid `synced_tid` ended here.
    pub synced: u64,
    /// The last transaction that was durable.
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
    /// See [`cuts`].
    pub cuts: u32,
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
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(ABOUT_LEN + CHECK_LEN);
        for number in [self.start, self.start_tid.0, self.seen.0, self.file] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(&self.boot.unwrap_or_default());
        bytes.extend_from_slice(&self.digest);
        bytes.extend_from_slice(&[self.state.byte(), 0, 0, 0]);
        bytes.extend_from_slice(&self.cuts.to_be_bytes());
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
        let (state, _) = (State::of_byte(r.u8()?)?, r.take(3)?);
        Some(About { start, start_tid, seen, file, boot, digest, state, cuts: r.u32_be()? })
    }
}

fn check(bytes: &[u8]) -> [u8; CHECK_LEN] {
    fingerprint(bytes).first_chunk().copied().unwrap_or_default()
}

/// A digest that tells whether bytes are the same.
pub fn fingerprint(bytes: &[u8]) -> [u8; FINGERPRINT_LEN] {
    Sha1::digest(bytes).first_chunk().copied().unwrap_or_default()
}

/// How often transactions of the database `path` were taken back, so that a program that reads the file while it is
/// served, such as a backup, sees whether what it has read was the file of one moment: ask before the file is opened,
/// and when all is read.
pub fn cuts(media: &dyn Media, path: &Path) -> u32 {
    TailNote::read(media, path).and_then(|note| note.about).map_or(0, |about| about.cuts)
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

    /// From the bytes of the file. `None` if they are no note.
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

    /// Whether the block at this position is on the list of zero blocks.
    pub fn is_rightly_zero(&self, block: u64) -> bool {
        self.zeros.binary_search(&block).is_ok()
    }
}

/// The content of the note except the zero blocks.
pub fn head(about: &About, oid_mark: Oid, until: Time) -> Vec<u8> {
    let mut head = MAGIC.to_vec();
    head.extend_from_slice(&about.to_bytes());
    head.extend_from_slice(&synced_twice(about.start, about.start_tid));
    head.extend_from_slice(&twice(oid_mark.0));
    head.extend_from_slice(&twice(until));
    debug_assert_eq!(head.len(), HEAD_LEN);
    head
}

pub fn synced_twice(end: u64, tid: Tid) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (to, number) in bytes.chunks_exact_mut(8).zip([end, tid.0, !end, !tid.0]) {
        to.copy_from_slice(&number.to_be_bytes());
    }
    bytes
}

pub fn twice(number: u64) -> [u8; 16] {
    let both = u128::from(number) << 64 | u128::from(!number);
    both.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anything_else_is_no_note() {
        assert_eq!(TailNote::parse(b""), None);
        assert_eq!(TailNote::parse(MAGIC), None);
        assert_eq!(TailNote::parse(&[0; 1000]), None);
    }
}
