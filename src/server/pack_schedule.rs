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

/// The schedules, and when each is due next.
struct Agenda {
    entries: Vec<(Schedule, SystemTime)>,
    /// The latest time that the clock has shown.
    seen: SystemTime,
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
    /// Packs storages by their schedules, in a thread of its own, until the server stops.
    pub fn pack_by_schedule(self: &Arc<Self>, plans: Vec<(Arc<Hosted>, PackSchedule)>) -> io::Result<()> {
        if plans.is_empty() {
            return Ok(());
        }
        let agenda = Agenda::new(plans.iter().map(|(_, plan)| plan.schedule), self.clock().system_time());
        for ((hosted, _), (_, due)) in plans.iter().zip(&agenda.entries) {
            hosted.pack.set_next(*due);
        }
        let server = Arc::clone(self);
        let run = move || run(&server, &plans, agenda);
        thread::Builder::new().name("zeo-schedule".into()).stack_size(STACK).spawn(run)?;
        Ok(())
    }
}

fn run(server: &Server, plans: &[(Arc<Hosted>, PackSchedule)], mut agenda: Agenda) {
    while let Some(index) = wait(server, &mut agenda) {
        let Some((hosted, plan)) = plans.get(index) else { return };
        // The panic hook has logged it.
        let packed = catch_unwind(AssertUnwindSafe(|| pack(hosted, plan)));
        if let Some(due) = agenda.done(index, server.clock().system_time()) {
            hosted.pack.set_next(due);
        }
        if packed.is_ok_and(|packed| packed) {
            packs::announce(hosted);
        }
    }
}

/// Waits for the next time. Returns its entry; `None`: the server stops.
fn wait(server: &Server, agenda: &mut Agenda) -> Option<usize> {
    let (clock, signal) = (server.clock(), server.schedule_stop());
    let mut stopped = signal.stopped.lock();
    while !*stopped {
        let now = clock.system_time();
        let (index, due) = agenda.next(now)?;
        let Some(left) = due.duration_since(now).ok().filter(|left| !left.is_zero()) else {
            return Some(index);
        };
        stopped = clock.wait_until(&signal.stop_noted, stopped, clock.now() + left.min(PAUSE_MAX));
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
