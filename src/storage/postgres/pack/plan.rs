//! What a pack would do, without doing it: it searches as a pack does (`search`), and counts what would be removed.
//!
//! The database need not be writable, and other packs may run. Memory: that of a pack, and 8 bytes more for each
//! object.

use std::sync::atomic::Ordering;

use super::super::PostgresStorage;
use super::super::session::malformed;
use super::objects::Fate;
use super::run::PackRun;
use super::search::Search;
use super::session::PackSession;
use super::time_to_pack;
use crate::base::ids::{Oid, Tid};
use crate::postgres::{Rows, Statement, Value};
use crate::storage::pack_time::stop_of;
use crate::storage::{PackPlan, PackRequest, Removal, Result};

/// Objects of one question.
const BATCH: usize = 1000;
/// Objects of one page of the list.
const PAGE: i64 = 10_000;

impl PostgresStorage {
    /// See [`Pack::plan`](crate::storage::Pack::plan).
    pub(super) fn plan_pack(&self, request: &PackRequest<'_>) -> Result<PackPlan> {
        self.check_open()?;
        let stop = stop_of(request.time)?;
        self.catch_up_for_pack()?;
        let gc = request.gc.unwrap_or(self.options.pack_gc);
        let mut run = PackRun::new(self, PackSession::open(self)?, request, false);
        run.is_plan = true;
        let totals = run.session.ask(run.sql.totals, &[])?;
        let size = number(&totals, 3)?;
        let before = |before| Removal { before, removed: 0 };
        let mut plan = PackPlan {
            stop,
            objects: before(number(&totals, 0)?),
            revisions: before(number(&totals, 1)?),
            transactions: before(number(&totals, 2)?),
            size,
            size_after: size,
            blobs: 0,
            blob_bytes: 0,
            dangling_count: 0,
            dangling: Vec::new(),
            gc,
            refusal: None,
            free: None,
        };
        let total = 3 * plan.objects.before;
        request.progress.done.store(0, Ordering::Relaxed);
        request.progress.total.store(total, Ordering::Relaxed);
        let Some(until) = time_to_pack(&mut run, stop)? else { return Ok(plan) };
        let mut search = Search::begin(run, until, gc)?;
        plan.dangling_count = search.dangling_count;
        plan.dangling = std::mem::take(&mut search.dangling);
        count_objects(&mut search, &mut plan)?;
        count_transactions(&mut search, &mut plan)?;
        request.progress.done.store(total, Ordering::Relaxed);
        Ok(plan)
    }
}

fn number(rows: &Rows, column: usize) -> Result<u64> {
    let row = rows.first().ok_or_else(|| malformed("a number"))?;
    Ok(u64::try_from(row.required_int8(column)?).unwrap_or(0))
}

fn ask(search: &mut Search<'_>, statement: &'static Statement, values: &[Value<'_>]) -> Result<Rows> {
    search.run.check_wanted()?;
    search.run.session.ask(statement, values)
}

fn count_objects(search: &mut Search<'_>, plan: &mut PackPlan) -> Result<()> {
    search.run.phase("counting");
    let (sql, until) = (search.run.sql, Value::Int8(search.until.0 as i64));
    for wanted in [Fate::Garbage, Fate::Deleted, Fate::LosesPast] {
        let mut from = Oid::ZERO;
        loop {
            let oids = search.objects.next(from, |fate| fate == wanted, BATCH);
            let Some(last) = oids.last() else { break };
            from = Oid(last.0 + 1);
            let oids: Vec<i64> = oids.iter().map(|oid| oid.0 as i64).collect();
            let oids = Value::Int8s(&oids);
            let is_whole = Value::Bool(wanted != Fate::LosesPast);
            let counted = ask(search, sql.count_removed, &[oids, until, is_whole])?;
            plan.revisions.removed += number(&counted, 0)?;
            plan.size_after = plan.size_after.saturating_sub(number(&counted, 1)? + number(&counted, 3)?);
            plan.blobs += number(&counted, 2)?;
            plan.blob_bytes += number(&counted, 3)?;
            if wanted != Fate::LosesPast {
                plan.objects.removed += number(&ask(search, sql.count_unchanged, &[oids, until])?, 0)?;
            }
        }
    }
    Ok(())
}

/// The transactions that nothing is kept of.
fn count_transactions(search: &mut Search<'_>, plan: &mut PackPlan) -> Result<()> {
    let (sql, until) = (search.run.sql, Value::Int8(search.until.0 as i64));
    let old = number(&ask(search, sql.old_transactions, &[until])?, 0)?;
    let newest = search.newest()?;
    let mut kept: Vec<Tid> = Vec::new();
    let mut last = -1;
    loop {
        let rows = ask(search, sql.objects_page, &[Value::Int8(last), until, Value::Int8(PAGE)])?;
        let Some(end) = rows.iter().last() else { break };
        last = end.required_int8(0)?;
        for row in rows.iter() {
            let (oid, tid) = (Oid(row.required_int8(0)? as u64), Tid(row.required_int8(1)? as u64));
            if matches!(search.objects.fate(oid), Fate::Stays | Fate::LosesPast) && tid != newest {
                kept.push(tid);
            }
        }
    }
    kept.sort_unstable();
    kept.dedup();
    plan.transactions.removed = old.saturating_sub(kept.len() as u64);
    Ok(())
}
