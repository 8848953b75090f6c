//! A `<logfile>` with a path: opening, rotating, reopening, and errors of the medium.
//!
//! The open file is replaced only by another open file. If a new one cannot be opened, at SIGUSR2 or at a rotation,
//! lines go to the old one, whatever its name is then.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::rotate::{self, Rotation, Schedule};
use super::writer::Writer;
use crate::base::clock::TimeSource;

/// Delay of the next attempt after a failed rotation, in seconds.
const ROTATION_RETRY_SECS: i64 = 60;

/// The options of a `<logfile>` that concern its file.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct FileSetup {
    pub path: PathBuf,
    pub rotation: Rotation,
    /// Open the file at the first line only.
    pub delay: bool,
}

#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    delay: bool,
    clock: TimeSource,
    writer: Option<Writer>,
    turn: Turn,
    /// Earliest time of the next rotation, in seconds since the epoch.
    rotate_after: i64,
    /// An error that no caller has seen, to be logged.
    trouble: Option<String>,
}

/// [`Rotation`] at work.
#[derive(Debug)]
enum Turn {
    Never,
    Size { max_size: u64, keep: u32 },
    Time { schedule: Schedule, keep: u32 },
}

impl LogFile {
    pub fn open(setup: &FileSetup) -> io::Result<LogFile> {
        LogFile::open_with(setup, TimeSource::SYSTEM)
    }

    /// A file that is rotated by the time of `clock`.
    fn open_with(setup: &FileSetup, clock: TimeSource) -> io::Result<LogFile> {
        // The process may change its working directory later.
        let path = std::path::absolute(&setup.path)?;
        let turn = match setup.rotation {
            Rotation::Never => Turn::Never,
            Rotation::Size { max_size, old_files } => Turn::Size { max_size, keep: old_files },
            Rotation::Time { when, interval, old_files } => {
                let written = last_written(&path).unwrap_or_else(|| seconds(clock.system_time()));
                let schedule = Schedule::new(when, interval, written);
                Turn::Time { schedule, keep: old_files }
            }
        };
        let writer = if setup.delay { None } else { Some(Writer::open(&path)?) };
        Ok(LogFile { path, delay: setup.delay, clock, writer, turn, rotate_after: 0, trouble: None })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.is_turn_due(line.len() as u64)
            && let Err(error) = self.rotate().and_then(|()| self.open_new())
        {
            self.rotate_after = self.now() + ROTATION_RETRY_SECS;
            self.trouble = Some(format!("log file {} cannot be rotated: {error}", self.path.display()));
        }
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => self.writer.insert(Writer::open(&self.path)?),
        };
        let result = writer.write_line(line);
        if result.as_ref().is_err_and(handle_is_dead) {
            self.writer = None;
        }
        result
    }

    /// Takes the error that no caller has seen.
    pub fn take_trouble(&mut self) -> Option<String> {
        self.trouble.take()
    }

    /// Reopens the configured path after the file was moved away. A rotating file is rotated, as ZConfig does.
    pub fn reopen(&mut self) -> io::Result<()> {
        match self.turn {
            Turn::Never => {}
            Turn::Size { .. } | Turn::Time { .. } => self.rotate()?,
        }
        if self.delay {
            self.writer = None;
            return Ok(());
        }
        self.open_new()
    }

    /// In seconds since the epoch.
    fn now(&self) -> i64 {
        seconds(self.clock.system_time())
    }

    /// Opens a new file; the current one is closed only when the new one is open.
    fn open_new(&mut self) -> io::Result<()> {
        self.writer = Some(Writer::open(&self.path)?);
        Ok(())
    }

    fn is_turn_due(&mut self, line_len: u64) -> bool {
        // Only regular files have a size and successors.
        if self.writer.as_ref().is_some_and(|writer| !writer.is_regular()) {
            return false;
        }
        match &self.turn {
            Turn::Never => false,
            Turn::Size { max_size: 0, .. } => false,
            Turn::Size { max_size, .. } => {
                let max_size = *max_size;
                let Some(writer) = &mut self.writer else { return false };
                let is_full = |len: u64| len > 0 && len + line_len >= max_size;
                is_full(writer.len()) && is_full(writer.measure()) && self.now() >= self.rotate_after
            }
            Turn::Time { schedule, .. } => {
                let now = seconds(self.clock.system_time());
                schedule.is_due(now) && now >= self.rotate_after
            }
        }
    }

    /// Renames the file. The open file stays open under its new name.
    fn rotate(&mut self) -> io::Result<()> {
        match &mut self.turn {
            Turn::Never => {}
            Turn::Size { keep, .. } => rotate::shift(&self.path, *keep)?,
            Turn::Time { schedule, keep } => {
                let now = seconds(self.clock.system_time());
                rotate::set_aside(&self.path, &schedule.suffix(now))?;
                schedule.advance(now);
                if let Err(error) = schedule.remove_old(&self.path, *keep) {
                    self.trouble =
                        Some(format!("old files of log {} cannot be removed: {error}", self.path.display()));
                }
            }
        }
        Ok(())
    }
}

/// Whether the descriptor is unusable, so that the next line should open the path again. A full disk or a slow reader
/// is no reason.
fn handle_is_dead(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge
            | io::ErrorKind::TimedOut
            | io::ErrorKind::WouldBlock
            | io::ErrorKind::WriteZero
    )
}

fn last_written(path: &Path) -> Option<i64> {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok().map(seconds)
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::rotate::When;
    use super::*;

    fn files(dir: &Path) -> usize {
        std::fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn a_file_is_rotated_when_its_time_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let rotation = Rotation::Time { when: When::Hour, interval: 2, old_files: 9 };
        let setup = FileSetup { path: dir.path().join("log"), rotation, delay: false };
        let clock = TimeSource::manual();
        let mut file = LogFile::open_with(&setup, clock.clone()).unwrap();
        for (minutes, expected) in [(0, 1), (118, 1), (3, 2), (60, 2), (61, 3)] {
            clock.advance(Duration::from_secs(60 * minutes));
            file.write_line(b"line\n").unwrap();
            assert_eq!(files(dir.path()), expected, "{minutes} minutes later");
        }
    }

    /// Without the delay each line would try again.
    #[test]
    fn a_failed_rotation_is_repeated_after_a_minute() {
        let dir = tempfile::tempdir().unwrap();
        let rotation = Rotation::Size { max_size: 20, old_files: 1 };
        let setup = FileSetup { path: dir.path().join("log"), rotation, delay: false };
        let clock = TimeSource::manual();
        let mut file = LogFile::open_with(&setup, clock.clone()).unwrap();
        // The old file cannot get its name.
        let taken = dir.path().join("log.1");
        std::fs::create_dir_all(taken.join("directory")).unwrap();
        let mut trouble = Vec::new();
        for seconds in [0, 0, 0, 59, 2] {
            clock.advance(Duration::from_secs(seconds));
            file.write_line(b"more than ten bytes\n").unwrap();
            trouble.push(file.take_trouble().is_some());
        }
        assert_eq!(trouble, [false, true, false, false, true]);
    }
}
