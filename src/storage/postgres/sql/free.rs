//! The statements and functions for a database that keeps no history: an object has one row, and a commit replaces it.
//!
//! What is forgotten, and why the server's rules hold all the same:
//!
//! - *Which transactions there were.* Of two transactions of others, {a, b} and then {a}, the rows tell b of the first
//!   and a of the second. Published one after the other, a client between them would see the new b beside the old a. So
//!   all that a search or a commit finds is published as one transaction: with all the objects, at the newest tid.
//!   [`later`](Statements::later) and the commit function return it so. The transactions of this server are known
//!   exactly, and a commit looks for others' before it overwrites anything.
//! - *The state that a client stands at.* A revision that was replaced cannot be read. `loadBefore` then has no data,
//!   which is a ReadConflictError in the client, and the transaction is tried again. Replaced records that were in
//!   memory stay there for a while (`former`); they also are what conflicts are merged with. Of a record that another
//!   client has replaced it is not known when: it ends with the last transaction that was published before.
//! - *The newest tid.* A transaction without objects is written nowhere, and a pack may remove all that the newest one
//!   has written. Clients that have seen it take a server for outdated that has started since. So `runzeo_last` has the
//!   greatest tid that a server has committed or published, and each search looks there, too. It is noted with each
//!   commit; what a search has found is noted before the next search.
//!
//! `runzeo_newest_1() -> tid`: the newest transaction, also if nothing is left of it; 0 if all objects are gone,
//! because the database was cleared.
//!
//! `runzeo_commit_free_1` has the parameters and the rows of `runzeo_commit_1` ([`functions`](super::functions)). A
//! record without a state removes its object.

use super::functions::COMMIT_TYPES;
use super::{LoadStatement, Statements, pack, schema};
use crate::postgres::{Statement, Type};

const ONE: &[Type] = &[Type::Int8];
const TWO: &[Type] = &[Type::Int8, Type::Int8];

/// See [`Statements`].
pub static STATEMENTS: Statements = Statements {
    later: Statement {
        sql: "select n.tid, s.zoid from (select runzeo_newest_1() as tid) n \
              left join object_state s on s.tid > $1 where n.tid > $1",
        types: ONE,
    },
    last: Statement { sql: "select runzeo_newest_1()", types: ONE },
    is_there: Statement { sql: "select runzeo_newest_1() >= $1, false", types: ONE },
    // It need not wait for the disk.
    note_last: Some(Statement {
        sql: "update runzeo_last set tid = $1, \
              has_objects = set_config('synchronous_commit', 'off', true) is not null where tid < $1",
        types: ONE,
    }),
    ..BARE
};

/// For a database that servers have only read: it has no function and no table of ours.
pub static READ_ONLY: Statements = BARE;

