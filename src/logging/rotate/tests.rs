use std::path::Path;
use std::process::Command;

use super::When::{Day, Hour, Midnight, Minute, Second, Weekday};
use super::*;

/// Made with Python 3.11's TimedRotatingFileHandler, `TZ` as below, around both changes of the clock in 2026: when the
/// file was last written, when it is due, the time of the line that finds it due, its date, when it is due again. Left
/// out: cases in which Python misses midnight by an hour, once, because it corrects for a change of the clock not at
/// all (on that very day) or twice.
#[rustfmt::skip]
const PYTHON: &[(When, i64, i64, i64, &str, i64)] = &[
    (Second, 1774719600, 1774719601, 1774723601, "2026-03-28_18-40-00", 1774723602),
    (Second, 1774400400, 1774400401, 1774490401, "2026-03-25_02-00-00", 1774490402),
    (Second, 1792887000, 1792887001, 1792891001, "2026-10-25_01-10-00", 1792891002),
    (Second, 1793062800, 1793062801, 1793062806, "2026-10-27_02-00-00", 1793062807),
    (Second, 1763805906, 1763805907, 1763805907, "2025-11-22_11-05-06", 1763805908),
    (Minute, 1774719600, 1774719660, 1774723660, "2026-03-28_18-40", 1774723720),
    (Minute, 1774400400, 1774400460, 1774490460, "2026-03-25_02-00", 1774490520),
    (Minute, 1792887000, 1792887060, 1792891060, "2026-10-25_01-10", 1792891120),
    (Minute, 1793062800, 1793062860, 1793062865, "2026-10-27_02-00", 1793062925),
    (Minute, 1763805906, 1763805966, 1763805966, "2025-11-22_11-05", 1763806026),
    (Hour, 1774719600, 1774723200, 1774727200, "2026-03-28_18", 1774730800),
    (Hour, 1774400400, 1774404000, 1774494000, "2026-03-25_02", 1774497600),
    (Hour, 1792887000, 1792890600, 1792894600, "2026-10-25_01", 1792898200),
    (Hour, 1793062800, 1793066400, 1793066405, "2026-10-27_02", 1793070005),
    (Hour, 1763805906, 1763809506, 1763809506, "2025-11-22_11", 1763813106),
    (Day, 1774719600, 1774806000, 1774810000, "2026-03-28", 1774896400),
    (Day, 1774400400, 1774486800, 1774576800, "2026-03-25", 1774663200),
    (Day, 1792887000, 1792973400, 1792977400, "2026-10-25", 1793063800),
    (Day, 1793062800, 1793149200, 1793149205, "2026-10-27", 1793235605),
    (Day, 1763805906, 1763892306, 1763892306, "2025-11-22", 1763978706),
    (Midnight, 1774719600, 1774738800, 1774738800, "2026-03-28", 1774821600),
    (Midnight, 1774400400, 1774479600, 1774569600, "2026-03-25", 1774652400),
    (Midnight, 1793062800, 1793142000, 1793146000, "2026-10-27", 1793228400),
    (Midnight, 1763805906, 1763852400, 1763852405, "2025-11-22", 1763938800),
    (Weekday(0), 1774719600, 1774908000, 1774908000, "2026-03-24", 1775512800),
    (Weekday(0), 1774400400, 1774908000, 1774908005, "2026-03-24", 1775512800),
    (Weekday(0), 1792887000, 1793055600, 1793145600, "2026-10-20", 1793660400),
    (Weekday(0), 1793062800, 1793660400, 1793660400, "2026-10-27", 1794265200),
    (Weekday(0), 1763805906, 1764025200, 1764025205, "2025-11-18", 1764630000),
    (Weekday(6), 1774719600, 1774821600, 1774821600, "2026-03-23", 1775426400),
    (Weekday(6), 1774400400, 1774821600, 1774821605, "2026-03-23", 1775426400),
    (Weekday(6), 1793062800, 1793574000, 1793574000, "2026-10-26", 1794178800),
    (Weekday(6), 1763805906, 1763938800, 1763938805, "2025-11-17", 1764543600),
    (Weekday(3), 1774719600, 1775167200, 1775167200, "2026-03-27", 1775772000),
    (Weekday(3), 1792887000, 1793314800, 1793404800, "2026-10-23", 1793919600),
    (Weekday(3), 1793062800, 1793314800, 1793314800, "2026-10-23", 1793919600),
    (Weekday(3), 1763805906, 1764284400, 1764284405, "2025-11-21", 1764889200),
];

