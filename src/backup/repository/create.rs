//! Makes a backup: of each database as it is at one transaction, with what is new since the last backup.
//!
//! The file is opened once, and read up to its last whole transaction. What is before that never changes, and a pack
//! that gives its name to another file changes nothing either; so neither a server nor a lock is needed, nor an index.
//! The file is synced first: a power cut could take back what a server has written and not synced.
//!
//! If the file is the one of the last backup, what follows is new. Otherwise (after a pack) the file is read again, and
//! segments whose content is the same are taken over. Small segments at the end are written again together with what
//! follows them, so that the number of segments grows with the logarithm of the number of backups.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use super::blob_list::{self, Revision};
use super::blobs::{BlobSource, store};
use super::error::{BackupError, Result};
use super::known::{KnownBlobs, for_each};
use super::manifest::{Blobs, Database, FileId, Manifest, Segment, Stamp, Stay};
use super::object::{ObjectId, ObjectKind, RunningId};
use super::split::{Stretch, split};
use super::writing::Writing;
use super::{ProgressListener, Repository};
use crate::base::clock::TimeSource;
use crate::base::ids::{Oid, Tid};
use crate::inspect::data_file::DataFile;
use crate::inspect::walk::{Part, Walk};
use crate::storage::file::format::MAGIC_LEN;
use crate::storage::file::pack::pace::{Pace, ShortPieces};
use crate::storage::file::tail_note::{TailNote, cuts};
use crate::storage::media::Access;

/// The usual [`CreateOptions::segment_len`].
const SEGMENT_LEN: u64 = 64 << 20;

/// Interval of progress reports, in bytes.
const REPORT_LEN: u64 = 256 << 10;

/// A database to be backed up.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its name in the repository.
    pub name: String,
    /// The `Data.fs`.
    pub path: PathBuf,
    /// `None`: blobs are left out.
    pub blob_dir: Option<PathBuf>,
}

/// How fast a backup is made.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Tempo {
    /// With several cores.
    #[default]
    Full,
    /// Upper bound on the bytes that are read in a second. Not zero.
    Rate(u64),
    /// In short pieces, a third of the time of one core: what else the machine does is hardly slower.
    Gentle,
}

/// What to back up, and how.
#[derive(Clone, Debug)]
pub struct CreateOptions {
    pub sources: Vec<Source>,
    /// Read everything again, also if the file is the one of the last backup, and look for each blob in the repository.
    pub reread: bool,
    pub tempo: Tempo,
    pub stay: Stay,
    /// Bytes of a segment: the first transaction that reaches them ends it.
    pub segment_len: u64,
}

impl Default for CreateOptions {
    fn default() -> CreateOptions {
        CreateOptions {
            sources: Vec::new(),
            reread: false,
            tempo: Tempo::Full,
            stay: Stay::Kept,
            segment_len: SEGMENT_LEN,
        }
    }
}

/// What was done.
#[derive(Debug)]
pub struct Created {
    /// The backup, or the last one if nothing has changed since.
    pub stamp: Stamp,
    pub is_new: bool,
    pub databases: Vec<Database>,
    /// Bytes that were added to the repository, without the text about the backup.
    pub added: u64,
    /// Damaged places that were found, with the name of the file.
    pub damage: Vec<String>,
}

/// Makes a backup. The caller has the lock of the repository.
pub fn create(
    repository: &Repository,
    options: &CreateOptions,
    time: &TimeSource,
    listener: &dyn ProgressListener,
) -> Result<Created> {
    let mut opened = Vec::new();
    // All are opened first, so that they are of about the same time.
    for source in &options.sources {
        opened.push(Opened::open(repository, source, listener)?);
    }
    let names: Vec<&str> = options.sources.iter().map(|source| &*source.name).collect();
    let newest = repository.newest(&names, listener)?;
    let mut writing = Writing::begin(repository)?;
    let mut meter = Meter { pace: None, pieces: None, done: 0, reported: 0, listener };
    match options.tempo {
        Tempo::Full => {}
        Tempo::Rate(rate) => meter.pace = Some(Pace::new(rate)),
        Tempo::Gentle => {
            meter.pieces = Some(ShortPieces::begin());
            writing.be_gentle();
        }
    }
    let segment_len = options.segment_len;
    let mut run = CreateRun { writing: &mut writing, meter, segment_len, damage: Vec::new() };
    let mut databases = Vec::new();
    for source in &opened {
        let before = newest.databases.get(&source.source.name);
        match run.database(source, before, options.reread) {
            Ok(database) => databases.push(database),
            Err(error) => {
                writing.give_up_all();
                return Err(error);
            }
        }
    }
    let damage = run.damage;
    let stamps = repository.backups()?;
    let last = stamps.last();
    if let Some((stamp, _)) = newest.of_all.filter(|(_, manifest)| manifest.databases == databases)
        && last == Some(&stamp)
    {
        if options.stay == Stay::Kept && stamp.stay() == Stay::UntilNext {
            repository.keep(&stamp)?;
        }
        return Ok(Created { stamp, is_new: false, databases, added: writing.added(), damage });
    }
    writing.sync()?;
    let stamp = new_stamp(time, last, options.stay);
    repository.add(&stamp, &Manifest::new(&stamp, databases.clone()))?;
    Ok(Created { stamp, is_new: true, databases, added: writing.added(), damage })
}

