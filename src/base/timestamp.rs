//! Transaction ids as points in time: `persistent.TimeStamp`.
//!
//! The upper 32 bits count minutes in a calendar of 31-day months since 1900, the lower 32 bits are
//! the second within that minute, scaled so that 2^32 would be 60 s. All in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

use super::ids::Tid;

/// Seconds of one step of the lower half.
const SECOND_STEP: f64 = 60.0 / 65536.0 / 65536.0;

/// The year from which Python counts when it converts a tid to seconds.
const PYTHON_EPOCH: i64 = 1901;

/// A civil date and time in UTC.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Civil {
    pub year: i64,
    /// 1 to 12
    pub month: u32,
    /// 1 to 31
    pub day: u32,
    pub hour: u32,
    pub minute: u32,
    pub second: f64,
}

impl Civil {
    /// From a Unix time in seconds.
    pub fn from_unix(seconds: f64) -> Civil {
        let whole = seconds.floor();
        let days = (whole / 86400.0).floor();
        let in_day = whole - days * 86400.0;
        let (year, month, day) = civil_from_days(days as i64);
        let in_day = in_day as u32;
        Civil {
            year,
            month,
            day,
            hour: in_day / 3600,
            minute: in_day / 60 % 60,
            second: f64::from(in_day % 60) + (seconds - whole),
        }
    }
}

/// UTC in ISO 8601 with milliseconds: `2026-11-29T21:13:29.404Z`. The first moment of 1970 if it is before that.
pub fn iso_utc(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let Civil { year, month, day, hour, minute, second } = Civil::from_unix(since.as_secs() as f64);
    let millis = since.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02.0}.{millis:03}Z")
}

impl Tid {
    /// The tid of a point in time; zero before 1900, the last tid after the last date.
    pub(crate) fn from_civil(at: Civil) -> Tid {
        if at.year < 1900 {
            return Tid::ZERO;
        }
        let months = (at.year - 1900) * 12 + i64::from(at.month) - 1;
        let minutes =
            ((months * 31 + i64::from(at.day) - 1) * 24 + i64::from(at.hour)) * 60 + i64::from(at.minute);
        let Ok(minutes) = u32::try_from(minutes) else { return Tid::MAX };
        let fraction = (at.second / SECOND_STEP) as u32;
        Tid(u64::from(minutes) << 32 | u64::from(fraction))
    }

    /// The point in time of this tid.
    pub(crate) fn to_civil(self) -> Civil {
        let minutes = self.0 >> 32;
        let days = minutes / 60 / 24;
        let months = days / 31;
        Civil {
            year: 1900 + (months / 12) as i64,
            month: (months % 12) as u32 + 1,
            day: (days % 31) as u32 + 1,
            hour: (minutes / 60 % 24) as u32,
            minute: (minutes % 60) as u32,
            second: (self.0 & 0xffff_ffff) as f64 * SECOND_STEP,
        }
    }

    /// From a Unix time in seconds, as clients pass it to `pack`.
    pub fn from_unix(seconds: f64) -> Tid {
        Tid::from_civil(Civil::from_unix(seconds))
    }

    /// Unix time in seconds, as in `history` and `undoLog`: exactly the double that Python's `TimeStamp.timeTime()`
    /// computes.
    ///
    /// Python adds the fraction of the minute to the seconds since `PYTHON_EPOCH` and subtracts the seconds until
    /// 1970 afterwards, so its result has the coarser steps of the larger sum (2^-21 s now). Operators pack to a time
    /// from `undoLog`; with the exact time the pack would end at another transaction than Python's.
    pub fn to_unix(self) -> f64 {
        let Civil { year, month, day, hour, minute, second } = self.to_civil();
        let until_1970 = -days_from_civil(PYTHON_EPOCH, 1, 1) as f64 * 86400.0;
        let days = days_from_civil(year, month, day) as f64;
        let minutes = days * 86400.0 + until_1970 + f64::from(hour * 3600 + minute * 60);
        minutes + second - until_1970
    }

    /// From `YYYY-MM-DD`, `YYYY-MM-DDTHH`, `YYYY-MM-DDTHH:MM` or `YYYY-MM-DDTHH:MM:SS.SSS`, in UTC.
    pub fn from_iso(text: &str) -> Result<Tid, String> {
        let refused = || format!("'{text}' is not a time; write it as YYYY-MM-DDTHH:MM:SS");
        let (date, time) = text.trim().split_once('T').unwrap_or((text.trim(), ""));
        let date: Vec<i64> =
            date.split('-').map(|part| part.parse().map_err(|_| refused())).collect::<Result<_, _>>()?;
        let &[year, month, day] = date.as_slice() else { return Err(refused()) };
        let mut time = time.split(':').filter(|_| !time.is_empty());
        let mut whole = |max: u32| match time.next() {
            None => Ok(0),
            Some(part) => part.parse().ok().filter(|value| *value <= max).ok_or_else(refused),
        };
        let (hour, minute) = (whole(23)?, whole(59)?);
        let second: f64 = time.next().map_or(Ok(0.0), |part| part.parse().map_err(|_| refused()))?;
        let in_month =
            |day: i64| day >= 1 && Civil::from_unix(midnight(year, month, day)).month as i64 == month;
        let fits = (1900..9999).contains(&year)
            && (1..=12).contains(&month)
            && (1..=31).contains(&day)
            && in_month(day)
            && (0.0..60.0).contains(&second)
            && time.next().is_none();
        if !fits {
            return Err(refused());
        }
        Ok(Tid::from_civil(Civil { year, month: month as u32, day: day as u32, hour, minute, second }))
    }