const BARE: Statements = Statements {
    tables: &schema::FREE,
    create_tables: schema::CREATE_FREE,
    has_functions: Statement {
        sql: "select to_regproc('runzeo_commit_free_1') is not null and to_regclass('runzeo_writers') is not null \
              and to_regclass('runzeo_uploads') is not null and to_regclass('runzeo_blob_chunk') is not null \
              and to_regproc('runzeo_newest_1') is not null and to_regclass('runzeo_last') is not null",
        types: &[],
    },
    create_functions: CREATE,
    forgets: true,
    load: LOAD,
    load_last: LOAD,
    current: Statement { sql: "select tid, state is null from object_state where zoid = $1", types: TWO },
    first: Statement { sql: "select tid from object_state where zoid = $1", types: ONE },
    load_serial: Statement { sql: "select state from object_state where zoid = $1 and tid = $2", types: TWO },
    history: Statement {
        sql: "select tid, ''::bytea, ''::bytea, ''::bytea, state_size from object_state \
              where zoid = $1 and tid < $2",
        types: TWO,
    },
    objects: Statement {
        sql: "select zoid from object_state where zoid >= $1 order by zoid limit 2",
        types: ONE,
    },
    // What was changed since is listed, too: an object that also one of the listed transactions has changed would be
    // missing.
    newest: Statement {
        sql: "select least(t.tid, $2), s.zoid from \
              (select distinct tid from object_state order by tid desc limit $1) t \
              join object_state s on s.tid = t.tid order by t.tid desc",
        types: TWO,
    },
    transactions: Statement {
        sql: "select distinct tid, true, ''::bytea, ''::bytea, ''::bytea from object_state \
              where tid >= $1 and tid <= $2 order by tid limit 100",
        types: TWO,
    },
    undo: None,
    serials: Statement {
        sql: "select zoid, tid, state is null from object_state where zoid = any($1)",
        types: &[Type::Int8Array],
    },
    later: Statement {
        sql: "select n.tid, s.zoid from (select max(tid) as tid from object_state) n \
              join object_state s on s.tid > $1 where n.tid > $1",
        types: ONE,
    },
    last: Statement {
        sql: "select coalesce(greatest(max(tid), case when max(tid) > 0 then $1 end), 0)::bigint \
              from object_state",
        types: ONE,
    },
    // A pack may have removed all that the newest one has written.
    is_there: Statement {
        sql: "select coalesce(max(tid) >= $1, false), max(tid) is not null from object_state",
        types: ONE,
    },
    note_last: None,
    next_tid: Statement {
        sql: "select greatest(n.tid + 1, $1 + 1, runzeo_now_1()), n.tid \
              from (select runzeo_newest_1() as tid) n",
        types: ONE,
    },
    commit: Statement {
        sql: "select kind, at, object from \
              runzeo_commit_free_1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
        types: COMMIT_TYPES,
    },
    estimates: Statement {
        sql: "select reltuples::bigint, pg_database_size(current_database()) from pg_class \
              where oid = 'object_state'::regclass",
        types: &[],
    },
    count: Statement { sql: "select count(*) from object_state", types: &[] },
    pack: &pack::free::STATEMENTS,
};

const LOAD: LoadStatement = LoadStatement {
    one: Statement { sql: "select tid, state, null::bigint from object_state where zoid = $1", types: ONE },
    several: Statement {
        sql: "select s.tid, s.state, null::bigint, w.number from unnest($1) with ordinality as w (oid, number) \
              cross join lateral (select o.tid, o.state from object_state o where o.zoid = w.oid limit 1) s",
        types: &[Type::Int8Array],
    },
};

/// Makes the functions and the table.
const CREATE: &str = r"
create table if not exists runzeo_last (
    tid bigint not null,
    has_objects boolean not null
);
insert into runzeo_last
    select coalesce(max(tid), 0), max(tid) is not null from object_state having not exists (select from runzeo_last);

create or replace function runzeo_newest_1() returns bigint language sql stable as $body$
    select case when o.tid is null and l.has_objects then 0 else greatest(o.tid, l.tid, 0) end
    from (select max(tid) as tid from object_state) o,
        (select max(tid) as tid, bool_or(has_objects) as has_objects from runzeo_last) l
$body$;

create or replace function runzeo_commit_free_1(
    last bigint, fixed bigint,
    packed boolean[], users bytea[], descriptions bytea[], extensions bytea[],
    owners integer[], oids bigint[], serials bigint[], md5s text[], states bytea[],
    blob_owners integer[], blob_oids bigint[], chunks bigint[],
    server text, number bigint
) returns table (kind bigint, at bigint, object bigint) language plpgsql volatile as $body$
#variable_conflict use_column
declare
    newest bigint;
    first bigint;
    final bigint;
    uploaded oid[];
    replaced oid[];
