//! When a job that repeats is due: `every 6h`, `daily 03:00`, `weekly sun 03:00`, `monthly 1 03:00`.
//!
//! Times are local ones, of the host. A schedule has no state: when it is due next follows from the clock alone, so
//! a restart moves nothing, and a job whose time was missed is due at its next time. A job that wants to make up for
//! a missed time asks for the time after its last run.
//!
//! On the days on which the clock is changed a job runs once at each of its times: at the first of two equal times,
//! and for a time that is left out as much later as the clock was advanced. `every` up to an hour keeps its interval
//! on these days, longer ones keep to the clock.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::local_time::LocalTime;
use super::timestamp::{civil_from_days, days_from_civil};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// The longest interval of `every`.
const EVERY_MAX: i64 = 366 * DAY;
/// Later clocks are taken for this, the end of the year 9999.
const LATEST: i64 = 253_402_300_799;
const WEEKDAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

/// When a job is due, again and again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Schedule(Turn);

/// Times of day are seconds after midnight.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Turn {
    /// The interval in seconds. Times are its multiples since midnight of 1970-01-01, so intervals that divide a day
    /// have a time at each midnight.
    Every(i64),
    Daily {
        at: i64,
    },
    /// `weekday` 0 is Monday.
    Weekly {
        weekday: i64,
        at: i64,
    },
    /// In a month that has no such day, its last day.
    Monthly {
        day: u32,
        at: i64,
    },
}

impl Schedule {
    /// The first time that is later than `after`, in whole seconds.
    pub fn next_after(&self, after: SystemTime) -> SystemTime {
        let seconds = after.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let after = i64::try_from(seconds).unwrap_or(LATEST).min(LATEST);
        let next = self.next_in_zone(after, &|at| LocalTime::at(at).utc_offset());
        UNIX_EPOCH + Duration::from_secs(u64::try_from(next).unwrap_or_default())
    }

    /// The same in seconds since 1970. `offset`: by how much local time is ahead of UTC at a time.
    fn next_in_zone(&self, after: i64, offset: &impl Fn(i64) -> i64) -> i64 {
        let local = after + offset(after);
        if let Turn::Every(interval) = self.0 {
            let mut next = (local.div_euclid(interval) + 1) * interval;
            if interval <= HOUR {
                return next - offset(after);
            }
            while utc_of(next, offset) <= after {
                next += interval;
            }
            return utc_of(next, offset);
        }
        // The day before counts too: if local time was set back over midnight, its times may come again.
        let mut day = local.div_euclid(DAY) - 1;
        loop {
            if let Some(at) = self.on(day)
                && let next = utc_of(day * DAY + at, offset)
                && next > after
            {
                return next;
            }
            day += 1;
        }
    }

    /// The time of day at which the job is due on a day, given as days since 1970-01-01. There is one in 31 days.
    fn on(&self, day: i64) -> Option<i64> {
        match self.0 {
            Turn::Every(_) => None,
            Turn::Daily { at } => Some(at),
            // 1970-01-01 was a Thursday.
            Turn::Weekly { weekday, at } => ((day + 3).rem_euclid(7) == weekday).then_some(at),
            Turn::Monthly { day: wanted, at } => {
                let (year, month, of_month) = civil_from_days(day);
                let next_month = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
                let is_last = day + 1 == days_from_civil(next_month.0, next_month.1, 1);
                (of_month == wanted || is_last && of_month < wanted).then_some(at)
            }
        }
    }
}

/// The UTC time of a local one, both in seconds since 1970: the first, if there are two; if there is none, as much
/// later as the clock was advanced.
fn utc_of(local: i64, offset: &impl Fn(i64) -> i64) -> i64 {
    let [before, later] = [offset(local - DAY), offset(local + DAY)];
    let fits = |by: &i64| offset(local - by) == *by;
    let by = [before.max(later), before.min(later)].into_iter().find(fits).unwrap_or(before);
    local - by
}

impl FromStr for Schedule {
    type Err = String;

