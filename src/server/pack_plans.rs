//! Which storages are packed by schedule, and when each is due next.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::base::schedule::Schedule;
use crate::base::sync::Arc;
use crate::server::hosted::Hosted;

/// A clock that is set back by less keeps the times that were computed before.
const SET_BACK_MIN: Duration = Duration::from_secs(3600);

/// When a storage is packed, and what is kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PackSchedule {
    pub schedule: Schedule,
    /// Days of history that a pack keeps.
    pub days: u32,
}

impl PackSchedule {
    /// What a pack keeps, in words.
    pub fn kept(&self) -> String {
        match self.days {
            0 => "no history".into(),
            1 => "1 day".into(),
            days => format!("{days} days"),
        }
    }
}

/// The storages that are packed by schedule, and when each is due next. A reload replaces them.
#[derive(Default)]
pub(super) struct PackPlans {
    plans: Vec<(Arc<Hosted>, PackSchedule)>,
    agenda: Agenda,
    pub(super) has_thread: bool,
}

impl PackPlans {
    /// Sets other plans. What stays as it is keeps its time.
    pub(super) fn set(&mut self, plans: Vec<(Arc<Hosted>, PackSchedule)>, now: SystemTime) {
        let before = std::mem::take(&mut self.plans);
        let times = std::mem::replace(
            &mut self.agenda,
            Agenda::new(plans.iter().map(|(_, plan)| plan.schedule), now),
        );
        let times = times.entries.iter().map(|(_, due)| *due);
        for (hosted, _) in &before {
            if !plans.iter().any(|(kept, _)| kept.name == hosted.name) {
                hosted.pack.set_next(UNIX_EPOCH);
            }
        }
        let before: Vec<_> = before.iter().zip(times).collect();
        for ((hosted, plan), (_, due)) in plans.iter().zip(&mut self.agenda.entries) {
            let same = before.iter().find(|((known, known_plan), _)| {
                known.name == hosted.name && known_plan.schedule == plan.schedule
            });
            if let Some((_, known_due)) = same {
                *due = *known_due;
            }
            hosted.pack.set_next(*due);
        }
        self.plans = plans;
    }

    /// What is due first, and its time, which may have passed.
    pub(super) fn next(&mut self, now: SystemTime) -> Option<(Arc<Hosted>, PackSchedule, SystemTime)> {
        let (index, due) = self.agenda.next(now)?;
        let (hosted, plan) = self.plans.get(index)?;
        Some((Arc::clone(hosted), *plan, due))
    }

    /// The pack that was due at `due` has ended. Its plan may have gone, or be another one.
    pub(super) fn done(&mut self, hosted: &Hosted, due: SystemTime, now: SystemTime) {
        let entries = self.plans.iter().zip(&self.agenda.entries);
        let mut entries = entries.map(|((known, _), (_, known_due))| (&known.name, *known_due));
        let index = entries.position(|known| known == (&hosted.name, due));
        if let Some(due) = index.and_then(|index| self.agenda.done(index, now)) {
            hosted.pack.set_next(due);
        }
    }
}

/// The schedules, and when each is due next.
struct Agenda {
    entries: Vec<(Schedule, SystemTime)>,
    /// The latest time that the clock has shown.
    seen: SystemTime,
}

impl Default for Agenda {
    fn default() -> Agenda {
        Agenda { entries: Vec::new(), seen: UNIX_EPOCH }
    }
}

impl Agenda {
    fn new(schedules: impl Iterator<Item = Schedule>, now: SystemTime) -> Agenda {
        Agenda {
            entries: schedules.map(|schedule| (schedule, schedule.next_after(now))).collect(),
            seen: now,
        }
    }

    /// The entry that is due first, and its time, which may have passed.
    fn next(&mut self, now: SystemTime) -> Option<(usize, SystemTime)> {
        if self.seen.duration_since(now).is_ok_and(|back| back > SET_BACK_MIN) {
            self.entries.iter_mut().for_each(|(schedule, due)| *due = schedule.next_after(now));
            self.seen = now;
        }
        self.seen = self.seen.max(now);
        let times = self.entries.iter().map(|(_, due)| *due).enumerate();
        times.min_by_key(|(_, due)| *due)
    }

    /// The entry was dealt with. Returns its next time.
    fn done(&mut self, index: usize, now: SystemTime) -> Option<SystemTime> {
        let (schedule, due) = self.entries.get_mut(index)?;
        // A clock that was set back a little must not bring the same time again.
        *due = schedule.next_after(now.max(*due));
        Some(*due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// Noon of some day.
    const NOON: u64 = 1_795_953_600;

    fn agenda(schedules: &[&str], now: u64) -> Agenda {
        Agenda::new(schedules.iter().map(|text| text.parse().unwrap()), at(now))
    }

    #[test]
    fn times_come_in_order_and_once() {
        let mut agenda = agenda(&["every 10m", "every 15m"], NOON);
        assert_eq!(agenda.next(at(NOON)), Some((0, at(NOON + 600))));
        assert_eq!(agenda.next(at(NOON + 601)), Some((0, at(NOON + 600))));
        assert_eq!(agenda.done(0, at(NOON + 602)), Some(at(NOON + 1200)));
        // The second took from 15 to 44 minutes past: the first missed 20, 30 and 40 minutes past, and runs once.
        assert_eq!(agenda.next(at(NOON + 900)), Some((1, at(NOON + 900))));
        assert_eq!(agenda.done(1, at(NOON + 44 * 60)), Some(at(NOON + 45 * 60)));
        assert_eq!(agenda.next(at(NOON + 44 * 60)), Some((0, at(NOON + 1200))));
        assert_eq!(agenda.done(0, at(NOON + 44 * 60 + 1)), Some(at(NOON + 50 * 60)));
        assert_eq!(agenda.next(at(NOON + 44 * 60 + 1)), Some((1, at(NOON + 45 * 60))));
    }

    #[test]
    fn the_clock_is_changed() {
        let mut agenda = agenda(&["every 15m"], NOON);
        assert_eq!(agenda.next(at(NOON + 900)), Some((0, at(NOON + 900))));
        // Set back a little during the pack: not the same time again.
        assert_eq!(agenda.done(0, at(NOON + 899)), Some(at(NOON + 1800)));
        assert_eq!(agenda.next(at(NOON + 899)), Some((0, at(NOON + 1800))));
        // It was years in the future, for example until the first answer of a time server.
        assert_eq!(agenda.next(at(NOON - 86400 * 500)), Some((0, at(NOON - 86400 * 500 + 900))));
        // Advanced: the time has passed.
        assert_eq!(agenda.next(at(NOON)), Some((0, at(NOON - 86400 * 500 + 900))));
        assert_eq!(agenda.done(0, at(NOON)), Some(at(NOON + 900)));
    }
}
