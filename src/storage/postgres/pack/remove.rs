//! Removing what the search has found, in small database transactions.

use std::time::Duration;

use log::{info, warn};

use super::super::session::{LOG, malformed};
use super::super::shared::{oid, tid};
use super::super::sql::pack::{BUSY, HOLD_COMMITS, LATER, REMOVED, TRANSACTIONS_PAGE};
use super::objects::Fate;
use super::search::Search;
use super::session::pause;
use crate::base::clock::Stopwatch;
use crate::base::ids::Oid;
use crate::postgres::{Rows, ServerError, Statement, Value};
use crate::storage::{Removals, Result};

/// Objects of one database transaction: each takes a lock or two, of which a server has a few thousand.
const OBJECTS_MAX: usize = 500;
const OBJECTS_MIN: usize = 10;
/// Revisions that are removed in one database transaction.
const REVISIONS_MAX: i64 = 2000;
/// Duration of a database transaction that the number of its objects is chosen for.
const TARGET: Duration = Duration::from_millis(100);
/// When others commit between each search and the removal, they are held up after this many attempts.
const ATTEMPTS_BESIDE: usize = 3;
/// How often a batch is tried, and the pause in between, when the database refuses it because of others.
const ATTEMPTS_MAX: usize = 100;
const PAUSE: Duration = Duration::from_millis(100);
/// How often objects that others have locked are tried, and the pause in between.
const BUSY_ROUNDS: usize = 10;
const BUSY_PAUSE: Duration = Duration::from_millis(500);

/// What was removed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Removed {
    pub objects: u64,
    pub revisions: u64,
    pub transactions: u64,
    /// Objects that others kept locked.
    pub busy: u64,
}

/// The removal of what a search has found.
pub struct Remover<'a, 'p> {
    search: &'a mut Search<'p>,
    pub removed: Removed,
    batch: usize,
    target: Duration,
    /// Objects that something is to be removed of, and those of them that were handled.
    total: u64,
    handled: u64,
    /// Objects that were deleted at the pack time and exist again.
    revived: Vec<Oid>,
    busy: Vec<Oid>,
}

/// The answer to a batch.
enum BatchAnswer {
    Rows(Rows),
    /// Others are in the way.
    Refused(ServerError),
}

impl<'a, 'p> Remover<'a, 'p> {
    pub fn new(search: &'a mut Search<'p>) -> Remover<'a, 'p> {
        let target = TARGET.min(search.run.storage.options.pack_batch_timeout);
        Remover {
            total: search.objects.count(|fate| fate != Fate::Stays),
            search,
            removed: Removed::default(),
            batch: OBJECTS_MAX / 4,
            target,
            handled: 0,
            revived: Vec::new(),
            busy: Vec::new(),
        }
    }

    /// Reports all revisions that are going to be removed.
    pub fn report(&mut self, removals: &dyn Removals) -> Result<()> {
        self.search.run.phase("reading what is to be removed");
        let mut from = Oid::ZERO;
        loop {
            let oids = self.search.objects.next(from, |fate| fate != Fate::Stays, OBJECTS_MAX);
            let Some(last) = oids.last() else { return Ok(()) };
            from = Oid(last.0 + 1);
            let (past, whole): (Vec<Oid>, Vec<Oid>) =
                oids.iter().partition(|oid| self.search.objects.fate(**oid) == Fate::LosesPast);
            self.report_batch(removals, &past, false)?;
            self.report_batch(removals, &whole, true)?;
        }
    }

