//! Backups on their way to another place: each new one goes to a command's standard input.
//!
//! A thread of its own, so that a slow line holds up no backup. The backups are taken from the repository, oldest first
//! if several are to be kept, and what was sent last is remembered there: so it does not matter when the server stops.

use std::io::{self, BufWriter, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};

use arc_swap::ArcSwap;

use super::attempt::{Complaint, LogListener, RETRY, Reason, TARGET, hold};
use super::command::{Ending, RunningCommand};
use crate::backup::lock::Exclusion;
use crate::backup::repository::Repository;
use crate::backup::repository::error::{BackupError, Result};
use crate::backup::repository::manifest::{Manifest, Stamp, Stay};
use crate::backup::repository::sent::SendRecords;
use crate::backup::repository::stream::{LEFT_OUT_STATUS, Sending, Streamed};
use crate::base::clock::{Stopwatch, TimeSource};
use crate::base::untrusted::one_line;
use crate::config::{BackupConfig, SendConfig};
use crate::process::priority::stand_back;
use crate::server::backup_status::{BackupStatus, Work};
use crate::server::stop_signal::StopSignal;
use crate::storage::media::RealMedia;

/// Bytes of the command that are in a line of the log.
const COMMAND_LEN_MAX: usize = 80;
/// Bytes that are written together.
const BUF_LEN: usize = 64 << 10;

/// Sends the backups of one section.
pub(super) struct Sender {
    pub(super) status: Arc<BackupStatus>,
    pub(super) repository: PathBuf,
    /// What is configured at this moment.
    pub(super) settings: Arc<ArcSwap<BackupConfig>>,
    /// The command, as it was looked at last.
    pub(super) send: SendConfig,
    /// The databases of the section.
    pub(super) names: Vec<String>,
    pub(super) time: TimeSource,
    pub(super) stop: Arc<StopSignal>,
    pub(super) complaint: Complaint,
}

/// The result of an attempt.
enum Attempt {
    /// There may be more.
    Sent(Work),
    /// Everything was sent.
    NothingNew,
    /// The server stops.
    Stopped,
}

/// The result of one run of the command.
enum RunResult {
    Arrived(Streamed),
    /// The receiver lacks what was left out.
    LeftOut,
    Stopped,
}

