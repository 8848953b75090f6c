//! The checks that the server makes of its files by itself: `scrub-schedule` of `<filestorage>`.
//!
//! Each such file has a thread of its own. By the schedule it makes a pass: all checks of `zeofs test`, also that blobs
//! have their files, and a comparison with the checksums in `Data.fs.sums`. In between it sums what was committed, so
//! that most of what a pass reads has been summed soon after it was written. No commit waits for any of this.
//!
//! A finding is logged once, and again by each start of the server, as long as it is there.

mod pass;

use std::io;
use std::iter;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use self::pass::{ScrubListener, Scrubbed, Scrubber, in_words};
use crate::base::clock::{Stopwatch, TimeSource};
use crate::base::schedule::Schedule;
use crate::base::sync::Arc;
use crate::commands::keepers::Keepers;
use crate::config::{Config, databases_of, files};
use crate::inspect::check::{Finding, FindingKind};
use crate::server::Server;
use crate::server::hosted::Hosted;
use crate::server::scrub_status::LastScrub;
use crate::server::stop_signal::StopSignal;

/// The logger of the file storage.
const TARGET: &str = "ZODB.FileStorage";
/// Interval at which what was committed is summed; a pass that was cut short by a pack begins anew after it.
const LOOK: Duration = Duration::from_secs(60);

/// Starts the thread of each file that has a schedule.
pub(super) fn start(config: &Config, server: &Server, time: &TimeSource) -> io::Result<Keepers> {
    let mut keepers = Keepers::default();
    for named in &config.storages {
        let databases = databases_of(iter::once(named)).databases;
        for file in files(&named.storage) {
            let (Some(scrub), Some(hosted)) = (&file.scrub, server.hosted(&named.name)) else { continue };
            let path = file.options.path.clone();
            let blob_dir = databases.iter().find(|database| database.path == path);
            let blob_dir = blob_dir.and_then(|database| database.blob_dir.clone());
            let mut keeper = FileKeeper {
                scrubber: Scrubber::new(&path, blob_dir, file.options.handle.clone(), scrub.rate_max),
                path,
                schedule: scrub.schedule,
                hosted,
                time: time.clone(),
                stop: keepers.signal(),
            };
            let run = move || keeper.run();
            keepers.spawn("scrub", run)?;
        }
    }
    Ok(keepers)
}

/// Takes care of one file.
struct FileKeeper {
    path: PathBuf,
    scrubber: Scrubber,
    schedule: Schedule,
    hosted: Arc<Hosted>,
    time: TimeSource,
    stop: Arc<StopSignal>,
}

impl FileKeeper {
    fn run(&mut self) {
        let mut due = self.schedule.next_after(self.time.system_time());
        self.hosted.scrub.set_next(due);
        loop {
            let listener = LogListener { path: self.path.clone(), stop: Arc::clone(&self.stop) };
            // The panic hook has logged it.
            let _ = catch_unwind(AssertUnwindSafe(|| self.scrubber.follow(&listener)));
            let now = self.time.system_time();
            // The clock may have been set back.
            if due > now {
                due = due.min(self.schedule.next_after(now));
            }
            if due <= now {
                let is_complete = catch_unwind(AssertUnwindSafe(|| self.pass(&listener))).unwrap_or(true);
                let now = self.time.system_time();
                let next = self.schedule.next_after(now);
                due = if is_complete { next } else { next.min(now + LOOK) };
                self.hosted.scrub.set_next(due);
            }
            if self.wait(due) {
                return;
            }
        }
    }

    /// Waits until `due`, or for [`LOOK`]. Returns whether the server stops.
    fn wait(&self, due: SystemTime) -> bool {
        let pause = due.duration_since(self.time.system_time()).unwrap_or_default().min(LOOK);
        self.stop.wait(&self.time, pause)
    }

    /// Makes a pass. False: it was cut short.
    fn pass(&mut self, listener: &LogListener) -> bool {
        let path = self.path.display().to_string();
        let (began, watch) = (self.time.system_time(), Stopwatch::start());
        log::debug!(target: TARGET, "{path}: the check of the file begins");
        let shown = self.hosted.scrub.begin();
        let passed = self.scrubber.pass(listener);
        drop(shown);
        let took = watch.passed();
        let (scrubbed, error) = match passed {
            Ok(Scrubbed { is_cut_short: true, .. }) => return false,
            Ok(scrubbed) => (scrubbed, None),
            Err(error) => (Scrubbed::default(), Some(error.to_string())),
        };
        let Scrubbed { bytes, compared, blobs, findings, missing_blobs, .. } = scrubbed;
        let of_blobs = if blobs > 0 { format!(", and {blobs} blobs") } else { String::new() };
        match &error {
            None if findings == 0 => log::info!(
                target: TARGET,
                "{path}: checked in {took:.1?}, nothing is wrong: {bytes} bytes, of which {compared} had a checksum{of_blobs}"
            ),
            None => log::error!(
                target: TARGET,
                "{path}: checked in {took:.1?}, {findings} FINDINGS: {bytes} bytes, of which {compared} had a checksum{of_blobs}"
            ),
            Some(error) => log::error!(
                target: TARGET,
                "{path}: the check of the file has failed: {error}. It is tried again at its next time"
            ),
        }
        self.hosted.scrub.ended(LastScrub {
            file: self.path.clone(),
            began,
            took,
            bytes,
            compared,
            findings,
            missing_blobs,
            error,
        });
        true
    }
}

/// Tells the log.
struct LogListener {
    path: PathBuf,
    stop: Arc<StopSignal>,
}

impl ScrubListener for LogListener {
    fn finding(&self, finding: &Finding) {
        let (path, what) = (self.path.display(), in_words(finding));
        if finding.kind == FindingKind::Blob {
            log::error!(
                target: TARGET,
                "{path}: BLOB MISSING {what}. Keep the backups that there are, and check the disk; \
                 `zeofs test --blobs` lists what is missing, and `zeobackup restore` to another place has it"
            );
            return;
        }
        log::error!(
            target: TARGET,
            "{path}: DAMAGED {what}. Do not pack, and keep the backups that there are. Check the disk; `zeofs test` checks the file, \
             `zeofs diff` compares it with a backup, `zeofs recover` copies what can be read"
        );
    }

    fn no_journal(&self, why: &str) {
        let path = self.path.display();
        log::error!(
            target: TARGET,
            "{path}.sums cannot be used: {why}. The file is checked without checksums until the server is restarted"
        );
    }

    fn is_over(&self) -> bool {
        self.stop.is_stopped()
    }
}