/// The present time, or, if the clock was set back, the moment after the last backup.
fn new_stamp(time: &TimeSource, last: Option<&Stamp>, stay: Stay) -> Stamp {
    let now = time.system_time().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let first = last.map_or(0, |last| last.to_unix_millis() + 1);
    Stamp::of_unix_millis(now.max(first), stay)
}

/// The file of a database, with the length that it had when it was opened.
struct Opened<'a> {
    source: &'a Source,
    file: DataFile,
    blobs: Option<BlobSource>,
    /// Ids up to this one may have been given out, says the note of a server. Zero: it says nothing.
    oid_mark: Oid,
    id: FileId,
    /// See [`cuts`].
    cuts: u32,
}

impl<'a> Opened<'a> {
    fn open(
        repository: &Repository,
        source: &'a Source,
        listener: &dyn ProgressListener,
    ) -> Result<Opened<'a>> {
        let media = &repository.media;
        let path = &source.path;
        let blobs = source.blob_dir.as_ref().map(|dir| BlobSource::open(media, dir, listener)).transpose()?;
        let doing = || BackupError::io(format!("opening {}", path.display()));
        let cuts = cuts(&**media, path);
        let file = media.open(path, Access::Read).map_err(doing())?;
        let identity = file.identity().map_err(doing())?;
        let opened = Opened {
            source,
            file: DataFile::of(path, Arc::clone(&file))?,
            blobs,
            oid_mark: TailNote::read(&**media, path).map_or(Oid::ZERO, |note| note.oid_mark),
            id: FileId { device: identity.device, inode: identity.inode, born: identity.born },
            cuts,
        };
        // After its length was read.
        file.sync().map_err(doing())?;
        Ok(opened)
    }

    fn magic(&self) -> String {
        String::from_utf8_lossy(&self.file.format().magic()).into_owned()
    }

    /// Where the last whole transaction ends. `from`: the end of a transaction.
    fn end_after(&self, from: u64) -> Result<u64> {
        let mut walk = Walk::from(&self.file, from);
        while let Some(part) = walk.next_part()? {
            if let Part::Ending(ending) = part {
                return Ok(ending.pos);
            }
        }
        Ok(walk.pos())
    }
}

struct CreateRun<'a, 'r> {
    writing: &'a mut Writing<'r>,
    meter: Meter<'a>,
    segment_len: u64,
    damage: Vec<String>,
}

/// Counts, reports and limits what is read.
struct Meter<'a> {
    pace: Option<Pace>,
    pieces: Option<ShortPieces>,
    done: u64,
    /// What of it the listener knows.
    reported: u64,
    listener: &'a dyn ProgressListener,
}

impl Meter<'_> {
    /// `len` bytes were read. The error is `Cancelled`.
    fn read(&mut self, len: u64) -> Result<()> {
        self.done += len;
        if let Some(pieces) = &mut self.pieces {
            pieces.rest();
        }
        if self.done - self.reported < REPORT_LEN {
            return Ok(());
        }
        self.reported = self.done;
        if let Some(pace) = &mut self.pace {
            pace.keep(self.done, || self.listener.is_cancelled());
        }
        self.listener.progress(self.done);
        if self.listener.is_cancelled() { Err(BackupError::Cancelled) } else { Ok(()) }
    }
}