impl Sender {
    /// Sends what is new: at first, whenever `made` says so, and after [`RETRY`], until nothing can say so any more.
    pub(super) fn run(&mut self, made: &Receiver<()>) {
        stand_back();
        loop {
            // Without a command the section has no such thread.
            if let Some(send) = &self.settings.load().send {
                self.send = send.clone();
            }
            self.send_all();
            match made.recv_timeout(RETRY) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn send_all(&mut self) {
        let status = Arc::clone(&self.status);
        let Some(sending) = &status.sending else { return };
        loop {
            let shown = sending.begin(self.time.system_time());
            // The panic hook has logged it.
            let attempt = catch_unwind(AssertUnwindSafe(|| self.send_next()))
                .unwrap_or_else(|_| Err(Reason("it has panicked, which is a bug".into())));
            match attempt {
                Ok(Attempt::Sent(work)) => {
                    shown.succeed(self.time.system_time(), work);
                    if self.complaint.is_over() {
                        log::info!(target: TARGET, "{}: works again", self.title());
                    }
                }
                Ok(Attempt::NothingNew | Attempt::Stopped) => return,
                Err(Reason(what)) => {
                    if self.complaint.is_new(&what) {
                        log::error!(target: TARGET, "{} failed: {what}. It is tried again", self.title());
                    }
                    shown.fail(self.time.system_time(), what);
                    return;
                }
            }
        }
    }

    /// For the log.
    fn title(&self) -> String {
        let command = one_line(COMMAND_LEN_MAX, format_args!("{}", self.send.command));
        format!("backup to {}: sending with '{command}'", self.repository.display())
    }

    fn send_next(&self) -> std::result::Result<Attempt, Reason> {
        let repository = Repository::open(Arc::new(RealMedia), &self.repository)?;
        let records = SendRecords::of(&repository, &self.send.command);
        let listener = LogListener { stop: &self.stop };
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        // A prune that begins later sees what was begun, and keeps it: no lock is needed after that.
        let Some(lock) = hold(&self.repository, Exclusion::Writers, None, &self.time, &self.stop)? else {
            return Ok(Attempt::Stopped);
        };
        let last = records.last(&listener)?;
        let Some((stamp, manifest)) = records.next(last.as_ref(), &names, &listener)? else {
            return Ok(Attempt::NothingNew);
        };
        records.begin(&stamp, &manifest)?;
        drop(lock);
        let begun = Stopwatch::start();
        let since = last.map(|last| last.manifest);
        let is_whole = since.is_none();
        let run = match self.run_command(&repository, &stamp, &manifest, since)? {
            RunResult::LeftOut if !is_whole => {
                log::warn!(
                    target: TARGET,
                    "{}: the receiver lacks what was sent before; everything is sent again",
                    self.title()
                );
                self.run_command(&repository, &stamp, &manifest, None)?
            }
            run => run,
        };
        match run {
            RunResult::Arrived(Streamed { objects, len, .. }) => {
                records.arrived()?;
                let level = if stamp.stay() == Stay::Kept { log::Level::Info } else { log::Level::Debug };
                let (title, seconds) = (self.title(), begun.passed().as_secs_f64());
                log::log!(
                    target: TARGET,
                    level,
                    "{title}: {stamp} was sent in {seconds:.1} s, {objects} objects of {len} bytes"
                );
                Ok(Attempt::Sent(Work { took: begun.passed(), bytes: len }))
            }
            RunResult::LeftOut => Err(Reason(format!(
                "exit status {LEFT_OUT_STATUS}, which says that the receiver lacks something, though everything was sent"
            ))),
            RunResult::Stopped => Ok(Attempt::Stopped),
        }
    }

    fn run_command(
        &self,
        repository: &Repository,
        stamp: &Stamp,
        manifest: &Manifest,
        since: Option<Manifest>,
    ) -> std::result::Result<RunResult, Reason> {
        let mut command = RunningCommand::start(&self.send.command, self.send.timeout, &self.stop)
            .map_err(|error| Reason(format!("it cannot be started: {error}")))?;
        let streamed = stream(repository, stamp, manifest, since, &mut command);
        let ending = command.end();
        let said = match command.last_lines() {
            lines if lines.is_empty() => String::new(),
            lines => format!(": {lines}"),
        };
        match (ending, streamed) {
            (Ending::Ended(status), Ok(streamed)) if status.success() => {
                log::debug!(target: TARGET, "{}: {status}{said}", self.title());
                Ok(RunResult::Arrived(streamed))
            }
            (Ending::Stopped, _) => Ok(RunResult::Stopped),
            _ if command.is_stopped() => Ok(RunResult::Stopped),
            (Ending::GivenUp(why), _) => Err(Reason(format!("{why}{said}"))),
            // A command that was given a part has nothing to say about why.
            (_, Err(error)) if !is_of_command(&error) => Err(Reason(error.to_string())),
            (Ending::Ended(status), _) if status.code() == Some(LEFT_OUT_STATUS.into()) => {
                Ok(RunResult::LeftOut)
            }
            (Ending::Ended(status), Err(_)) if status.success() => {
                Err(Reason(format!("it has ended before it had everything, with {status}{said}")))
            }
            (Ending::Ended(status), _) => Err(Reason(format!("{status}{said}"))),
        }
    }
}

/// Whether the command has not taken the stream.
fn is_of_command(error: &BackupError) -> bool {
    matches!(error, BackupError::Io { error, .. } if error.kind() == io::ErrorKind::BrokenPipe)
}

fn stream(
    repository: &Repository,
    stamp: &Stamp,
    manifest: &Manifest,
    since: Option<Manifest>,
    out: &mut dyn Write,
) -> Result<Streamed> {
    let mut out = BufWriter::with_capacity(BUF_LEN, out);
    let mut sending = Sending::begin(repository, since, &mut out)?;
    sending.backup(stamp, manifest.clone())?;
    sending.end()
}
