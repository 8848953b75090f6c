//! What a server of PostgreSQL is: the primary, or a standby that replays what the primary has written.
//!
//! A position in PostgreSQL's log is a number of bytes from its begin. A standby has the same log as its primary. So a
//! standby that has replayed up to the position of another server, or further, has everything that was visible at that
//! server, unless the logs differ: because another standby was promoted.

use std::time::Duration;

use super::session::{AskError, ask, malformed};
use crate::base::ids::Tid;
use crate::postgres::{Connection, Rows, Statement, Value};
use crate::storage::{Replication, Result};

/// `() -> is a standby, position`: up to the position everything is visible to statements that begin later.
pub static STATE: Statement = Statement {
    sql: "select pg_is_in_recovery(), coalesce(pg_wal_lsn_diff(case when pg_is_in_recovery() \
          then pg_last_wal_replay_lsn() else pg_current_wal_insert_lsn() end, '0/0'), 0)::bigint",
    types: &[],
};

/// `() -> is a standby, is connected, milliseconds behind`. With all that was received replayed, a connected standby is
/// not behind; otherwise it is as old as the last transaction that it has replayed.
static REPLICATION: Statement = Statement {
    sql: "select s.is_standby, w.is_connected, \
          case when not s.is_standby \
                  or (w.is_connected and pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn()) then 0 \
              else (extract(epoch from clock_timestamp() - pg_last_xact_replay_timestamp()) * 1000)::bigint end \
          from (select pg_is_in_recovery() as is_standby) s, \
              (select exists (select from pg_stat_wal_receiver) as is_connected) w",
    types: &[],
};

/// What a server is at a moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ServerState {
    pub is_standby: bool,
    pub position: i64,
}

/// Whether a server has what was published.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Presence {
    There,
    /// It may come by replication.
    Behind,
    /// It will never come.
    Lost,
}

pub fn state(session: &mut Connection) -> std::result::Result<ServerState, AskError> {
    Ok(read_state(&ask(session, &STATE, &[])?)?)
}

pub fn read_state(rows: &Rows) -> Result<ServerState> {
    let row = rows.first().ok_or_else(|| malformed("the state of the server"))?;
    Ok(ServerState { is_standby: row.required_bool(0)?, position: row.required_int8(1)? })
}

/// Whether transaction `last` is there, by the statement `is_there` of the database's kind. `known`: a position at
/// which another server had it; 0 if none is known. The state must have been asked before: what was replayed since
/// then does no harm.
pub fn presence(
    session: &mut Connection,
    is_there: &'static Statement,
    last: Tid,
    state: ServerState,
    known: i64,
) -> std::result::Result<Presence, AskError> {
    if last == Tid::ZERO {
        return Ok(Presence::There);
    }
    let rows = ask(session, is_there, &[Value::Int8(last.0 as i64)])?;
    let row = rows.first().ok_or_else(|| malformed("a transaction"))?;
    let (is_there, cannot_tell) = (row.required_bool(0)?, row.required_bool(1)?);
    Ok(judge(is_there, cannot_tell, state, known))
}

fn judge(is_there: bool, cannot_tell: bool, state: ServerState, known: i64) -> Presence {
    if is_there {
        Presence::There
    } else if state.is_standby && state.position < known {
        Presence::Behind
    } else if cannot_tell {
        Presence::There
    } else {
        Presence::Lost
    }
}

/// For the status.
pub fn replication(session: &mut Connection) -> std::result::Result<Replication, AskError> {
    let rows = ask(session, &REPLICATION, &[])?;
    let row = rows.first().ok_or_else(|| malformed("the state of the replication"))?;
    let behind = row.int8(2)?.map(|count| Duration::from_millis(u64::try_from(count).unwrap_or(0)));
    Ok(Replication { is_standby: row.required_bool(0)?, is_connected: row.required_bool(1)?, behind })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standby_that_has_not_come_so_far_is_waited_for() {
        let standby = |position| ServerState { is_standby: true, position };
        let primary = |position| ServerState { is_standby: false, position };
        assert_eq!(judge(true, false, standby(5), 10), Presence::There, "whatever the positions say");
        assert_eq!(judge(false, false, standby(9), 10), Presence::Behind);
        assert_eq!(judge(false, false, standby(10), 10), Presence::Lost, "it is another history");
        assert_eq!(judge(false, false, primary(9), 10), Presence::Lost, "nothing more comes to a primary");
    }

    #[test]
    fn without_a_mark_the_position_decides() {
        let standby = |position| ServerState { is_standby: true, position };
        assert_eq!(judge(false, true, standby(9), 10), Presence::Behind);
        assert_eq!(judge(false, true, standby(10), 10), Presence::There, "a pack may have removed it");
    }
}
