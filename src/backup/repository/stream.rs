//! Backups as a stream of bytes, for a repository on another machine.
//!
//! ```text
//! zeobackup stream 1
//! object NAME LEN        then LEN bytes: the file of an object, as it is in the repository
//! backup NAME LEN        then LEN bytes: the file of a backup, after all objects that it needs
//! end
//! ```
//!
//! The receiver stores what it does not have, checks every sum, and gives a backup its name when everything that it
//! needs is there and durable. A stream that ends early has done no harm, and the next one finds what has arrived.

use std::collections::BTreeSet;
use std::io::{self, BufRead, Read, Write};
use std::path::Path;

use super::error::{BackupError, Result};
use super::known::for_each;
use super::manifest::{Manifest, Segment, Stamp};
use super::object::{ObjectId, ObjectKind, sum_of_file};
use super::writing::Writing;
use super::{MANIFEST_LEN_MAX, Repository};
use crate::storage::media::{Access, Appending, Reading};

const FIRST_LINE: &str = "zeobackup stream 1";
/// The exit status of a receiver that lacks what the stream leaves out: everything has to be sent.
pub const LEFT_OUT_STATUS: u8 = 3;
/// Upper bound on the bytes of a line.
const LINE_LEN_MAX: u64 = 200;

/// What was sent or received.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Streamed {
    pub backups: Vec<Stamp>,
    /// Objects, and the bytes of their files.
    pub objects: u64,
    pub len: u64,
}

/// Writes backups to a stream. Objects that `since` needs are left out: the receiver has that backup.
pub fn send(
    repository: &Repository,
    stamps: &[Stamp],
    since: Option<&Stamp>,
    out: &mut dyn Write,
) -> Result<Streamed> {
    let since = since.map(|since| repository.manifest(since)).transpose()?;
    let mut sending = Sending::begin(repository, since, out)?;
    for stamp in stamps {
        sending.backup(stamp, repository.manifest(stamp)?)?;
    }
    sending.end()
}

/// A stream that is being written.
pub struct Sending<'a> {
    repository: &'a Repository,
    out: &'a mut dyn Write,
    /// What the receiver has. Of blobs only what is in lists that were read.
    there: BTreeSet<(ObjectKind, ObjectId)>,
    /// The last backup that the receiver has.
    former: Option<Manifest>,
    sent: Streamed,
}

impl<'a> Sending<'a> {
    /// Begins a stream for a receiver that has the backup `since`, which need not be in this repository any more.
    pub fn begin(
        repository: &'a Repository,
        since: Option<Manifest>,
        out: &'a mut dyn Write,
    ) -> Result<Sending<'a>> {
        writeln!(out, "{FIRST_LINE}").map_err(writing())?;
        let there = since.iter().flat_map(Manifest::segments).flat_map(objects_of_segment).collect();
        Ok(Sending { repository, out, there, former: since, sent: Streamed::default() })
    }

    /// Writes a backup, after what the receiver lacks of it.
    pub fn backup(&mut self, stamp: &Stamp, manifest: Manifest) -> Result<()> {
        for segment in manifest.segments() {
            let list = segment.blobs.list.map(|list| (ObjectKind::BlobList, list));
            // A receiver that has a list has its blobs.
            if list.is_some_and(|list| !self.there.contains(&list)) {
                self.read_lists_of_former(&manifest)?;
                let mut blobs = Vec::new();
                for_each(self.repository, segment, &mut |(_, content)| {
                    blobs.extend(content.map(|content| content.id));
                    Ok(())
                })?;
                for blob in blobs {
                    self.object(ObjectKind::Blob, blob)?;
                }
            }
            for (kind, id) in objects_of_segment(segment) {
                self.object(kind, id)?;
            }
        }
        let bytes = manifest.to_bytes();
        writeln!(self.out, "backup {} {}", stamp.file_name(), bytes.len())
            .and_then(|()| self.out.write_all(&bytes))
            .map_err(writing())?;
        self.sent.backups.push(stamp.clone());
        self.former = Some(manifest);
        Ok(())
    }

    /// Ends the stream.
    pub fn end(self) -> Result<Streamed> {
        writeln!(self.out, "end").and_then(|()| self.out.flush()).map_err(writing())?;
        Ok(self.sent)
    }

    fn object(&mut self, kind: ObjectKind, id: ObjectId) -> Result<()> {
        if self.there.insert((kind, id)) {
            let path = self.repository.object_path(kind, &id);
            self.sent.len += send_file(self.repository, &path, self.out)?;
            self.sent.objects += 1;
        }
        Ok(())
    }

    /// Reads which blobs are in those lists of the former backup that this one does not have: they may be in its own.
    fn read_lists_of_former(&mut self, manifest: &Manifest) -> Result<()> {
        let Some(former) = self.former.take() else { return Ok(()) };
        let lists: BTreeSet<_> = manifest.segments().filter_map(|segment| segment.blobs.list).collect();
        let there = &mut self.there;
        for segment in former.segments() {
            if segment.blobs.list.is_none_or(|list| lists.contains(&list)) {
                continue;
            }
            let read = for_each(self.repository, segment, &mut |(_, content)| {
                there.extend(content.map(|content| (ObjectKind::Blob, content.id)));
                Ok(())
            });
            match read {
                // It is not known which blobs are there: they are sent again.
                Err(BackupError::Damaged(_)) => {}
                other => other?,
            }
        }
        Ok(())
    }
}

