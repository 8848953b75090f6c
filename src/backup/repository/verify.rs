//! Reads backups as a restore would: every object of every backup, once, and compares its sum; joins the segments, and
//! checks that they are whole transactions one behind the other.

use std::collections::{HashMap, HashSet};
use std::io::{self, BufReader, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use super::error::{BackupError, Result};
use super::join::{JoinError, join};
use super::known::for_each;
use super::manifest::{Segment, Stamp};
use super::object::{ObjectId, ObjectKind};
use super::{ProgressListener, Repository};
use crate::backup::boundaries::Boundaries;
use crate::base::ids::Tid;
use crate::base::sync::{Mutex, rank};

/// Interval of progress reports, in bytes.
const REPORT_LEN: u64 = 256 << 10;

/// Upper bound on the threads that read.
const THREADS_MAX: usize = 8;

/// What was found.
#[derive(Debug, Default)]
pub struct Verified {
    /// Number of backups that were read.
    pub backups: u64,
    /// Objects and their bytes, each once.
    pub objects: u64,
    pub len: u64,
    /// What is wrong, with the backup.
    pub findings: Vec<(Stamp, String)>,
}

/// Reads these backups, with all cores. Errors: those of the disk; damage is a finding.
pub fn verify(
    repository: &Repository,
    stamps: &[Stamp],
    listener: &dyn ProgressListener,
) -> Result<Verified> {
    let mut found = Verified::default();
    let mut manifests = Vec::new();
    for stamp in stamps {
        match repository.manifest(stamp) {
            Err(BackupError::Damaged(what)) => found.findings.push((stamp.clone(), what)),
            manifest => manifests.push((stamp, manifest?)),
        }
    }
    let mut different: HashMap<SegmentKey, &Segment> = HashMap::new();
    for (_, manifest) in &manifests {
        let segments = manifest.databases.iter().flat_map(|database| &database.segments);
        segments.for_each(|segment| _ = different.entry(key(segment)).or_insert(segment));
    }
    // In about their order on the disk.
    let mut different: Vec<_> = different.into_iter().collect();
    different.sort_by_key(|(_, segment)| segment.first);
    let flaws = read_all(repository, &different, listener, &mut found)?;
    for (stamp, manifest) in manifests {
        found.backups += 1;
        for database in &manifest.databases {
            for what in database.segments.iter().filter_map(|segment| flaws.get(&key(segment))) {
                found.findings.push((stamp.clone(), format!("database {}: {what}", database.name)));
            }
        }
    }
    found.findings.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(found)
}

/// Segments of the same content, pointers and blobs are the same, at any place.
type SegmentKey = (u64, u64, u64);

fn key(segment: &Segment) -> SegmentKey {
    let list = segment.blobs.list.map_or(0, |list| list.short());
    (segment.data.short(), segment.pointers.short(), list)
}

/// What is wrong with these segments.
fn read_all(
    repository: &Repository,
    segments: &[(SegmentKey, &Segment)],
    listener: &dyn ProgressListener,
    found: &mut Verified,
) -> Result<HashMap<SegmentKey, String>> {
    let count = thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX).min(segments.len());
    let (next, blobs) = (AtomicUsize::new(0), Blobs::default());
    let (to, from) = channel();
    let mut flaws = HashMap::new();
    thread::scope(|scope| {
        for _ in 0..count {
            let (to, next, blobs) = (to.clone(), &next, &blobs);
            scope.spawn(move || {
                while let Some((key, segment)) = segments.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mut reader = SegmentReader { repository, blobs, told: &to, objects: 0, len: 0 };
                    let result = as_finding(reader.read(segment));
                    let is_failed = result.is_err();
                    let SegmentReader { objects, len, .. } = reader;
                    // The other end is there until all threads have ended, or one has failed.
                    if to.send(Told::Done { key: *key, objects, len, result }).is_err() || is_failed {
                        return;
                    }
                }
            });
        }
        drop(to);
        let mut done = 0;
        for told in from {
            if listener.is_cancelled() {
                return Err(BackupError::Cancelled);
            }
            match told {
                Told::Read(len) => {
                    done += len;
                    listener.progress(done);
                }
                Told::Done { key, objects, len, result } => {
                    flaws.extend(result?.map(|what| (key, what)));
                    (found.objects, found.len) = (found.objects + objects, found.len + len);
                }
            }
        }
        Ok(flaws)
    })
}

