//! `PATH.sums` beside a cache file: reading it when the cache is opened, and writing it. `sums` has its bytes, `trust`
//! what follows from it.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::index::{Index, IndexEntry};
use super::journal::Journal;
use super::sums::{
    BlockSum, ENTRY_LEN, FileState, HEAD_LEN_MAX, HEADS_AT, Head, LOG_AT, NOTE_LEN, RECORD_LEN, SavedIndex,
    SumRecord, TidNote, entry_bytes, parse_entry,
};
use crate::base::checksum::checksum;
use crate::base::fs::{dir_of, with_suffix};
use crate::base::ids::Tid;
use crate::storage::media::{Access, BOOT_LEN, Media, MediaFile};

/// Bytes that are read or written at once.
const CHUNK_LEN: usize = 960 << 10;
const _: () = assert!(CHUNK_LEN.is_multiple_of(ENTRY_LEN) && CHUNK_LEN.is_multiple_of(RECORD_LEN));
/// Bytes of the log that are of no use any more; from this number on the log is shortened.
const DROPPED_MIN: u64 = 1 << 20;

/// What was found beside a cache file.
pub struct FoundBeside {
    file: Arc<dyn MediaFile>,
    pub head: Head,
    pub note: Option<TidNote>,
}

impl FoundBeside {
    /// Reads what is beside the cache file `path`. `None`: nothing that can be read.
    pub fn read(media: &dyn Media, path: &Path) -> Option<FoundBeside> {
        let file = media.open(&with_suffix(path, ".sums"), Access::ReadWrite).ok()?;
        let read = |pos: u64, len: usize| {
            let mut bytes = vec![0; len];
            let len = file.read_at(&mut bytes, pos).ok()?;
            bytes.truncate(len);
            Some(bytes)
        };
        let heads = HEADS_AT.iter().filter_map(|at| Head::parse(&read(*at, HEAD_LEN_MAX)?));
        let head = heads.max_by_key(|head| head.number)?;
        let note = read(0, NOTE_LEN).and_then(|bytes| TidNote::parse(&bytes));
        Some(FoundBeside { file, head, note })
    }

    /// What the blocks must be, by their positions.
    pub fn log(&self) -> io::Result<HashMap<u64, BlockSum>> {
        let mut sums: HashMap<u64, BlockSum> = HashMap::new();
        let mut buf = vec![0; CHUNK_LEN];
        let mut at = 0;
        while at < self.head.log_len {
            let wanted = (self.head.log_len - at).min(CHUNK_LEN as u64) as usize;
            let read = self.file.read_at(buf.get_mut(..wanted).unwrap_or_default(), LOG_AT + at)?;
            let (records, _) = buf.get(..read).unwrap_or_default().as_chunks::<RECORD_LEN>();
            if records.is_empty() {
                break;
            }
            for record in records {
                match SumRecord::from_bytes(*record) {
                    SumRecord::Stored { pos, len, sum } => {
                        sums.insert(pos, BlockSum { len, sum, end: Tid::ZERO });
                    }
                    SumRecord::Ended { pos, end } => {
                        if let Some(block) = sums.get_mut(&pos) {
                            block.end = end;
                        }
                    }
                }
            }
            at += (records.len() * RECORD_LEN) as u64;
        }
        Ok(sums)
    }

    /// The index of the closed file of `size` bytes; `None` if it is not there or damaged.
    pub fn index(&self, size: u64) -> Option<Index> {
        let SavedIndex { at, count, sum, .. } = self.head.index;
        let len = usize::try_from(count).ok()?.checked_mul(ENTRY_LEN)?;
        if at == 0 || len as u64 > self.file.len().ok()? {
            return None;
        }
        let mut bytes = vec![0; len];
        self.file.read_at(&mut bytes, at).ok()?;
        if checksum(&[&bytes]) != sum {
            return None;
        }
        let (entries, _) = bytes.as_chunks::<ENTRY_LEN>();
        let entries: Option<Vec<IndexEntry>> = entries.iter().map(|entry| parse_entry(*entry)).collect();
        let entries = entries?;
        let is_inside = |entry: &IndexEntry| entry.place.pos() < size;
        if entries.iter().all(is_inside) { Index::from_sorted(&entries) } else { None }
    }
}

/// What is beside an open cache file.
pub struct Beside {
    path: PathBuf,
    file: Arc<dyn MediaFile>,
    head: Head,
}

