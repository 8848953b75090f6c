//! The statements and the function of packs, for a database that keeps no history: a pack collects garbage.
//!
//! `runzeo_pack_free_1(oids, until, checked)` is what `runzeo_pack_garbage_1` is for a database that keeps history.
//! What RelStorage has noted about the references of the objects goes with them. The newest tid is noted in
//! `runzeo_last` before: the newest transaction may have written nothing but garbage.

use super::PackStatements;
use crate::postgres::{Statement, Type};

const ONE: &[Type] = &[Type::Int8];
const THREE: &[Type] = &[Type::Int8, Type::Int8, Type::Int8];
const OBJECTS: &[Type] = &[Type::Int8Array, Type::Int8];

/// See [`PackStatements`]. All objects are listed, not only those that are as they were at the pack time; and objects
/// have no past.
pub static STATEMENTS: PackStatements = PackStatements {
    analyze: "analyze object_state, blob_chunk",
    create: CREATE,
    is_ready: &Statement {
        sql: "select to_regproc('runzeo_pack_free_1') is not null and to_regclass('runzeo_pack') is not null, \
              to_regclass('runzeo_pack') is not null",
        types: &[],
    },
    // It is not written anywhere since when garbage is garbage.
    to_pack: &Statement {
        sql: "select coalesce((select max(tid) from object_state where tid <= $1), 0), true",
        types: ONE,
    },
    objects_page: &Statement {
        sql: "select zoid, tid, 1::bigint, state is null from object_state \
              where zoid > $1 and $2 > 0 order by zoid limit $3",
        types: THREE,
    },
    // Of one that was deleted since the state is null.
    states: &Statement {
        sql: "select zoid, tid, state from (select k.zoid, coalesce(s.tid, 0) as tid, s.state, \
              sum(coalesce(s.state_size, 0)) over (order by k.zoid) - coalesce(s.state_size, 0) as before \
              from unnest($1) as k (zoid) left join object_state s on s.zoid = k.zoid and $2 > 0) t \
              where before < 16777216 order by zoid",
        types: OBJECTS,
    },
    later_states: &super::LATER_STATES,
    existing: &Statement {
        sql: "select zoid from object_state where zoid = any($1)",
        types: &[Type::Int8Array],
    },
    removed_states: &Statement {
        sql: "select zoid, tid, state from (select zoid, tid, state, \
              sum(state_size) over (order by zoid) - state_size as before from \
              (select zoid, tid, state, state_size from object_state where zoid = any($1) \
              and (zoid, tid) > ($4, $5) and tid <= $2 and $3 order by zoid limit 500) p) t \
              where before < 16777216 order by zoid",
        types: &[Type::Int8Array, Type::Int8, Type::Bool, Type::Int8, Type::Int8],
    },
    count_removed: &Statement {
        sql: "select count(*), coalesce(sum(s.state_size), 0)::bigint, count(b.chunk), \
              coalesce(sum(lo_lseek64(lo_open(b.chunk, 262144), 0, 2)), 0)::bigint \
              from object_state s left join blob_chunk b on b.zoid = s.zoid \
              where s.zoid = any($1) and s.tid <= $2 and $3",
        types: &[Type::Int8Array, Type::Int8, Type::Bool],
    },
    count_unchanged: &Statement {
        sql: "select count(*) from object_state where zoid = any($1) and tid <= $2",
        types: OBJECTS,
    },
    totals: &Statement {
        sql: "select count(*), count(*), count(distinct tid), pg_database_size(current_database()) \
              from object_state",
        types: &[],
    },
    old_transactions: &Statement {
        sql: "select count(distinct tid) from object_state \
              where tid <= $1 and tid < (select max(tid) from object_state)",
        types: ONE,
    },
    mark_packed: &Statement { sql: "select null::bigint where $1 + $2 + $3 is null", types: THREE },
    remove_empty: &Statement { sql: "select null::bigint, ($1 + $2 + $3) * 0", types: THREE },
    remove_old: &Statement {
        sql: "select 1::bigint, case when $1 is null or $2 is null or $3 or $4 > 0 then 0::bigint end",
        types: &[Type::Int8Array, Type::Int8, Type::Bool, Type::Int8],
    },
    remove_garbage: &Statement {
        sql: "select kind, number from runzeo_pack_free_1($1, $2, $3)",
        types: &[Type::Int8Array, Type::Int8, Type::Int8],
    },
};

const CREATE: &str = r"
create table if not exists runzeo_pack (tid bigint primary key);

create or replace function runzeo_pack_free_1(oids bigint[], until bigint, checked bigint)
returns table (kind bigint, number bigint) language plpgsql volatile as $body$
#variable_conflict use_column
declare
    locked bigint[];
    gone bigint[];
    chunks oid[];
    newest bigint;
begin
    perform pg_advisory_xact_lock(-1);
    select coalesce(array_agg(t.o), '{}') into locked from
        (select o, pg_try_advisory_xact_lock(o) as got from unnest(runzeo_pack_free_1.oids) o offset 0) t
        where t.got;
    newest := (select max(s.tid) from object_state s);
    if newest > checked then
        return query select 0::bigint, null::bigint;
        return;
    end if;
    return query select 2::bigint, b.o from
        (select unnest(runzeo_pack_free_1.oids) as o except select unnest(locked)) b;

    update runzeo_last l set tid = newest, has_objects = true where l.tid < newest;
    select array_agg(b.chunk) into chunks
        from blob_chunk b join object_state s on s.zoid = b.zoid where b.zoid = any(locked) and s.tid <= until;
    with d as (delete from object_state s where s.zoid = any(locked) and s.tid <= until returning s.zoid)
        select array_agg(d.zoid) into gone from d;
    if gone is null then
        return;
    end if;
    delete from object_ref r where r.zoid = any(gone);
    delete from object_refs_added a where a.zoid = any(gone);
    if chunks is not null then
        perform lo_unlink(m.oid) from pg_largeobject_metadata m
            where m.oid = any(chunks) and not exists (select from blob_chunk b where b.chunk = m.oid);
    end if;
    return query select 1::bigint, o from unnest(gone) o;
end
$body$;
";