begin
    if fixed > 0 then
        perform 1 from commit_row_lock for update;
    end if;
    perform pg_advisory_xact_lock(-1);

    newest := runzeo_newest_1();
    if newest > runzeo_commit_free_1.last then
        return query
            select 0::bigint, newest, s.zoid
            from (select) n left join object_state s on s.tid > runzeo_commit_free_1.last;
    end if;

    return query
        select 1::bigint, coalesce(s.tid, 0), w.oid
        from unnest(runzeo_commit_free_1.oids, runzeo_commit_free_1.serials) as w (oid, serial)
            left join object_state s on s.zoid = w.oid
        where coalesce(s.tid, 0) <> w.serial;
    if found then
        return;
    end if;

    if fixed > 0 and fixed <= newest then
        return query select 2::bigint, newest, null::bigint;
        return;
    end if;

    first := case when fixed > 0 then fixed
        else greatest(newest + 1, runzeo_commit_free_1.last + 1, runzeo_now_1()) end;
    final := first + cardinality(runzeo_commit_free_1.packed) - 1;
    update runzeo_writers w
        set number = runzeo_commit_free_1.number, tid = final
        where w.server = runzeo_commit_free_1.server and w.number = runzeo_commit_free_1.number - 1;
    if not found then
        raise exception 'group % of % was committed before', runzeo_commit_free_1.number,
            runzeo_commit_free_1.server using errcode = 'ZE001';
    end if;
    -- The blobs of an object go with it, and with the blob that it had before. RelStorage's trigger unlinks them, if it
    -- is there.
    select array_agg(b.chunk) into replaced from blob_chunk b
        where b.zoid = any(runzeo_commit_free_1.blob_oids)
            or b.zoid in (select w.oid from unnest(runzeo_commit_free_1.oids, runzeo_commit_free_1.states)
                as w (oid, state) where w.state is null);
    delete from object_state s
        using unnest(runzeo_commit_free_1.oids, runzeo_commit_free_1.states) as w (oid, state)
        where s.zoid = w.oid and w.state is null;
    insert into object_state (zoid, tid, state_size, state)
        select w.oid, first + w.owner - 1, octet_length(w.state), w.state
        from unnest(runzeo_commit_free_1.owners, runzeo_commit_free_1.oids, runzeo_commit_free_1.states)
            as w (owner, oid, state)
        where w.state is not null
        on conflict (zoid) do update
            set tid = excluded.tid, state_size = excluded.state_size, state = excluded.state;
    if replaced is not null then
        delete from blob_chunk b where b.zoid = any(runzeo_commit_free_1.blob_oids);
        perform lo_unlink(m.oid) from pg_largeobject_metadata m
            where m.oid = any(replaced) and not exists (select from blob_chunk b where b.chunk = m.oid);
    end if;
    if cardinality(runzeo_commit_free_1.chunks) > 0 then
        with moved as (
            delete from runzeo_uploads u where u.chunk = any(runzeo_commit_free_1.chunks::oid[])
            returning u.chunk
        )
        select coalesce(array_agg(m.chunk), '{}') into uploaded from moved m;
        if exists (select unnest(runzeo_commit_free_1.chunks::oid[]) except select unnest(uploaded)) then
            raise exception 'a blob of the transaction has been removed from the database' using errcode = 'ZE002',
                hint = 'Another server took this one for gone. Try again.';
        end if;
        insert into blob_chunk (zoid, chunk_num, tid, chunk)
            select w.oid, 0, first + w.owner - 1, w.chunk::oid
            from unnest(runzeo_commit_free_1.blob_owners, runzeo_commit_free_1.blob_oids,
                    runzeo_commit_free_1.chunks) as w (owner, oid, chunk);
    end if;

    update runzeo_last l
        set tid = final, has_objects = case
            when array_position(runzeo_commit_free_1.states, null) is null
                then l.has_objects or cardinality(runzeo_commit_free_1.states) > 0
            else (select max(s.tid) from object_state s) is not null
        end;

    if current_setting('synchronous_commit') = 'off' then
        perform set_config('synchronous_commit', 'on', true);
    end if;
    return query select 3::bigint, first, null::bigint;
end
$body$;
";
