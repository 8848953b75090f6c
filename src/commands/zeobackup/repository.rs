//! What the commands have in common: the repository, its lock, progress, and words about backups.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

use getopts::{Matches, Options};
use log::LevelFilter;

use super::super::progress::Progress;
use super::super::subcommand::Trouble;
use crate::backup::lock::{Exclusion, Locked, RepositoryLock, lock};
use crate::backup::repository::error::BackupError;
use crate::backup::repository::manifest::Stamp;
use crate::backup::repository::{ProgressListener, Repository};
use crate::base::ids::Tid;
use crate::storage::media::RealMedia;

/// Defines `-r`.
pub(super) fn options(options: &mut Options) {
    options.optopt("r", "repository", "", "");
}

/// An open repository, and its lock.
pub(super) struct Opened {
    pub(super) repository: Repository,
    _lock: Option<RepositoryLock>,
}

/// How a repository is opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Opening {
    /// Made if it is missing.
    Create,
    /// Changed.
    Change,
    /// Read.
    Read,
}

/// Opens the repository of `-r`, and takes its lock.
pub(super) fn open(matches: &Matches, opening: Opening) -> Result<Opened, Trouble> {
    show_errors();
    let Some(path) = matches.opt_str("repository") else {
        return Err(Trouble::Usage("no repository is given; use -r".into()));
    };
    let path = Path::new(&path);
    let media = Arc::new(RealMedia);
    let repository = match opening {
        Opening::Create => Repository::open_or_create(media, path)?,
        Opening::Change | Opening::Read => Repository::open(media, path)?,
    };
    let exclusion = if opening == Opening::Read { Exclusion::Writers } else { Exclusion::All };
    let file = Repository::lock_path(path);
    let locked = lock(&file, exclusion);
    let lock =
        match locked.map_err(|error| Trouble::Failed(format!("locking {}: {error}", file.display())))? {
            Locked::Held(lock) => Some(lock),
            Locked::Busy { holder } => {
                let by = if holder.is_empty() { String::new() } else { format!(" (process {holder})") };
                return Err(Trouble::Failed(format!(
                    "{} is in use by another run of zeobackup{by}: wait until it has ended",
                    path.display()
                )));
            }
            Locked::Impossible(error) => {
                eprintln!(
                    "Warning: {} cannot be locked: {error}. Make sure that one zeobackup runs at a time",
                    file.display()
                );
                None
            }
        };
    Ok(Opened { repository, _lock: lock })
}

/// Errors that end nothing go to stderr. Warnings would be about what is usual in a file that is in use: an index that
/// is older, a last transaction that is not complete.
fn show_errors() {
    let log = fern::Dispatch::new().level(LevelFilter::Error).chain(std::io::stderr()).apply();
    if let Err(error) = log {
        eprintln!("Errors that end nothing are not shown: {error}");
    }
}

/// Warnings on stderr, and the progress on a terminal.
pub(super) struct Reporter {
    progress: RefCell<Option<Progress>>,
}

impl Reporter {
    /// `name`: of what is done; `total`: bytes, if that is known.
    pub(super) fn new(name: &str, total: Option<u64>) -> Reporter {
        Reporter { progress: RefCell::new(Progress::on_terminal(name, total, true)) }
    }

    /// Removes the line of the progress.
    pub(super) fn end(&self) {
        if let Some(progress) = &mut *self.progress.borrow_mut() {
            progress.end();
        }
    }
}

impl ProgressListener for Reporter {
    fn progress(&self, done: u64) {
        if let Some(progress) = &mut *self.progress.borrow_mut() {
            progress.show(done);
        }
    }

    fn warning(&self, what: &str) {
        self.end();
        eprintln!("Warning: {what}");
    }
}

impl From<BackupError> for Trouble {
    fn from(error: BackupError) -> Trouble {
        Trouble::Failed(error.to_string())
    }
}

/// The backup of this name.
pub(super) fn stamp_argument(text: &str) -> Result<Stamp, Trouble> {
    Stamp::parse(text).ok_or_else(|| {
        Trouble::Usage(format!("'{text}' is no backup; their names are as 2026-11-29T09-45-00.123Z"))
    })
}

/// `2026-11-29 09:44:59.812345 (0404...)`, or that there is no transaction.
pub(super) fn state(tid: Tid) -> String {
    if tid == Tid::ZERO { "no transaction".into() } else { format!("{} ({tid})", tid.to_text()) }
}

/// `1 blob`, `2 blobs`
pub(super) fn counted(count: u64, thing: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {thing}{plural}", crate::base::numbers::grouped(count))
}