    fn report_batch(&mut self, removals: &dyn Removals, oids: &[Oid], is_whole: bool) -> Result<()> {
        let numbers = numbers(oids);
        let (mut oid_before, mut tid_before) = (-1, 0);
        loop {
            self.search.run.check_wanted()?;
            let values = [
                Value::Int8s(&numbers),
                Value::Int8(self.search.until.0 as i64),
                Value::Bool(is_whole),
                Value::Int8(oid_before),
                Value::Int8(tid_before),
            ];
            let rows = self.search.run.session.ask(self.search.run.sql.removed_states, &values)?;
            let Some(end) = rows.iter().last() else { return Ok(()) };
            (oid_before, tid_before) = (end.required_int8(0)?, end.required_int8(1)?);
            for row in rows.iter() {
                let (oid, tid) = (oid(&row, 0)?, tid(&row, 1)?);
                if let Some(data) = row.bytes(2)? {
                    let is_garbage = self.search.objects.fate(oid) == Fate::Garbage;
                    removals.left_out(oid, (!is_garbage).then_some(tid), data)?;
                }
            }
        }
    }

    /// Marks the transactions as packed, before anything of them is removed: an undo that has locked its objects and
    /// finds the mark missing has all that it needs, because their revisions are not removed while they are locked.
    pub fn mark_packed(&mut self) -> Result<()> {
        let mut last = 0;
        loop {
            self.search.run.check_wanted()?;
            let until = self.search.until.0 as i64;
            let values = [Value::Int8(until), Value::Int8(last), Value::Int8(TRANSACTIONS_PAGE)];
            let rows = self.patiently(self.search.run.sql.mark_packed, &values)?;
            match rows.first().map(|row| row.int8(0)).transpose()?.flatten() {
                Some(end) => last = end,
                None => return Ok(()),
            }
        }
    }

    /// Removes objects and revisions.
    pub fn remove(&mut self) -> Result<()> {
        self.search.run.phase("removing garbage");
        let is_garbage = |fate| matches!(fate, Fate::Garbage | Fate::Deleted);
        self.all(is_garbage, Self::garbage)?;
        self.search.run.phase("removing former revisions");
        let revived = std::mem::take(&mut self.revived);
        for part in revived.chunks(OBJECTS_MAX) {
            self.past(part, true)?;
        }
        self.all(|fate| fate == Fate::LosesPast, |remover, oids| remover.past(oids, false))?;
        self.busy_ones(revived)
    }

    fn all(
        &mut self,
        wanted: impl Fn(Fate) -> bool,
        remove: impl Fn(&mut Self, &[Oid]) -> Result<()>,
    ) -> Result<()> {
        let mut from = Oid::ZERO;
        loop {
            let oids = self.search.objects.next(from, &wanted, self.batch);
            let Some(last) = oids.last() else { return Ok(()) };
            from = Oid(last.0 + 1);
            let watch = Stopwatch::start();
            remove(self, &oids)?;
            self.adapt(watch.passed());
            self.handled += oids.len() as u64;
            let share = self.handled as f64 / self.total.max(1) as f64;
            let all = self.search.objects.len();
            self.search.run.at(2 * all + (share.min(1.0) * all as f64) as u64)?;
        }
    }

    fn adapt(&mut self, took: Duration) {
        if took > self.target {
            self.batch = (self.batch / 2).max(OBJECTS_MIN);
        } else if took < self.target / 2 {
            self.batch = (self.batch * 2).min(OBJECTS_MAX);
        }
    }

    /// Tries again what others had locked.
    fn busy_ones(&mut self, revived: Vec<Oid>) -> Result<()> {
        for _ in 0..BUSY_ROUNDS {
            if self.busy.is_empty() {
                return Ok(());
            }
            self.search.run.check_wanted()?;
            pause(BUSY_PAUSE);
            let busy = std::mem::take(&mut self.busy);
            for part in busy.chunks(OBJECTS_MAX) {
                let (whole, rest): (Vec<Oid>, Vec<Oid>) = part.iter().partition(|oid| revived.contains(oid));
                let (past, garbage): (Vec<Oid>, Vec<Oid>) =
                    rest.iter().partition(|oid| self.search.objects.fate(**oid) == Fate::LosesPast);
                self.garbage(&garbage)?;
                self.past(&past, false)?;
                self.past(&whole, true)?;
                let newly = std::mem::take(&mut self.revived);
                self.past(&newly, true)?;
            }
        }
        self.removed.busy = self.busy.len() as u64;
        if self.removed.busy > 0 {
            info!(
                target: LOG,
                "{}: packing: {} objects stay locked by transactions; the next pack removes what is to be removed of them",
                self.search.run.storage.shared.name,
                self.removed.busy
            );
        }
        Ok(())
    }

