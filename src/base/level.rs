//! Python's log levels on top of the five of the `log` crate.
//!
//! | Python     | number | here                                   |
//! |------------|--------|----------------------------------------|
//! | `CRITICAL` | 50     | [`critical!`](crate::critical)         |
//! | `ERROR`    | 40     | `log::error!`                          |
//! | `WARNING`  | 30     | `log::warn!`                           |
//! | `INFO`     | 20     | `log::info!`                           |
//! | `BLATHER`  | 15     | [`blather!`](crate::blather)           |
//! | `DEBUG`    | 10     | `log::debug!`                          |
//! | `TRACE`    | 5      | `log::trace!`                          |
//! | any        | 1..=50 | [`log_at!`](crate::log_at) (a number known only at run time) |
//!
//! The two levels that `log` lacks are sent as its nearest coarser level (`Error`, `Debug`) with the number as a
//! key-value pair, [`LEVEL_KEY`]. So the check that skips a disabled level is `log`'s own, one comparison with an
//! atomic, and the pair is built only for a line that may be written.

use log::{LevelFilter, Record};

/// The highest level.
pub const CRITICAL: u8 = 50;
pub const ERROR: u8 = 40;
pub const WARNING: u8 = 30;
pub const INFO: u8 = 20;
pub const BLATHER: u8 = 15;
pub const DEBUG: u8 = 10;
pub const TRACE: u8 = 5;
/// The lowest level that a record can have.
pub const ALL: u8 = 1;
pub const NOTSET: u8 = 0;

/// The key of Python's number in a record, if it differs from the number of its `log` level.
pub const LEVEL_KEY: &str = "levelno";

/// Logs at Python's CRITICAL (50): `critical!(target: "ZEO.StorageServer", "{} waiters", n)`.
#[doc(hidden)]
#[macro_export]
macro_rules! critical {
    (target: $target:expr, $($message:tt)+) => {
        ::log::error!(target: $target, levelno = 50_u8; $($message)+)
    };
}

/// Logs at Python's BLATHER (15), which ZODB puts between INFO and DEBUG.
#[doc(hidden)]
#[macro_export]
macro_rules! blather {
    (target: $target:expr, $($message:tt)+) => {
        ::log::debug!(target: $target, levelno = 15_u8; $($message)+)
    };
}

/// Logs at a level known only at run time: `log_at!(target: "ZEO.StorageServer", level, "...")`, `level` a `u8`.
#[doc(hidden)]
#[macro_export]
macro_rules! log_at {
    (target: $target:expr, $level:expr, $($message:tt)+) => {{
        let number: u8 = $level;
        ::log::log!(target: $target, $crate::carrier(number), levelno = number; $($message)+)
    }};
}

/// The `log` level that carries records of Python's `number`: the next one at or above it.
pub fn carrier(number: u8) -> log::Level {
    match number {
        31.. => log::Level::Error,
        21.. => log::Level::Warn,
        16.. => log::Level::Info,
        6.. => log::Level::Debug,
        _ => log::Level::Trace,
    }
}

/// The number of a record's level, as Python counts.
pub fn number(record: &Record<'_>) -> u8 {
    let marked = record.key_values().get(log::kv::Key::from_str(LEVEL_KEY));
    if let Some(number) = marked.and_then(|value| value.to_u64()).and_then(|n| u8::try_from(n).ok()) {
        return number;
    }
    match record.level() {
        log::Level::Error => ERROR,
        log::Level::Warn => WARNING,
        log::Level::Info => INFO,
        log::Level::Debug => DEBUG,
        log::Level::Trace => TRACE,
    }
}

/// The `log` filter that lets every record of `threshold` or above pass.
///
/// It is coarse, because several numbers share a carrier; handlers compare the number itself.
pub fn filter(threshold: u8) -> LevelFilter {
    if threshold > CRITICAL { LevelFilter::Off } else { carrier(threshold).to_level_filter() }
}

/// The highest number that a record of this `log` level may have.
pub fn highest(level: log::Level) -> u8 {
    match level {
        log::Level::Error => CRITICAL,
        log::Level::Warn => WARNING,
        log::Level::Info => INFO,
        log::Level::Debug => BLATHER,
        log::Level::Trace => TRACE,
    }
}

/// The level's name in a log line. Python has none for numbers between its levels and writes `Level 12`.
pub fn name(number: u8) -> std::borrow::Cow<'static, str> {
    let name = match number {
        CRITICAL => "CRITICAL",
        ERROR => "ERROR",
        WARNING => "WARNING",
        INFO => "INFO",
        BLATHER => "BLATHER",
        DEBUG => "DEBUG",
        TRACE => "TRACE",
        NOTSET => "NOTSET",
        _ => return format!("Level {number}").into(),
    };
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_passes_the_filter_of_its_own_threshold() {
        for number in 1..=50 {
            assert!(carrier(number) <= filter(number), "{number}");
            assert!(number <= highest(carrier(number)), "{number}");
        }
        assert_eq!(filter(ALL), LevelFilter::Trace);
        assert_eq!(filter(NOTSET), LevelFilter::Trace);
        assert_eq!(filter(INFO), LevelFilter::Info);
    }
}