    /// Reads a schedule as it is written in a configuration. Errors say what is wrong, without the whole text.
    fn from_str(text: &str) -> Result<Schedule, String> {
        let text = text.to_lowercase();
        let mut words = text.split_whitespace();
        let turn = match words.next() {
            Some("every") => {
                Turn::Every(interval(words.next().ok_or("'every' needs an interval, as in 'every 6h'")?)?)
            }
            Some("daily") => Turn::Daily { at: time_of_day(words.next(), "daily 03:00")? },
            Some("weekly") => {
                let example = "weekly sun 03:00";
                let weekday =
                    words.next().ok_or_else(|| format!("'weekly' needs a day, as in '{example}'"))?;
                Turn::Weekly { weekday: weekday_of(weekday)?, at: time_of_day(words.next(), example)? }
            }
            Some("monthly") => {
                let example = "monthly 1 03:00";
                let day = words.next().ok_or_else(|| format!("'monthly' needs a day, as in '{example}'"))?;
                let number = digits(day).filter(|day| (1..=31).contains(day));
                let number = number.ok_or_else(|| format!("'{day}' is not a day from 1 to 31"))?;
                Turn::Monthly { day: number as u32, at: time_of_day(words.next(), example)? }
            }
            first => {
                let first =
                    first.map_or_else(|| "it is empty".into(), |word| format!("it begins with '{word}'"));
                return Err(format!(
                    "{first}; use 'every 6h', 'daily 03:00', 'weekly sun 03:00' or 'monthly 1 03:00'"
                ));
            }
        };
        match words.next() {
            None => Ok(Schedule(turn)),
            Some(word) => Err(format!("'{word}' does not belong to it")),
        }
    }
}

impl fmt::Display for Schedule {
    /// As `from_str` reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = match self.0 {
            Turn::Every(interval) => {
                let units = [(DAY, 'd'), (HOUR, 'h'), (MINUTE, 'm')];
                let unit = units.into_iter().find(|(unit, _)| interval % unit == 0);
                let (unit, name) = unit.unwrap_or((1, 's'));
                return write!(f, "every {}{name}", interval / unit);
            }
            Turn::Daily { at } => {
                f.write_str("daily")?;
                at
            }
            Turn::Weekly { weekday, at } => {
                let name =
                    usize::try_from(weekday).ok().and_then(|day| WEEKDAYS.get(day)).unwrap_or(&"sunday");
                write!(f, "weekly {name:.3}")?;
                at
            }
            Turn::Monthly { day, at } => {
                write!(f, "monthly {day}")?;
                at
            }
        };
        write!(f, " {:02}:{:02}", at / HOUR, at % HOUR / MINUTE)
    }
}

/// The number that consists of these digits, at most four.
fn digits(text: &str) -> Option<i64> {
    let all_digits = !text.is_empty() && text.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| all_digits)
}

fn interval(text: &str) -> Result<i64, String> {
    let units = [('s', 1), ('m', MINUTE), ('h', HOUR), ('d', DAY)];
    let with_unit = units.iter().find_map(|(name, unit)| Some((text.strip_suffix(*name)?, *unit)));
    let (number, unit) =
        with_unit.ok_or_else(|| format!("'{text}' has no unit; use s, m, h or d, as in 'every 15m'"))?;
    let number =
        digits(number).ok_or_else(|| format!("'{text}' is not an interval such as 15m, 6h or 1d"))?;
    let interval = number * unit;
    if (1..=EVERY_MAX).contains(&interval) {
        Ok(interval)
    } else {
        Err(format!("'{text}' is not between 1s and {}d", EVERY_MAX / DAY))
    }
}

/// 0 is Monday.
fn weekday_of(text: &str) -> Result<i64, String> {
    let position =
        WEEKDAYS.iter().position(|name| *name == text || text.len() == 3 && name.starts_with(text));
    let error = || format!("'{text}' is none of mon, tue, wed, thu, fri, sat, sun");
    position.map(|day| day as i64).ok_or_else(error)
}