impl<'r> CreateRun<'_, 'r> {
    fn database(
        &mut self,
        opened: &Opened<'_>,
        previous: Option<&Database>,
        reread: bool,
    ) -> Result<Database> {
        let known = KnownBlobs::of(self.writing.repository(), previous);
        let mut copying = Copying { opened, known, looks_for_blobs: reread, segments: Vec::new(), run: self };
        match previous {
            Some(previous) if !reread && copying.continues(previous)? => copying.append(previous)?,
            Some(previous) => copying.reread(previous)?,
            None => copying.write(MAGIC_LEN, opened.file.end())?,
        }
        let segments = copying.segments;
        let path = &opened.source.path;
        if cuts(&*self.writing.repository().media, path) != opened.cuts {
            return Err(BackupError::Cut(path.clone()));
        }
        let oid_max = segments.iter().map(|segment| segment.oid_max).max();
        Ok(Database {
            name: opened.source.name.clone(),
            path: opened.source.path.display().to_string(),
            magic: opened.magic(),
            len: segments.last().map_or(MAGIC_LEN, Segment::end),
            last_tid: segments.iter().map(|segment| segment.last).max().unwrap_or(Tid::ZERO),
            packed_tid: segments.iter().map(|segment| segment.packed).max().unwrap_or(Tid::ZERO),
            oid_mark: oid_max
                .max(previous.map(|previous| previous.oid_mark))
                .unwrap_or(Oid::ZERO)
                .max(opened.oid_mark),
            has_blobs: opened.blobs.is_some(),
            file: opened.id,
            segments,
        })
    }
}

/// A database on its way into the repository.
struct Copying<'a, 'b, 'r> {
    opened: &'a Opened<'a>,
    known: KnownBlobs<'r>,
    /// Whether each blob of a segment that is taken over must be in the repository. Otherwise that is believed: looking
    /// takes long, and a backup may be made every few seconds.
    looks_for_blobs: bool,
    segments: Vec<Segment>,
    run: &'a mut CreateRun<'b, 'r>,
}

