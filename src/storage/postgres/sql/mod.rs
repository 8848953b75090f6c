//! The SQL of the storage. [`preserving`] has the statements for databases that keep history; [`schema`] makes the
//! tables, and [`functions`] the functions of our own. Packs have theirs in [`pack`], copies in [`copy`].
//!
//! Oids and tids are `bigint`: the 8 bytes as an unsigned number, whose top bit is never set. All reads ask for the
//! state of a transaction (`last`) that has been published: rows of later ones may be there already and are not seen.

pub mod copy;
pub mod functions;
pub mod pack;
pub mod preserving;
pub mod schema;

use crate::postgres::Statement;

/// What the storage asks of a database. The comments say `(parameters) -> columns`.
pub struct Statements {
    /// `(oid, before, last) -> tid, state, next tid`: the newest revision before `before`. `state` is null for a
    /// deletion.
    pub load: Statement,
    /// `(oid, last) -> tid, is deleted`: the revision that is current as of `last`.
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
    /// `(tid, oid) -> oid, state`: the next records of a transaction from `oid` on.
    pub records: Statement,
    /// `(first, last) -> tid, oid, state`: the records of the next transactions, as many as [`AHEAD_LEN`] says, in the
    /// order of tids only. `None`: records are read for one transaction at a time.
    pub records_ahead: Option<Statement>,
    /// `(before) -> tid, user, description, extension, size`: the next [`PAGE`] transactions that can be undone, newest
    /// first.
    pub undoable: Statement,
    /// `(tid) -> is packed`
    pub is_packed: Statement,
    /// `(tid) -> oid`: the objects of a transaction.
    pub changed: Statement,
    /// `(oids) -> oid, tid, is deleted`: the current revisions, whether published or not.
    pub serials: Statement,
    /// `(oid, tid) -> large object`: those of a blob, in their order.
    pub blob: Statement,
    /// `(last) -> tid, oid`: what was committed after `last`.
    pub later: Statement,
    /// `() -> tid`: the newest transaction; 0 if there is none.
    pub last: Statement,
    /// `(last) -> tid, newest`: a tid for the next transaction, and that of the newest. The commit lock is held.
    pub next_tid: Statement,
    /// See [`functions`].
    pub commit: Statement,
    /// `() -> estimate of the number of objects, or -1; bytes of the database`
    pub estimates: Statement,
    /// `() -> number of objects`
    pub count: Statement,
}

/// Rows of one page of a list.
pub const PAGE: usize = 100;
/// Rows of one page of a transaction's records, which may be large.
pub const RECORDS_PAGE: usize = 32;
/// Records of many transactions: rows at most, and bytes of states behind which there are no more rows.
pub const AHEAD_LEN: (usize, usize) = (4000, 4 << 20);
