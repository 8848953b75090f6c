//! Numbers and times as ZEO's scripts print them.

use std::ffi::CStr;

use crate::base::local_time::LocalTime;
use crate::base::numbers::grouped;

/// `1,234,567`, also below zero.
pub(super) fn grouped_signed(number: i64) -> String {
    let sign = if number < 0 { "-" } else { "" };
    format!("{sign}{}", grouped(number.unsigned_abs()))
}

/// `4:59`, `1:00:00`; below a minute only the seconds.
pub(super) fn duration(seconds: u32) -> String {
    let (minutes, second) = (seconds / 60, seconds % 60);
    let (hour, minute) = (minutes / 60, minutes % 60);
    if hour > 0 {
        format!("{hour}:{minute:02}:{second:02}")
    } else if minute > 0 {
        format!("{minute}:{second:02}")
    } else {
        second.to_string()
    }
}

/// `Sun Jul 11 12:11:41 2010`, local time.
pub(super) fn date_and_time(time: u32) -> String {
    local(time, c"%a %b %e %H:%M:%S %Y")
}

/// `Jul 11 12:11:41`
pub(super) fn to_second(time: u32) -> String {
    local(time, c"%b %e %H:%M:%S")
}

/// `Jul 11 12:11`
pub(super) fn to_minute(time: u32) -> String {
    local(time, c"%b %e %H:%M")
}

/// `11`
pub(super) fn minute(time: u32) -> String {
    local(time, c"%M")
}

/// ` 31.2%`, or `n/a` of nothing.
pub(super) fn hit_rate(loads: u64, hits: u64) -> String {
    if loads == 0 { "n/a".into() } else { format!("{:5.1}%", percent(hits, loads)) }
}

pub(super) fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole as f64
}

fn local(time: u32, format: &CStr) -> String {
    let mut text = String::new();
    LocalTime::at(i64::from(time)).format(format, &mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(grouped_signed(-123_456), "-123,456");
    }

    #[test]
    fn durations() {
        for (seconds, text) in [(0, "0"), (59, "59"), (299, "4:59"), (3600, "1:00:00"), (9001, "2:30:01")] {
            assert_eq!(duration(seconds), text);
        }
    }
}
