//! `-d DAYS` and `-t HH[:MM[:SS]]`: the time up to which a database is packed.

use crate::base::clock::since_1970;
use crate::base::local_time::LocalTime;

const DAY: f64 = 86400.0;

/// The options.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PackTime {
    days: i64,
    /// Hour, minute, second of the day.
    time: Option<[u32; 3]>,
}

impl PackTime {
    /// From the texts of the two options.
    pub(super) fn of(days: Option<&str>, time: Option<&str>) -> Result<PackTime, String> {
        let number = |days: &str| days.parse().map_err(|_| format!("-d: '{days}' is not a number of days"));
        Ok(PackTime { days: days.map_or(Ok(0), number)?, time: time.map(time_of_day).transpose()? })
    }

    /// Seconds since 1970.
    pub(super) fn seconds(&self) -> f64 {
        let now = since_1970().as_secs_f64();
        let day = match self.time {
            Some([hour, minute, second]) => {
                let wanted = f64::from((hour * 60 + minute) * 60 + second);
                now.floor() - LocalTime::at(now as i64).second_of_day() as f64 + wanted
            }
            None => now,
        };
        day - self.days as f64 * DAY
    }
}

/// `HH[:MM[:SS]]`
fn time_of_day(text: &str) -> Result<[u32; 3], String> {
    let wrong = || format!("-t: '{text}' is not HH[:MM[:SS]]");
    let mut time = [0; 3];
    let mut parts = text.split(':');
    for (slot, limit) in time.iter_mut().zip([23, 59, 59]) {
        if let Some(part) = parts.next() {
            *slot = part.parse().ok().filter(|&number| number <= limit).ok_or_else(wrong)?;
        }
    }
    if parts.next().is_some() { Err(wrong()) } else { Ok(time) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let of = |days: &str, time: &str| {
            PackTime::of(
                Some(days).filter(|text| !text.is_empty()),
                Some(time).filter(|text| !text.is_empty()),
            )
        };
        assert_eq!(of("4", "3").unwrap().time, Some([3, 0, 0]));
        assert_eq!(of("", "23:59:58").unwrap().time, Some([23, 59, 58]));
        for (days, time) in [("", "24"), ("", "1:60"), ("", "1:2:3:4"), ("", "x"), ("x", "")] {
            assert!(of(days, time).is_err(), "{days} {time}");
        }
        let now = since_1970().as_secs_f64();
        let days = of("2", "").unwrap().seconds();
        assert!((now - days - 2.0 * DAY).abs() < 5.0);
        let midnight = of("", "0").unwrap().seconds();
        assert!(midnight <= now && now - midnight < DAY + 3601.0);
        assert_eq!(LocalTime::at(midnight as i64).second_of_day() % 3600, 0);
    }
}
