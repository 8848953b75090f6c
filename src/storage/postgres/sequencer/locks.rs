//! The locks on objects that a database shares: advisory locks, whose keys are the oids. -1 is the lock of commits.
//!
//! They are tried, never waited for, because all votes of the server share one session. A session does not exclude
//! itself: that the votes of one server touch different objects is for the server's own locks, which are taken before.

use std::collections::HashMap;

use super::super::session::{malformed, refused};
use super::super::sql::Statements;
use crate::base::ids::{Oid, Tid};
use crate::base::sync::{Answerer, rank};
use crate::conflict::Conflict;
use crate::postgres::{Answer, Batch, Rows, Statement, TooLarge, Type, Value};
use crate::storage::{Refusal, Result, StorageError};

/// The key of the commit lock.
pub const COMMITS: i64 = -1;

static TRY_EXCLUSIVE: Statement = Statement {
    sql: "select o from (select o, pg_try_advisory_lock(o) as got from unnest($1) o offset 0) t where not got",
    types: &[Type::Int8Array],
};
static TRY_SHARED: Statement = Statement {
    sql: "select o from (select o, pg_try_advisory_lock_shared(o) as got from unnest($1) o offset 0) t where not got",
    types: &[Type::Int8Array],
};
static UNLOCK_EXCLUSIVE: Statement = Statement {
    sql: "select count(*) from unnest($1) o where pg_advisory_unlock(o)",
    types: &[Type::Int8Array],
};
static UNLOCK_SHARED: Statement = Statement {
    sql: "select count(*) from unnest($1) o where pg_advisory_unlock_shared(o)",
    types: &[Type::Int8Array],
};
static UNLOCK_ALL: Statement = Statement { sql: "select pg_advisory_unlock_all()", types: &[] };
static NOTIFY: Statement = Statement { sql: "select pg_notify('runzeo', $1)", types: &[Type::Text] };

/// What a transaction needs locked.
#[derive(Clone, Debug, Default)]
pub struct WantedLocks {
    /// Existing objects that it changes.
    pub exclusive: Vec<Oid>,
    /// Objects whose serial it depends on.
    pub shared: Vec<Oid>,
    /// New objects, which need no lock; their serials are looked up.
    pub new: Vec<Oid>,
    /// It gets its tid now, so others must not commit until it ends. `Some(None)`: a new tid; else the one that it
    /// brings.
    pub tid: Option<Option<Tid>>,
}

/// A vote's request.
pub struct LockRequest {
    pub wanted: WantedLocks,
    pub answer: Answerer<std::result::Result<Granted, NotGranted>, rank::PostgresAnswer>,
}

/// The locks of a transaction.
#[derive(Debug)]
pub struct Granted {
    /// Names the locks, for the release.
    pub id: u64,
    /// The current revisions of the objects that exist, and whether they are deletions.
    pub serials: HashMap<Oid, (Tid, bool)>,
    /// The tid, if it was wanted.
    pub tid: Option<Tid>,
}

/// Why the locks are not granted. None is held.
#[derive(Debug)]
pub enum NotGranted {
    /// This object is locked by another server, or by a client of RelStorage.
    Busy(Oid),
    Failed(StorageError),
}

/// Keys that are held for a transaction.
#[derive(Clone, Debug, Default)]
pub struct LockKeys {
    pub exclusive: Vec<i64>,
    pub shared: Vec<i64>,
    /// The serials of the objects when they were locked.
    pub serials: HashMap<Oid, (Tid, bool)>,
}

impl WantedLocks {
    fn keys(&self) -> LockKeys {
        let numbers = |oids: &[Oid]| -> Vec<i64> {
            let mut keys: Vec<i64> = oids.iter().map(|oid| oid.0 as i64).collect();
            keys.sort_unstable();
            keys.dedup();
            keys
        };
        let (mut exclusive, mut shared) = (numbers(&self.exclusive), numbers(&self.shared));
        shared.retain(|key| exclusive.binary_search(key).is_err());
        if self.tid.is_some() {
            // Last, as everybody takes it.
            exclusive.push(COMMITS);
        }
        LockKeys { exclusive, shared, serials: HashMap::new() }
    }

    /// The error of a transaction whose object stays locked: one that applications answer by trying again.
    pub fn locked_too_long(&self, oid: Oid) -> StorageError {
        let conflict = Box::new(Conflict { oid, committed: Tid::ZERO, read: Tid::ZERO, data: Vec::new() });
        if self.shared.contains(&oid) {
            StorageError::ReadConflict(conflict)
        } else {
            StorageError::Conflict(conflict)
        }
    }
}

/// Adds one group for a request.
pub fn ask(
    batch: &mut Batch,
    sql: &Statements,
    wanted: &WantedLocks,
    last: Tid,
) -> std::result::Result<(), TooLarge> {
    let keys = wanted.keys();
    batch.execute(&TRY_SHARED, &[Value::Int8s(&keys.shared)])?;
    batch.execute(&TRY_EXCLUSIVE, &[Value::Int8s(&keys.exclusive)])?;
    let known = wanted.exclusive.iter().chain(&wanted.shared).chain(&wanted.new);
    let mut objects: Vec<i64> = known.map(|oid| oid.0 as i64).collect();
    objects.sort_unstable();
    objects.dedup();
    batch.execute(&sql.serials, &[Value::Int8s(&objects)])?;
    if wanted.tid.is_some() {
        batch.execute(&sql.next_tid, &[Value::Int8(last.0 as i64)])?;
    }
    batch.sync();
    Ok(())
}