    /// Removes objects, unless something that was committed meanwhile refers to them.
    fn garbage(&mut self, oids: &[Oid]) -> Result<()> {
        let mut refusals = 0;
        for attempt in 0.. {
            let objects = &self.search.objects;
            let still = |oid: &Oid| matches!(objects.fate(*oid), Fate::Garbage | Fate::Deleted);
            let wanted: Vec<Oid> = oids.iter().copied().filter(still).collect();
            if wanted.is_empty() {
                return Ok(());
            }
            self.search.run.check_wanted()?;
            let answer = match attempt < ATTEMPTS_BESIDE {
                true => self.ask_garbage(&wanted)?,
                false => match self.hold_commits(&wanted)? {
                    Some(answer) => answer,
                    None => continue,
                },
            };
            match answer {
                BatchAnswer::Refused(error) => self.wait(&error, &mut refusals)?,
                BatchAnswer::Rows(rows) if is_later(&rows)? => self.search.catch_up()?,
                BatchAnswer::Rows(rows) => return self.take_garbage(&wanted, &rows),
            }
        }
        Ok(())
    }

    fn ask_garbage(&mut self, oids: &[Oid]) -> Result<BatchAnswer> {
        // Deleted objects are removed whoever refers to them.
        let checked = if self.search.gc { self.search.checked.0 as i64 } else { i64::MAX };
        let values =
            [Value::Int8s(&numbers(oids)), Value::Int8(self.search.until.0 as i64), Value::Int8(checked)];
        Ok(self
            .search
            .run
            .session
            .try_ask(self.search.run.sql.remove_garbage, &values)?
            .map_or_else(BatchAnswer::Refused, BatchAnswer::Rows))
    }

    /// Others commit all the time: looks at what they have committed, and removes, while they wait. `None`: it would
    /// take too long, or the batch is another one now.
    fn hold_commits(&mut self, oids: &[Oid]) -> Result<Option<BatchAnswer>> {
        self.search.catch_up()?;
        self.search.run.session.simple("begin")?;
        let answer = self.while_held(oids);
        let end = if matches!(answer, Ok(Some(BatchAnswer::Rows(_)))) { "commit" } else { "rollback" };
        match self.search.run.session.try_simple(end)? {
            Ok(()) => answer,
            Err(error) => answer.map(|_| Some(BatchAnswer::Refused(error))),
        }
    }

    fn while_held(&mut self, oids: &[Oid]) -> Result<Option<BatchAnswer>> {
        if let Err(error) = self.search.run.session.try_ask(&HOLD_COMMITS, &[])? {
            return Ok(Some(BatchAnswer::Refused(error)));
        }
        let newest = self.search.newest()?;
        if newest > self.search.checked {
            // At most one page.
            self.search.later_page(newest)?;
        }
        let objects = &self.search.objects;
        let is_as_before = oids.iter().all(|oid| matches!(objects.fate(*oid), Fate::Garbage | Fate::Deleted));
        let is_done = self.search.checked == newest && self.search.is_complete();
        if is_done && is_as_before { Ok(Some(self.ask_garbage(oids)?)) } else { Ok(None) }
    }

    fn take_garbage(&mut self, oids: &[Oid], rows: &Rows) -> Result<()> {
        let mut left: Vec<Oid> = Vec::new();
        let mut gone: Vec<Oid> = Vec::new();
        for row in rows.iter() {
            match (row.required_int8(0)?, row.int8(1)?) {
                (REMOVED, Some(number)) => gone.push(Oid(number as u64)),
                (BUSY, Some(number)) => left.push(Oid(number as u64)),
                _ => return Err(malformed("what was removed")),
            }
        }
        for oid in &gone {
            self.search.objects.set_gone(*oid);
            drop(self.search.run.storage.shared.records.replace(*oid, None));
        }
        self.removed.objects += gone.len() as u64;
        gone.extend(&left);
        gone.sort_unstable();
        let revived = oids.iter().filter(|oid| gone.binary_search(oid).is_err());
        self.revived.extend(revived);
        self.busy.extend(left);
        Ok(())
    }

