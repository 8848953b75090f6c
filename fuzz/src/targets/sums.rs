//! The checksums beside a data file (`Data.fs.sums`): for arbitrary bytes what is believed is exactly what an
//! independent reading of the format finds, and takes no more memory than the file has bytes.
//!
//! A checksum is nothing that mutations find, so the input can say which of them are made right.

use std::sync::Arc;

use runzeo::internal::storage::file::{STRETCH_MAX, Stretch, SumJournal};

const NUMBER: u64 = 0x0123_4567_89ab_cdef;
const MAGIC: &[u8; 8] = b"RZsums 1";
const HEAD_LEN: usize = 32;
/// Where the first stretch begins.
const FIRST: u64 = 4;
/// Bits of the first byte of an input.
const IS_HEAD_RIGHT: u8 = 1;
const ARE_ENTRIES_RIGHT: u8 = 2;
const IS_OTHER_FILE: u8 = 4;

/// A byte that selects, the length of the `Data.fs`, and the journal.
pub fn run(data: &[u8]) {
    let Some((&[choice, ref end @ ..], journal)) = data.split_first_chunk::<9>() else { return };
    let end = u64::from_be_bytes(*end);
    let mut journal = journal.to_vec();
    if choice & IS_HEAD_RIGHT != 0 {
        make_head_right(&mut journal);
    }
    if choice & ARE_ENTRIES_RIGHT != 0 {
        make_entries_right(&mut journal);
    }
    let number = if choice & IS_OTHER_FILE != 0 { NUMBER + 1 } else { NUMBER };
    let expected = read(&journal, number, end);
    let loaded = SumJournal::load(Arc::new(journal.clone()), number, end).expect("it can be read");
    let Some(loaded) = loaded else {
        assert!(expected.is_none(), "not believed: {expected:?}");
        return;
    };
    let found: Vec<Stretch> = (0..).map_while(|number| loaded.stretch(number)).collect();
    assert_eq!(Some(&found), expected.as_ref());
    assert!(HEAD_LEN + found.len() * 16 <= journal.len());
    assert_eq!(loaded.covered(), found.last().map_or(FIRST, |last| last.end));
    assert!(loaded.covered() <= end.max(FIRST));
    let mut pos = FIRST;
    for stretch in found {
        assert!(stretch.start == pos && stretch.end > pos && stretch.end - pos <= STRETCH_MAX);
        pos = stretch.end;
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four"))
}

/// As the format says it, bit by bit.
fn crc(parts: &[&[u8]]) -> u32 {
    let mut crc = !0u32;
    for byte in parts.iter().flat_map(|part| part.iter()) {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

fn check(journal: &[u8], start: u64, entry: &[u8]) -> u32 {
    crc(&[&journal[16..24], &start.to_be_bytes(), &entry[..12]])
}

/// `None`: it is of another file, of another time, or no journal.
fn read(journal: &[u8], number: u64, end: u64) -> Option<Vec<Stretch>> {
    if journal.len() < HEAD_LEN
        || &journal[..8] != MAGIC
        || u64_at(journal, 8) != number
        || u32_at(journal, 24) != crc(&[&journal[..24]])
    {
        return None;
    }
    let (mut found, mut start) = (Vec::new(), FIRST);
    for entry in journal[HEAD_LEN..].chunks_exact(16) {
        let to = u64_at(entry, 0);
        if u32_at(entry, 12) != check(journal, start, entry) || to <= start || to - start > STRETCH_MAX {
            break;
        }
        if to > end {
            return None;
        }
        found.push(Stretch { start, end: to, sum: u32_at(entry, 8) });
        start = to;
    }
    Some(found)
}

fn make_head_right(journal: &mut [u8]) {
    if journal.len() >= HEAD_LEN {
        journal[..8].copy_from_slice(MAGIC);
        journal[8..16].copy_from_slice(&NUMBER.to_be_bytes());
        let sum = crc(&[&journal[..24]]);
        journal[24..28].copy_from_slice(&sum.to_be_bytes());
    }
}

/// Each check is made to fit where the entry before says that it ends; ends are brought near.
fn make_entries_right(journal: &mut [u8]) {
    let mut start = FIRST;
    for at in (HEAD_LEN..journal.len().saturating_sub(15)).step_by(16) {
        // Most lengths that an input has are absurd: those that have a high bit stay as they are.
        if journal[at] & 0x80 == 0 {
            let len = u64_at(journal, at) & 0x1_ffff;
            let end = start.saturating_add(len);
            journal[at..at + 8].copy_from_slice(&end.to_be_bytes());
        }
        let sum = check(journal, start, &journal[at..at + 16]);
        journal[at + 12..at + 16].copy_from_slice(&sum.to_be_bytes());
        start = u64_at(journal, at);
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let seed = |choice: u8, end: u64, lens: &[u64]| {
        let mut bytes = [&[choice][..], &end.to_be_bytes(), &[0x5a; HEAD_LEN]].concat();
        for len in lens {
            bytes.extend_from_slice(&len.to_be_bytes());
            bytes.extend_from_slice(&[7; 8]);
        }
        bytes
    };
    let right = IS_HEAD_RIGHT | ARE_ENTRIES_RIGHT;
    vec![
        seed(right, 1 << 20, &[100, STRETCH_MAX, 1, 5000]),
        seed(right, 150, &[100, 100]),
        seed(right, u64::MAX, &[STRETCH_MAX + 1, u64::MAX, 10]),
        seed(right | IS_OTHER_FILE, 1 << 20, &[100]),
        seed(IS_HEAD_RIGHT, 1 << 20, &[100, 200]),
        seed(right, 1 << 40, &[STRETCH_MAX; 300]),
    ]
}
