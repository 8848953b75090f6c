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
use crate::base::sync::Arc;
use crate::server::Server;
use crate::server::client_log::{SCHEDULED_PACKS, log_without_peer};
use crate::server::hosted::Hosted;
pub use crate::server::pack_plans::PackSchedule;
use crate::server::packs::{self, AskedBy, PackFailure};

/// `pack-days`, if it is not given: as in plone.recipe.zeoserver.
pub const PACK_DAYS_DEFAULT: u32 = 1;
/// Longest wait without a look at the clock, which may have been changed.
const PAUSE_MAX: Duration = Duration::from_secs(60);
const DAY: f64 = 86400.0;
const STACK: usize = 512 << 10;

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
