//! Packing a database: removes old revisions and garbage, beside everybody who reads and writes it.
//!
//! Of a database that keeps no history only garbage is removed. The search is the same for it, but its objects have no
//! states as of the pack time: all objects are listed, those that were changed later stay, and references are read from
//! the current states. What was committed after the list was begun is read as later transactions are.
//!
//! What is removed of others is what a pack of a file removes: revisions that were not current at the pack time,
//! objects whose deletion was, and, with garbage collection, objects that cannot be reached from the root as of the
//! pack time or from anything that was committed since then. Objects that were changed after the pack time stay.
//!
//! 1. `search` lists the objects as of the pack time, and marks what is reachable. References are read from the states.
//! 2. `remove` removes the rest, in database transactions of a tenth of a second.
//!
//! Why it is safe beside writers:
//!
//! - Only one pack of a database runs, and no undo of a RelStorage client beside it: advisory lock -2, as for
//!   RelStorage.
//! - A former revision is removed by a statement that itself finds out which one was current at the pack time, and
//!   nothing is ever committed before the pack time any more. Nor is a revision removed that `current_object` names.
//! - Garbage may become reachable by a commit: a client has kept such an object since before the pack time, and stores
//!   a reference to it. So garbage is removed while the commit lock (-1) is held, and only if all transactions are
//!   searched for references; otherwise those that are not are searched, and the rest of the garbage is tried again. An
//!   object whose newest revision is later than the pack time is never removed. Oids are removed in ascending order:
//!   parents mostly before their children, so that what becomes reachable late mostly still has its children. If not,
//!   an error is logged.
//! - The objects of a batch are locked as by a commit, but never waited for: what a transaction has locked is tried
//!   again later, or left to the next pack. An undo of this server locks its objects first and then looks whether the
//!   transaction is packed, and all transactions are marked as packed before anything is removed.
//!
//! A pack that ends early, in whatever way, leaves a database in which all that is reachable is intact. The table
//! `runzeo_pack` says that it is not complete, and the next pack to the same time or a later one completes it.
//!
//! The newest transaction always stays, even if it is empty. RelStorage's own tables for packs (`pack_object`,
//! `pack_state`, `pack_state_tid`) are not used; what it has noted about the references of transactions goes with them.
//!
//! `plan` counts what a pack would do. Memory: 9 bytes for each object, 8 for each that is yet to be visited, and some
//! megabytes of states.

mod objects;
mod plan;
mod remove;
mod run;
mod search;
mod session;

use std::sync::atomic::Ordering;

use log::warn;

use self::objects::Fate;
use self::remove::{Removed, Remover};
use self::run::PackRun;
use self::search::Search;
use self::session::PackSession;
use super::PostgresStorage;
use super::session::{LOG, malformed};
use super::shared::tid;
use super::sql::pack::{BEGIN, COMPLETE, CREATE_INDEX, IS_TO_COMPLETE, NEEDS_INDEX};
use crate::base::ids::Tid;
use crate::base::log_rate::LogRate;
use crate::postgres::Value;
use crate::storage::pack_time::{in_words, stop_of};
use crate::storage::{Pack, PackPlan, PackRequest, Result};

/// Limit on the packs that are logged. Clients may ask for one after the other, and most have nothing to do.
static LOGGED: LogRate = LogRate::new("packs", 60, 60);

/// With more objects than this, a pack that removes more than nine of ten may be a mistake.
const MANY_OBJECTS: u64 = 1000;

impl Pack for PostgresStorage {
    fn pack(&self, request: &PackRequest<'_>) -> Result<()> {
        self.check_writable()?;
        let stop = stop_of(request.time)?;
        self.catch_up_for_pack()?;
        let session = PackSession::begin(self)?;
        let mut run = PackRun::new(self, session, request, LOGGED.admits(None, ""));
        let gc = request.gc.unwrap_or(self.options.pack_gc);
        let estimate = self.shared.object_count.load(Ordering::Relaxed);
        request.progress.done.store(0, Ordering::Relaxed);
        request.progress.total.store(3 * estimate, Ordering::Relaxed);
        run.log_info(format_args!(
            "packing about {estimate} objects to {}{}",
            in_words(stop),
            if gc { "" } else { ", without garbage collection" }
        ));
        if !gc && self.shared.sql.forgets {
            run.log_info(format_args!(
                "The database keeps no history, so a pack without garbage collection removes nothing"
            ));
            return Ok(());
        }
        let Some(until) = time_to_pack(&mut run, stop)? else {
            run.log_info(format_args!(
                "The database has already been packed to a later time or no changes have been made since the last pack"
            ));
            return Ok(());
        };
        let mut search = Search::begin(run, until, gc)?;
        request.progress.total.store(3 * search.objects.len(), Ordering::Relaxed);
        warn_of_large_removal(&search);
        let removed = remove(&mut search)?;
        request.progress.done.store(3 * search.objects.len(), Ordering::Relaxed);
        let run = &search.run;
        run.log_info(format_args!(
            "packed: {} objects, {} former revisions and {} transactions removed in {:.1?}",
            removed.objects,
            removed.revisions,
            removed.transactions,
            run.begun.passed()
        ));
        Ok(())
    }

