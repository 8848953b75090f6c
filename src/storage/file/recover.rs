//! Opening a file that may be damaged: what is not in the saved index is scanned, record by record.
//!
//! The decisions are Python's: an incomplete or only voted transaction at the end is saved aside and cut off; a file
//! with damage in the middle is refused. After a power cut, all damage behind the position up to which this server is
//! known to have synced (see [`TailNote`]) is taken for an incomplete commit and is cut off too. Zeros up to the end of
//! the file are space that was reserved for commits.

#![cfg_attr(not(test), deny(clippy::cast_possible_truncation))]

use std::io;
use std::path::Path;

use log::{error, warn};

use super::format::{
    DATA_HEADER_LEN, DataHeader, HAS_VERSION, MAGIC_LEN, POS_MAX, TRAILER_LEN, TXN_HEADER_LEN, TxnHeader,
};
use super::index::Index;
use super::log::{Log, TARGET, be_u64};
use super::media::{Access, Media, MediaFile};
use super::tail_note::{BLOCK, BLOCK_LEN, TailNote};
use super::window::Window;
use crate::base::fs::with_suffix;
use crate::base::ids::{Oid, Tid};
use crate::storage::{OpenProgress, Refusal, Result, StorageError};

/// Bytes of one read when the end is saved aside.
const COPY_LEN: usize = 1 << 20;
/// Bytes of the first read of a scan.
const WINDOW_LEN: usize = 64 * 1024;

/// What to scan.
pub struct ScanFrom<'a> {
    /// The start of a transaction.
    pub pos: u64,
    /// The tid of the transaction before it.
    pub tid: Tid,
    /// Time travel: transactions from this tid on are not visible.
    pub stop: Option<Tid>,
    pub note: Option<&'a TailNote>,
    /// Gets the positions.
    pub progress: &'a OpenProgress,
}

/// What a scan found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Scanned {
    /// Where the last whole transaction ends.
    pub end: u64,
    pub last_tid: Tid,
    /// The greatest tid. It differs from `last_tid` only in files whose tids do not ascend.
    pub max_tid: Tid,
    pub tail: Tail,
}

/// What is behind the last whole transaction.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Tail {
    /// Nothing.
    Clean,
    /// Transactions later than the point of time travel.
    Later,
    /// Less than a transaction header: cut off.
    Stub,
    /// Zeros only: cut off.
    Zeros,
    /// A transaction that is not whole: saved aside and cut off.
    Torn {
        /// What is wrong with it.
        why: String,
    },
}

/// Checks the bytes of a whole file; for tools and fuzzing.
pub fn scan(bytes: &[u8]) -> Result<Scanned> {
    let from = ScanFrom {
        pos: MAGIC_LEN,
        tid: Tid::ZERO,
        stop: None,
        note: None,
        progress: &OpenProgress::default(),
    };
    scan_file(&bytes.to_vec(), Path::new("(memory)"), &Index::new(), &from)
}

/// Inserts the objects of `file` from `from` on into `index`.
pub fn scan_file(file: &dyn MediaFile, path: &Path, index: &Index, from: &ScanFrom<'_>) -> Result<Scanned> {
    let len = file.len().map_err(StorageError::io(format!("reading the length of {}", path.display())))?;
    let window = Window::new(file, len, WINDOW_LEN);
    let mut scan = Scan { window, path, name: path.display().to_string(), index, len, records: Vec::new() };
    scan.run(from)
}

/// One record of the transaction that is being scanned.
struct Seen {
    oid: Oid,
    pos: u64,
    data_len: u64,
}

struct Scan<'a> {
    window: Window<'a>,
    path: &'a Path,
    name: String,
    index: &'a Index,
    len: u64,
    /// The records of one transaction. The index gets them when the whole transaction was read.
    records: Vec<Seen>,
}

/// Why a transaction is not whole.
enum Flaw {
    /// Python cuts it off.
    Cut(String),
    /// Python refuses the file.
    Damage {
        pos: u64,
        what: String,
    },
    Io(io::Error),
}

impl From<io::Error> for Flaw {
    fn from(error: io::Error) -> Flaw {
        Flaw::Io(error)
    }
}