impl Copying<'_, '_, '_> {
    /// Whether the file is the one of the last backup, and has grown at most.
    fn continues(&mut self, previous: &Database) -> Result<bool> {
        let Opened { id, file, .. } = self.opened;
        if previous.file != *id || previous.magic != self.opened.magic() || previous.len > file.end() {
            return Ok(false);
        }
        match previous.segments.last() {
            Some(last) => Ok(self.pointers_of_same(last, last.start, last.end())?.is_some()),
            None => Ok(true),
        }
    }

    fn append(&mut self, previous: &Database) -> Result<()> {
        let end = self.opened.end_after(previous.len)?;
        let mut segments = previous.segments.as_slice();
        let mut start = previous.len;
        while let [rest @ .., last] = segments
            && last.len <= end - start
            && last.len + (end - start) <= self.run.segment_len
        {
            (segments, start) = (rest, last.start);
        }
        for segment in segments {
            match self.is_there(segment)? {
                true => self.segments.push(segment.clone()),
                false => self.write(segment.start, segment.end())?,
            }
        }
        self.write(start, end)
    }

    /// Reads the whole file, and takes over the segments whose content is in it.
    fn reread(&mut self, previous: &Database) -> Result<()> {
        let opened = self.opened;
        let mut walk = Walk::new(&opened.file);
        let mut segments = previous.segments.iter();
        let mut segment = segments.next();
        // What is not written yet begins at `pending`; the transactions of `segment` begin at `start`.
        let (mut pending, mut start) = (MAGIC_LEN, MAGIC_LEN);
        let mut end = MAGIC_LEN;
        while let Some(part) = walk.next_part()? {
            if !matches!(part, Part::Ending(_)) {
                end = walk.pos();
            }
            let Part::Transaction(txn) = part else { continue };
            while let Some(before) = segment.filter(|segment| txn.header.tid > segment.last) {
                self.take_over(before, start, txn.pos, &mut pending)?;
                (start, segment) = (txn.pos, segments.next());
            }
        }
        if let Some(segment) = segment {
            self.take_over(segment, start, end, &mut pending)?;
        }
        self.write(pending, end)
    }

    /// Takes a segment over if the bytes from `start` to `end` have its content; what is before them is written first.
    fn take_over(&mut self, segment: &Segment, start: u64, end: u64, pending: &mut u64) -> Result<()> {
        if !self.is_there(segment)? {
            return Ok(());
        }
        let Some(pointers) = self.pointers_of_same(segment, start, end)? else { return Ok(()) };
        self.write(*pending, start)?;
        let pointers_len = pointers.len() as u64;
        let pointers = self.run.writing.bytes(ObjectKind::Pointers, &pointers)?.id;
        self.segments.push(Segment { start, pointers, pointers_len, ..segment.clone() });
        *pending = end;
        Ok(())
    }

    /// The pointers of the bytes from `start` to `end`, if these have the content of the segment. At the same place
    /// the pointers must be the same, too.
    fn pointers_of_same(&mut self, segment: &Segment, start: u64, end: u64) -> Result<Option<Vec<u8>>> {
        if end - start != segment.len {
            return Ok(None);
        }
        let mut sum = RunningId::default();
        let meter = &mut self.run.meter;
        let stretch = split(&self.opened.file, start, end, u64::MAX, &mut |bytes| {
            sum.update(bytes);
            meter.read(bytes.len() as u64)
        })?;
        let is_same = stretch.end == end
            && sum.id() == segment.data
            && (stretch.first, stretch.last, stretch.packed) == (segment.first, segment.last, segment.packed)
            && (start != segment.start || ObjectId::of(&stretch.pointers) == segment.pointers);
        Ok(is_same.then_some(stretch.pointers))
    }

    /// Whether the repository has everything of a segment.
    fn is_there(&mut self, segment: &Segment) -> Result<bool> {
        let writing = &mut *self.run.writing;
        let mut is_there = segment.is_complete(self.opened.blobs.is_some())
            && writing.has(ObjectKind::Data, &segment.data)
            && writing.has(ObjectKind::Pointers, &segment.pointers)
            && segment.blobs.list.is_none_or(|list| writing.has(ObjectKind::BlobList, &list));
        if is_there && self.looks_for_blobs {
            let read = for_each(writing.repository(), segment, &mut |(_, content)| {
                is_there &= content.is_none_or(|content| writing.has(ObjectKind::Blob, &content.id));
                Ok(())
            });
            match read {
                Err(BackupError::Damaged(_)) => is_there = false,
                other => other?,
            }
        }
        Ok(is_there)
    }

    /// Writes the bytes from `start` to `end`, or to the last whole transaction before it, as segments.
    fn write(&mut self, start: u64, end: u64) -> Result<()> {
        let mut pos = start;
        while pos < end {
            let mut object = self.run.writing.object(ObjectKind::Data)?;
            let path = object.path().to_owned();
            let CreateRun { meter, segment_len, .. } = &mut *self.run;
            let stretch = split(&self.opened.file, pos, end, *segment_len, &mut |bytes| {
                meter.read(bytes.len() as u64)?;
                object.write_all(bytes).map_err(BackupError::io(format!("writing {}", path.display())))
            })?;
            if stretch.end == pos {
                self.run.writing.give_up(&path);
                return Ok(());
            }
            let data = self.run.writing.finish(object)?;
            let segment = self.segment(pos, data.id, stretch)?;
            pos = segment.end();
            self.segments.push(segment);
        }
        Ok(())
    }

    fn segment(&mut self, start: u64, data: ObjectId, stretch: Stretch) -> Result<Segment> {
        let pointers = self.run.writing.bytes(ObjectKind::Pointers, &stretch.pointers)?;
        let blobs = self.blobs(&stretch.blobs)?;
        let path = self.opened.source.path.display();
        self.run.damage.extend(stretch.damage.iter().map(|what| format!("{path}: {what}")));
        Ok(Segment {
            start,
            len: stretch.end - start,
            first: stretch.first,
            last: stretch.last,
            packed: stretch.packed,
            oid_max: stretch.oid_max,
            data,
            pointers: pointers.id,
            pointers_len: pointers.len,
            blobs,
            damaged: stretch.damage.len() as u64,
        })
    }

    fn blobs(&mut self, revisions: &[Revision]) -> Result<Blobs> {
        let count = revisions.len() as u64;
        let (Some(source), false) = (&self.opened.blobs, revisions.is_empty()) else {
            return Ok(Blobs { count, ..Blobs::default() });
        };
        let CreateRun { writing, meter, .. } = &mut *self.run;
        let entries = store(writing, source, &mut self.known, revisions, &mut |len| meter.read(len))?;
        let text = blob_list::to_text(&entries);
        let list = self.run.writing.bytes(ObjectKind::BlobList, text.as_bytes())?;
        let there = entries.iter().filter_map(|(_, content)| *content);
        let missing = entries.iter().filter(|(_, content)| content.is_none()).count() as u64;
        let len = there.map(|content| content.len).sum();
        Ok(Blobs { count, missing, len, list: Some(list.id), list_len: list.len })
    }
}
