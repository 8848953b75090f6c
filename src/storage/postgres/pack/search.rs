//! What is reachable: from the root as of the pack time, and from everything that was committed since then.
//!
//! References are read from the states. What others have noted about them in `object_ref` is not looked at: it may be
//! the rest of an interrupted pack.
//!
//! Objects that were changed after the pack time stay as they were at the pack time, and so does all that they referred
//! to then: a later transaction can be undone.

use super::super::session::malformed;
use super::super::shared::{oid, tid};
use super::objects::{Marked, Objects};
use super::run::PackRun;
use crate::base::ids::{Oid, Tid};
use crate::postgres::{Rows, Value};
use crate::storage::{Dangling, Result, StorageError};

/// Objects of one page of the list.
const PAGE: i64 = 10_000;
/// Objects whose states are asked for at once.
const BATCH: usize = 2000;
/// Number of references in [`Search::dangling`].
const DANGLING_MAX: usize = 10_000;

/// The search, and what it has found.
pub struct Search<'a> {
    pub run: PackRun<'a>,
    /// Those that existed at the pack time.
    pub objects: Objects,
    /// The last transaction that may lose something.
    pub until: Tid,
    /// Whether objects without references are looked for.
    pub gc: bool,
    /// Transactions up to this one were searched for references.
    pub checked: Tid,
    /// Marked objects whose references are still to be read.
    to_visit: Vec<i64>,
    visited: u64,
    /// References from what was reachable at the pack time to objects that did not exist then: their number, and the
    /// first of them.
    pub dangling_count: u64,
    pub dangling: Vec<Dangling>,
    is_past: bool,
    /// Objects that were removed before they became reachable again.
    pub removed_too_early: u64,
}

