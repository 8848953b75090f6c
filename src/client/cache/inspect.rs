//! A cache file as it is, for tools: its blocks in order, and whether clients would use it.
//!
//! Only reads, and takes no lock: a client may have the file open. It may then be seen in the middle of a change.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::Path;

use super::beside::FoundBeside;
use super::format::{self, BLOCK_LEN_MAX, BlockHeader, BlockMark, FORMER_ID_END, HEADER_LEN, OVERHEAD};
use super::open;
use super::trust::{PresentFile, Trust, judge};
use super::walk::{Unusable, walk};
use crate::base::bytes::Reader;
use crate::base::ids::{Oid, Tid};
use crate::storage::media::{Media, MediaFile, RealMedia};

/// One block of a cache file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InspectedBlock {
    /// Where it begins.
    pub pos: u64,
    /// Its length in bytes, up to the end of the file.
    pub len: u64,
    /// What it is.
    pub content: BlockContent,
}

/// What a block is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum BlockContent {
    /// Free.
    Free,
    /// A revision of an object.
    Revision {
        /// The object.
        oid: Oid,
        /// The transaction that wrote it.
        start: Tid,
        /// The transaction that wrote the next one; `None`: it is current.
        end: Option<Tid>,
        /// Length of the data in bytes.
        data_len: u32,
    },
    /// A block that the end of the file cuts; it counts as free.
    Cut,
    /// No block, or one that contradicts itself, and why.
    Damaged(String),
}

/// The blocks of a cache file, up to the first place where there is none.
#[derive(Debug)]
pub struct InspectedBlocks<'a> {
    file: &'a File,
    pos: u64,
    end: u64,
}

/// The last tid in the header, zero if there is none yet; `None`: it is no cache file.
pub fn last_tid(file: &File) -> io::Result<Option<Tid>> {
    let mut header = [0; HEADER_LEN as usize];
    let len = MediaFile::read_at(file, &mut header, 0)?;
    Ok(format::parse_header(header.get(..len).unwrap_or_default()))
}

/// The blocks of a cache file of `len` bytes.
pub fn blocks(file: &File, len: u64) -> InspectedBlocks<'_> {
    InspectedBlocks { file, pos: HEADER_LEN, end: len }
}

impl InspectedBlocks<'_> {
    fn read(&mut self) -> io::Result<InspectedBlock> {
        let (pos, left) = (self.pos, self.end - self.pos);
        let mut bytes = [0; format::BLOCK_HEADER_LEN];
        let read = MediaFile::read_at(self.file, &mut bytes, pos)?;
        let bytes = bytes.get(..read).unwrap_or_default();
        let Some(mark) = BlockMark::parse(bytes) else {
            let first = bytes.first().copied();
            let is_cut = match first {
                Some(b'a') => left < OVERHEAD,
                Some(b'f') => left < format::MARK_LEN as u64,
                _ => false,
            };
            let content = match first {
                _ if is_cut => BlockContent::Cut,
                Some(status @ (b'a' | b'f')) => {
                    BlockContent::Damaged(format!("'{}' with an impossible length", char::from(status)))
                }
                Some(status) => BlockContent::Damaged(format!("unknown status byte {status:#04x}")),
                None => BlockContent::Damaged("the file is shorter than it was".into()),
            };
            return Ok(InspectedBlock { pos, len: left, content });
        };
        let len = mark.len().min(left);
        let content = match (mark, BlockHeader::parse(bytes)) {
            _ if mark.len() > left => BlockContent::Cut,
            (BlockMark::Free(_), _) => BlockContent::Free,
            (BlockMark::Revision(_), Some(header)) => self.revision(pos, &header)?,
            (BlockMark::Revision(_), None) => BlockContent::Damaged("the file is shorter than it was".into()),
        };
        Ok(InspectedBlock { pos, len, content })
    }

    fn revision(&self, pos: u64, header: &BlockHeader) -> io::Result<BlockContent> {
        let damaged = |what: String| Ok(BlockContent::Damaged(what));
        let BlockHeader { oid, start, end, version_len, data_len, .. } = *header;
        if version_len != 0 {
            return damaged(format!("object {oid}: a version of ZODB 3.8"));
        }
        if !header.is_sound() {
            return damaged(format!("object {oid}: lengths or tids contradict each other"));
        }
        let mut again = [0; 8];
        let read = MediaFile::read_at(self.file, &mut again, pos + header.len - 8)?;
        if Oid::from_slice(again.get(..read).unwrap_or_default()) != Some(oid) {
            return damaged(format!("object {oid}: another oid is behind the data"));
        }
        let end = (end != Tid::ZERO).then_some(end);
        Ok(BlockContent::Revision { oid, start, end, data_len })
    }
}