impl Beside {
    /// Notes that the cache file `path` is open, and goes on with the log of `found`, if that is about the same file.
    /// The cache file is durable, and the last tid in its header is `header`.
    pub fn begin(
        media: &dyn Media,
        path: &Path,
        number: u64,
        header: Tid,
        found: Option<FoundBeside>,
        identity: Vec<u8>,
    ) -> io::Result<Beside> {
        let boot = media.boot().unwrap_or([0; BOOT_LEN]);
        let path = with_suffix(path, ".sums");
        let head = Head {
            number: 0,
            state: FileState::Open,
            boot,
            file: number,
            header: [header; 2],
            log_len: 0,
            turn_at: 0,
            index: SavedIndex::default(),
            identity,
        };
        let mut beside = match found.filter(|found| found.head.file == number) {
            Some(FoundBeside { file, head: old, .. }) => {
                let head = Head { number: old.number, log_len: old.log_len, turn_at: old.turn_at, ..head };
                Beside { path, file, head }
            }
            None => {
                let file = media.open(&path, Access::Truncate)?;
                Beside { path, file, head }
            }
        };
        beside.write_head()?;
        beside.file.sync()?;
        media.sync_dir(dir_of(&beside.path))?;
        Ok(beside)
    }

    /// The file that has the note of the last tid.
    pub fn file(&self) -> &Arc<dyn MediaFile> {
        &self.file
    }

    /// Makes the records of what is durable in the cache file durable, and that the last tid in its header will be
    /// `header[1]` instead of `header[0]`. Returns whether there is a new file for the note of the last tid.
    pub fn record(&mut self, media: &dyn Media, journal: &Journal, header: [Tid; 2]) -> io::Result<bool> {
        self.head.header = header;
        if journal.is_restarted {
            (self.head.log_len, self.head.turn_at) = (0, 0);
        }
        self.file.write_at(&journal.records, LOG_AT + self.head.log_len)?;
        let old_turn = self.head.turn_at;
        if let Some(turn_at) = journal.turn_at {
            self.head.turn_at = self.head.log_len + turn_at as u64;
        }
        self.head.log_len += journal.records.len() as u64;
        let is_shorter = journal.turn_at.is_some() && old_turn >= DROPPED_MIN;
        if is_shorter {
            // All blocks from before the last but one time that the pointer was at the start are replaced.
            self.shorten(media, old_turn)?;
        } else {
            self.write_head()?;
            self.file.sync()?;
        }
        Ok(is_shorter)
    }

    /// Changes the identity of the database.
    pub fn set_identity(&mut self, identity: &[u8]) -> io::Result<()> {
        self.head.identity = identity.to_vec();
        self.write_head()?;
        self.file.sync()
    }

    /// Notes that the cache file is closed and durable, and was last changed at the time `changed`, and saves its
    /// index.
    pub fn close(&mut self, changed: u64, header: Tid, index: &Index, pos: u64, used: u64) -> io::Result<()> {
        let at = LOG_AT + self.head.log_len;
        let (mut crc, mut count, mut to) = (flate2::Crc::new(), 0, at);
        let mut bytes = Vec::new();
        let mut entries = index.iter().peekable();
        while let Some(entry) = entries.next() {
            bytes.extend_from_slice(&entry_bytes(entry));
            count += 1;
            if bytes.len() >= CHUNK_LEN || entries.peek().is_none() {
                crc.update(&bytes);
                self.file.write_at(&bytes, to)?;
                to += bytes.len() as u64;
                bytes.clear();
            }
        }
        self.file.set_len(to.max(LOG_AT))?;
        self.head.index = SavedIndex { at, count, sum: crc.sum(), pos, used };
        self.head.state = FileState::Closed(changed);
        self.head.header = [header; 2];
        self.file.sync()?;
        self.write_head()?;
        self.file.sync()
    }

    /// Replaces the file by one without the first bytes of the log.
    fn shorten(&mut self, media: &dyn Media, dropped: u64) -> io::Result<()> {
        let new_path = with_suffix(&self.path, ".new");
        let new = media.open(&new_path, Access::Truncate)?;
        let mut buf = vec![0; CHUNK_LEN];
        let mut at = dropped;
        while at < self.head.log_len {
            let wanted = (self.head.log_len - at).min(CHUNK_LEN as u64) as usize;
            let read = self.file.read_at(buf.get_mut(..wanted).unwrap_or_default(), LOG_AT + at)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            new.write_at(buf.get(..read).unwrap_or_default(), LOG_AT + at - dropped)?;
            at += read as u64;
        }
        self.head.log_len -= dropped;
        self.head.turn_at -= dropped;
        self.file = new;
        self.write_head()?;
        self.file.sync()?;
        media.rename(&new_path, &self.path)?;
        media.sync_dir(dir_of(&self.path))
    }

    /// Writes the head beside the one that counts until then.
    fn write_head(&mut self) -> io::Result<()> {
        self.head.number += 1;
        let [even, odd] = HEADS_AT;
        let at = if self.head.number.is_multiple_of(2) { even } else { odd };
        self.file.write_at(&self.head.to_bytes(), at)
    }
}