    /// `YYYY-MM-DDTHH:MM:SS`, with a fraction unless it is zero.
    pub fn to_iso(self) -> String {
        self.text('T').trim_end_matches('0').trim_end_matches('.').into()
    }

    /// In the form of Python's TimeStamp: `YYYY-MM-DD HH:MM:SS.ssssss`.
    pub fn to_text(self) -> String {
        self.text(' ')
    }

    fn text(self, between: char) -> String {
        let Civil { year, month, day, hour, minute, second } = self.to_civil();
        // A value that would be rounded to 60 stays below.
        let second = second.min(59.999_999);
        format!("{year:04}-{month:02}-{day:02}{between}{hour:02}:{minute:02}:{second:09.6}")
    }

    /// This tid if it is later than `previous`, otherwise the first one after `previous`: tids ascend, whatever the
    /// clock does.
    pub fn later_than(self, previous: Tid) -> Tid {
        if self > previous { self } else { Tid(previous.0 + 1) }
    }
}

/// Unix time of the beginning of a day.
fn midnight(year: i64, month: i64, day: i64) -> f64 {
    days_from_civil(year, month as u32, day as u32) as f64 * 86400.0
}

/// Days since 1970-01-01 (Howard Hinnant's algorithm, proleptic Gregorian calendar).
pub(super) fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((i64::from(month) + 9) % 12) + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The inverse of [`days_from_civil`].
pub(super) fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month as u32, (day_of_year - (153 * shifted + 2) / 5 + 1) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_persistent_timestamp_does() {
        // persistent.TimeStamp.TimeStamp(2026, 11, 22, 10, 2, 14.5).raw()
        let at = Civil { year: 2026, month: 11, day: 22, hour: 10, minute: 2, second: 14.5 };
        let tid = Tid::from_civil(at);
        assert_eq!(tid.0 >> 32, ((((2026 - 1900) * 12 + 10) * 31 + 21) * 24 + 10) * 60 + 2);
        assert!((tid.to_civil().second - 14.5).abs() < 1e-6);
        assert!((Tid::from_unix(tid.to_unix()).to_unix() - tid.to_unix()).abs() < 1e-6);
    }

    /// Times and tids of Python, bit by bit (see python-fixtures/time/make.py).
    ///
    /// A pack to the time of a transaction in `undoLog` used to end at another transaction than Python's: for half of
    /// all tids the time was the neighbouring double, because Python rounds the seconds since 1901.
    #[test]
    fn a_pack_to_a_time_of_undo_log_ends_where_pythons_does() {
        let python = include_str!("../../python-fixtures/time/times.txt");
        let (mut times, mut stops) = (0, 0);
        for line in python.lines() {
            let mut words = line.split(' ');
            let kind = words.next();
            let mut bits = || u64::from_str_radix(words.next().unwrap(), 16).unwrap();
            let (from, to) = (bits(), bits());
            match kind {
                Some("t") => {
                    assert_eq!(Tid(from).to_unix().to_bits(), to, "{line}");
                    times += 1;
                }
                Some("p") => {
                    assert_eq!(Tid::from_unix(f64::from_bits(from)), Tid(to), "{line}");
                    stops += 1;
                }
                _ => panic!("{line}"),
            }
        }
        assert!(times > 400 && stops > 500, "{times} {stops}");
    }

    #[test]
    fn iso_times() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(Tid::from_iso(text).ok().map(Tid::to_text).as_deref(), expected, "{text}");
        };
        check("2008-01-21", Some("2008-01-21 00:00:00.000000"));
        check("2008-01-21T18", Some("2008-01-21 18:00:00.000000"));
        check("2008-01-21T18:22", Some("2008-01-21 18:22:00.000000"));
        check("2008-01-21T18:22:43.5\n", Some("2008-01-21 18:22:43.500000"));
        check("2008-02-29", Some("2008-02-29 00:00:00.000000"));
        for wrong in [
            "",
            "now",
            "2008-02-30",
            "2008-13-01",
            "2008-01-21T24",
            "2008-01-21T1:60",
            "2008-01",
            "2008-01-21T1:1:60",
            "2008-01-21T1:1:1:1",
            "2008-01-21 18:22",
            "1899-12-31",
            "2008-01-0",
        ] {
            check(wrong, None);
        }
        assert_eq!(Tid::from_iso("2008-01-21T18:22:43").unwrap().to_iso(), "2008-01-21T18:22:43");
        assert_eq!(Tid::from_iso("2008-01-21T18:20:00").unwrap().to_iso(), "2008-01-21T18:20:00");
    }

    #[test]
    fn tids_only_grow() {
        assert_eq!(Tid(5).later_than(Tid(9)), Tid(10));
        assert_eq!(Tid(11).later_than(Tid(9)), Tid(11));
    }
}
