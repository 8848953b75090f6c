//! The blobs of an earlier backup, by revision: their content is in the repository and need not be read again.
//!
//! The lists of segments are read one by one, in the order of transactions, so that one of them is in memory.

use std::collections::{HashMap, VecDeque};
use std::io::{self, BufRead, BufReader, Read};

use super::Repository;
use super::blob_list::{BlobEntry, Content, Revision, parse};
use super::error::{BackupError, Result};
use super::manifest::{Database, Segment};
use super::object::ObjectKind;
use crate::base::ids::Tid;

/// Looks blobs up, in about the order of their transactions.
pub struct KnownBlobs<'r> {
    repository: &'r Repository,
    /// Segments with lists, later than the one in memory.
    later: VecDeque<Segment>,
    /// Its last transaction, and what it has.
    last: Tid,
    found: HashMap<Revision, Content>,
}

impl<'r> KnownBlobs<'r> {
    /// Those of an earlier backup; `None`: there is none.
    pub fn of(repository: &'r Repository, previous: Option<&Database>) -> KnownBlobs<'r> {
        let segments = previous.map(|database| database.segments.as_slice()).unwrap_or_default();
        let later = segments.iter().filter(|segment| segment.blobs.list.is_some()).cloned().collect();
        KnownBlobs { repository, later, last: Tid::ZERO, found: HashMap::new() }
    }

    /// The content of a blob. `None`: it must be read; for one that is earlier than those that were asked for before,
    /// this may be the answer although the repository has it.
    pub fn content(&mut self, revision: &Revision) -> Result<Option<Content>> {
        while self.last < revision.tid
            && let Some(segment) = self.later.pop_front()
        {
            if segment.last >= revision.tid {
                self.load(&segment)?;
            }
        }
        Ok(self.found.get(revision).copied())
    }

    fn load(&mut self, segment: &Segment) -> Result<()> {
        (self.last, self.found) = (segment.last, HashMap::new());
        let found = &mut self.found;
        let read = for_each(self.repository, segment, &mut |(revision, content)| {
            found.extend(content.map(|content| (revision, content)));
            Ok(())
        });
        match read {
            // Its blobs are read again, and `verify` names the damage.
            Err(BackupError::Damaged(_)) => self.found.clear(),
            other => other?,
        }
        Ok(())
    }
}

/// Calls `each` with the blobs in the list of a segment, if it has one. The sum of the list is known at the end.
pub fn for_each(
    repository: &Repository,
    segment: &Segment,
    each: &mut dyn FnMut(BlobEntry) -> Result<()>,
) -> Result<()> {
    let Some(list) = &segment.blobs.list else { return Ok(()) };
    let mut object = repository.object(ObjectKind::BlobList, list, segment.blobs.list_len)?;
    let failed = each_line(&mut object, each)?;
    match failed {
        Some(error) => Err(object.unreadable(error)),
        None => object.finish(),
    }
}

/// Returns what cannot be read.
fn each_line(
    list: &mut dyn Read,
    each: &mut dyn FnMut(BlobEntry) -> Result<()>,
) -> Result<Option<io::Error>> {
    let mut lines = BufReader::new(list);
    let mut line = String::new();
    loop {
        line.clear();
        match lines.read_line(&mut line) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(error) => return Ok(Some(error)),
        }
        match line.strip_suffix('\n').and_then(parse) {
            Some(entry) => each(entry)?,
            None => return Ok(Some(io::Error::new(io::ErrorKind::InvalidData, "a line is no blob"))),
        }
    }
}
