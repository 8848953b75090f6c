//! One run of a pack: what its steps share, and its progress.

use std::sync::atomic::Ordering;
use std::time::Duration;

use log::info;

use super::super::PostgresStorage;
use super::super::session::LOG;
use super::super::sql::pack::PackStatements;
use super::session::PackSession;
use crate::base::clock::Stopwatch;
use crate::base::ids::{Oid, Tid};
use crate::storage::{PackRequest, Refusal, Result, StorageError};

/// Interval of the log lines about progress.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// The state that the steps of one pack share.
pub struct PackRun<'a> {
    pub storage: &'a PostgresStorage,
    pub session: PackSession,
    pub sql: &'static PackStatements,
    pub request: &'a PackRequest<'a>,
    /// Whether nothing is to be removed: see `plan`.
    pub is_plan: bool,
    /// Whether the pack is logged.
    pub is_logged: bool,
    /// Whether something may be removed already.
    pub has_begun: bool,
    pub phase: &'static str,
    pub begun: Stopwatch,
    /// Since the last line of progress.
    logged: Stopwatch,
}

impl<'a> PackRun<'a> {
    pub fn new(
        storage: &'a PostgresStorage,
        session: PackSession,
        request: &'a PackRequest<'a>,
        is_logged: bool,
    ) -> PackRun<'a> {
        PackRun {
            storage,
            session,
            sql: storage.shared.sql.pack,
            request,
            is_plan: false,
            is_logged,
            has_begun: false,
            phase: "",
            begun: Stopwatch::start(),
            logged: Stopwatch::start(),
        }
    }

    /// Logs a line, if this pack has lines in the log.
    pub fn log_info(&self, message: std::fmt::Arguments<'_>) {
        if self.is_logged {
            info!(target: LOG, "{}: {message}", self.storage.shared.name);
        }
    }

    /// What has become of the database, for errors.
    pub fn aftermath(&self) -> &'static str {
        if self.has_begun {
            "What is reachable is intact; the next pack removes the rest"
        } else {
            "The database is unchanged"
        }
    }

    /// The oids that a record refers to.
    pub fn references(&self, oid: Oid, tid: Tid, data: &[u8], oids: &mut Vec<Oid>) -> Result<()> {
        (self.request.references)(data, oids).map_err(|why| StorageError::Refused {
            what: Refusal::Pack,
            message: format!(
                "{}: packing: the record of object 0x{oid} at {tid} cannot be searched for references: {why}. {}. \
                 Store a good state of this object, or set pack-gc to false: then no record is read",
                self.storage.shared.name,
                self.aftermath()
            ),
        })
    }

    pub fn phase(&mut self, phase: &'static str) {
        self.phase = phase;
    }

    /// Error: the storage is being closed, or the pack was cancelled. To be called before anything that takes long.
    pub fn check_wanted(&self) -> Result<()> {
        self.storage.check_open()?;
        if self.request.progress.is_cancelled() {
            return Err(StorageError::Refused {
                what: Refusal::PackCancelled,
                message: format!("the pack was cancelled. {}", self.aftermath()),
            });
        }
        Ok(())
    }

    /// Reports progress; called often. `done`: objects, three times all of them in the end. Errors: those of
    /// `check_wanted`.
    pub fn at(&mut self, done: u64) -> Result<()> {
        self.check_wanted()?;
        let progress = self.request.progress;
        progress.done.store(done, Ordering::Relaxed);
        if self.logged.passed() >= LOG_INTERVAL && !self.is_plan {
            self.logged = Stopwatch::start();
            let total = progress.total.load(Ordering::Relaxed).max(1);
            info!(
                target: LOG,
                "{}: packing, {}: {} % done after {} s",
                self.storage.shared.name,
                self.phase,
                done.saturating_mul(100) / total,
                self.begun.passed().as_secs()
            );
        }
        Ok(())
    }
}
