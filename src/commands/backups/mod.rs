//! The backups that the server makes by itself: `<backup>`.
//!
//! Each section has a thread of its own, and one more if what it makes is sent to another place ([`sending`]), so that
//! a share that does not answer holds up no other backup. It opens the files by name, as the program `zeobackup` does,
//! and needs nothing of the storages that are served.
//!
//! A backup of the schedule whose time passed while no server was running is made at once, and one that fails is tried
//! again after a while. Continuous backups look at the lengths of the files: what was committed is backed up within the
//! interval.

mod attempt;
mod command;
mod sending;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;

use self::attempt::{Complaint, LOCK_WAIT, LogListener, RETRY, Reason, TARGET, hold};
use self::sending::Sender;
use crate::backup::lock::Exclusion;
use crate::backup::repository::Repository;
use crate::backup::repository::create::{CreateOptions, Created, Source, Tempo, create};
use crate::backup::repository::error::BackupError;
use crate::backup::repository::manifest::{Stamp, Stay};
use crate::backup::repository::prune::prune;
use crate::backup::repository::retention::Retention;
use crate::base::clock::{Stopwatch, TimeSource};
use crate::commands::keepers::Keepers;
use crate::config::{BackupConfig, Config, NamedDatabase, databases_of};
use crate::process::priority::stand_back;
use crate::server::Server;
use crate::server::backup_status::{BackupStatus, Work};
use crate::server::stop_signal::StopSignal;
use crate::storage::media::{Identity, Media, RealMedia};

/// Longest wait without a look at the clock, which may have been changed.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The backups of a server.
pub(super) struct Backups {
    sections: Vec<BackupSection>,
    /// Threads of sections that have gone, which may still give up a backup.
    ended: Vec<Keepers>,
}

/// A section, and its threads.
struct BackupSection {
    /// A reload replaces it.
    config: Arc<ArcSwap<BackupConfig>>,
    status: Arc<BackupStatus>,
    keepers: Keepers,
}

/// What changes the backups to those of another configuration.
pub(super) struct BackupChanges {
    /// In the order of the configuration: a section that stays, with its new settings, or one that was started.
    wanted: Vec<SectionChange>,
}

enum SectionChange {
    Kept(usize, BackupConfig),
    Started(BackupSection),
}

impl Backups {
    /// Starts the threads of each section. When they end, a backup that is being made is given up; the next one finds
    /// what it has stored.
    pub(super) fn start(config: &Config, server: &Server, time: &TimeSource) -> io::Result<Backups> {
        let mut backups = Backups { sections: Vec::new(), ended: Vec::new() };
        let found = databases_of(config.storages.iter());
        let left_out = found.left_out.iter().filter(|_| !config.backups.is_empty());
        left_out.for_each(|what| log::warn!(target: TARGET, "<backup>: {what}"));
        let changes = backups.prepare(&config.backups, &found.databases, time)?;
        backups.apply(changes, server);
        Ok(backups)
    }

    /// Starts the threads of further sections. After an error they have ended.
    pub(super) fn prepare(
        &self,
        wanted: &[BackupConfig],
        databases: &[NamedDatabase],
        time: &TimeSource,
    ) -> io::Result<BackupChanges> {
        let mut changes = BackupChanges { wanted: Vec::new() };
        let mut left: Vec<usize> = (0..self.sections.len()).collect();
        for config in wanted {
            let fits = |index: &usize| {
                self.sections.get(*index).is_some_and(|section| {
                    let known = section.config.load();
                    // A command needs a thread of its own.
                    known.repository == config.repository && known.send.is_some() == config.send.is_some()
                })
            };
            match left.iter().position(fits) {
                Some(at) => changes.wanted.push(SectionChange::Kept(left.remove(at), config.clone())),
                None => match BackupSection::start(config, databases, time) {
                    Ok(section) => changes.wanted.push(SectionChange::Started(section)),
                    Err(error) => {
                        changes.give_up();
                        return Err(error);
                    }
                },
            }
        }
        Ok(changes)
    }

    pub(super) fn apply(&mut self, changes: BackupChanges, server: &Server) {
        let mut before: Vec<Option<BackupSection>> = self.sections.drain(..).map(Some).collect();
        for wanted in changes.wanted {
            match wanted {
                SectionChange::Started(section) => self.sections.push(section),
                SectionChange::Kept(index, config) => {
                    if let Some(section) = before.get_mut(index).and_then(Option::take) {
                        section.config.store(Arc::new(config));
                        section.keepers.signal().wake();
                        self.sections.push(section);
                    }
                }
            }
        }
        for section in before.into_iter().flatten() {
            section.keepers.signal().stop();
            self.ended.push(section.keepers);
        }
        server.set_backups(self.sections.iter().map(|section| Arc::clone(&section.status)).collect());
    }