/// Seconds after midnight.
fn time_of_day(text: Option<&str>, example: &str) -> Result<i64, String> {
    let text = text.ok_or_else(|| format!("it needs a time of day, as in '{example}'"))?;
    let read = || {
        let (hour, minute) = text.split_once(':')?;
        let hour = digits(hour).filter(|hour| *hour < 24)?;
        let minute = digits(minute).filter(|number| *number < 60 && minute.len() == 2)?;
        Some(hour * HOUR + minute * MINUTE)
    };
    read().ok_or_else(|| format!("'{text}' is not a time of day from 00:00 to 23:59"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds since 1970 of `2026-11-29 03:00[:00]`, as if it were in UTC.
    fn at(text: &str) -> i64 {
        let numbers: Vec<i64> = text.split(['-', ' ', ':']).map(|part| part.parse().unwrap()).collect();
        let day = days_from_civil(numbers[0], numbers[1] as u32, numbers[2] as u32);
        day * DAY + numbers[3] * HOUR + numbers[4] * MINUTE + numbers.get(5).unwrap_or(&0)
    }

    fn show(time: i64) -> String {
        let (year, month, day) = civil_from_days(time.div_euclid(DAY));
        let second = time.rem_euclid(DAY);
        let text = format!("{year}-{month:02}-{day:02} {:02}:{:02}", second / HOUR, second % HOUR / MINUTE);
        if second % MINUTE == 0 { text } else { format!("{text}:{:02}", second % MINUTE) }
    }

    /// The times that follow `after`, all local, in a zone.
    fn following(schedule: &str, after: i64, count: usize, offset: &impl Fn(i64) -> i64) -> Vec<String> {
        let schedule: Schedule = schedule.parse().unwrap();
        let mut now = after;
        let mut next = || {
            let next = schedule.next_in_zone(now, offset);
            assert!(next > now);
            now = next;
            show(next + offset(next))
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn the_next_times() {
        let check = |schedule: &str, after: &str, expected: &[&str]| {
            for offset in [0, HOUR, -5 * HOUR, 5 * HOUR + 45 * MINUTE] {
                let got = following(schedule, at(after) - offset, expected.len(), &|_| offset);
                assert_eq!(got, expected, "{schedule} after {after}, {offset} s ahead of UTC");
            }
        };
        check("every 15m", "2026-11-29 12:07", &["2026-11-29 12:15", "2026-11-29 12:30"]);
        check("every 6h", "2026-11-29 12:00", &["2026-11-29 18:00", "2026-11-30 00:00", "2026-11-30 06:00"]);
        check("every 20s", "2026-11-29 23:59:39", &["2026-11-29 23:59:40", "2026-11-30 00:00"]);
        check("every 2d", "2026-11-29 12:00", &["2026-12-01 00:00", "2026-12-03 00:00"]);
        check(
            "daily 03:00",
            "2026-11-29 02:59:59",
            &["2026-11-29 03:00", "2026-11-30 03:00", "2026-12-01 03:00"],
        );
        check("daily 00:00", "2026-12-31 00:00", &["2027-01-01 00:00"]);
        check("daily 23:59", "2028-02-28 23:59", &["2028-02-29 23:59", "2028-03-01 23:59"]);
        // 2026-11-29 is a Sunday.
        check("weekly sun 03:00", "2026-11-29 02:00", &["2026-11-29 03:00", "2026-12-06 03:00"]);
        check("weekly monday 0:30", "2026-11-29 02:00", &["2026-11-30 00:30", "2026-12-07 00:30"]);
        check("weekly sat 03:00", "2026-11-29 02:00", &["2026-12-05 03:00"]);
        check("monthly 1 03:00", "2026-11-29 02:00", &["2026-12-01 03:00", "2027-01-01 03:00"]);
        let ends = [
            "2027-12-31 03:00",
            "2028-01-31 03:00",
            "2028-02-29 03:00",
            "2028-03-31 03:00",
            "2028-04-30 03:00",
        ];
        check("monthly 31 03:00", "2027-12-30 04:00", &ends);
        check("monthly 29 03:00", "2027-02-01 04:00", &["2027-02-28 03:00", "2027-03-29 03:00"]);
        check("monthly 30 03:00", "2027-02-28 03:00", &["2027-03-30 03:00"]);
    }

    /// Central Europe in 2026: the clock is advanced on March 29 at 02:00, and set back on October 25 at 03:00.
    #[test]
    fn the_days_on_which_the_clock_is_changed() {
        let summer = at("2026-03-29 01:00")..at("2026-10-25 01:00");
        let berlin = |time: i64| if summer.contains(&time) { 2 * HOUR } else { HOUR };
        let check = |schedule: &str, after_utc: &str, expected: &[&str]| {
            let got = following(schedule, at(after_utc), expected.len(), &berlin);
            assert_eq!(got, expected, "{schedule} after {after_utc} UTC");
        };
        // 02:30 is left out.
        check(
            "daily 02:30",
            "2026-03-28 00:00",
            &["2026-03-28 02:30", "2026-03-29 03:30", "2026-03-30 02:30"],
        );
        check("daily 03:00", "2026-03-28 23:00", &["2026-03-29 03:00", "2026-03-30 03:00"]);
        check("every 30m", "2026-03-29 00:29", &["2026-03-29 01:30", "2026-03-29 03:00", "2026-03-29 03:30"]);
        check("every 6h", "2026-03-28 22:00", &["2026-03-29 00:00", "2026-03-29 06:00", "2026-03-29 12:00"]);
        // 02:30 comes twice.
        check("daily 02:30", "2026-10-24 12:00", &["2026-10-25 02:30", "2026-10-26 02:30"]);
        assert_eq!(
            "daily 02:30".parse::<Schedule>().unwrap().next_in_zone(at("2026-10-24 12:00"), &berlin),
            at("2026-10-25 00:30")
        );
        check("daily 02:30", "2026-10-25 00:45", &["2026-10-26 02:30"]);
        let evenly = ["2026-10-25 02:30", "2026-10-25 02:00", "2026-10-25 02:30", "2026-10-25 03:00"];
        check("every 30m", "2026-10-25 00:29", &evenly);
        check("every 6h", "2026-10-24 21:59", &["2026-10-25 00:00", "2026-10-25 06:00", "2026-10-25 12:00"]);
        check("every 135m", "2026-10-25 01:05", &["2026-10-25 04:30"]);
    }

    #[test]
    fn times_of_this_host() {
        let schedule: Schedule = "daily 03:00".parse().unwrap();
        let mut now = UNIX_EPOCH + Duration::from_secs(1_795_341_734);
        for _ in 0..400 {
            let next = schedule.next_after(now);
            let secs = next.duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
            let of_day = LocalTime::at(secs).second_of_day();
            assert!(
                next > now && (3 * HOUR..5 * HOUR).contains(&of_day),
                "{next:?} is at {of_day} s of its day"
            );
            now = next;
        }
        // Clocks that are wrong.
        let far = UNIX_EPOCH + Duration::from_secs(LATEST as u64 * 1000);
        assert!(schedule.next_after(far) > UNIX_EPOCH);
        assert!(schedule.next_after(UNIX_EPOCH - Duration::from_secs(1 << 40)) > UNIX_EPOCH);
    }

    #[test]
    fn what_is_written() {
        let check = |text: &str, expected: &str| {
            let schedule: Schedule = text.parse().unwrap();
            assert_eq!(schedule.to_string(), expected);
            assert_eq!(expected.parse(), Ok(schedule));
        };
        check("every 15m", "every 15m");
        check("every 90s", "every 90s");
        check("EVERY  120m", "every 2h");
        check("every 48h", "every 2d");
        check(" Daily 3:05", "daily 03:05");
        check("weekly Sunday 23:59", "weekly sun 23:59");
        check("weekly thu 0:00", "weekly thu 00:00");
        check("monthly 01 03:00", "monthly 1 03:00");
    }

    #[test]
    fn what_is_no_schedule() {
        let check = |text: &str, expected: &str| {
            assert_eq!(text.parse::<Schedule>(), Err(expected.into()), "{text}");
        };
        let forms = "; use 'every 6h', 'daily 03:00', 'weekly sun 03:00' or 'monthly 1 03:00'";
        check("", &format!("it is empty{forms}"));
        check("yearly 03:00", &format!("it begins with 'yearly'{forms}"));
        check("0 3 * * *", &format!("it begins with '0'{forms}"));
        check("every", "'every' needs an interval, as in 'every 6h'");
        check("every 15", "'15' has no unit; use s, m, h or d, as in 'every 15m'");
        check("every -1h", "'-1h' is not an interval such as 15m, 6h or 1d");
        check("every 0h", "'0h' is not between 1s and 366d");
        check("every 367d", "'367d' is not between 1s and 366d");
        check("daily", "it needs a time of day, as in 'daily 03:00'");
        check("daily 24:00", "'24:00' is not a time of day from 00:00 to 23:59");
        check("daily 3", "'3' is not a time of day from 00:00 to 23:59");
        check("daily 3:5", "'3:5' is not a time of day from 00:00 to 23:59");
        check("daily 03:00 utc", "'utc' does not belong to it");
        check("weekly", "'weekly' needs a day, as in 'weekly sun 03:00'");
        check("weekly s 03:00", "'s' is none of mon, tue, wed, thu, fri, sat, sun");
        check("weekly sun", "it needs a time of day, as in 'weekly sun 03:00'");
        check("monthly", "'monthly' needs a day, as in 'monthly 1 03:00'");
        check("monthly 0 03:00", "'0' is not a day from 1 to 31");
        check("monthly 32 03:00", "'32' is not a day from 1 to 31");
        check("monthly 03:00", "'03:00' is not a day from 1 to 31");
    }
}