/// From a thread that reads.
enum Told {
    /// Bytes that were read.
    Read(u64),
    Done {
        key: SegmentKey,
        objects: u64,
        len: u64,
        result: Result<Option<String>>,
    },
}

/// Blobs that were read, by the first 8 bytes of their sum: sums that begin alike are rarer than any damage.
type Blobs = Mutex<HashSet<u64>, rank::VerifiedBlobs>;

struct SegmentReader<'a> {
    repository: &'a Repository,
    blobs: &'a Blobs,
    told: &'a Sender<Told>,
    objects: u64,
    len: u64,
}

impl SegmentReader<'_> {
    fn read(&mut self, segment: &Segment) -> Result<()> {
        self.data(segment)?;
        self.blobs(segment)
    }

    fn data(&mut self, segment: &Segment) -> Result<()> {
        let mut content = self.repository.object(ObjectKind::Data, &segment.data, segment.len)?;
        let mut pointers =
            self.repository.object(ObjectKind::Pointers, &segment.pointers, segment.pointers_len)?;
        let mut check = Check { boundaries: Boundaries::from(segment.start), told: self.told, untold: 0 };
        let joined = join(
            &mut BufReader::new(&mut content),
            &mut BufReader::new(&mut pointers),
            segment.start,
            Tid(u64::MAX),
            &mut check,
        );
        let misfit = check.boundaries.misfit();
        let joined = match joined {
            Ok(joined) => joined,
            // Damage of an object explains more than what follows from it.
            Err(JoinError::Source(error) | JoinError::Target(error)) => {
                let error = content.unreadable(error);
                content.finish()?;
                pointers.finish()?;
                return Err(error);
            }
        };
        content.finish()?;
        pointers.finish()?;
        self.objects += 2;
        self.len += segment.len + segment.pointers_len;
        if joined.end != segment.end() || joined.last != segment.last {
            let what = format!(
                "the segment at {} ends at {}, should end at {}",
                segment.start,
                joined.end,
                segment.end()
            );
            return Err(BackupError::Damaged(what));
        }
        match misfit.filter(|_| segment.damaged == 0) {
            Some(misfit) => Err(BackupError::Damaged(format!("the segment at {}: {misfit}", segment.start))),
            None => Ok(()),
        }
    }

    fn blobs(&mut self, segment: &Segment) -> Result<()> {
        let mut contents = Vec::new();
        for_each(self.repository, segment, &mut |(_, content)| {
            contents.extend(content);
            Ok(())
        })?;
        for content in contents {
            if self.blobs.lock().insert(content.id.short()) {
                self.blob(&content.id, content.len)?;
            }
        }
        Ok(())
    }

    fn blob(&mut self, id: &ObjectId, len: u64) -> Result<()> {
        self.repository.object(ObjectKind::Blob, id, len)?.finish().inspect_err(|_| {
            // Each backup with this blob is reported, too.
            self.blobs.lock().remove(&id.short());
        })?;
        (self.objects, self.len) = (self.objects + 1, self.len + len);
        // Only the progress would be missing.
        let _ = self.told.send(Told::Read(len));
        Ok(())
    }
}

/// Damage as a finding.
fn as_finding(result: Result<()>) -> Result<Option<String>> {
    match result {
        Ok(()) => Ok(None),
        Err(BackupError::Damaged(what)) => Ok(Some(what)),
        Err(error) => Err(error),
    }
}

/// Checks what a restore would write.
struct Check<'a> {
    boundaries: Boundaries,
    told: &'a Sender<Told>,
    untold: u64,
}

impl Write for Check<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.boundaries.feed(bytes);
        self.untold += bytes.len() as u64;
        if self.untold >= REPORT_LEN {
            // Only the progress would be missing.
            let _ = self.told.send(Told::Read(std::mem::take(&mut self.untold)));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
