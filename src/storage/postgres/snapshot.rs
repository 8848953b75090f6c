//! What a list of transactions is read from.
//!
//! In a database without history a commit moves objects from one transaction to a later one. A list that was read from
//! moving tables would leave out what moves behind its end, and a copy that is made from it would lose objects. So it
//! is read from a snapshot: a session of its own, in one database transaction. `vacuum` waits for it, so there are only
//! a few; when one more is wanted the oldest ends.

use std::collections::VecDeque;
use std::sync::Weak;

use super::session::{self, AskError, Purpose, ask, lost, malformed};
use super::shared::{DatabaseState, tid};
use super::sql::Statements;
use crate::base::ids::Tid;
use crate::base::sync::{Arc, Mutex, rank};
use crate::postgres::{Connection, Rows, Statement, Value};
use crate::storage::{Result, StorageError};

/// Snapshots of a storage at most.
const SNAPSHOTS_MAX: usize = 8;

/// Somebody who reads the list slowly, or not at all any more, keeps the snapshot for this time.
const BEGIN: &str =
    "set idle_in_transaction_session_timeout = '10min'; begin isolation level repeatable read read only";

/// The snapshots of a storage.
#[derive(Default)]
pub struct Snapshots {
    open: Mutex<VecDeque<Weak<Snapshot>>, rank::PostgresSnapshots>,
}

/// A state of the database.
pub struct Snapshot {
    name: String,
    session: Mutex<Option<Connection>, rank::PostgresSnapshot>,
}

/// Where a list comes from.
#[derive(Clone)]
pub enum ListSource {
    Tables(Arc<DatabaseState>),
    Snapshot(Arc<Snapshot>, &'static Statements),
}

impl Snapshots {
    /// Where a list of all that is published now comes from, and its last transaction.
    pub fn source(&self, shared: &Arc<DatabaseState>) -> Result<(ListSource, Tid)> {
        if !shared.sql.forgets {
            return Ok((ListSource::Tables(Arc::clone(shared)), shared.last()));
        }
        self.make_room();
        let session = shared.readers.session(Purpose::Read);
        let mut session = session.map_err(|error| lost(&shared.name, &error))?;
        let begun = session.simple(BEGIN).map_err(|error| lost(&shared.name, &error))?;
        begun.map_err(|error| session::refused(&error))?;
        let rows = ask(&mut session, &shared.sql.last, &[Value::Int8(0)])?;
        let newest = tid(&rows.first().ok_or_else(|| malformed("a tid"))?, 0)?;
        if newest > shared.last() {
            // The snapshot does not have what was there before.
            shared.catch_up()?;
        }
        let snapshot = Arc::new(Snapshot { name: shared.name.clone(), session: Mutex::new(Some(session)) });
        self.open.lock().push_back(Arc::downgrade(&snapshot));
        Ok((ListSource::Snapshot(snapshot, shared.sql), newest))
    }

    /// Ends the oldest ones, if there are too many.
    fn make_room(&self) {
        loop {
            let mut open = self.open.lock();
            open.retain(|snapshot| snapshot.strong_count() > 0);
            let oldest = if open.len() < SNAPSHOTS_MAX { None } else { open.pop_front() };
            drop(open);
            match oldest {
                Some(oldest) => oldest.upgrade().into_iter().for_each(|oldest| oldest.end()),
                None => return,
            }
        }
    }

    /// All lists end.
    pub fn close(&self) {
        let open = std::mem::take(&mut *self.open.lock());
        open.iter().filter_map(Weak::upgrade).for_each(|snapshot| snapshot.end());
    }
}

impl Snapshot {
    fn end(&self) {
        drop(self.session.lock().take());
    }

    fn ask(&self, statement: &'static Statement, values: &[i64]) -> Result<Rows> {
        let values: Vec<Value<'_>> = values.iter().copied().map(Value::Int8).collect();
        let mut session = self.session.lock();
        let asked = match session.as_mut() {
            Some(session) => ask(session, statement, &values),
            None => {
                let why = format!(
                    "{}: the snapshot of this list has ended, because others were wanted since; begin again",
                    self.name
                );
                return Err(StorageError::Disconnected(why));
            }
        };
        asked.map_err(|error| match error {
            AskError::Lost(error) => {
                *session = None;
                lost(&self.name, &error)
            }
            AskError::Other(error) => error,
        })
    }
}

impl ListSource {
    pub fn sql(&self) -> &'static Statements {
        match self {
            ListSource::Tables(shared) => shared.sql,
            ListSource::Snapshot(_, sql) => sql,
        }
    }

    pub fn ask(&self, statement: &'static Statement, values: &[i64]) -> Result<Rows> {
        match self {
            ListSource::Tables(shared) => shared.ask(statement, values),
            ListSource::Snapshot(snapshot, _) => snapshot.ask(statement, values),
        }
    }
}
