//! The statements for a database that keeps history: every revision is a row of `object_state`.

use super::functions::{self, COMMIT_TYPES};
use super::{LoadStatement, Statements, UndoStatements, pack, schema};
use crate::postgres::{Statement, Type};

const ONE: &[Type] = &[Type::Int8];
const TWO: &[Type] = &[Type::Int8, Type::Int8];
const THREE: &[Type] = &[Type::Int8, Type::Int8, Type::Int8];
const TWO_ARRAYS: &[Type] = &[Type::Int8Array, Type::Int8Array];
const THREE_ARRAYS: &[Type] = &[Type::Int8Array, Type::Int8Array, Type::Int8Array];

/// See [`Statements`].
///
/// One revision is looked for by `tid between …`, for which the index of objects is used. For `tid = …` it might be
/// that of transactions, after small transactions have made the statistics; a large one has thousands of rows there.
pub static STATEMENTS: Statements = Statements {
    tables: &schema::PRESERVING,
    create_tables: schema::CREATE_PRESERVING,
    has_functions: Statement {
        sql: "select to_regproc('runzeo_commit_1') is not null and to_regclass('runzeo_writers') is not null \
              and to_regclass('runzeo_uploads') is not null and to_regclass('runzeo_blob_chunk') is not null",
        types: &[],
    },
    create_functions: functions::CREATE_PRESERVING,
    forgets: false,
    load: LoadStatement {
        one: Statement {
            sql: "select s.tid, s.state, \
                  (select min(n.tid) from object_state n where n.zoid = $1 and n.tid > s.tid and n.tid <= $3) \
                  from object_state s where s.zoid = $1 and s.tid < $2 order by s.tid desc limit 1",
            types: THREE,
        },
        several: Statement {
            sql: "select s.tid, s.state, (select min(n.tid) from object_state n \
                  where n.zoid = w.oid and n.tid > s.tid and n.tid <= w.last), w.number \
                  from unnest($1, $2, $3) with ordinality as w (oid, before, last, number) \
                  cross join lateral (select o.tid, o.state from object_state o \
                  where o.zoid = w.oid and o.tid < w.before order by o.tid desc limit 1) s",
            types: THREE_ARRAYS,
        },
    },
    load_last: LoadStatement {
        one: Statement {
            sql: "select tid, state, null::bigint from object_state where zoid = $1 and tid < $2 \
                  order by tid desc limit 1",
            types: TWO,
        },
        several: Statement {
            sql: "select s.tid, s.state, null::bigint, w.number \
                  from unnest($1, $2) with ordinality as w (oid, before, number) \
                  cross join lateral (select o.tid, o.state from object_state o \
                  where o.zoid = w.oid and o.tid < w.before order by o.tid desc limit 1) s",
            types: TWO_ARRAYS,
        },
    },
    current: Statement {
        sql: "select tid, state is null from object_state where zoid = $1 and tid <= $2 \
              order by tid desc limit 1",
        types: TWO,
    },
    first: Statement { sql: "select min(tid) from object_state where zoid = $1", types: ONE },
    load_serial: Statement {
        sql: "select state from object_state where zoid = $1 and tid between $2 and $2",
        types: TWO,
    },
    history: Statement {
        sql: "select s.tid, t.username, t.description, t.extension, s.state_size \
              from object_state s join transaction t on t.tid = s.tid \
              where s.zoid = $1 and s.tid < $2 order by s.tid desc limit 100",
        types: TWO,
    },
    objects: Statement {
        sql: "select zoid from current_object where zoid >= $1 order by zoid limit 2",
        types: ONE,
    },
    newest: Statement {
        sql: "select t.tid, s.zoid from \
              (select tid from transaction where tid > 0 and tid <= $2 order by tid desc limit $1) t \
              left join object_state s on s.tid = t.tid order by t.tid desc",
        types: TWO,
    },
    transactions: Statement {
        sql: "select tid, packed, username, description, extension from transaction \
              where tid >= $1 and tid <= $2 and tid > 0 order by tid limit 100",
        types: TWO,
    },
    undo: Some(UndoStatements {
        list: Statement {
            sql: "select t.tid, t.username, t.description, t.extension, \
                  (select coalesce(sum(s.state_size), 0)::bigint from object_state s where s.tid = t.tid) \
                  from transaction t where t.tid < $1 and t.tid > 0 and not t.packed \
                  order by t.tid desc limit 100",
            types: ONE,
        },
        is_packed: Statement { sql: "select packed from transaction where tid = $1", types: ONE },
        changed: Statement { sql: "select zoid from object_state where tid = $1 order by zoid", types: ONE },
    }),
    serials: Statement {
        sql: "select c.zoid, c.tid, s.state is null from current_object c \
              join object_state s on s.zoid = c.zoid and s.tid between c.tid and c.tid where c.zoid = any($1)",
        types: &[Type::Int8Array],
    },
    later: Statement {
        sql: "select t.tid, s.zoid from transaction t left join object_state s on s.tid = t.tid \
              where t.tid > $1 order by t.tid",
        types: ONE,
    },
    last: Statement { sql: "select coalesce(max(tid), 0)::bigint from transaction", types: ONE },
    is_there: Statement { sql: "select exists (select from transaction where tid = $1), false", types: ONE },
    note_last: None,
    next_tid: Statement {
        sql: "select greatest(coalesce(max(tid), 0) + 1, $1 + 1, runzeo_now_1()), coalesce(max(tid), 0) \
              from transaction",
        types: ONE,
    },
    commit: Statement {
        sql: "select kind, at, object from \
              runzeo_commit_1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
        types: COMMIT_TYPES,
    },
    estimates: Statement {
        sql: "select reltuples::bigint, pg_database_size(current_database()) from pg_class \
              where oid = 'current_object'::regclass",
        types: &[],
    },
    count: Statement { sql: "select count(*) from current_object", types: &[] },
    pack: &pack::PRESERVING,
};