    /// Ends all threads, and waits for them.
    pub(super) fn stop(self) {
        let all: Vec<Keepers> =
            self.sections.into_iter().map(|section| section.keepers).chain(self.ended).collect();
        all.iter().for_each(|keepers| keepers.signal().stop());
        all.into_iter().for_each(Keepers::stop);
    }
}

impl BackupChanges {
    /// Ends what was started for them.
    pub(super) fn give_up(self) {
        for wanted in self.wanted {
            if let SectionChange::Started(section) = wanted {
                section.keepers.stop();
            }
        }
    }
}

impl BackupSection {
    fn start(
        section: &BackupConfig,
        databases: &[NamedDatabase],
        time: &TimeSource,
    ) -> io::Result<BackupSection> {
        let mut keepers = Keepers::default();
        let source = |database: &NamedDatabase| {
            let NamedDatabase { name, path, blob_dir } = database.clone();
            Source { name, path, blob_dir }
        };
        let status = Arc::new(BackupStatus::new(section.repository.clone(), section.send.is_some()));
        let config = Arc::new(ArcSwap::from_pointee(section.clone()));
        let mut keeper = Keeper {
            status: Arc::clone(&status),
            settings: Arc::clone(&config),
            config: config.load_full(),
            sources: databases.iter().map(source).collect(),
            time: time.clone(),
            stop: keepers.signal(),
            seen: Vec::new(),
            complaint: Complaint::default(),
            made: None,
        };
        if let Some(send) = &section.send {
            let mut sender = Sender {
                status: Arc::clone(&status),
                repository: section.repository.clone(),
                settings: Arc::clone(&config),
                send: send.clone(),
                names: databases.iter().map(|database| database.name.clone()).collect(),
                time: time.clone(),
                stop: keepers.signal(),
                complaint: Complaint::default(),
            };
            let (to_sender, made) = sync_channel(1);
            keeper.made = Some(to_sender);
            let run = move || sender.run(&made);
            keepers.spawn("backup-send", run)?;
        }
        if let Err(error) = keepers.spawn("backup", move || keeper.run()) {
            keepers.stop();
            return Err(error);
        }
        Ok(BackupSection { config, status, keepers })
    }
}

/// Makes the backups of one section.
struct Keeper {
    /// What is configured at this moment.
    settings: Arc<ArcSwap<BackupConfig>>,
    /// The same, as it was looked at last.
    config: Arc<BackupConfig>,
    status: Arc<BackupStatus>,
    sources: Vec<Source>,
    time: TimeSource,
    stop: Arc<StopSignal>,
    /// The files at the last backup.
    seen: Vec<Option<Identity>>,
    complaint: Complaint,
    /// Tells the sender of a new backup. One that was not taken yet says the same.
    made: Option<SyncSender<()>>,
}

impl Keeper {
    fn run(&mut self) {
        stand_back();
        let mut due = self.first_due();
        self.status.set_next(due);
        let mut looked = self.time.now();
        loop {
            let changes = self.stop.changes();
            let before = std::mem::replace(&mut self.config, self.settings.load_full());
            if before.schedule != self.config.schedule {
                // Not at once, as a time that has passed is made up for at a start: the site may be in use.
                let now = self.time.system_time();
                due = self.config.schedule.map(|schedule| schedule.next_after(now));
                self.status.set_next(due);
            }
            let now = self.time.system_time();
            if due.is_some_and(|due| due <= now) {
                let is_done = self.make(Stay::Kept);
                let now = self.time.system_time();
                let next = self.config.schedule.map(|schedule| schedule.next_after(now));
                due = if is_done { next } else { next.map(|next| next.min(now + RETRY)) };
                self.status.set_next(due);
                looked = self.time.now();
            } else if let Some(interval) = self.config.continuous
                && self.time.elapsed(looked) >= interval
            {
                if self.is_changed() {
                    self.make(Stay::UntilNext);
                }
                looked = self.time.now();
            }
            let now = self.time.system_time();
            let scheduled = due.map(|due| due.duration_since(now).unwrap_or_default());
            let continuous =
                self.config.continuous.map(|interval| interval.saturating_sub(self.time.elapsed(looked)));
            let pause = [scheduled, continuous].into_iter().flatten().min().unwrap_or(PAUSE_MAX);
            if self.stop.wait_unchanged(&self.time, pause.min(PAUSE_MAX), changes) {
                return;
            }
        }
    }

    /// When the schedule is due after the last backup that it has made. At once if there is none. Also notes for
    /// monitoring when the last backup was made.
    fn first_due(&self) -> Option<SystemTime> {
        let stamps = Repository::open(Arc::new(RealMedia), &self.config.repository)
            .and_then(|repository| repository.backups())
            .unwrap_or_default();
        let time_of = |stamp: &Stamp| UNIX_EPOCH + Duration::from_millis(stamp.to_unix_millis());
        if let Some(last) = stamps.last() {
            self.status.making.succeeded_before(time_of(last));
        }
        let last = stamps.iter().rfind(|stamp| stamp.stay() == Stay::Kept).map_or(UNIX_EPOCH, time_of);
        Some(self.config.schedule?.next_after(last))
    }

