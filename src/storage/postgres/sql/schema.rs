//! The tables of both kinds of databases: RelStorage's, as its clients make and expect them. They add functions
//! and a trigger of their own when they first open a database that this server has made.

/// The tables of a database that keeps history. One that has only some of them is refused.
pub const PRESERVING: [&str; 10] = [
    "blob_chunk",
    "commit_row_lock",
    "current_object",
    "object_ref",
    "object_refs_added",
    "object_state",
    "pack_object",
    "pack_state",
    "pack_state_tid",
    "transaction",
];

/// Those of a database that keeps none.
pub const FREE: [&str; 6] =
    ["blob_chunk", "commit_row_lock", "object_ref", "object_refs_added", "object_state", "pack_object"];

/// Creates those of a database that keeps history. Row 0 of `transaction` is what new objects refer to as their former
/// transaction.
pub const CREATE_PRESERVING: &str = r"
create table transaction (
    tid bigint primary key,
    packed boolean not null default false,
    is_empty boolean not null default false,
    username bytea not null,
    description bytea not null,
    extension bytea
);
insert into transaction (tid, username, description)
    values (0, 'system', 'special transaction for object creation');

create table object_state (
    zoid bigint not null,
    tid bigint not null references transaction check (tid > 0),
    prev_tid bigint not null references transaction (tid),
    md5 char(32),
    state_size bigint not null check (state_size >= 0),
    state bytea,
    constraint object_state_pk primary key (zoid, tid)
);
create index object_state_tid on object_state (tid);
create index object_state_prev_tid on object_state (prev_tid);

create table current_object (
    zoid bigint not null primary key,
    tid bigint not null,
    foreign key (zoid, tid) references object_state (zoid, tid)
);
create index current_object_tid on current_object (tid);

create table blob_chunk (
    zoid bigint not null,
    tid bigint not null,
    chunk_num bigint not null,
    chunk oid not null,
    primary key (zoid, tid, chunk_num),
    foreign key (zoid, tid) references object_state (zoid, tid) on delete cascade
);
create index blob_chunk_lookup on blob_chunk (zoid, tid);

create table object_ref (
    zoid bigint not null,
    tid bigint not null,
    to_zoid bigint not null,
    primary key (tid, zoid, to_zoid)
);
create table object_refs_added (tid bigint not null primary key);

create table pack_object (
    zoid bigint not null primary key,
    keep boolean not null,
    keep_tid bigint not null,
    visited boolean not null default false
);
create index pack_object_keep_false on pack_object (zoid) where keep = false;
create index pack_object_keep_true on pack_object (visited) where keep = true;
create table pack_state (
    tid bigint not null,
    zoid bigint not null,
    primary key (tid, zoid)
);
create table pack_state_tid (tid bigint not null primary key);

create table commit_row_lock (tid bigint not null primary key);
insert into commit_row_lock values (0);

create view current_object_state as
    select c.zoid, c.tid, s.state from object_state s join current_object c on s.zoid = c.zoid and s.tid = c.tid;

create sequence zoid_seq;
";

/// Creates those of a database that keeps none.
pub const CREATE_FREE: &str = r"
create table object_state (
    zoid bigint not null primary key,
    tid bigint not null check (tid > 0),
    state_size bigint not null check (state_size >= 0),
    state bytea
);
create index object_state_tid on object_state (tid);

create table blob_chunk (
    zoid bigint not null references object_state on delete cascade,
    chunk_num bigint not null,
    tid bigint not null,
    chunk oid not null,
    primary key (zoid, chunk_num)
);
create index blob_chunk_lookup on blob_chunk (zoid);

create table object_ref (
    zoid bigint not null,
    to_zoid bigint not null,
    tid bigint not null,
    primary key (zoid, to_zoid)
);
create table object_refs_added (
    zoid bigint not null primary key,
    tid bigint not null
);

create table pack_object (
    zoid bigint not null primary key,
    keep boolean not null,
    keep_tid bigint not null,
    visited boolean not null default false
);
create index pack_object_keep_false on pack_object (zoid) where keep = false;
create index pack_object_keep_true on pack_object (visited) where keep = true;

create table commit_row_lock (tid bigint not null primary key);
insert into commit_row_lock values (0);

create sequence zoid_seq;
";