impl Iterator for InspectedBlocks<'_> {
    type Item = io::Result<InspectedBlock>;

    fn next(&mut self) -> Option<io::Result<InspectedBlock>> {
        if self.pos >= self.end {
            return None;
        }
        let block = self.read();
        self.pos = match &block {
            Ok(block) => self.pos + block.len,
            Err(_) => self.end,
        };
        Some(block)
    }
}

/// What a client does with a cache file when it opens it with the size that the file has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CacheVerdict {
    /// It uses the revisions.
    Used {
        /// Blocks that it marks as free at first.
        mended: usize,
        /// Position of the first of them.
        first: Option<u64>,
    },
    /// It uses the revisions that have the checksum beside the file: the computer stopped while the file was in use.
    UsedInPart,
    /// It renames the file to `FILE.bad` and begins an empty one. The reason.
    Dropped(String),
    /// It does not end. The reason.
    Hangs(String),
}

/// What this program does with the file `path` of `len` bytes, which is open as `file`.
pub fn own_verdict(path: &Path, file: &File, len: u64) -> io::Result<CacheVerdict> {
    let Some(header) = last_tid(file)? else {
        return Ok(CacheVerdict::Dropped("it is no cache file".into()));
    };
    if let Some(found) = FoundBeside::read(&RealMedia, path) {
        let identity = MediaFile::identity(file)?;
        let present = PresentFile { identity, header, boot: RealMedia.boot() };
        match judge(&present, &found.head, found.note) {
            Trust::AfterPowerCut => return Ok(CacheVerdict::UsedInPart),
            Trust::Nothing => return Ok(CacheVerdict::Dropped(open::EXCHANGED.into())),
            Trust::Untouched | Trust::LastTid(_) | Trust::AtLeast(_) | Trust::AsItIs => {}
        }
    }
    match walk(file, len) {
        Ok(walked) => {
            let first = walked.mends.iter().map(|(pos, _)| *pos).min();
            Ok(CacheVerdict::Used { mended: walked.mends.len(), first })
        }
        Err(Unusable::Damage(what)) => Ok(CacheVerdict::Dropped(what)),
        Err(Unusable::Io(error)) => Err(error),
    }
}

