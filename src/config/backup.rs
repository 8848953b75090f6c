//! The backups that the server makes by itself.

use std::path::PathBuf;
use std::time::Duration;

use super::Location;
use crate::backup::repository::retention::Retention;
use crate::base::schedule::Schedule;

/// A `<backup>` section: all files of the configuration are backed up to one repository.
#[derive(Clone, Debug)]
pub struct BackupConfig {
    /// The directory, which must be a repository already.
    pub repository: PathBuf,
    /// Backups that stay until they are pruned.
    pub schedule: Option<Schedule>,
    /// After a commit, a backup is made in this time; it replaces the last one of these.
    pub continuous: Option<Duration>,
    /// Bytes that are read in a second; `None`: no limit.
    pub rate_max: Option<u64>,
    /// What a prune after each backup of the schedule keeps. `None`: everything.
    pub retention: Option<Retention>,
    /// Where the backups go from there.
    pub send: Option<SendConfig>,
    /// Where the section begins, for messages.
    pub location: Location,
}

/// How backups get to another place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SendConfig {
    /// For `/bin/sh -c`; a stream of `zeobackup send` is its standard input.
    pub command: String,
    /// It is killed if it takes nothing, or does not end, for this long.
    pub timeout: Duration,
}
