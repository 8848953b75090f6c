//! Reads backups as a restore would: every object of every backup, once, and compares its sum; joins the segments, and
//! checks that they are whole transactions one behind the other.

use std::collections::{HashMap, HashSet};
use std::io::{self, BufReader, Write};

use super::error::{BackupError, Result};
use super::join::{JoinError, join};
use super::known::for_each;
use super::manifest::{Database, Manifest, Segment, Stamp};
use super::object::{ObjectId, ObjectKind};
use super::{ProgressListener, Repository};
use crate::backup::boundaries::Boundaries;
use crate::base::ids::Tid;

/// Bytes after which the listener is told.
const REPORT_LEN: u64 = 256 << 10;

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

/// Reads these backups. Errors: those of the disk; damage is a finding.
pub fn verify(
    repository: &Repository,
    stamps: &[Stamp],
    listener: &dyn ProgressListener,
) -> Result<Verified> {
    let mut verifying = Verifying {
        repository,
        listener,
        seen: HashMap::new(),
        blobs: HashSet::new(),
        found: Verified::default(),
    };
    for stamp in stamps {
        let manifest = match repository.manifest(stamp) {
            Err(BackupError::Damaged(what)) => {
                verifying.found.findings.push((stamp.clone(), what));
                continue;
            }
            manifest => manifest?,
        };
        verifying.backup(stamp, &manifest)?;
    }
    Ok(verifying.found)
}

struct Verifying<'a> {
    repository: &'a Repository,
    listener: &'a dyn ProgressListener,
    /// Segments that were read, by content and pointers, and what is wrong with them. They are the same at another
    /// place.
    seen: HashMap<(u64, u64), Option<String>>,
    /// Blobs that were read, by the first 8 bytes of their sum: sums that begin alike are rarer than any damage.
    blobs: HashSet<u64>,
    found: Verified,
}

impl Verifying<'_> {
    fn backup(&mut self, stamp: &Stamp, manifest: &Manifest) -> Result<()> {
        self.found.backups += 1;
        for database in &manifest.databases {
            for segment in &database.segments {
                if let Some(what) = self.segment(database, segment)? {
                    self.found.findings.push((stamp.clone(), format!("database {}: {what}", database.name)));
                }
            }
        }
        Ok(())
    }

    /// What is wrong with a segment.
    fn segment(&mut self, database: &Database, segment: &Segment) -> Result<Option<String>> {
        let list = segment.blobs.list.map_or(0, |list| list.short());
        let key = (segment.data.short() ^ list.rotate_left(32), segment.pointers.short());
        if let Some(known) = self.seen.get(&key) {
            return Ok(known.clone());
        }
        let mut what = as_finding(self.data(segment))?;
        if what.is_none() && database.has_blobs {
            what = as_finding(self.blobs(segment))?;
        }
        self.seen.insert(key, what.clone());
        Ok(what)
    }

    fn data(&mut self, segment: &Segment) -> Result<()> {
        let mut content = self.repository.object(ObjectKind::Data, &segment.data, segment.len)?;
        let mut pointers =
            self.repository.object(ObjectKind::Pointers, &segment.pointers, segment.pointers_len)?;
        let mut check = Check {
            boundaries: Boundaries::from(segment.start),
            listener: self.listener,
            done: self.found.len,
            reported: self.found.len,
        };
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
        self.found.objects += 2;
        self.found.len += segment.len + segment.pointers_len;
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
            if self.blobs.insert(content.id.short()) {
                self.blob(&content.id, content.len)?;
            }
        }
        Ok(())
    }

    fn blob(&mut self, id: &ObjectId, len: u64) -> Result<()> {
        self.repository.object(ObjectKind::Blob, id, len)?.finish().inspect_err(|_| {
            // Each backup with this blob is reported, too.
            self.blobs.remove(&id.short());
        })?;
        self.found.objects += 1;
        self.found.len += len;
        self.listener.progress(self.found.len);
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
    listener: &'a dyn ProgressListener,
    done: u64,
    reported: u64,
}

impl Write for Check<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.boundaries.feed(bytes);
        self.done += bytes.len() as u64;
        if self.done - self.reported >= REPORT_LEN {
            self.reported = self.done;
            self.listener.progress(self.done);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
