//! The statements of copies from other storages, into a database that keeps history.
//!
//! Foreign keys cost more than everything else: the database would look up three rows for each record. A copy brings
//! rows that refer to each other as they must, so the constraints are taken away for a batch and are back, as
//! `not valid`, before it is committed: no client ever sees tables without them. When the copy is complete they are
//! validated, which reads the tables once. A large transaction keeps them: clients could not read until its batch is
//! committed.

use crate::postgres::{Statement, Type};

const OBJECTS: &[Type] = &[Type::Int8Array];
const TWO_ARRAYS: &[Type] = &[Type::Int8Array, Type::Int8Array];

/// What the session is set to. With statistics that are out of date the planner may choose to read whole tables for
/// each batch. A batch waits as long for the commit lock; if the program is stopped, the lock is free after some time.
pub const SETTINGS: &str = "set enable_seqscan = off; set enable_hashjoin = off; set enable_mergejoin = off; \
    set lock_timeout = '60s'; set idle_in_transaction_session_timeout = '10min'; \
    select case when current_setting('synchronous_commit') = 'off' \
    then set_config('synchronous_commit', 'on', false) end";
/// For what reads all tables.
pub const SETTINGS_AT_END: &str = "reset enable_seqscan; reset enable_hashjoin; reset enable_mergejoin";

/// Begins a batch. Ordinary commits hold the second lock, RelStorage's copies the first.
pub const BEGIN: &str = "begin; select 1 from commit_row_lock for update; select pg_advisory_xact_lock(-1)";
/// Locks the tables whose foreign keys are taken away. If it waited longer, all readers would wait behind it.
pub const LOCK_TABLES: &str = "savepoint tables; set local lock_timeout = '2s'; \
    lock table transaction, object_state, current_object in access exclusive mode; set local lock_timeout = '60s'";
/// They are in use, or belong to another role.
pub const LEAVE_TABLES: &str = "rollback to savepoint tables";

pub const COPY_TRANSACTIONS: &str =
    "copy transaction (tid, packed, username, description, extension) from stdin (format binary)";
pub const COPY_STATES: &str =
    "copy object_state (zoid, tid, prev_tid, md5, state_size, state) from stdin (format binary)";
pub const COPY_OBJECTS: &str = "copy current_object (zoid, tid) from stdin (format binary)";

/// `() -> newest transaction, greatest oid or -1`
pub static NEWEST: Statement = Statement {
    sql: "select (select coalesce(max(tid), 0) from transaction), (select coalesce(max(zoid), -1) from current_object)",
    types: &[],
};
/// `(oids) -> oid, tid`: those of them that exist, and their current revisions.
pub static CURRENT: Statement =
    Statement { sql: "select zoid, tid from current_object where zoid = any($1)", types: OBJECTS };
/// `(oids, tids)`: these are the current revisions.
pub static REPLACE: Statement = Statement {
    sql: "update current_object c set tid = w.tid from unnest($1, $2) as w (zoid, tid) where c.zoid = w.zoid",
    types: TWO_ARRAYS,
};
/// `(data) -> large object`
pub static CREATE_BLOB: Statement = Statement { sql: "select lo_from_bytea(0, $1)", types: &[Type::Bytea] };
/// `(large object, position, data)`
pub static APPEND_BLOB: Statement =
    Statement { sql: "select lo_put($1, $2, $3) is null", types: &[Type::Oid, Type::Int8, Type::Bytea] };
/// `(oids, tids, large objects)`
pub static ADD_BLOBS: Statement = Statement {
    sql: "insert into blob_chunk (zoid, tid, chunk_num, chunk) \
          select w.zoid, w.tid, 0, w.chunk::oid from unnest($1, $2, $3) as w (zoid, tid, chunk)",
    types: &[Type::Int8Array, Type::Int8Array, Type::Int8Array],
};
/// `() -> statement that drops a foreign key, one that adds it again without looking at the rows, one that validates
/// it, is it valid`
pub static FOREIGN_KEYS: Statement = Statement {
    sql: "select format('alter table %s drop constraint %I', conrelid::regclass, conname), \
          format('alter table %s add constraint %I %s%s', conrelid::regclass, conname, pg_get_constraintdef(oid), \
          case when convalidated then ' not valid' else '' end), \
          format('alter table %s validate constraint %I', conrelid::regclass, conname), convalidated \
          from pg_constraint where contype = 'f' \
          and conrelid in ('object_state'::regclass, 'current_object'::regclass) order by conname",
    types: &[],
};
