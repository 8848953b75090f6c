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
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;

use self::pass::{ScrubListener, Scrubbed, Scrubber, in_words};
use crate::base::clock::{Stopwatch, TimeSource};
use crate::base::schedule::Schedule;
use crate::base::sync::Arc;
use crate::commands::keepers::Keepers;
use crate::config::{Config, ScrubConfig, databases_of, files};
use crate::inspect::check::{Finding, FindingKind};
use crate::server::Server;
use crate::server::hosted::Hosted;
use crate::server::scrub_status::LastScrub;
use crate::server::stop_signal::StopSignal;

/// The logger of the file storage.
const TARGET: &str = "ZODB.FileStorage";
/// Interval at which what was committed is summed; a pass that was cut short by a pack begins anew after it.
const LOOK: Duration = Duration::from_secs(60);

/// The checks of a server's files.
pub(super) struct Scrubs {
    files: Vec<ScrubbedFile>,
    keepers: Keepers,
}

/// A file that is checked, or was.
struct ScrubbedFile {
    path: PathBuf,
    /// A reload replaces it. `None`: the file is not checked any more.
    settings: Arc<ArcSwapOption<ScrubConfig>>,
}

impl Scrubs {
    /// Starts the thread of each file that has a schedule.
    pub(super) fn start(config: &Config, server: &Server, time: &TimeSource) -> io::Result<Scrubs> {
        let mut scrubs = Scrubs { files: Vec::new(), keepers: Keepers::default() };
        scrubs.prepare(config, config, server, time)?;
        scrubs.apply(config);
        Ok(scrubs)
    }

    /// Starts the threads of further files of `running`, which have a schedule in `wanted`. They have nothing to do
    /// before [`Scrubs::apply`].
    pub(super) fn prepare(
        &mut self,
        running: &Config,
        wanted: &Config,
        server: &Server,
        time: &TimeSource,
    ) -> io::Result<()> {
        for named in &running.storages {
            let databases = databases_of(iter::once(named)).databases;
            for file in files(&named.storage) {
                let path = file.options.path.clone();
                let is_known = self.files.iter().any(|known| known.path == path);
                let Some(hosted) = server.hosted(&named.name).filter(|_| !is_known) else { continue };
                let Some(scrub) = scrub_of(wanted, &path) else { continue };
                let blob_dir = databases.iter().find(|database| database.path == path);
                let blob_dir = blob_dir.and_then(|database| database.blob_dir.clone());
                let settings = Arc::new(ArcSwapOption::empty());
                let mut keeper = FileKeeper {
                    scrubber: Scrubber::new(&path, blob_dir, file.options.handle.clone(), scrub.rate_max),
                    path: path.clone(),
                    settings: Arc::clone(&settings),
                    hosted,
                    time: time.clone(),
                    stop: self.keepers.signal(),
                };
                self.keepers.spawn("scrub", move || keeper.run())?;
                self.files.push(ScrubbedFile { path, settings });
            }
        }
        Ok(())
    }

    /// Has all threads follow the schedules of a configuration.
    pub(super) fn apply(&self, wanted: &Config) {
        for file in &self.files {
            file.settings.store(scrub_of(wanted, &file.path).map(Arc::new));
        }
        self.keepers.signal().wake();
    }

    /// Ends all threads, and waits for them.
    pub(super) fn stop(self) {
        self.keepers.stop();
    }
}

/// When a configuration has a file checked.
fn scrub_of(config: &Config, path: &Path) -> Option<ScrubConfig> {
    let files = config.storages.iter().flat_map(|named| files(&named.storage));
    files.into_iter().find(|file| file.options.path == path)?.scrub
}

/// Takes care of one file.
struct FileKeeper {
    path: PathBuf,
    scrubber: Scrubber,
    settings: Arc<ArcSwapOption<ScrubConfig>>,
    hosted: Arc<Hosted>,
    time: TimeSource,
    stop: Arc<StopSignal>,
}

impl FileKeeper {
    fn run(&mut self) {
        let mut schedule: Option<Schedule> = None;
        let mut due = UNIX_EPOCH;
        loop {
            let changes = self.stop.changes();
            let settings = self.settings.load_full();
            let now = self.time.system_time();
            let wanted = settings.as_ref().map(|settings| settings.schedule);
            if std::mem::replace(&mut schedule, wanted) != wanted {
                due = wanted.map_or(UNIX_EPOCH, |wanted| wanted.next_after(now));
                self.hosted.scrub.set_next(due);
            }
            let Some(settings) = settings else {
                if self.stop.wait_unchanged(&self.time, LOOK, changes) {
                    return;
                }
                continue;
            };
            self.scrubber.set_rate(settings.rate_max);
            due = self.turn(settings.schedule, due);
            let pause = due.duration_since(self.time.system_time()).unwrap_or_default().min(LOOK);
            if self.stop.wait_unchanged(&self.time, pause, changes) {
                return;
            }
        }
    }

    /// Sums what was committed, and makes a pass if it is due. Returns when the next one is.
    fn turn(&mut self, schedule: Schedule, due: SystemTime) -> SystemTime {
        let listener = LogListener { path: self.path.clone(), stop: Arc::clone(&self.stop) };
        // The panic hook has logged it.
        let _ = catch_unwind(AssertUnwindSafe(|| self.scrubber.follow(&listener)));
        let now = self.time.system_time();
        // The clock may have been set back.
        let due = if due > now { due.min(schedule.next_after(now)) } else { due };
        if due > now {
            return due;
        }
        let is_complete = catch_unwind(AssertUnwindSafe(|| self.pass(&listener))).unwrap_or(true);
        let now = self.time.system_time();
        let next = schedule.next_after(now);
        let due = if is_complete { next } else { next.min(now + LOOK) };
        self.hosted.scrub.set_next(due);
        due
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
