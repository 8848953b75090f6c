//! The functions of our own in the database. Their names end in a number: a server of another version may need others,
//! at the same time.
//!
//! `runzeo_now_1() -> tid`: the time of the database's clock.
//!
//! `runzeo_commit_1 -> kind, at, object`, whose parameters are `last, fixed, packed[], users[], descriptions[],
//! extensions[], owners[], oids[], serials[], md5s[], states[], blob_owners[], blob_oids[], chunks[], server, number`:
//! commits a group of transactions. The first arrays have an element for each transaction, the next ones one for each
//! record: which transaction it belongs to (from 1), its object, the serial that must be current (0: the object must
//! not exist), its md5 in hex digits and its state. Of a deletion the md5 is empty and the state null. The last three
//! have an element for each blob: its transaction, its object, and the large object, which is in `runzeo_uploads`, or
//! belongs to another revision already. `last` is the last transaction that the server knows of. `fixed` is the tid of
//! a single transaction that was promised one, or 0. `number` is the number of this group, one more than that of the
//! server's last group: a group that is sent again after a lost connection is not committed twice.
//!
//! Takes the commit lock (advisory lock -1), which ends with the database transaction. The rows that it returns are of
//! these kinds:
//!
//! - [`LATER`]: another server's transaction `at` after `last`, and an object of it, or null if it has none; in the
//!   order of tids.
//! - [`MISMATCH`]: `object` is at `at`, not where its serial says. Nothing was written.
//! - [`TOO_EARLY`]: `fixed` is not later than the newest transaction, `at`. Nothing was written.
//! - [`DONE`]: the group is written; its first transaction has the tid `at`, the others the tids behind it.

use crate::postgres::Type;

/// Kinds of rows that the commit function returns.
pub const LATER: i64 = 0;
pub const MISMATCH: i64 = 1;
pub const TOO_EARLY: i64 = 2;
pub const DONE: i64 = 3;

/// The parameters of the commit function.
pub const COMMIT_TYPES: &[Type] = &[
    Type::Int8,
    Type::Int8,
    Type::BoolArray,
    Type::ByteaArray,
    Type::ByteaArray,
    Type::ByteaArray,
    Type::Int4Array,
    Type::Int8Array,
    Type::Int8Array,
    Type::TextArray,
    Type::ByteaArray,
    Type::Int4Array,
    Type::Int8Array,
    Type::Int8Array,
    Type::Text,
    Type::Int8,
];

/// The SQLSTATE of a group that was committed before.
pub const COMMITTED_BEFORE: &str = "ZE001";

/// Makes what both kinds of databases have, unless it is there: `runzeo_now_1`; `runzeo_writers`, the last group of
/// each server; `runzeo_uploads`, the large objects whose transactions are not committed; and an index for the trigger
/// of RelStorage that looks for the rows of a large object.
pub const CREATE: &str = r"
create table if not exists runzeo_writers (
    server text primary key,
    number bigint not null,
    tid bigint not null
);

create table if not exists runzeo_uploads (
    chunk oid primary key,
    server text not null,
    started timestamptz not null default now()
);
create index if not exists runzeo_blob_chunk on blob_chunk (chunk);

create or replace function runzeo_now_1() returns bigint language plpgsql volatile as $body$
declare
    moment timestamp := clock_timestamp() at time zone 'UTC';
    minutes bigint := (((extract(year from moment)::bigint - 1900) * 12
        + extract(month from moment)::bigint - 1) * 31
        + extract(day from moment)::bigint - 1) * 1440
        + extract(hour from moment)::bigint * 60
        + extract(minute from moment)::bigint;
begin
    return minutes * 4294967296
        + floor(extract(second from moment)::double precision * (4294967296.0 / 60.0))::bigint;
end
$body$;

";

/// Makes the function that commits to a database that keeps history.
pub const CREATE_PRESERVING: &str = r"
create or replace function runzeo_commit_1(
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
    shared oid[];
    uploaded oid[];
begin
    if fixed > 0 then
        perform 1 from commit_row_lock for update;
    end if;
    perform pg_advisory_xact_lock(-1);

    return query
        select 0::bigint, t.tid, s.zoid
        from transaction t left join object_state s on s.tid = t.tid
        where t.tid > runzeo_commit_1.last
        order by t.tid;

    return query
        select 1::bigint, coalesce(c.tid, 0), w.oid
        from unnest(runzeo_commit_1.oids, runzeo_commit_1.serials) as w (oid, serial)
            left join current_object c on c.zoid = w.oid
        where coalesce(c.tid, 0) <> w.serial;
    if found then
        return;
    end if;

    newest := (select coalesce(max(t.tid), 0) from transaction t);
    if fixed > 0 and fixed <= newest then
        return query select 2::bigint, newest, null::bigint;
        return;
    end if;

    first := case when fixed > 0 then fixed
        else greatest(newest + 1, runzeo_commit_1.last + 1, runzeo_now_1()) end;
    update runzeo_writers w
        set number = runzeo_commit_1.number, tid = first + cardinality(runzeo_commit_1.packed) - 1
        where w.server = runzeo_commit_1.server and w.number = runzeo_commit_1.number - 1;
    if not found then
        raise exception 'group % of % was committed before', runzeo_commit_1.number, runzeo_commit_1.server
            using errcode = 'ZE001';
    end if;

    insert into transaction (tid, packed, username, description, extension)
        select first + m.position - 1, m.packed, m.username, m.description, m.extension
        from unnest(runzeo_commit_1.packed, runzeo_commit_1.users, runzeo_commit_1.descriptions,
                runzeo_commit_1.extensions)
            with ordinality as m (packed, username, description, extension, position);
    insert into object_state (zoid, tid, prev_tid, md5, state_size, state)
        select w.oid, first + w.owner - 1, w.serial, nullif(w.md5, ''), coalesce(octet_length(w.state), 0), w.state
        from unnest(runzeo_commit_1.owners, runzeo_commit_1.oids, runzeo_commit_1.serials,
                runzeo_commit_1.md5s, runzeo_commit_1.states)
            as w (owner, oid, serial, md5, state);
    if cardinality(runzeo_commit_1.chunks) > 0 then
        with moved as (
            delete from runzeo_uploads u where u.chunk = any(runzeo_commit_1.chunks::oid[]) returning u.chunk
        )
        select coalesce(array_agg(m.chunk), '{}') into uploaded from moved m;
        -- A pack that removes the other revision waits, and then sees this one.
        shared := array(
            select b.chunk from blob_chunk b where b.chunk = any(runzeo_commit_1.chunks::oid[]) for key share
        );
        if exists (select unnest(runzeo_commit_1.chunks::oid[]) except select unnest(uploaded || shared)) then
            raise exception 'a blob of the transaction has been removed from the database' using errcode = 'ZE002',
                hint = 'Another server took this one for gone, or a pack has removed the blob. Try again.';
        end if;
        insert into blob_chunk (zoid, tid, chunk_num, chunk)
            select w.oid, first + w.owner - 1, 0, w.chunk::oid
            from unnest(runzeo_commit_1.blob_owners, runzeo_commit_1.blob_oids, runzeo_commit_1.chunks)
                as w (owner, oid, chunk);
    end if;
    insert into current_object (zoid, tid)
        select w.oid, first + w.owner - 1
        from unnest(runzeo_commit_1.owners, runzeo_commit_1.oids) as w (owner, oid)
        on conflict (zoid) do update set tid = excluded.tid;

    if current_setting('synchronous_commit') = 'off' then
        perform set_config('synchronous_commit', 'on', true);
    end if;
    return query select 3::bigint, first, null::bigint;
end
$body$;
";