const ZONE: &str = "CET-1CEST,M3.5.0,M10.5.0/3";

/// Local time is a property of the process, so the comparison runs in a process with that zone.
#[test]
fn turns_and_names_are_those_of_python() {
    if std::env::var("TZ").as_deref() == Ok(ZONE) {
        return compare();
    }
    let name = "logging::rotate::tests::turns_and_names_are_those_of_python";
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.args([name, "--exact"]).env("TZ", ZONE).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

fn compare() {
    for (when, written, due, now, suffix, due_again) in PYTHON.iter().copied() {
        let case = format!("{when:?} since {written}");
        let mut schedule = Schedule::new(when, 1, written);
        assert_eq!(schedule.next, due, "{case}: due");
        assert!(schedule.is_due(now) && !schedule.is_due(due - 1), "{case}");
        assert_eq!(schedule.suffix(now), suffix, "{case}: suffix");
        schedule.advance(now);
        assert_eq!(schedule.next, due_again, "{case}: due again");
    }
}

#[test]
fn an_interval_counts_days_and_weeks_too() {
    for (when, days) in [(Midnight, 3), (Day, 3)] {
        let schedule = Schedule::new(when, days, 1_763_805_906);
        let length = schedule.next - 1_763_805_906;
        assert!((2 * DAY..=3 * DAY).contains(&length), "{when:?}: {length}");
    }
    let weekly = Schedule::new(Weekday(0), 1, 1_763_805_906);
    assert_eq!(Schedule::new(Weekday(0), 2, 1_763_805_906).next, weekly.next + 7 * DAY);
}

#[test]
fn old_files_are_told_from_others() {
    let pattern = Day.suffix_pattern();
    for (candidate, expected) in [
        ("zeo.log.2026-11-22", true),
        ("zeo.log.2026-11-22.gz", true),
        ("zeo.log.2026-11-22.1", true),
        ("zeo.log.2026-11-22_10", false),
        ("zeo.log.1", false),
        ("zeo.log", false),
        ("zeo.log-2026-11-22", false),
        ("zeo.login.2026-11-22", false),
    ] {
        assert_eq!(is_old(candidate, "zeo.log", pattern), expected, "{candidate}");
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_oldest_files_are_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("zeo.log");
    for date in ["2026-11-20", "2026-11-18", "2026-11-19", "2026-11-19.1"] {
        std::fs::write(with_suffix(&path, date), date).unwrap();
    }
    std::fs::write(directory.path().join("other.2026-11-01"), "").unwrap();
    Schedule::new(Day, 1, 0).remove_old(&path, 2).unwrap();
    assert_eq!(names(directory.path()), ["other.2026-11-01", "zeo.log.2026-11-19.1", "zeo.log.2026-11-20"]);
}

#[test]
fn a_date_that_is_taken_gets_a_number() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("zeo.log");
    for text in ["one", "two", "three"] {
        std::fs::write(&path, text).unwrap();
        set_aside(&path, "2026-11-22").unwrap();
    }
    assert_eq!(
        names(directory.path()),
        ["zeo.log.2026-11-22", "zeo.log.2026-11-22.1", "zeo.log.2026-11-22.2"]
    );
    assert_eq!(std::fs::read_to_string(with_suffix(&path, "2026-11-22.2")).unwrap(), "three");
}

#[test]
fn numbered_files_move_up_and_the_last_goes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("zeo.log");
    for text in ["one", "two", "three", "four"] {
        std::fs::write(&path, text).unwrap();
        shift(&path, 2).unwrap();
    }
    // Another program moved the file away: no other file is lost.
    shift(&path, 2).unwrap();
    assert_eq!(names(directory.path()), ["zeo.log.1", "zeo.log.2"]);
    assert_eq!(std::fs::read_to_string(with_suffix(&path, "1")).unwrap(), "four");
}