impl Scan<'_> {
    fn run(&mut self, from: &ScanFrom<'_>) -> Result<Scanned> {
        let mut done = Scanned { end: from.pos, last_tid: from.tid, max_tid: from.tid, tail: Tail::Clean };
        loop {
            let pos = done.end;
            let header = match self.window.get(pos, TXN_HEADER_LEN) {
                Ok([]) => return Ok(done),
                Ok(head) => head.first_chunk().map(TxnHeader::decode),
                Err(error) => return Err(self.reading(pos)(error)),
            };
            let Some(header) = header else {
                warn!(target: TARGET, "{} truncated at {pos}", self.name);
                return Ok(Scanned { tail: Tail::Stub, ..done });
            };
            if header.tid == Tid::ZERO
                && header.len == 0
                && self.is_zero_from(pos).map_err(self.reading(pos))?
            {
                warn!(target: TARGET, "{} truncated at {pos}: only zeros follow", self.name);
                return Ok(Scanned { tail: Tail::Zeros, ..done });
            }
            let suspect = from.note.filter(|note| pos >= note.suspect_from());
            match self.transaction(pos, &header, done.max_tid, from.stop, suspect) {
                Ok(true) => {}
                Ok(false) => return Ok(Scanned { tail: Tail::Later, ..done }),
                Err(Flaw::Io(error)) => return Err(self.reading(pos)(error)),
                Err(Flaw::Damage { pos: at, what }) if suspect.is_none() => {
                    crate::critical!(target: TARGET, "{} {what} at {at}", self.name);
                    return Err(self.refusal(at, &what));
                }
                Err(Flaw::Damage { what: why, .. } | Flaw::Cut(why)) => {
                    warn!(
                        target: TARGET,
                        "{} truncated, possibly due to damaged records at {pos}: {why}", self.name
                    );
                    return Ok(Scanned { tail: Tail::Torn { why }, ..done });
                }
            }
            for seen in self.records.drain(..) {
                self.index.insert(seen.oid, seen.pos, seen.data_len);
            }
            done.end = pos + header.len + TRAILER_LEN as u64;
            done.last_tid = header.tid;
            done.max_tid = done.max_tid.max(header.tid);
            from.progress.reach(done.end);
        }
    }

    fn is_zero_from(&mut self, mut pos: u64) -> io::Result<bool> {
        loop {
            match self.window.get(pos, BLOCK_LEN)? {
                [] => return Ok(true),
                bytes if bytes.iter().any(|&byte| byte != 0) => return Ok(false),
                bytes => pos += bytes.len() as u64,
            }
        }
    }

    /// Checks one transaction and collects its records. `Ok(false)`: it is later than the point of time travel.
    fn transaction(
        &mut self,
        tpos: u64,
        header: &TxnHeader,
        before: Tid,
        stop: Option<Tid>,
        suspect: Option<&TailNote>,
    ) -> std::result::Result<bool, Flaw> {
        let name = &self.name;
        if suspect.is_some() && (header.tid <= before || !header.status_is_known()) {
            return Err(Flaw::Cut("its header did not reach the disk".into()));
        }
        if header.tid <= before {
            warn!(target: TARGET, "{name} time-stamp reduction at {tpos}");
        }
        let end = tpos.saturating_add(header.len).saturating_add(TRAILER_LEN as u64);
        if end > self.len {
            return Err(Flaw::Cut(format!("it is to end at {end}, the file ends at {}", self.len)));
        }
        if header.status == b'c' {
            return Err(Flaw::Cut("it was voted and not finished".into()));
        }
        if !header.status_is_known() {
            let status = char::from(header.status);
            warn!(target: TARGET, "{name} has invalid status, {status}, at {tpos}");
        }
        if header.len < header.head_len() {
            return Err(self.bad_header(tpos)?);
        }
        if stop.is_some_and(|stop| header.tid >= stop) {
            return Ok(false);
        }
        let tend = tpos + header.len;
        if header.status == b'u' {
            self.check_trailer(tend, header.len, tpos, "has inconsistent transaction length")?;
            return Ok(true);
        }
        self.records(tpos, header, tend)?;
        self.check_trailer(tend, header.len, tend, "redundant transaction length check failed")?;
        if let Some(note) = suspect {
            self.check_blocks(tpos, end, note)?;
        }
        Ok(true)
    }

    fn records(&mut self, tpos: u64, header: &TxnHeader, tend: u64) -> std::result::Result<(), Flaw> {
        let mut pos = tpos + header.head_len();
        while pos < tend {
            let bytes = self.window.get(pos, DATA_HEADER_LEN)?;
            let Some(head) = bytes.first_chunk() else {
                return Err(Flaw::Damage { pos, what: "data record exceeds the file".into() });
            };
            let record = DataHeader::decode(head);
            let next = pos.saturating_add(record.record_len());
            if record.version_len != 0 {
                return Err(Flaw::Damage { pos, what: HAS_VERSION.into() });
            }
            if next > tend || record.tloc != tpos {
                return Err(Flaw::Damage { pos, what: "data record exceeds transaction record".into() });
            }
            if pos > POS_MAX {
                return Err(Flaw::Damage { pos, what: "data record is beyond 256 TiB".into() });
            }
            if self.index.pos(record.oid) != record.prev {
                let name = &self.name;
                if record.prev != 0 {
                    error!(target: TARGET, "{name} incorrect previous pointer at {pos}");
                } else {
                    warn!(target: TARGET, "{name} incorrect previous pointer at {pos}");
                }
            }
            self.records.push(Seen { oid: record.oid, pos, data_len: record.data_len });
            pos = next;
        }
        if pos != tend {
            return Err(Flaw::Damage { pos: tpos, what: "data records don't add up".into() });
        }
        Ok(())
    }

    fn check_trailer(&mut self, tend: u64, len: u64, at: u64, what: &str) -> std::result::Result<(), Flaw> {
        match be_u64(self.window.get(tend, TRAILER_LEN)?) {
            Some(trailer) if trailer == len => Ok(()),
            _ => Err(Flaw::Damage { pos: at, what: what.into() }),
        }
    }

    /// An invalid transaction header. As in Python, the last eight bytes of the file decide: if they may be a
    /// transaction's length, the damage is in the middle; otherwise the end is damaged and is cut off.
    fn bad_header(&mut self, tpos: u64) -> std::result::Result<Flaw, Flaw> {
        let at = self.len.saturating_sub(TRAILER_LEN as u64);
        let trailer = be_u64(self.window.get(at, TRAILER_LEN)?).unwrap_or(0);
        if self.len.saturating_sub(trailer) < tpos || trailer < TXN_HEADER_LEN as u64 || trailer > self.len {
            crate::critical!(target: TARGET, "{} has invalid transaction header at {tpos}", self.name);
            warn!(
                target: TARGET,
                "It appears that there is invalid data at the end of the file, possibly due to a system crash.  {} \
                 truncated to recover from bad data at end.",
                self.name
            );
            return Ok(Flaw::Cut("invalid data at the end of the file".into()));
        }
        Ok(Flaw::Damage { pos: tpos, what: "has invalid transaction header".into() })
    }

    /// Finds blocks of zeros that were not stored: they never reached the disk.
    fn check_blocks(&mut self, from: u64, to: u64, note: &TailNote) -> std::result::Result<(), Flaw> {
        if !note.knows_zeros() {
            return Ok(());
        }
        let mut block = from.next_multiple_of(BLOCK);
        while block + BLOCK <= to {
            let bytes = self.window.get(block, BLOCK_LEN)?;
            if bytes.iter().all(|&byte| byte == 0) && !note.is_rightly_zero(block) {
                return Err(Flaw::Cut(format!("the block at {block} did not reach the disk")));
            }
            block += BLOCK;
        }
        Ok(())
    }

    fn reading(&self, pos: u64) -> impl FnOnce(io::Error) -> StorageError {
        StorageError::io(format!("{}: reading at {pos}", self.path.display()))
    }

    fn refusal(&self, pos: u64, what: &str) -> StorageError {
        let advice = "Restore the file from a backup, or salvage what can be read with zeofs recover";
        StorageError::Corrupt { path: self.path.to_owned(), pos, what: format!("{what}. {advice}") }
    }
}