    /// Whether a file was written or replaced since the last backup.
    fn is_changed(&self) -> bool {
        self.files() != self.seen
    }

    fn files(&self) -> Vec<Option<Identity>> {
        let identity = |source: &Source| RealMedia.identity(&source.path).ok();
        let files = self.sources.iter().map(identity);
        // A new link changes the time of the last change, too.
        files.map(|file| file.map(|file| Identity { changed: 0, links: 0, ..file })).collect()
    }

    /// Makes a backup. Returns whether it was made.
    fn make(&mut self, stay: Stay) -> bool {
        let files = self.files();
        let status = Arc::clone(&self.status);
        let attempt = status.making.begin(self.time.system_time());
        // The panic hook has logged it.
        let made = catch_unwind(AssertUnwindSafe(|| self.try_to_make(stay)))
            .unwrap_or_else(|_| Err(Reason("it has panicked, which is a bug".into())));
        match made {
            Ok(Some(work)) => {
                attempt.succeed(self.time.system_time(), work);
                self.seen = files;
                // If there is no room, the sender has not begun yet.
                let _ = self.made.as_ref().map(|made| made.try_send(()));
                if self.complaint.is_over() {
                    log::info!(target: TARGET, "backup to {}: works again", self.config.repository.display());
                }
                true
            }
            // The server stops.
            Ok(None) => true,
            Err(Reason(what)) => {
                self.complain(&what);
                attempt.fail(self.time.system_time(), what);
                false
            }
        }
    }

    fn complain(&mut self, what: &str) {
        if self.complaint.is_new(what) {
            let repository = self.config.repository.display();
            log::error!(target: TARGET, "backup to {repository} failed: {what}. It is tried again");
        }
    }

    /// `None`: the server stops.
    fn try_to_make(&self, stay: Stay) -> Result<Option<Work>, Reason> {
        let path = &self.config.repository;
        let begun = Stopwatch::start();
        // A share that is not mounted leaves an empty directory: no repository is made in it.
        let repository = Repository::open(Arc::new(RealMedia), path)?;
        let held = hold(path, Exclusion::All, Some(LOCK_WAIT), &self.time, &self.stop)?;
        let Some(_lock) = held else { return Ok(None) };
        let options = CreateOptions {
            sources: self.sources.clone(),
            tempo: self.config.rate_max.map_or(Tempo::Gentle, Tempo::Rate),
            stay,
            ..CreateOptions::default()
        };
        let listener = LogListener { stop: &self.stop };
        let created = match create(&repository, &options, &self.time, &listener) {
            Err(BackupError::Cancelled) => return Ok(None),
            created => created?,
        };
        log_created(path, &created, stay, begun);
        let work = Work { took: begun.passed(), bytes: created.added };
        if stay == Stay::Kept
            && let Some(retention) = &self.config.retention
        {
            self.prune(&repository, retention, &listener);
        }
        Ok(Some(work))
    }

    /// Removes older backups. If that fails, the backup of before was made all the same; the next one tries it again.
    fn prune(&self, repository: &Repository, retention: &Retention, listener: &LogListener<'_>) {
        let path = self.config.repository.display();
        match prune(repository, retention, false, listener) {
            Ok(pruned) if pruned.removed.is_empty() => {}
            Ok(pruned) => {
                let (backups, len) = (pruned.removed.len(), pruned.len);
                log::info!(target: TARGET, "backup to {path}: {backups} older backups were removed, {len} bytes");
            }
            Err(BackupError::Cancelled) => {}
            Err(error) => {
                log::error!(target: TARGET, "backup to {path}: older backups cannot be removed: {error}");
            }
        }
    }
}

fn log_created(repository: &Path, created: &Created, stay: Stay, begun: Stopwatch) {
    let Created { stamp, is_new, databases, added, damage } = created;
    let path = repository.display();
    for what in damage {
        log::error!(target: TARGET, "backup to {path}: damaged, and copied as it is: {what}");
    }
    let level = if stay == Stay::Kept { log::Level::Info } else { log::Level::Debug };
    if !is_new {
        log::log!(target: TARGET, level, "backup to {path}: nothing has changed since {stamp}");
        return;
    }
    let seconds = begun.passed().as_secs_f64();
    log::log!(target: TARGET, level, "backup to {path}: {stamp} was made in {seconds:.1} s, {added} bytes were added");
    for database in databases.iter().filter(|database| database.missing_blobs() > 0 && stay == Stay::Kept) {
        let (name, missing) = (&database.name, database.missing_blobs());
        log::warn!(target: TARGET, "backup to {path}: {missing} blobs of storage '{name}' have no file");
    }
}
