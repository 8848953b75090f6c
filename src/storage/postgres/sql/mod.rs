//! The SQL of the storage. [`preserving`] has the statements for databases that keep history, [`free`] those for
//! databases that do not; [`schema`] makes the tables, and [`functions`] the functions of our own. Packs have theirs in
//! [`pack`], copies in [`copy`]. The rest of the storage asks by [`Statements`], and mostly need not know which kind
//! the database is of.
//!
//! Oids and tids are `bigint`: the 8 bytes as an unsigned number, whose top bit is never set. All reads ask for the
//! state of a transaction (`last`) that has been published: rows of later ones may be there already and are not seen. A
//! database without history has no other rows then: the reader has the later ones published first.

pub mod copy;
pub mod free;
pub mod functions;
pub mod pack;
pub mod preserving;
pub mod schema;

use crate::postgres::{Statement, Type};

/// What the storage asks of a database in the words of its kind. The comments say `(parameters) -> columns`.
pub struct Statements {
    /// The database's tables.
    pub tables: &'static [&'static str],
    /// Makes them.
    pub create_tables: &'static str,
    /// `() -> are the functions of our own there, with their tables`
    pub has_functions: Statement,
    /// Makes the functions that only this kind has, beside [`functions::CREATE`].
    pub create_functions: &'static str,
    /// Which revision an object had between two searches is not known afterwards: later transactions are published as
    /// one, see [`free`].
    pub forgets: bool,
    /// `(oid, before, last) -> tid, state, next tid`: the newest revision before `before`; without history the only
    /// one, whatever its tid is. `state` is null for a deletion.
    pub load: LoadStatement,
    /// The same if `before` is later than `last`, so that there is no next tid.
    pub load_last: LoadStatement,
    /// `(oid, last) -> tid, is deleted`: the revision that is current as of `last`; without history the only one.
    pub current: Statement,
    /// `(oid) -> tid`: the first revision; null if there is none.
    pub first: Statement,
    /// `(oid, tid) -> state`
    pub load_serial: Statement,
    /// `(oid, before) -> tid, user, description, extension, size`: the next [`PAGE`] revisions, newest first.
    pub history: Statement,
    /// `(oid) -> oid`: the object at or after it and the one that follows.
    pub objects: Statement,
    /// `(count, last) -> tid, oid`: the objects of the newest transactions, newest first. The oid is null where a
    /// transaction changed no object.
    pub newest: Statement,
    /// `(first, last) -> tid, is packed, user, description, extension`: the next [`PAGE`] transactions.
    pub transactions: Statement,
    /// `None`: nothing can be undone.
    pub undo: Option<UndoStatements>,
    /// `(oids) -> oid, tid, is deleted`: the current revisions, whether published or not.
    pub serials: Statement,
    /// `(last) -> tid, oid`: what was committed after `last`.
    pub later: Statement,
    /// `(known) -> tid`: the newest transaction; 0 if there is none. Where it may be forgotten and nothing says what it
    /// was, `known` if that is later.
    pub last: Statement,
    /// `(tid) -> is there, cannot tell`: whether the database still has this transaction; the second one if that cannot
    /// be found out.
    pub is_there: Statement,
    /// `(tid)`: the transaction of another client was published. `None`: the database does not forget it.
    pub note_last: Option<Statement>,
    /// `(last) -> tid, newest`: a tid for the next transaction, and that of the newest. The commit lock is held.
    pub next_tid: Statement,
    /// See [`functions`].
    pub commit: Statement,
    /// `() -> estimate of the number of objects, or -1; bytes of the database`
    pub estimates: Statement,
    /// `() -> number of objects`
    pub count: Statement,
    pub pack: &'static pack::PackStatements,
}

/// A load: `(oid, before, last) -> tid, state, next tid`. `last` may be missing.
pub struct LoadStatement {
    pub one: Statement,
    /// `(oids, befores, lasts) -> tid, state, next tid, number`: the same for several objects, in any order; their
    /// numbers begin at 1.
    pub several: Statement,
}

/// What an undo asks for.
pub struct UndoStatements {
    /// `(before) -> tid, user, description, extension, size`: the next [`PAGE`] transactions that can be undone, newest
    /// first.
    pub list: Statement,
    /// `(tid) -> is packed`
    pub is_packed: Statement,
    /// `(tid) -> oid`: the objects of a transaction.
    pub changed: Statement,
}

/// `(tid, oid) -> oid, state`: the next records of a transaction from `oid` on, [`RECORDS_PAGE`] at most.
pub static RECORDS: Statement = Statement {
    sql: "select zoid, state from object_state where tid = $1 and zoid >= $2 order by zoid limit 32",
    types: &[Type::Int8, Type::Int8],
};
/// `(first, last) -> tid, oid, state`: the records of the next transactions, as many as [`AHEAD_LEN`] says, in the
/// order of tids only: a sort by objects would read everything up to `last`.
pub static RECORDS_AHEAD: Statement = Statement {
    sql: "select tid, zoid, state from (select tid, zoid, state, \
          sum(state_size) over (order by tid rows unbounded preceding) - state_size as before from \
          (select tid, zoid, state, state_size from object_state where tid >= $1 and tid <= $2 \
          order by tid limit 4000) p) t where before < 4194304",
    types: &[Type::Int8, Type::Int8],
};
/// `(oid, tid) -> large object`: those of a blob, in their order.
pub static BLOB: Statement = Statement {
    sql: "select chunk from blob_chunk where zoid = $1 and tid = $2 order by chunk_num",
    types: &[Type::Int8, Type::Int8],
};

/// Rows of one page of a list.
pub const PAGE: usize = 100;
/// Rows of one page of a transaction's records, which may be large.
pub const RECORDS_PAGE: usize = 32;
/// Records of many transactions: rows at most, and bytes of states behind which there are no more rows.
pub const AHEAD_LEN: (usize, usize) = (4000, 4 << 20);
