//! The statements and functions of packs, for a database that keeps history. [`free`] has those for one that does not.
//!
//! Each call of a function is one database transaction, and looks again at what it removes: between the search and the
//! removal others commit.
//!
//! `runzeo_pack` has a row as long as a pack has begun to remove and is not complete: its pack time. A pack that was
//! killed is completed by the next one, although all its transactions have the mark of packed ones already.
//!
//! `runzeo_pack_old_1(oids, until, is_whole, rows_max)` removes, of each object, the revisions before the one that was
//! current at transaction `until`; `is_whole`: that one too, which has to be a deletion. Objects that others have
//! locked exclusively are left out. At most `rows_max` revisions are removed: if it is as many, there may be more.
//!
//! `runzeo_pack_garbage_1(oids, until, checked)` removes the objects whose newest revision is not later than `until`.
//! It holds the commit lock, and removes nothing if there is a transaction after `checked`. Objects that others have
//! locked are left out. It waits for the commit lock before it locks any object: a deletion by RelStorage holds the
//! commit lock while it waits for its objects.
//!
//! Their rows are of these kinds: [`LATER`], [`REMOVED`] with the object (or, of the first function, with the number of
//! revisions), [`BUSY`] with the object.
//!
//! Large objects go with the last row that names them. The trigger of RelStorage's clients does that if it is there,
//! but a database of ours may be without: what is left after the rows are gone is unlinked, so it never happens twice.

pub mod free;

use crate::postgres::{Statement, Type};

/// Kinds of rows.
pub const LATER: i64 = 0;
pub const REMOVED: i64 = 1;
pub const BUSY: i64 = 2;

/// What differs between the kinds of databases.
pub struct PackStatements {
    /// Brings the planner's statistics up to date.
    pub analyze: &'static str,
    /// Makes the functions and the table `runzeo_pack`.
    pub create: &'static str,
    /// `() -> are the functions and the table there, is the table there`
    pub is_ready: &'static Statement,
    /// `(stop) -> newest transaction until then, is one of them not packed`
    pub to_pack: &'static Statement,
    /// `(oid, until, count) -> oid, tid, number of revisions, is deleted`: the next objects and what was current then.
    pub objects_page: &'static Statement,
    /// `(oids, until) -> oid, tid, state`: what was current then, of the first objects, some megabytes at once.
    pub states: &'static Statement,
    /// `(tid, oid, last) -> tid, oid, state`: the next records after this one, some megabytes at once.
    pub later_states: &'static Statement,
    /// `(oids) -> oid`: those of them that exist now.
    pub existing: &'static Statement,
    /// `(oids, until, is whole, oid, tid) -> oid, tid, state`: the next revisions that are to be removed.
    pub removed_states: &'static Statement,
    /// `(oids, until, is whole) -> revisions, bytes, blobs, bytes of blobs`: what is to be removed. Revisions of one
    /// object share a large object after an undo; such a one is not counted.
    pub count_removed: &'static Statement,
    /// `(oids, until) -> number`: those of them that were not changed later.
    pub count_unchanged: &'static Statement,
    /// `() -> objects, revisions, transactions, bytes of the database`
    pub totals: &'static Statement,
    /// `(until) -> transactions that a pack may remove`
    pub old_transactions: &'static Statement,
    /// `(until, tid, count) -> the last transaction of the page`: marks the next transactions as packed.
    pub mark_packed: &'static Statement,
    /// `(until, tid, count) -> the last transaction of the page, removed transactions`: removes those of the next
    /// transactions that have no object. The newest transaction stays, because clients and servers know its tid.
    pub remove_empty: &'static Statement,
    /// `(oids, until, is whole, rows_max) -> kind, number`: see the module.
    pub remove_old: &'static Statement,
    /// `(oids, until, checked) -> kind, number`: see the module.
    pub remove_garbage: &'static Statement,
}

