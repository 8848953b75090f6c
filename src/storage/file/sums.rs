//! `Data.fs.sums`: checksums of the stretches of a `Data.fs`, so that a later reader sees whether the disk still has
//! what was written.
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 8 | magic |
//! | 8 | 8 | the number of the `Data.fs` (`Identity::number`) |
//! | 16 | 8 | a random number, new in each journal |
//! | 24 | 4 | CRC-32 of the 24 bytes before |
//! | 28 | 4 | zeros |
//! | 32 | 16 each | the stretches: end in the `Data.fs` (8), CRC-32 of its bytes (4), check of the entry (4) |
//!
//! The check of an entry is the CRC-32 of the random number, the start of the stretch, and the 12 bytes before. All
//! numbers are big endian. The first stretch begins behind the magic of the `Data.fs`, each other one where the one
//! before ends. Only bytes that are durable and never change are in a stretch. The journal is not synced: what a power
//! cut takes from it is summed again. A journal is used only for the very file that it was begun for, which this
//! program must have left, untouched since; in all other cases it begins anew, and the open of the storage removes it.

#![cfg_attr(not(test), deny(clippy::cast_possible_truncation, clippy::indexing_slicing))]

use std::io;
use std::path::Path;
use std::sync::Arc;

use log::warn;

use super::format::MAGIC_LEN;
use super::log::TARGET;
use super::media::{Access, Media, MediaFile};
use crate::base::bytes::Reader;
use crate::base::checksum::checksum;
use crate::base::fs::with_suffix;

const MAGIC: [u8; 8] = *b"RZsums 1";
const HEAD_LEN: usize = 32;
const ENTRY_LEN: usize = 16;
/// Longest stretch, in bytes: a finding names a place as exactly as this.
pub const STRETCH_MAX: u64 = 64 << 10;
/// Entries that are read together.
const ENTRIES_MAX: usize = 4096;

/// Bytes of a `Data.fs`, and their checksum.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stretch {
    /// Its position in the `Data.fs`.
    pub start: u64,
    /// The position behind it.
    pub end: u64,
    /// The CRC-32 of the bytes between.
    pub sum: u32,
}

/// The journal of one `Data.fs`.
pub struct SumJournal {
    file: Arc<dyn MediaFile>,
    salt: u64,
    /// Ends and sums. 16 bytes for up to 64 KiB.
    stretches: Vec<(u64, u32)>,
}

/// Removes the journal of a file that is not as this program had left it, also if journals are not in use now: a later
/// start, which finds the file as this one leaves it, must not trust it.
pub fn drop_journal(media: &dyn Media, path: &Path) {
    let path = with_suffix(path, ".sums");
    if media.is_file(&path)
        && let Err(error) = media.remove(&path)
    {
        warn!(
            target: TARGET,
            "{} cannot be removed: {error}. Remove it: its checksums are of another file, and `scrub-schedule` would report \
             damage that is none",
            path.display()
        );
    }
}

impl SumJournal {
    /// The journal beside the `Data.fs` at `path`, whose number is `number` and which is durable up to `end`. Unless
    /// `is_trusted`, and if it is of another file or cannot be read, it begins anew.
    pub fn open(
        media: &dyn Media,
        path: &Path,
        number: u64,
        end: u64,
        is_trusted: bool,
    ) -> io::Result<SumJournal> {
        let path = with_suffix(path, ".sums");
        // Nothing but a plain file is opened: others might belong to other users, or never answer.
        if media.exists(&path) && !media.is_file(&path) {
            return Err(io::Error::other("it is no plain file"));
        }
        if is_trusted
            && number != 0
            && media.exists(&path)
            && let Some(sums) = SumJournal::load(media.open(&path, Access::ReadWrite)?, number, end)?
        {
            return Ok(sums);
        }
        let file = media.open(&path, Access::Truncate)?;
        let mut salt = [0; 8];
        getrandom::fill(&mut salt).map_err(io::Error::other)?;
        let head = [MAGIC, number.to_be_bytes(), salt].concat();
        let head = [&head[..], &checksum(&[&head]).to_be_bytes(), &[0; 4]].concat();
        file.write_at(&head, 0)?;
        Ok(SumJournal { file, salt: u64::from_be_bytes(salt), stretches: Vec::new() })
    }

    /// The journal in a file. `None`: it is not of this `Data.fs`.
    pub fn load(file: Arc<dyn MediaFile>, number: u64, end: u64) -> io::Result<Option<SumJournal>> {
        let mut head = [0; HEAD_LEN];
        if file.read_at(&mut head, 0)? < head.len() {
            return Ok(None);
        }
        let (covered, rest) = head.split_at(24);
        let mut fields = Reader::new(covered);
        let (Some(magic), Some(of), Some(salt)) = (fields.array::<8>(), fields.u64_be(), fields.u64_be())
        else {
            return Ok(None);
        };
        let is_whole = rest.first_chunk() == Some(&checksum(&[covered]).to_be_bytes());
        if magic != MAGIC || of != number || !is_whole {
            return Ok(None);
        }
        let mut sums = SumJournal { file, salt, stretches: Vec::new() };
        let mut chunk = vec![0; ENTRIES_MAX * ENTRY_LEN];
        loop {
            let at = sums.len();
            let len = sums.file.read_at(&mut chunk, at)?;
            let (entries, _) = chunk.get(..len).unwrap_or_default().as_chunks::<ENTRY_LEN>();
            for entry in entries {
                match sums.decode(entry) {
                    // A journal that is ahead of its file is that of another time.
                    Some((to, _)) if to > end => return Ok(None),
                    Some(stretch) => sums.stretches.push(stretch),
                    // Torn by a crash; what follows is summed again.
                    None => return Ok(Some(sums)),
                }
            }
            if entries.len() < ENTRIES_MAX {
                return Ok(Some(sums));
            }
        }
    }