impl<'a> Search<'a> {
    /// Finds what is reachable, until the last published transaction.
    pub fn begin(run: PackRun<'a>, until: Tid, gc: bool) -> Result<Search<'a>> {
        // Those of before it are in the list of objects.
        let shared = &run.storage.shared;
        let checked = if shared.sql.forgets { shared.last() } else { until };
        let mut search = Search {
            run,
            objects: Objects::default(),
            until,
            gc,
            checked,
            to_visit: Vec::new(),
            visited: 0,
            dangling_count: 0,
            dangling: Vec::new(),
            is_past: true,
            removed_too_early: 0,
        };
        search.find_objects()?;
        if gc {
            search.mark_from_root()?;
            search.run.phase("reading later transactions");
            let last = search.run.storage.shared.last();
            while search.later_page(last)? {
                search.follow()?;
            }
            search.checked = search.checked.max(last);
        } else {
            search.objects.mark_all();
        }
        Ok(search)
    }

    fn find_objects(&mut self) -> Result<()> {
        self.run.phase("finding what is there");
        let mut last = -1;
        loop {
            let values = [Value::Int8(last), Value::Int8(self.until.0 as i64), Value::Int8(PAGE)];
            let rows = self.run.session.ask(self.run.sql.objects_page, &values)?;
            let Some(end) = rows.iter().last() else { return Ok(()) };
            last = end.required_int8(0)?;
            for row in rows.iter() {
                let (oid, is_later) = (oid(&row, 0)?, tid(&row, 1)? > self.until);
                self.objects.push(oid, row.required_bool(3)?, row.required_int8(2)? > 1);
                if is_later {
                    self.object(oid, None);
                }
            }
            self.run.at(self.objects.len())?;
        }
    }

    fn mark_from_root(&mut self) -> Result<()> {
        self.run.phase("following references");
        // Else the pack time is before the first transaction.
        if self.objects.len() > 0 {
            self.object(Oid::ZERO, None);
        }
        self.follow()?;
        self.is_past = false;
        self.check_dangling()
    }

    /// Objects that did not exist at the pack time may exist now: an interrupted pack to a later time has removed what
    /// was current then. Others are missing, which is an error, as in Python.
    fn check_dangling(&mut self) -> Result<()> {
        let missing: Vec<i64> = self.dangling.iter().map(|one| one.to.0 as i64).collect();
        for part in missing.chunks(BATCH) {
            let rows = self.run.session.ask(self.run.sql.existing, &[Value::Int8s(part)])?;
            let mut existing = rows.iter().map(|row| oid(&row, 0)).collect::<Result<Vec<_>>>()?;
            existing.sort_unstable();
            let before = self.dangling.len();
            // One that is deleted is in the list.
            let objects = &self.objects;
            self.dangling.retain(|one| existing.binary_search(&one.to).is_err() || objects.contains(one.to));
            self.dangling_count -= (before - self.dangling.len()) as u64;
        }
        match self.dangling.first() {
            Some(one) if !self.run.is_plan => Err(StorageError::Missing(one.to)),
            _ => Ok(()),
        }
    }

    /// Marks from a page of the transactions up to `last` that were not searched yet. `false`: there are none. The
    /// objects that are marked by it are to be followed.
    pub fn later_page(&mut self, last: Tid) -> Result<bool> {
        // All records of the last transaction that was searched are known.
        let (mut tid_before, mut oid_before) = (self.checked.0 as i64, i64::MAX);
        let mut any = false;
        loop {
            let values = [Value::Int8(tid_before), Value::Int8(oid_before), Value::Int8(last.0 as i64)];
            let rows = self.run.session.ask(self.run.sql.later_states, &values)?;
            let Some(end) = rows.iter().last() else {
                self.checked = self.checked.max(last);
                return Ok(any);
            };
            any = true;
            (tid_before, oid_before) = (end.required_int8(0)?, end.required_int8(1)?);
            self.mark_later(&rows)?;
            // The last transaction of the page may not be complete.
            let complete = Tid(tid_before as u64 - 1);
            if complete > self.checked {
                self.checked = complete;
                return Ok(true);
            }
        }
    }

    fn mark_later(&mut self, rows: &Rows) -> Result<()> {
        let mut oids = Vec::new();
        for row in rows.iter() {
            let (tid, changed) = (tid(&row, 0)?, oid(&row, 1)?);
            self.object(changed, None);
            if let Some(data) = row.bytes(2)? {
                self.run.references(changed, tid, data, &mut oids)?;
                oids.drain(..).for_each(|oid| self.object(oid, Some(changed)));
            }
        }
        self.run.check_wanted()
    }

    /// Marks what was committed until now.
    pub fn catch_up(&mut self) -> Result<()> {
        let last = self.newest()?;
        while self.later_page(last)? {
            self.follow()?;
        }
        self.follow()
    }

    /// The newest transaction, published or not.
    pub fn newest(&mut self) -> Result<Tid> {
        let rows = self.run.session.ask(&self.run.storage.shared.sql.last, &[Value::Int8(0)])?;
        tid(&rows.first().ok_or_else(|| malformed("a tid"))?, 0)
    }

    /// Whether there are marked objects whose references are still to be read.
    pub fn is_complete(&self) -> bool {
        self.to_visit.is_empty()
    }

    /// Marks an object. `from`: the object that refers to it.
    fn object(&mut self, oid: Oid, from: Option<Oid>) {
        match self.objects.mark(oid) {
            Marked::Now => self.to_visit.push(oid.0 as i64),
            Marked::Before => {}
            Marked::Missing if self.is_past => {
                self.dangling_count += 1;
                if self.dangling.len() < DANGLING_MAX {
                    self.dangling.push(Dangling { from, to: oid });
                }
            }
            Marked::Missing => {}
            Marked::Gone => {
                self.removed_too_early += 1;
                log::error!(
                    target: super::super::session::LOG,
                    "{}: packing: object 0x{oid} was removed as garbage, and then became reachable again{}",
                    self.run.storage.shared.name,
                    from.map_or(String::new(), |from| format!(" through object 0x{from}"))
                );
            }
        }
    }

    /// Visits marked objects until none is left.
    pub fn follow(&mut self) -> Result<()> {
        let mut oids = Vec::new();
        while !self.to_visit.is_empty() {
            let rest = self.to_visit.len().saturating_sub(BATCH);
            let mut batch = self.to_visit.split_off(rest);
            batch.sort_unstable();
            let values = [Value::Int8s(&batch), Value::Int8(self.until.0 as i64)];
            let rows = self.run.session.ask(self.run.sql.states, &values)?;
            if rows.is_empty() {
                return Err(malformed("a state"));
            }
            for (row, asked) in rows.iter().zip(&batch) {
                let (from, tid) = (oid(&row, 0)?, tid(&row, 1)?);
                if from.0 as i64 != *asked {
                    return Err(malformed("the state of an object"));
                }
                if let Some(data) = row.bytes(2)? {
                    self.run.references(from, tid, data, &mut oids)?;
                    oids.drain(..).for_each(|oid| self.object(oid, Some(from)));
                }
            }
            // The first ones are answered; states that are too long for one answer come next.
            self.to_visit.extend(batch.iter().skip(rows.len()));
            self.visited += rows.len() as u64;
            let all = self.objects.len();
            self.run.at(all + self.visited.min(all))?;
        }
        Ok(())
    }
}