/// Python's check of a saved index: the first five data records of the last transaction with records before `pos` must
/// be where the index says. Returns the tid of the last transaction.
pub fn check_sanity(log: &Log, index: &Index, mut pos: u64, file_len: u64) -> Option<Tid> {
    // Python's limit too: the index of a nearly empty database is always ignored.
    if pos < 100 || pos > file_len {
        return None;
    }
    let mut last_tid = None;
    loop {
        let (tpos, header) = log.txn_before(pos).ok()??;
        pos = tpos;
        let last_tid = *last_tid.get_or_insert(header.tid);
        match header.status {
            b'u' => continue,
            b' ' | b'p' => {}
            _ => return None,
        }
        let tend = tpos + header.len;
        let mut record_pos = tpos + header.head_len();
        if record_pos > tend {
            return None;
        }
        if record_pos == tend {
            continue;
        }
        for _ in 0..5 {
            if record_pos >= tend {
                break;
            }
            let record = log.read_record(record_pos, None).ok()?.header;
            let next = record_pos.saturating_add(record.record_len());
            if next > tend || record.tloc != tpos || index.pos(record.oid) != record_pos {
                return None;
            }
            record_pos = next;
        }
        return Some(last_tid);
    }
}

/// Copies everything behind `pos` to the first free `.trN`, and cuts it off.
pub fn save_aside(media: &dyn Media, file: &dyn MediaFile, path: &Path, pos: u64) -> Result<()> {
    let failed = |error| StorageError::Refused {
        what: Refusal::TornTail,
        message: format!(
            "Couldn't save truncated data of {} from {pos} on: {error}. Make room beside it and start again",
            path.display()
        ),
    };
    let aside = (0..u32::MAX)
        .map(|n| with_suffix(path, &format!(".tr{n}")))
        .find(|aside| !media.exists(aside))
        .unwrap_or_else(|| with_suffix(path, ".tr"));
    warn!(target: TARGET, "Writing truncated data from {} to {}", path.display(), aside.display());
    let copy = || -> io::Result<()> {
        let to = media.open(&aside, Access::Truncate)?;
        let mut buf = vec![0; COPY_LEN];
        let mut done = 0;
        loop {
            let len = file.read_at(&mut buf, pos + done)?;
            if len == 0 {
                break;
            }
            to.write_at(buf.get(..len).unwrap_or_default(), done)?;
            done += len as u64;
        }
        to.sync()?;
        media.sync_dir(crate::base::fs::dir_of(&aside))
    };
    copy().map_err(failed)?;
    cut(file, path, pos)
}

/// Cuts the file off at `pos`, durably.
pub fn cut(file: &dyn MediaFile, path: &Path, pos: u64) -> Result<()> {
    let doing = format!("truncating {} at {pos}", path.display());
    file.set_len(pos).and_then(|()| file.sync()).map_err(StorageError::io(doing))
}