    fn len(&self) -> u64 {
        (HEAD_LEN + self.stretches.len() * ENTRY_LEN) as u64
    }

    /// Where the stretches end.
    pub fn covered(&self) -> u64 {
        self.stretches.last().map_or(MAGIC_LEN, |(end, _)| *end)
    }

    /// The stretch with this number.
    pub fn stretch(&self, number: usize) -> Option<Stretch> {
        let (end, sum) = *self.stretches.get(number)?;
        let before = number.checked_sub(1).and_then(|before| self.stretches.get(before));
        Some(Stretch { start: before.map_or(MAGIC_LEN, |(end, _)| *end), end, sum })
    }

    /// Appends stretches that end at these positions, with these sums. After an error the journal is not to be used any
    /// more.
    pub fn push(&mut self, stretches: &[(u64, u32)]) -> io::Result<()> {
        let (at, mut bytes) = (self.len(), Vec::with_capacity(stretches.len() * ENTRY_LEN));
        for (end, sum) in stretches {
            debug_assert!(*end > self.covered() && *end - self.covered() <= STRETCH_MAX);
            bytes.extend_from_slice(&self.encode(*end, *sum));
            self.stretches.push((*end, *sum));
        }
        self.file.write_at(&bytes, at)
    }

    /// The entry behind those that there are.
    fn encode(&self, end: u64, sum: u32) -> [u8; ENTRY_LEN] {
        let [a, b, c, d, e, f, g, h] = end.to_be_bytes();
        let [i, j, k, l] = sum.to_be_bytes();
        let fields = [a, b, c, d, e, f, g, h, i, j, k, l];
        let [m, n, o, p] = self.check(&fields).to_be_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    fn decode(&self, entry: &[u8; ENTRY_LEN]) -> Option<(u64, u32)> {
        let mut fields = Reader::new(entry);
        let (end, sum, check) = (fields.u64_be()?, fields.u32_be()?, fields.u32_be()?);
        let is_whole = check == self.check(entry.first_chunk::<12>()?);
        let len = end.checked_sub(self.covered())?;
        (is_whole && (1..=STRETCH_MAX).contains(&len)).then_some((end, sum))
    }

    fn check(&self, fields: &[u8; 12]) -> u32 {
        checksum(&[&self.salt.to_be_bytes(), &self.covered().to_be_bytes(), fields])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::media::RealMedia;

    const NUMBER: u64 = 77;
    const END: u64 = 10 << 20;

    fn path(dir: &tempfile::TempDir) -> std::path::PathBuf {
        dir.path().join("Data.fs")
    }

    fn open(dir: &tempfile::TempDir) -> SumJournal {
        SumJournal::open(&RealMedia, &path(dir), NUMBER, END, true).unwrap()
    }

    /// A journal of five stretches; returns its bytes.
    fn made(dir: &tempfile::TempDir) -> Vec<u8> {
        let mut sums = open(dir);
        sums.push(&[(1000, 1), (1001, 2)]).unwrap();
        sums.push(&[(1001 + STRETCH_MAX, 3), (100_000, 4), (150_000, 5)]).unwrap();
        std::fs::read(with_suffix(&path(dir), ".sums")).unwrap()
    }

    fn count(sums: &SumJournal) -> usize {
        (0..).take_while(|number| sums.stretch(*number).is_some()).count()
    }

    #[test]
    fn what_was_pushed_is_there_the_next_time() {
        let dir = tempfile::tempdir().unwrap();
        made(&dir);
        let mut sums = open(&dir);
        assert_eq!(count(&sums), 5);
        assert_eq!(sums.stretch(0), Some(Stretch { start: 4, end: 1000, sum: 1 }));
        assert_eq!(sums.stretch(2), Some(Stretch { start: 1001, end: 1001 + STRETCH_MAX, sum: 3 }));
        let end = sums.covered() + 1;
        sums.push(&[(end, 6)]).unwrap();
        assert_eq!(open(&dir).covered(), end);
    }

    #[test]
    fn a_torn_or_changed_journal_is_used_up_to_there() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = made(&dir);
        let sums_path = with_suffix(&path(&dir), ".sums");
        for len in 0..bytes.len() {
            std::fs::write(&sums_path, &bytes[..len]).unwrap();
            assert_eq!(count(&open(&dir)), len.saturating_sub(32) / 16, "{len}");
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 4;
            std::fs::write(&sums_path, &changed).unwrap();
            // The four zeros mean nothing.
            let expected = if (28..32).contains(&at) { 5 } else { at.saturating_sub(32) / 16 };
            assert_eq!(count(&open(&dir)), expected, "{at}");
        }
        // An entry of another place, or of another journal.
        let mut changed = bytes.clone();
        changed.copy_within(48..64, 32);
        std::fs::write(&sums_path, &changed).unwrap();
        assert_eq!(count(&open(&dir)), 0);
    }

    #[test]
    fn a_journal_of_another_file_begins_anew() {
        for (number, end, is_trusted) in
            [(NUMBER + 1, END, true), (NUMBER, 1000, true), (NUMBER, END, false), (0, END, true)]
        {
            let dir = tempfile::tempdir().unwrap();
            made(&dir);
            let sums = SumJournal::open(&RealMedia, &path(&dir), number, end, is_trusted).unwrap();
            assert_eq!(count(&sums), 0, "{number} {end} {is_trusted}");
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(with_suffix(&path(&dir), ".sums")).unwrap();
        assert!(SumJournal::open(&RealMedia, &path(&dir), NUMBER, END, true).is_err());
    }
}
