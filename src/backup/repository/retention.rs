//! Which backups are kept: the last ones, and the last one of each of the last days, weeks and months that have one, in
//! UTC, as restic does it.

use std::collections::BTreeSet;

use super::manifest::{Stamp, Stay};

/// Seconds of a day.
const DAY: u64 = 24 * 3600;

/// How many to keep of each kind; 0: none of this kind.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Retention {
    pub last: usize,
    pub daily: usize,
    pub weekly: usize,
    pub monthly: usize,
}

impl Retention {
    /// Those to keep, oldest first. The newest is always kept; backups that stay until there is a later one do not
    /// count otherwise.
    pub fn kept<'a>(&self, all: &'a [Stamp]) -> Vec<&'a Stamp> {
        let stamps: Vec<&Stamp> = all.iter().filter(|stamp| stamp.stay() == Stay::Kept).collect();
        let mut kept: BTreeSet<&Stamp> = stamps.iter().rev().take(self.last.max(1)).copied().collect();
        kept.extend(all.last());
        let day = |stamp: &Stamp| stamp.to_unix_millis() / 1000 / DAY;
        // The first of January 1970 was a Thursday; weeks begin on Mondays.
        let week = |stamp: &Stamp| (day(stamp) + 3) / 7;
        let month = |stamp: &Stamp| stamp.as_str().get(..7).unwrap_or_default().to_string();
        keep_each(&mut kept, &stamps, self.daily, day);
        keep_each(&mut kept, &stamps, self.weekly, week);
        keep_each(&mut kept, &stamps, self.monthly, month);
        kept.into_iter().collect()
    }
}

/// Keeps the last of each of the last `count` periods that have one.
fn keep_each<'a, P: PartialEq>(
    kept: &mut BTreeSet<&'a Stamp>,
    stamps: &[&'a Stamp],
    count: usize,
    period: impl Fn(&Stamp) -> P,
) {
    let (mut found, mut last) = (0, None);
    for stamp in stamps.iter().rev() {
        let this = Some(period(stamp));
        if this != last {
            if found == count {
                return;
            }
            (found, last) = (found + 1, this);
            kept.insert(stamp);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamps(texts: &[&str]) -> Vec<Stamp> {
        texts.iter().map(|text| Stamp::parse(&format!("{text}-00-00.000Z")).unwrap()).collect()
    }

    #[test]
    fn the_last_of_each_period_is_kept() {
        let all = stamps(&[
            "2026-09-30T23",
            "2026-10-01T00",
            "2026-10-31T12",
            "2026-11-15T01", // a Sunday
            "2026-11-16T01",
            "2026-11-27T01",
            "2026-11-28T01",
            "2026-11-28T23",
            "2026-11-29T01", // a Sunday
        ]);
        let check = |retention: Retention, expected: &[usize]| {
            let expected: Vec<&Stamp> = expected.iter().map(|at| &all[*at]).collect();
            assert_eq!(retention.kept(&all), expected, "{retention:?}");
        };
        let none = Retention::default();
        check(none, &[8]);
        check(Retention { last: 3, ..none }, &[6, 7, 8]);
        check(Retention { daily: 3, ..none }, &[5, 7, 8]);
        check(Retention { weekly: 3, ..none }, &[3, 4, 8]);
        check(Retention { monthly: 2, ..none }, &[2, 8]);
        check(Retention { monthly: 9, ..none }, &[0, 2, 8]);
        check(Retention { last: 2, daily: 2, weekly: 2, monthly: 3 }, &[0, 2, 4, 7, 8]);
        assert_eq!(none.kept(&[]), Vec::<&Stamp>::new());
    }
}