/// What ZEO's own client does with the file, from ZODB 3.9 to ZEO 6.2.
pub fn zeo_verdict(file: &File, len: u64) -> io::Result<CacheVerdict> {
    if last_tid(file)?.is_none() {
        return Ok(CacheVerdict::Dropped("it is no cache file".into()));
    }
    let mut current = HashSet::new();
    let (mut mended, mut first) = (0, None);
    let mut pos = HEADER_LEN;
    while pos < len {
        let dropped = |what: &str| Ok(CacheVerdict::Dropped(format!("block at {pos}: {what}")));
        let mut bytes = [0; format::BLOCK_HEADER_LEN];
        let read = MediaFile::read_at(file, &mut bytes, pos)?;
        let mut bytes = Reader::new(bytes.get(..read).unwrap_or_default());
        let block_len = match bytes.u8() {
            Some(b'a') => {
                let Some(block) = zeo_revision(&mut bytes) else {
                    return dropped("the file ends in its header");
                };
                if pos + block.len <= len
                    && let Err(what) = zeo_takes(&block, &mut current)
                {
                    return dropped(&what);
                }
                block.len
            }
            Some(b'f') => match bytes.u32_be().map(u64::from) {
                Some(block_len) if block_len > 2 * BLOCK_LEN_MAX => {
                    return dropped("its length is impossible");
                }
                Some(block_len) => {
                    if block_len > BLOCK_LEN_MAX {
                        mended += 2;
                        first.get_or_insert(pos);
                    }
                    block_len
                }
                None => return dropped("the file ends in its header"),
            },
            Some(digit @ b'1'..=b'4') => u64::from(digit - b'0'),
            Some(status) => return dropped(&format!("unknown status byte {status:#04x}")),
            None => return dropped("the file is shorter than it was"),
        };
        if block_len == 0 {
            return Ok(CacheVerdict::Hangs(format!("block at {pos}: its length is 0")));
        }
        if pos + block_len > len {
            mended += 1;
            first.get_or_insert(pos);
        }
        pos += block_len;
    }
    Ok(CacheVerdict::Used { mended, first })
}

/// What ZEO's client reads of a revision when it opens a file.
struct ZeoRevision {
    len: u64,
    oid: Oid,
    start: Tid,
    end: Tid,
    version_len: u16,
}

/// Behind the status byte.
fn zeo_revision(bytes: &mut Reader<'_>) -> Option<ZeoRevision> {
    Some(ZeoRevision {
        len: u64::from(bytes.u32_be()?),
        oid: Oid(bytes.u64_be()?),
        start: Tid(bytes.u64_be()?),
        end: Tid(bytes.u64_be()?),
        version_len: bytes.u16_be()?,
    })
}

/// Whether ZEO's client takes a revision into its index. It looks at no more than this.
fn zeo_takes(block: &ZeoRevision, current: &mut HashSet<Oid>) -> Result<(), String> {
    let ZeoRevision { oid, start, end, version_len, .. } = *block;
    if end == Tid::ZERO {
        if !current.insert(oid) {
            return Err(format!("a second current revision of object {oid}"));
        }
    } else if start >= end {
        return Err(format!("object {oid}: it ends before it begins"));
    } else if oid.0 >= FORMER_ID_END || start.0 >= FORMER_ID_END {
        return Err(format!("a former revision of object {oid}, whose number the index cannot hold"));
    }
    if version_len != 0 { Err(format!("object {oid}: a version of ZODB 3.8")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::sync::Arc;

    use super::super::sums::{FileState, HEADS_AT};
    use super::super::{Cache, CacheOptions};
    use super::*;
    use crate::storage::media::BOOT_LEN;

    /// The computer stopped while the cache was open; then ZEO's own client used the file.
    #[test]
    fn after_a_power_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c");
        let len = 5000;
        let cache = Cache::open(CacheOptions::new(Some(&path), len)).unwrap();
        cache.store(Oid(1), Tid(2), None, b"data");
        cache.close();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let verdict = || own_verdict(&path, &file, len).unwrap();
        assert_eq!(verdict(), CacheVerdict::Used { mended: 0, first: None });

        let mut head = FoundBeside::read(&RealMedia, &path).unwrap().head;
        (head.state, head.boot, head.number) = (FileState::Open, [7; BOOT_LEN], head.number + 1);
        let sums = File::options().write(true).open(dir.path().join("c.sums")).unwrap();
        FileExt::write_all_at(&sums, &head.to_bytes(), HEADS_AT[head.number as usize % 2]).unwrap();
        assert_eq!(verdict(), CacheVerdict::UsedInPart);
        FileExt::write_all_at(&file, &Tid(99).to_bytes(), 4).unwrap();
        assert!(matches!(verdict(), CacheVerdict::Dropped(_)), "{:?}", verdict());
        let options = CacheOptions { media: Arc::new(RealMedia), ..CacheOptions::new(Some(&path), len) };
        drop(Cache::open(options).unwrap());
        assert!(dir.path().join("c.bad").exists());
    }
}