    fn plan(&self, request: &PackRequest<'_>) -> Result<PackPlan> {
        self.plan_pack(request)
    }
}

impl PostgresStorage {
    /// So that all that was committed before the pack is published: packs end with it.
    fn catch_up_for_pack(&self) -> Result<()> {
        self.sequencer.catch_up()
    }
}

/// The last transaction that a pack to `stop` may remove something of. `None`: there is nothing to do.
fn time_to_pack(run: &mut PackRun<'_>, stop: Tid) -> Result<Option<Tid>> {
    let stop = Value::Int8(stop.min(run.storage.shared.last()).0 as i64);
    let rows = run.session.ask(run.sql.to_pack, &[stop])?;
    let row = rows.first().ok_or_else(|| malformed("the pack time"))?;
    let (until, mut is_needed) = (tid(&row, 0)?, row.required_bool(1)?);
    let rows = run.session.ask(run.sql.is_ready, &[])?;
    let has_table = rows.first().ok_or_else(|| malformed("a table"))?.required_bool(1)?;
    if !is_needed && has_table {
        is_needed = run.session.flag(&IS_TO_COMPLETE, &[stop])?;
    }
    Ok((until != Tid::ZERO && is_needed).then_some(until))
}

/// Removes all that the search has not marked.
fn remove(search: &mut Search<'_>) -> Result<Removed> {
    let until = Value::Int8(search.until.0 as i64);
    let removals = search.run.request.removals;
    search.run.check_wanted()?;
    analyze(search)?;
    if let Some(removals) = removals {
        Remover::new(search).report(removals)?;
        removals.complete()?;
    }
    make_index(search)?;
    search.run.check_wanted()?;
    search.run.has_begun = true;
    search.run.session.ask(&BEGIN, &[until])?;
    let mut remover = Remover::new(search);
    remover.mark_packed()?;
    remover.remove()?;
    remover.remove_transactions()?;
    let removed = remover.removed;
    let count = &search.run.storage.shared.object_count;
    // Until it is looked up again.
    let _ = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
        Some(count.saturating_sub(removed.objects))
    });
    // What is removed is to be on the disk before the blobs that belong to it are removed.
    search.run.session.simple("set synchronous_commit = on")?;
    if removed.busy == 0 {
        search.run.session.ask(&COMPLETE, &[until])?;
    } else {
        search.run.session.ask(&BEGIN, &[until])?;
    }
    removals.map_or(Ok(()), |removals| removals.packed())?;
    analyze(search)?;
    Ok(removed)
}

/// So that the planner knows the tables, before and after they have changed much.
fn analyze(search: &mut Search<'_>) -> Result<()> {
    if let Err(error) = search.run.session.try_simple(search.run.sql.analyze)? {
        warn!(target: LOG, "{}: packing: the statistics stay as they are: {error}", search.run.storage.shared.name);
    }
    Ok(())
}

/// Makes the index by which large objects are removed, if there are any.
fn make_index(search: &mut Search<'_>) -> Result<()> {
    let session = &mut search.run.session;
    let rows = session.ask(&NEEDS_INDEX, &[])?;
    let row = rows.first().ok_or_else(|| malformed("an index"))?;
    if row.required_bool(0)?
        && !row.required_bool(1)?
        && let Err(error) = session.try_simple(CREATE_INDEX)?
    {
        let name = &search.run.storage.shared.name;
        warn!(target: LOG, "{name}: packing: without an index on blob_chunk (chunk) blobs are removed slowly: {error}");
    }
    Ok(())
}

/// Of a database there is no copy that a mistake could be mended with.
fn warn_of_large_removal(search: &Search<'_>) {
    let before = search.objects.len();
    let removed = search.objects.count(|fate| fate == Fate::Garbage);
    if before > MANY_OBJECTS && removed.saturating_mul(10) > before.saturating_mul(9) {
        warn!(
            target: LOG,
            "{}: the pack removes {removed} of {before} objects, for nothing refers to them",
            search.run.storage.shared.name
        );
    }
}