/// A database that keeps history.
pub static PRESERVING: PackStatements = PackStatements {
    analyze: ANALYZE,
    create: CREATE,
    is_ready: &IS_READY,
    to_pack: &TO_PACK,
    objects_page: &OBJECTS_PAGE,
    states: &STATES,
    later_states: &LATER_STATES,
    existing: &EXISTING,
    removed_states: &REMOVED_STATES,
    count_removed: &COUNT_REMOVED,
    count_unchanged: &COUNT_UNCHANGED,
    totals: &TOTALS,
    old_transactions: &OLD_TRANSACTIONS,
    mark_packed: &MARK_PACKED,
    remove_empty: &REMOVE_EMPTY,
    remove_old: &REMOVE_OLD,
    remove_garbage: &REMOVE_GARBAGE,
};

/// Rows of one page of transactions.
pub const TRANSACTIONS_PAGE: i64 = 2000;

/// What the session of a pack is set to. With statistics that are out of date the planner may choose to read whole
/// tables for each batch. Commits need not wait for the disk: what is lost in a crash is removed by the next pack.
pub const SETTINGS: &str = "set enable_seqscan = off; set enable_hashjoin = off; set enable_mergejoin = off; \
    set enable_hashagg = off; set synchronous_commit = off; set idle_in_transaction_session_timeout = 10000";

/// Brings the planner's statistics up to date.
pub const ANALYZE: &str = "analyze transaction, object_state, current_object, blob_chunk";

const ONE: &[Type] = &[Type::Int8];
const THREE: &[Type] = &[Type::Int8, Type::Int8, Type::Int8];
const OBJECTS: &[Type] = &[Type::Int8Array, Type::Int8];

/// `() -> is got`: the lock of packs and of RelStorage's undos.
pub static LOCK: Statement = Statement { sql: "select pg_try_advisory_lock(-2)", types: &[] };
/// `() ->`: the commit lock, until the end of the transaction.
pub static HOLD_COMMITS: Statement = Statement { sql: "select pg_advisory_xact_lock(-1)", types: &[] };
static IS_READY: Statement = Statement {
    sql: "select to_regproc('runzeo_pack_old_1') is not null and to_regproc('runzeo_pack_garbage_1') is not null \
          and to_regclass('runzeo_pack') is not null, to_regclass('runzeo_pack') is not null",
    types: &[],
};
static TO_PACK: Statement = Statement {
    sql: "select coalesce((select max(tid) from transaction where tid > 0 and tid <= $1), 0), \
          exists (select from transaction where tid > 0 and tid <= $1 and not packed)",
    types: ONE,
};
/// `(stop) -> has a pack to this time or an earlier one not been completed`
pub static IS_TO_COMPLETE: Statement =
    Statement { sql: "select exists (select from runzeo_pack where tid <= $1)", types: ONE };
/// `(until)`: a pack begins to remove.
pub static BEGIN: Statement = Statement {
    sql: "insert into runzeo_pack values ($1) on conflict (tid) do update set tid = excluded.tid",
    types: ONE,
};
/// `(until)`: it is complete.
pub static COMPLETE: Statement = Statement { sql: "delete from runzeo_pack where tid <= $1", types: ONE };
static OBJECTS_PAGE: Statement = Statement {
    sql: "select m.zoid, m.tid, m.revisions, s.state is null \
          from (select zoid, max(tid) as tid, count(*) as revisions from object_state \
          where zoid > $1 and tid <= $2 group by zoid order by zoid limit $3) m \
          join object_state s on s.zoid = m.zoid and s.tid = m.tid order by m.zoid",
    types: THREE,
};
static STATES: Statement = Statement {
    sql: "select zoid, tid, state from (select k.zoid, s.tid, s.state, \
          sum(s.state_size) over (rows between unbounded preceding and current row) - s.state_size as before \
          from unnest($1) as k (zoid) cross join lateral \
          (select tid, state, state_size from object_state o where o.zoid = k.zoid and o.tid <= $2 \
          order by tid desc limit 1) s) t where before < 16777216",
    types: OBJECTS,
};
static LATER_STATES: Statement = Statement {
    sql: "select tid, zoid, state from (select tid, zoid, state, \
          sum(state_size) over (order by tid, zoid) - state_size as before from \
          (select tid, zoid, state, state_size from object_state where tid >= $1 and (tid > $1 or zoid > $2) \
          and tid <= $3 order by tid, zoid limit 2000) p) t where before < 16777216 order by tid, zoid",
    types: THREE,
};
static EXISTING: Statement =
    Statement { sql: "select zoid from current_object where zoid = any($1)", types: &[Type::Int8Array] };