fn writing() -> impl FnOnce(io::Error) -> BackupError {
    BackupError::io("writing the stream")
}

/// What a segment needs, without its blobs.
fn objects_of_segment(segment: &Segment) -> impl Iterator<Item = (ObjectKind, ObjectId)> + use<> {
    let list = segment.blobs.list.map(|list| (ObjectKind::BlobList, list));
    [(ObjectKind::Data, segment.data), (ObjectKind::Pointers, segment.pointers)].into_iter().chain(list)
}

/// Everything that a backup needs.
fn objects_of(repository: &Repository, manifest: &Manifest) -> Result<BTreeSet<(ObjectKind, ObjectId)>> {
    let mut found = BTreeSet::new();
    for segment in manifest.segments() {
        let is_read = segment.blobs.list.is_some_and(|list| found.contains(&(ObjectKind::BlobList, list)));
        found.extend(objects_of_segment(segment));
        if !is_read {
            for_each(repository, segment, &mut |(_, content)| {
                found.extend(content.map(|content| (ObjectKind::Blob, content.id)));
                Ok(())
            })?;
        }
    }
    Ok(found)
}

/// Returns the length of the file.
fn send_file(repository: &Repository, path: &Path, out: &mut dyn Write) -> Result<u64> {
    let reading = || BackupError::io(format!("reading {}", path.display()));
    let file = repository.media.open(path, Access::Read).map_err(reading())?;
    let len = file.len().map_err(reading())?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    writeln!(out, "object {name} {len}").map_err(writing())?;
    let copied = io::copy(&mut Reading::range(file, 0, len), out).map_err(writing())?;
    if copied < len {
        return Err(BackupError::Damaged(format!("{} became shorter while it was read", path.display())));
    }
    Ok(len)
}

/// Stores what comes from a stream. The caller has the lock of the repository.
pub fn receive(repository: &Repository, from: &mut dyn BufRead) -> Result<Streamed> {
    let mut writing = Writing::begin(repository)?;
    let received = receive_with(&mut writing, from);
    if received.is_err() {
        writing.give_up_all();
    }
    received
}