    /// Removes former revisions.
    fn past(&mut self, oids: &[Oid], is_whole: bool) -> Result<()> {
        let mut left = numbers(oids);
        let mut refusals = 0;
        while !left.is_empty() {
            self.search.run.check_wanted()?;
            let values = [
                Value::Int8s(&left),
                Value::Int8(self.search.until.0 as i64),
                Value::Bool(is_whole),
                Value::Int8(REVISIONS_MAX),
            ];
            let rows = match self.search.run.session.try_ask(self.search.run.sql.remove_old, &values)? {
                Ok(rows) => rows,
                Err(error) => {
                    self.wait(&error, &mut refusals)?;
                    continue;
                }
            };
            let mut count = 0;
            for row in rows.iter() {
                match (row.required_int8(0)?, row.required_int8(1)?) {
                    (REMOVED, number) => count = number,
                    (BUSY, number) => {
                        left.retain(|one| *one != number);
                        self.busy.push(Oid(number as u64));
                    }
                    _ => return Err(malformed("what was removed")),
                }
            }
            self.removed.revisions += count.unsigned_abs();
            if count < REVISIONS_MAX {
                break;
            }
        }
        Ok(())
    }

    /// Removes transactions that have lost all their records.
    pub fn remove_transactions(&mut self) -> Result<()> {
        self.search.run.phase("removing empty transactions");
        let mut last = 0;
        loop {
            self.search.run.check_wanted()?;
            let until = self.search.until.0 as i64;
            let values = [Value::Int8(until), Value::Int8(last), Value::Int8(TRANSACTIONS_PAGE)];
            let rows = self.patiently(self.search.run.sql.remove_empty, &values)?;
            let row = rows.first().ok_or_else(|| malformed("a page of transactions"))?;
            self.removed.transactions += row.required_int8(1)?.unsigned_abs();
            match row.int8(0)? {
                Some(end) => last = end,
                None => return Ok(()),
            }
        }
    }

    fn patiently(&mut self, statement: &'static Statement, values: &[Value<'_>]) -> Result<Rows> {
        let mut refusals = 0;
        loop {
            match self.search.run.session.try_ask(statement, values)? {
                Ok(rows) => return Ok(rows),
                Err(error) => self.wait(&error, &mut refusals)?,
            }
        }
    }

    /// After the database has refused a batch: waits if others are in the way, so that it can be tried again.
    fn wait(&mut self, error: &ServerError, refusals: &mut usize) -> Result<()> {
        *refusals += 1;
        let may_pass = match error.code.as_str() {
            // Locked, a deadlock, or a transaction that refers to what was about to be removed.
            "55P03" | "40P01" | "40001" | "23503" => *refusals < ATTEMPTS_MAX,
            // No room for more locks: others need some too.
            "53200" => *refusals < ATTEMPTS_MAX / 10,
            _ => false,
        };
        if !may_pass {
            return Err(self.search.run.session.explain(error));
        }
        if *refusals == ATTEMPTS_MAX / 10 {
            warn!(target: LOG, "{}: packing waits: {error}", self.search.run.storage.shared.name);
        }
        self.batch = (self.batch / 2).max(OBJECTS_MIN);
        pause(PAUSE);
        Ok(())
    }
}

fn numbers(oids: &[Oid]) -> Vec<i64> {
    oids.iter().map(|oid| oid.0 as i64).collect()
}

/// Whether nothing was removed because others have committed.
fn is_later(rows: &Rows) -> Result<bool> {
    Ok(rows.first().map(|row| row.required_int8(0)).transpose()? == Some(LATER))
}
