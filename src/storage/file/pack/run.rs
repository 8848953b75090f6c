//! One run of a pack: what its steps share, and its progress.

use std::sync::atomic::Ordering;
use std::time::Duration;

use log::info;

use super::super::log::TARGET;
use super::super::volume::Volume;
use super::super::{Core, FileStorage};
use super::pace::Pace;
use crate::base::clock::Stopwatch;
use crate::base::ids::{Oid, Tid};
use crate::storage::{PackRequest, Refusal, Result, StorageError};

/// Interval of the log lines about progress.
const LOG_INTERVAL: Duration = Duration::from_secs(30);
/// Commits are held when at most this many bytes are left to copy.
pub const REST_MAX: u64 = 256 * 1024;
/// After this many rounds commits are held even if writers are faster than the copying.
pub const ROUNDS_MAX: usize = 64;

/// The reason why a pack stops.
pub enum Stop {
    Failed(StorageError),
    /// Transaction `tid`, or one that is not finished yet (`None`), refers to an object that is not kept.
    LeftOut {
        oid: Oid,
        tid: Option<Tid>,
    },
}

impl From<StorageError> for Stop {
    fn from(error: StorageError) -> Stop {
        Stop::Failed(error)
    }
}

/// The state that the steps of one pack share.
pub struct PackRun<'a> {
    pub storage: &'a FileStorage,
    pub core: &'a Core,
    pub request: &'a PackRequest<'a>,
    /// Whether nothing is to be packed: see `plan`.
    pub is_plan: bool,
    /// Whether the pack is logged.
    pub is_logged: bool,
    pub phase: &'static str,
    /// `None`: as fast as the disk.
    pub pace: Option<Pace>,
    /// Whether this pack has removed the file that the last one kept.
    pub is_old_removed: bool,
    pub begun: Stopwatch,
    /// Since the last line of progress.
    pub logged: Stopwatch,
}

impl PackRun<'_> {
    /// Logs a line, if this pack has lines in the log.
    pub fn log_info(&self, message: std::fmt::Arguments<'_>) {
        if self.is_logged {
            info!(target: TARGET, "{message}");
        }
    }

    /// The oids that the record of `oid` at `pos` refers to.
    pub fn references(&self, oid: Oid, pos: u64, data: &[u8], oids: &mut Vec<Oid>) -> Result<()> {
        (self.request.references)(data, oids).map_err(|why| StorageError::Refused {
            what: Refusal::Pack,
            message: format!(
                "packing: the record of object 0x{oid} at {pos} cannot be searched for references: {why}. The database is \
                 unchanged"
            ),
        })
    }

    /// As `references`, for the data that a record of `oid` with the back-pointer `back` stands for. `data` is a
    /// buffer.
    pub fn restored_references(
        &self,
        volume: &Volume,
        oid: Oid,
        back: u64,
        data: &mut Vec<u8>,
        oids: &mut Vec<Oid>,
    ) -> Result<()> {
        let Some((pos, header)) = volume.log.follow(oid, back)? else { return Ok(()) };
        data.clear();
        volume.log.read_data(pos, &header, data)?;
        self.references(oid, pos, data, oids)
    }

    pub fn phase(&mut self, phase: &'static str) {
        self.phase = phase;
    }

    /// Error: the storage is being closed, or the pack was cancelled. To be called before anything that takes long or
    /// cannot be taken back, and not any more once the packed file has its name.
    pub fn check_wanted(&self) -> Result<()> {
        if self.core.closed.load(Ordering::Acquire) {
            return Err(self.core.closed());
        }
        if self.request.progress.is_cancelled() {
            return Err(StorageError::Refused {
                what: Refusal::PackCancelled,
                message: "the pack was cancelled. The database is unchanged".into(),
            });
        }
        Ok(())
    }

    /// Reports progress; called often. `done`: bytes, three times the file in all. Errors: those of `check_wanted`.
    pub fn at(&mut self, done: u64) -> Result<()> {
        let (core, progress) = (self.core, self.request.progress);
        if let Some(pace) = &mut self.pace {
            pace.keep(done, || core.closed.load(Ordering::Acquire) || progress.is_cancelled());
        }
        self.check_wanted()?;
        self.request.progress.done.store(done, Ordering::Relaxed);
        if self.logged.passed() >= LOG_INTERVAL && !self.is_plan {
            self.logged = Stopwatch::start();
            let total = self.request.progress.total.load(Ordering::Relaxed).max(1);
            info!(
                target: TARGET,
                "{}: packing, {}: {} % done after {} s",
                self.core.path.display(),
                self.phase,
                done.saturating_mul(100) / total,
                self.begun.passed().as_secs()
            );
        }
        Ok(())
    }
}