static REMOVED_STATES: Statement = Statement {
    sql: "select zoid, tid, state from (select zoid, tid, state, \
          sum(state_size) over (order by zoid, tid) - state_size as before from \
          (select s.zoid, s.tid, s.state, s.state_size from object_state s where s.zoid = any($1) \
          and (s.zoid, s.tid) > ($4, $5) and s.tid <= $2 and ($3 or s.tid < \
          (select max(m.tid) from object_state m where m.zoid = s.zoid and m.tid <= $2)) \
          order by s.zoid, s.tid limit 500) p) t where before < 16777216 order by zoid, tid",
    types: &[Type::Int8Array, Type::Int8, Type::Bool, Type::Int8, Type::Int8],
};
static COUNT_REMOVED: Statement = Statement {
    sql: "select count(*), coalesce(sum(s.state_size), 0)::bigint, count(b.chunk), \
          coalesce(sum(lo_lseek64(lo_open(b.chunk, 262144), 0, 2)), 0)::bigint \
          from object_state s left join blob_chunk b on b.zoid = s.zoid and b.tid = s.tid \
          and not exists (select from blob_chunk o where o.zoid = b.zoid and o.tid <> b.tid and o.chunk = b.chunk) \
          where s.zoid = any($1) and s.tid <= $2 and ($3 or s.tid < \
          (select max(m.tid) from object_state m where m.zoid = s.zoid and m.tid <= $2))",
    types: &[Type::Int8Array, Type::Int8, Type::Bool],
};
static COUNT_UNCHANGED: Statement = Statement {
    sql: "select count(*) from current_object where zoid = any($1) and tid <= $2",
    types: OBJECTS,
};
static TOTALS: Statement = Statement {
    sql: "select (select count(*) from current_object), (select count(*) from object_state), \
          (select count(*) from transaction where tid > 0), pg_database_size(current_database())",
    types: &[],
};
static OLD_TRANSACTIONS: Statement = Statement {
    sql: "select count(*) from transaction where tid > 0 and tid <= $1 and tid < (select max(tid) from transaction)",
    types: ONE,
};
static MARK_PACKED: Statement = Statement {
    sql: "with page as (select tid from transaction where tid > $2 and tid <= $1 order by tid limit $3), \
          marked as (update transaction t set packed = true from page where t.tid = page.tid and not t.packed) \
          select max(tid) from page",
    types: THREE,
};
static REMOVE_EMPTY: Statement = Statement {
    sql: "with page as (select tid from transaction where tid > $2 and tid <= $1 order by tid limit $3), \
          empty as (select tid, tid = (select max(tid) from transaction) as stays from page \
          where not exists (select from object_state s where s.tid = page.tid)), \
          first as (update object_state s set prev_tid = 0 from empty e where s.prev_tid = e.tid), \
          refs as (delete from object_ref r using empty e where r.tid = e.tid), \
          added as (delete from object_refs_added a using empty e where a.tid = e.tid), \
          kept as (update transaction t set is_empty = true from empty e \
          where t.tid = e.tid and e.stays and not t.is_empty), \
          gone as (delete from transaction t using empty e where t.tid = e.tid and not e.stays returning t.tid) \
          select (select max(tid) from page), (select count(*) from gone)",
    types: THREE,
};
static REMOVE_OLD: Statement = Statement {
    sql: "select kind, number from runzeo_pack_old_1($1, $2, $3, $4)",
    types: &[Type::Int8Array, Type::Int8, Type::Bool, Type::Int8],
};
static REMOVE_GARBAGE: Statement = Statement {
    sql: "select kind, number from runzeo_pack_garbage_1($1, $2, $3)",
    types: &[Type::Int8Array, Type::Int8, Type::Int8],
};
/// `() -> is there a blob, does an index tell who names a large object`
pub static NEEDS_INDEX: Statement = Statement {
    sql: "select exists (select from blob_chunk), exists (select from pg_index i \
          join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0] \
          where i.indrelid = to_regclass('blob_chunk') and i.indisvalid and a.attname = 'chunk')",
    types: &[],
};
/// Without it each row that is removed costs a look at all rows, also in RelStorage's trigger.
pub const CREATE_INDEX: &str = "create index if not exists runzeo_blob_chunk on blob_chunk (chunk)";