/// The tid of a transaction that needs it before its finish. The commit lock is held, so nothing is committed in
/// between.
pub struct PromisedTid {
    pub tid: Tid,
    /// The newest transaction that is committed, by whatever client of the database.
    pub newest: Tid,
}

/// What has come of a request.
pub enum LockOutcome {
    Got(LockKeys, Option<PromisedTid>),
    /// These keys are held although not all were got, or the tid is refused.
    Not(LockKeys, NotGranted),
    /// It is not known which of the keys are held.
    Unknown(StorageError),
}

/// Reads the answer to [`ask`].
pub fn outcome(wanted: &WantedLocks, answer: Answer) -> LockOutcome {
    let rows = match answer {
        Ok(rows) => rows,
        Err(error) => return LockOutcome::Unknown(refused(&error)),
    };
    match read(wanted, &rows) {
        Ok(outcome) => outcome,
        Err(error) => LockOutcome::Unknown(error),
    }
}

fn read(wanted: &WantedLocks, rows: &[Rows]) -> Result<LockOutcome> {
    let missing = || malformed("a lock");
    let failed = |rows: Option<&Rows>| -> Result<Vec<i64>> {
        rows.ok_or_else(missing)?.iter().map(|row| Ok(row.required_int8(0)?)).collect()
    };
    let mut held = wanted.keys();
    let (shared, exclusive) = (failed(rows.first())?, failed(rows.get(1))?);
    held.shared.retain(|key| !shared.contains(key));
    held.exclusive.retain(|key| !exclusive.contains(key));
    if let Some(busy) = exclusive.first().or(shared.first()) {
        return Ok(LockOutcome::Not(held, NotGranted::Busy(Oid(*busy as u64))));
    }
    for row in rows.get(2).ok_or_else(missing)?.iter() {
        let serial = (Tid(row.required_int8(1)? as u64), row.required_bool(2)?);
        held.serials.insert(Oid(row.required_int8(0)? as u64), serial);
    }
    let Some(own) = wanted.tid else { return Ok(LockOutcome::Got(held, None)) };
    let next = rows.get(3).and_then(Rows::first).ok_or_else(missing)?;
    let (next, newest) = (Tid(next.required_int8(0)? as u64), Tid(next.required_int8(1)? as u64));
    match own {
        Some(own) if own <= newest => Ok(LockOutcome::Not(held, NotGranted::Failed(too_early(own, newest)))),
        own => Ok(LockOutcome::Got(held, Some(PromisedTid { tid: own.unwrap_or(next), newest }))),
    }
}

/// Adds one group that gives keys back and tells other servers, so that they look for new transactions and try again
/// for their locks.
pub fn give_back<'a>(
    batch: &mut Batch,
    held: impl Iterator<Item = &'a LockKeys> + Clone,
    server: &str,
) -> std::result::Result<(), TooLarge> {
    let exclusive: Vec<i64> = held.clone().flat_map(|held| held.exclusive.iter().copied()).collect();
    let shared: Vec<i64> = held.flat_map(|held| held.shared.iter().copied()).collect();
    batch.execute(&UNLOCK_EXCLUSIVE, &[Value::Int8s(&exclusive)])?;
    batch.execute(&UNLOCK_SHARED, &[Value::Int8s(&shared)])?;
    batch.execute(&NOTIFY, &[Value::Text(server)])?;
    batch.sync();
    Ok(())
}

/// Adds one group that takes all keys again, after none was held: first everything is given back.
pub fn take_again<'a>(
    batch: &mut Batch,
    sql: &Statements,
    held: impl Iterator<Item = &'a LockKeys>,
) -> std::result::Result<(), TooLarge> {
    batch.execute(&UNLOCK_ALL, &[])?;
    batch.sync();
    for held in held {
        batch.execute(&TRY_SHARED, &[Value::Int8s(&held.shared)])?;
        batch.execute(&TRY_EXCLUSIVE, &[Value::Int8s(&held.exclusive)])?;
        let objects: Vec<i64> = held.serials.keys().map(|oid| oid.0 as i64).collect();
        batch.execute(&sql.serials, &[Value::Int8s(&objects)])?;
        batch.sync();
    }
    Ok(())
}

/// Whether the keys were got again, and no object has changed since.
pub fn is_as_before(held: &LockKeys, answer: Answer) -> bool {
    let Ok(rows) = answer else { return false };
    let [shared, exclusive, serials] = rows.as_slice() else { return false };
    let same = serials.iter().all(|row| {
        let (Ok(oid), Ok(tid), Ok(gone)) = (row.required_int8(0), row.required_int8(1), row.required_bool(2))
        else {
            return false;
        };
        held.serials.get(&Oid(oid as u64)) == Some(&(Tid(tid as u64), gone))
    });
    shared.is_empty() && exclusive.is_empty() && same && serials.len() == held.serials.len()
}

/// The refusal of a tid that a copier brings.
pub fn too_early(own: Tid, newest: Tid) -> StorageError {
    StorageError::Refused {
        what: Refusal::TidOrder,
        message: format!("transaction id {own} is not later than the last one, {newest}"),
    }
}
