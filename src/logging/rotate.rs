//! When and how a log file is moved aside: by size or by time, as Python's rotating handlers do.
//!
//! Names are Python's: `zeo.log.1` is the newest by size; `zeo.log.2026-11-22` has the lines of that day. One
//! difference: where Python removes an older file of the same name (a second SIGUSR2 on the same day), the new name
//! gets a number.

use std::io;
use std::path::{Path, PathBuf};

use crate::base::local_time::LocalTime;

const DAY: i64 = 24 * 60 * 60;

/// When a log file is moved aside and a new one is started.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Rotation {
    #[default]
    Never,
    /// Before a line that would make the file reach `max_size` bytes (0: only when reopened).
    Size { max_size: u64, old_files: u32 },
    /// Every `interval` units of `when`.
    Time { when: When, interval: u32, old_files: u32 },
}

/// The units of Python's TimedRotatingFileHandler, in local time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum When {
    Second,
    Minute,
    Hour,
    Day,
    Midnight,
    /// At the end of this weekday; 0 is Monday.
    Weekday(u8),
}

impl When {
    fn seconds(self) -> i64 {
        match self {
            When::Second => 1,
            When::Minute => 60,
            When::Hour => 60 * 60,
            When::Day | When::Midnight => DAY,
            When::Weekday(_) => 7 * DAY,
        }
    }

    /// `strftime` format of the date in the names of old files.
    fn suffix(self) -> &'static std::ffi::CStr {
        match self {
            When::Second => c"%Y-%m-%d_%H-%M-%S",
            When::Minute => c"%Y-%m-%d_%H-%M",
            When::Hour => c"%Y-%m-%d_%H",
            When::Day | When::Midnight | When::Weekday(_) => c"%Y-%m-%d",
        }
    }

    /// Pattern of such a date; `0` stands for any digit.
    fn suffix_pattern(self) -> &'static str {
        match self {
            When::Second => "0000-00-00_00-00-00",
            When::Minute => "0000-00-00_00-00",
            When::Hour => "0000-00-00_00",
            When::Day | When::Midnight | When::Weekday(_) => "0000-00-00",
        }
    }

    fn is_by_the_clock(self) -> bool {
        matches!(self, When::Midnight | When::Weekday(_))
    }
}

/// The times of rotation of one log file.
#[derive(Debug)]
pub struct Schedule {
    when: When,
    /// Seconds between rotations, apart from changes of the clock.
    interval: i64,
    /// Time of the next rotation, in seconds since the epoch.
    next: i64,
}

impl Schedule {
    /// `since`: when the file was last written, or now for a new one.
    pub fn new(when: When, interval: u32, since: i64) -> Schedule {
        let interval = when.seconds().saturating_mul(i64::from(interval.max(1)));
        let mut schedule = Schedule { when, interval, next: 0 };
        schedule.next = schedule.after(since);
        schedule
    }

    pub fn is_due(&self, now: i64) -> bool {
        now >= self.next
    }

    /// The date in the name of the file that ends now: the date of its beginning.
    pub fn suffix(&self, now: i64) -> String {
        let begin = self.next.saturating_sub(self.interval);
        // By the current clock, so that the names keep their distance over a change to summer time.
        let shift = match (LocalTime::at(now).is_dst(), LocalTime::at(begin).is_dst()) {
            (true, false) => 3600,
            (false, true) => -3600,
            _ => 0,
        };
        let mut suffix = String::new();
        LocalTime::at(begin + shift).format(self.when.suffix(), &mut suffix);
        suffix
    }

    /// Computes the next rotation, after the file was moved aside.
    pub fn advance(&mut self, now: i64) {
        let mut next = self.after(now);
        if next <= now {
            next += (now - next) / self.interval * self.interval + self.interval;
        }
        self.next = next;
    }

    fn after(&self, since: i64) -> i64 {
        if !self.when.is_by_the_clock() {
            return since.saturating_add(self.interval);
        }
        let local = LocalTime::at(since);
        let midnight = since + DAY - local.second_of_day();
        let next = match self.when {
            When::Weekday(day) => {
                let days = (i64::from(day) - local.weekday()).rem_euclid(7);
                midnight + days * DAY + self.interval - 7 * DAY
            }
            _ => midnight + self.interval - DAY,
        };
        // Days with a change of the clock have 23 or 25 hours.
        match (local.is_dst(), LocalTime::at(next).is_dst()) {
            (false, true) => next - 3600,
            (true, false) => next + 3600,
            _ => next,
        }
    }

    /// Removes old files of earlier rotations, except for the newest `keep`.
    pub fn remove_old(&self, path: &Path, keep: u32) -> io::Result<()> {
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
        let mut old: Vec<PathBuf> = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            if is_old(
                &entry.file_name().to_string_lossy(),
                &name.to_string_lossy(),
                self.when.suffix_pattern(),
            ) {
                old.push(entry.path());
            }
        }
        old.sort();
        let surplus = old.len().saturating_sub(keep as usize);
        old.iter().take(surplus).try_for_each(std::fs::remove_file)
    }
}

/// Whether `candidate` is `name` with a date and perhaps another suffix: `zeo.log.2026-11-22.gz`.
fn is_old(candidate: &str, name: &str, pattern: &str) -> bool {
    let Some(suffix) = candidate.strip_prefix(name).and_then(|rest| rest.strip_prefix('.')) else {
        return false;
    };
    let date = suffix.split('.').next().unwrap_or_default();
    date.len() == pattern.len()
        && date.bytes().zip(pattern.bytes()).all(|(c, p)| if p == b'0' { c.is_ascii_digit() } else { c == p })
}

/// Makes `path` the newest of `keep` numbered files. If `path` is missing, nothing is renamed.
pub fn shift(path: &Path, keep: u32) -> io::Result<()> {
    if keep == 0 || path.symlink_metadata().is_err() {
        return Ok(());
    }
    for number in (1..keep).rev() {
        rename_if_there(
            &with_suffix(path, &number.to_string()),
            &with_suffix(path, &(number + 1).to_string()),
        )?;
    }
    rename_if_there(path, &with_suffix(path, "1"))
}

/// Renames `path` to a name with this date, plus a number if that name is taken.
pub fn set_aside(path: &Path, date: &str) -> io::Result<()> {
    let mut target = with_suffix(path, date);
    let mut number = 1;
    while target.symlink_metadata().is_ok() {
        target = with_suffix(path, &format!("{date}.{number}"));
        number += 1;
    }
    rename_if_there(path, &target)
}

/// A missing file is no error: with `delay` it may never have been written, or another program moved it.
fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests;