/// Makes the functions and the table.
const CREATE: &str = r"
create table if not exists runzeo_pack (tid bigint primary key);

create or replace function runzeo_pack_unlink_1(chunks oid[]) returns void language plpgsql volatile as $body$
begin
    perform lo_unlink(m.oid) from pg_largeobject_metadata m
        where m.oid = any(chunks) and not exists (select from blob_chunk b where b.chunk = m.oid);
end
$body$;

create or replace function runzeo_pack_old_1(oids bigint[], until bigint, is_whole boolean, rows_max bigint)
returns table (kind bigint, number bigint) language plpgsql volatile as $body$
#variable_conflict use_column
declare
    locked bigint[];
    old_oids bigint[];
    old_tids bigint[];
    chunks oid[];
begin
    select coalesce(array_agg(t.o), '{}') into locked from
        (select o, pg_try_advisory_xact_lock_shared(o) as got from unnest(runzeo_pack_old_1.oids) o offset 0) t
        where t.got;
    return query select 2::bigint, b.o from
        (select unnest(runzeo_pack_old_1.oids) as o except select unnest(locked)) b;

    select array_agg(s.zoid), array_agg(s.tid) into old_oids, old_tids from
        (select s.zoid, s.tid from unnest(locked) as k (zoid)
            cross join lateral (select m.tid, m.state is null as is_deletion from object_state m
                where m.zoid = k.zoid and m.tid <= until order by m.tid desc limit 1) n
            join object_state s on s.zoid = k.zoid and s.tid <= n.tid
        where (s.tid < n.tid or (is_whole and n.is_deletion))
            and not exists (select from current_object c where c.zoid = s.zoid and c.tid = s.tid)
        limit rows_max) s;
    if old_oids is not null then
        select array_agg(b.chunk) into chunks from unnest(old_oids, old_tids) as k (zoid, tid)
            join blob_chunk b on b.zoid = k.zoid and b.tid = k.tid;
        delete from object_state s using unnest(old_oids, old_tids) as k (zoid, tid)
            where s.zoid = k.zoid and s.tid = k.tid;
        if chunks is not null then
            perform runzeo_pack_unlink_1(chunks);
        end if;
    end if;
    if coalesce(cardinality(old_oids), 0) < rows_max then
        update object_state s set prev_tid = 0 from unnest(locked) as k (zoid)
            where s.zoid = k.zoid and s.prev_tid <> 0
                and s.tid = (select min(m.tid) from object_state m where m.zoid = k.zoid);
    end if;
    return query select 1::bigint, coalesce(cardinality(old_oids), 0)::bigint;
end
$body$;

create or replace function runzeo_pack_garbage_1(oids bigint[], until bigint, checked bigint)
returns table (kind bigint, number bigint) language plpgsql volatile as $body$
#variable_conflict use_column
declare
    locked bigint[];
    gone bigint[];
    chunks oid[];
begin
    perform pg_advisory_xact_lock(-1);
    select coalesce(array_agg(t.o), '{}') into locked from
        (select o, pg_try_advisory_xact_lock(o) as got from unnest(runzeo_pack_garbage_1.oids) o offset 0) t
        where t.got;
    if (select max(t.tid) from transaction t) > checked then
        return query select 0::bigint, null::bigint;
        return;
    end if;
    return query select 2::bigint, b.o from
        (select unnest(runzeo_pack_garbage_1.oids) as o except select unnest(locked)) b;

    with c as (delete from current_object c where c.zoid = any(locked) and c.tid <= until returning c.zoid)
        select array_agg(c.zoid) into gone from c;
    if gone is null then
        return;
    end if;
    select array_agg(b.chunk) into chunks from blob_chunk b where b.zoid = any(gone);
    delete from object_state s where s.zoid = any(gone);
    if chunks is not null then
        perform runzeo_pack_unlink_1(chunks);
    end if;
    return query select 1::bigint, o from unnest(gone) o;
end
$body$;
";
