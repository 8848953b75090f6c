//! Packs by schedule: `pack-schedule` of `<filestorage>`.
//!
//! One thread packs all storages that have a schedule, one after the other. A pack whose time comes during another one
//! begins after it. A time that passed while the server was not running, or during a pack of the same storage, is not
//! made up for: a pack that begins at the restart of a server would run when the site is used.
//!
//! The thread waits by the time of day. If the clock is advanced beyond a time, the pack begins within a minute; if it
//! is set back by more than an hour, the next times are computed anew.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::base::level::{ERROR, INFO, WARNING};
use crate::base::schedule::Schedule;
use crate::base::sync::Arc;
use crate::server::Server;
use crate::server::client_log::{SCHEDULED_PACKS, log_without_peer};
use crate::server::hosted::Hosted;
use crate::server::packs::{self, AskedBy, PackFailure};

/// `pack-days`, if it is not given: as in plone.recipe.zeoserver.
pub const PACK_DAYS_DEFAULT: u32 = 1;
/// Longest wait without a look at the clock, which may have been changed.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A clock that is set back by less keeps the times that were computed before.
const SET_BACK_MIN: Duration = Duration::from_secs(3600);
const DAY: f64 = 86400.0;
const STACK: usize = 512 << 10;

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
    has_thread: bool,
}

impl PackPlans {
    /// Sets other plans. What stays as it is keeps its time.
    fn set(&mut self, plans: Vec<(Arc<Hosted>, PackSchedule)>, now: SystemTime) {
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
    fn next(&mut self, now: SystemTime) -> Option<(Arc<Hosted>, PackSchedule, SystemTime)> {
        let (index, due) = self.agenda.next(now)?;
        let (hosted, plan) = self.plans.get(index)?;
        Some((Arc::clone(hosted), *plan, due))
    }

    /// The pack that was due at `due` has ended. Its plan may have gone, or be another one.
    fn done(&mut self, hosted: &Hosted, due: SystemTime, now: SystemTime) {
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

impl Server {
    /// Packs storages by their schedules, in a thread of its own, until the server stops. Another call replaces the
    /// schedules; a pack that is running goes on. After an error nothing has changed.
    pub fn pack_by_schedule(self: &Arc<Self>, plans: Vec<(Arc<Hosted>, PackSchedule)>) -> io::Result<()> {
        let needs_thread =
            !plans.is_empty() && !std::mem::replace(&mut self.pack_plans.lock().has_thread, true);
        if needs_thread {
            let server = Arc::clone(self);
            let spawned = thread::Builder::new().name("zeo-schedule".into()).stack_size(STACK);
            if let Err(error) = spawned.spawn(move || run(&server)) {
                self.pack_plans.lock().has_thread = false;
                return Err(error);
            }
        }
        self.pack_plans.lock().set(plans, self.clock().system_time());
        self.schedule_stop().wake();
        Ok(())
    }
}

fn run(server: &Server) {
    while let Some((hosted, plan, due)) = wait(server) {
        // The panic hook has logged it.
        let packed = catch_unwind(AssertUnwindSafe(|| pack(&hosted, &plan)));
        server.pack_plans.lock().done(&hosted, due, server.clock().system_time());
        if packed.is_ok_and(|packed| packed) {
            packs::announce(&hosted);
        }
    }
}

/// Waits for the next time. `None`: the server stops.
fn wait(server: &Server) -> Option<(Arc<Hosted>, PackSchedule, SystemTime)> {
    let (clock, signal) = (server.clock(), server.schedule_stop());
    let mut stopped = signal.stopped.lock();
    while !*stopped {
        let now = clock.system_time();
        let next = server.pack_plans.lock().next(now);
        let pause = match next {
            Some((hosted, plan, due)) => match due.duration_since(now).ok().filter(|left| !left.is_zero()) {
                Some(left) => left.min(PAUSE_MAX),
                None => return Some((hosted, plan, due)),
            },
            None => PAUSE_MAX,
        };
        stopped = clock.wait_until(&signal.stop_noted, stopped, clock.now() + pause);
    }
    None
}

/// False: it failed.
fn pack(hosted: &Hosted, plan: &PackSchedule) -> bool {
    let (name, PackSchedule { schedule, days }) = (&hosted.name, plan);
    let now = hosted.clock.system_time().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let time = now - f64::from(*days) * DAY;
    let log = |level, what: std::fmt::Arguments<'_>| {
        let line = format_args!("storage '{name}': pack(time={time:?}) by pack-schedule {what}");
        log_without_peer(&SCHEDULED_PACKS, level, line);
    };
    let findings = hosted.scrub.damaged_places();
    if findings > 0 {
        let what = "is left out: the last check of the file has found";
        log(
            ERROR,
            format_args!(
                "{what} {findings} damaged places, which a pack would copy. zeopack packs all the same"
            ),
        );
        return false;
    }
    log(INFO, format_args!("'{schedule}', which keeps {}, started...", plan.kept()));
    let packed = packs::pack(hosted, time, AskedBy::Other("pack-schedule"));
    match &packed {
        Ok(()) => log(INFO, format_args!("complete")),
        Err(PackFailure { error, is_cancelled }) => log(
            if *is_cancelled { WARNING } else { ERROR },
            format_args!(
                "ended with an error: {error}. It is tried again at its next time; zeopack can pack before"
            ),
        ),
    }
    packed.is_ok()
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
