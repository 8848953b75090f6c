//! What a command of `<backup>` has sent to another place, so that the next stream leaves it out.
//!
//! Beside the backups, because one that stays until there is a later one, or that is pruned, is soon gone; what it had
//! is still at the receiver. A record has the whole backup, as in `backups`, and the name of the command.
//!
//! Nothing is locked while a backup is sent, which may take hours: its record is written first, under the lock, and
//! prunes keep what it needs. When it has arrived the record gets another name, in one step.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::{BackupError, Result};
use super::manifest::{Manifest, Stamp, Stay, with_sum, without_sum};
use super::object::ObjectId;
use super::{MANIFEST_LEN_MAX, ProgressListener, Repository, SENT};
use crate::storage::media::{Access, Reading};

/// The format of a record.
const FORMAT: u32 = 1;
const SUFFIX: &str = ".json";
const SUFFIX_UNDER_WAY: &str = ".under-way.json";
/// Digits of the sum of a command that name its records.
const ID_LEN: usize = 16;

/// How far a backup has come.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum SendProgress {
    UnderWay,
    Arrived,
}

/// A backup that was sent, or is being sent.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Sent {
    format: u32,
    /// For people.
    command: String,
    /// The name of its file in `backups`.
    backup: String,
    pub manifest: Manifest,
}

/// The records of one command.
pub struct SendRecords<'a> {
    repository: &'a Repository,
    command: &'a str,
}

impl<'a> SendRecords<'a> {
    pub fn of(repository: &'a Repository, command: &'a str) -> SendRecords<'a> {
        SendRecords { repository, command }
    }

    fn name(&self, suffix: &str) -> String {
        let id = ObjectId::of(self.command.as_bytes()).to_string();
        format!("{}{suffix}", id.get(..ID_LEN).unwrap_or(&id))
    }

    fn path(&self, suffix: &str) -> PathBuf {
        self.repository.path.join(SENT).join(self.name(suffix))
    }

    /// The last backup that has arrived. `None`: nothing is known of one.
    pub fn last(&self, listener: &dyn ProgressListener) -> Result<Option<Sent>> {
        match read(self.repository, &self.path(SUFFIX)) {
            Err(BackupError::Damaged(what)) => {
                listener.warning(&format!("{what}. The next backup is sent as a whole"));
                Ok(None)
            }
            other => other,
        }
    }

    /// The backup that is to be sent next: the oldest that stays of those that were made after the last one, or the
    /// newest. Only backups of exactly these databases. `None`: the newest has arrived.
    pub fn next(
        &self,
        last: Option<&Sent>,
        names: &[&str],
        listener: &dyn ProgressListener,
    ) -> Result<Option<(Stamp, Manifest)>> {
        let arrived = last.and_then(|last| Stamp::of_file_name(&last.backup));
        let mut newest = None;
        for stamp in self.repository.backups()?.into_iter().rev() {
            // One that has arrived as one that stays until there is a later one may be kept since.
            let is_later = arrived.as_ref().is_some_and(|arrived| {
                stamp > *arrived || stamp == *arrived && stamp.stay() != arrived.stay()
            });
            if newest.is_some() && !(is_later && stamp.stay() == Stay::Kept) {
                match is_later {
                    true => continue,
                    false => break,
                }
            }
            let manifest = match self.repository.manifest(&stamp) {
                Err(BackupError::Damaged(what)) => {
                    listener.warning(&format!("{what}. This backup is not sent"));
                    continue;
                }
                // Another run has removed it since the directory was read.
                Err(BackupError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => continue,
                manifest => manifest?,
            };
            let is_of_these = manifest.databases.len() == names.len()
                && names.iter().all(|name| manifest.database(name).is_some());
            if is_of_these {
                newest = Some((stamp, manifest));
            }
        }
        let is_there = |stamp: &Stamp| last.is_some_and(|last| last.backup == stamp.file_name());
        Ok(newest.filter(|(stamp, _)| !is_there(stamp)))
    }

    /// A backup is going to be sent. The caller has the lock of the repository, at least with those that read.
    pub fn begin(&self, stamp: &Stamp, manifest: &Manifest) -> Result<()> {
        let (command, backup) = (self.command.to_owned(), stamp.file_name());
        let sent = Sent { format: FORMAT, command, backup, manifest: manifest.clone() };
        let bytes = with_sum(&sent);
        let path = self.path(SUFFIX_UNDER_WAY);
        let dir = self.repository.path.join(SENT);
        let media = &self.repository.media;
        let made = media
            .create_dir(&dir)
            .and_then(|is_new| if is_new { media.sync_dir(&self.repository.path) } else { Ok(()) });
        made.and_then(|()| {
            let name = Path::new(SENT).join(self.name(SUFFIX_UNDER_WAY));
            self.repository.write_whole(&name, |out| out.write_all(&bytes))
        })
        .map_err(BackupError::io(format!("writing {}", path.display())))
    }

    /// It has arrived.
    pub fn arrived(&self) -> Result<()> {
        let (from, to) = (self.path(SUFFIX_UNDER_WAY), self.path(SUFFIX));
        let media = &self.repository.media;
        let renamed =
            media.rename(&from, &to).and_then(|()| media.sync_dir(&self.repository.path.join(SENT)));
        renamed.map_err(BackupError::io(format!("renaming {}", from.display())))
    }
}

/// All records, first those of what is under way. One that is damaged is passed over: what it had is sent again.
pub fn all(repository: &Repository) -> Result<Vec<(SendProgress, Sent)>> {
    let dir = repository.path.join(SENT);
    let names = match repository.list(SENT) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        names => names.map_err(BackupError::io(format!("reading the directory {}", dir.display())))?,
    };
    let mut found = Vec::new();
    for name in names.iter().filter(|name| name.ends_with(SUFFIX)) {
        let progress = match name.ends_with(SUFFIX_UNDER_WAY) {
            true => SendProgress::UnderWay,
            false => SendProgress::Arrived,
        };
        match read(repository, &dir.join(name)) {
            Err(BackupError::Damaged(_)) => {}
            sent => found.extend(sent?.map(|sent| (progress, sent))),
        }
    }
    found.sort_by_key(|(progress, _)| *progress);
    Ok(found)
}

/// `None`: there is no such file.
fn read(repository: &Repository, path: &Path) -> Result<Option<Sent>> {
    let doing = || BackupError::io(format!("reading {}", path.display()));
    let file = match repository.media.open(path, Access::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(doing())?,
    };
    let mut bytes = Vec::new();
    Reading::range(file, 0, MANIFEST_LEN_MAX).read_to_end(&mut bytes).map_err(doing())?;
    let sent = without_sum(&bytes).and_then(|text| {
        let sent: Sent = serde_json::from_slice(text).map_err(|error| format!("cannot be read: {error}"))?;
        match (sent.format, sent.manifest.flaw()) {
            (FORMAT, None) => Ok(sent),
            (FORMAT, Some(flaw)) => Err(format!("contradicts itself: {flaw}")),
            (format, _) => Err(format!("has format {format}: a newer program has made it")),
        }
    });
    sent.map(Some).map_err(|what| BackupError::Damaged(format!("{} {what}", path.display())))
}