fn receive_with(writing: &mut Writing<'_>, from: &mut dyn BufRead) -> Result<Streamed> {
    let mut received = Streamed::default();
    if line(from)? != FIRST_LINE {
        return Err(wrong("it is not what 'zeobackup send' writes, or comes from a newer program"));
    }
    loop {
        let line = line(from)?;
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["end"] => return Ok(received),
            ["object", name, len] => {
                let (kind, id) =
                    ObjectKind::of_name(name).ok_or_else(|| wrong(&format!("'{name}' is not an object")))?;
                let len = len.parse().map_err(|_| wrong("a length is not a number"))?;
                receive_object(writing, from, kind, &id, len)?;
                received.objects += 1;
                received.len += len;
            }
            ["backup", name, len] => {
                let stamp =
                    Stamp::of_file_name(name).ok_or_else(|| wrong(&format!("'{name}' is not a backup")))?;
                let len = len.parse().ok().filter(|len| *len <= MANIFEST_LEN_MAX);
                let mut bytes = Vec::new();
                let len = len.ok_or_else(|| wrong("the length of a backup is not one"))?;
                from.take(len).read_to_end(&mut bytes).map_err(BackupError::io("reading the stream"))?;
                receive_backup(writing, &stamp, &bytes)?;
                received.backups.push(stamp);
            }
            _ => return Err(wrong("a line is none of it")),
        }
    }
}

fn receive_object(
    writing: &mut Writing<'_>,
    from: &mut dyn BufRead,
    kind: ObjectKind,
    id: &ObjectId,
    len: u64,
) -> Result<()> {
    let reading = || BackupError::io("reading the stream");
    let mut bytes = from.take(len);
    if writing.has(kind, id) {
        let passed = io::copy(&mut bytes, &mut io::sink()).map_err(reading())?;
        return if passed == len { Ok(()) } else { Err(ended()) };
    }
    let path = writing.temporary();
    let doing = || BackupError::io(format!("writing {}", path.display()));
    let file = writing.repository().media.open(&path, Access::Truncate).map_err(doing())?;
    if io::copy(&mut bytes, &mut Appending::new(file.clone())).map_err(doing())? < len {
        return Err(ended());
    }
    let found = sum_of_file(file.clone(), kind).map_err(|error| wrong(&format!("object {id}: {error}")))?;
    if found != *id {
        return Err(wrong(&format!("the SHA-256 sum of object {id} is {found}")));
    }
    writing.keep(&path, kind, id, &*file)
}

fn receive_backup(writing: &mut Writing<'_>, stamp: &Stamp, bytes: &[u8]) -> Result<()> {
    let manifest = Manifest::parse(bytes).map_err(|what| wrong(&format!("backup {stamp} {what}")))?;
    let repository = writing.repository();
    // The lists first: they tell of the blobs.
    let lists =
        manifest.segments().filter_map(|segment| segment.blobs.list).map(|list| (ObjectKind::BlobList, list));
    let lists: Vec<_> = lists.collect();
    require(writing, stamp, lists)?;
    let all = objects_of(repository, &manifest)?;
    require(writing, stamp, all)?;
    writing.sync()?;
    repository.add(stamp, &manifest)
}

/// Makes sure that the repository has these objects.
fn require(
    writing: &mut Writing<'_>,
    stamp: &Stamp,
    objects: impl IntoIterator<Item = (ObjectKind, ObjectId)>,
) -> Result<()> {
    match objects.into_iter().find(|(kind, id)| !writing.has(*kind, id)) {
        None => Ok(()),
        Some((kind, id)) => Err(BackupError::LeftOut(format!(
            "backup {stamp} needs the object {id}{}, which is neither in the stream nor in {}: send without --since",
            kind.suffix(),
            writing.repository().path.display()
        ))),
    }
}

/// The next line, without its end.
fn line(from: &mut dyn BufRead) -> Result<String> {
    let mut line = String::new();
    from.take(LINE_LEN_MAX).read_line(&mut line).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => wrong("a line is no text"),
        _ => BackupError::io("reading the stream")(error),
    })?;
    match line.strip_suffix('\n') {
        Some(line) => Ok(line.into()),
        None if line.len() as u64 >= LINE_LEN_MAX => Err(wrong("a line is too long")),
        None => Err(ended()),
    }
}

fn wrong(what: &str) -> BackupError {
    BackupError::Damaged(format!("the stream is wrong: {what}"))
}

fn ended() -> BackupError {
    BackupError::Damaged(
        "the stream has ended early. What has arrived stays, and need not be sent again".into(),
    )
}
