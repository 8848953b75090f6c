//! The session of a pack.

use std::result::Result as StdResult;
use std::time::Duration;

use super::super::PostgresStorage;
use super::super::session::{self, Purpose, malformed, only, refused};
use super::super::sql::pack::{LOCK, SETTINGS};
use crate::base::clock::Stopwatch;
use crate::postgres::{Batch, Connection, Rows, ServerError, Statement, Value};
use crate::storage::{Refusal, Result, StorageError};

/// One server at a time creates what is missing.
const CREATING: &str = "select pg_advisory_xact_lock(5915983, 1);";

/// How long an undo of a RelStorage client, which takes the lock of packs for a moment, is waited for.
const UNDO_MAX: Duration = Duration::from_secs(2);

/// A session that no other thread uses, for the time of one pack. It ends with the pack, and its locks with it.
pub struct PackSession {
    session: Connection,
    name: String,
}

impl PackSession {
    /// A session that only reads.
    pub fn open(storage: &PostgresStorage) -> Result<PackSession> {
        let name = storage.shared.name.clone();
        let session = storage.shared.readers.session(Purpose::Pack);
        let session = session.map_err(|error| session::lost(&name, &error))?;
        let mut session = PackSession { session, name };
        session.simple(SETTINGS)?;
        Ok(session)
    }

    /// A session that holds the lock of packs and has what it needs in the database.
    ///
    /// Error: [`Refusal::PackRunning`] if another server or a client of RelStorage packs, or a client undoes.
    pub fn begin(storage: &PostgresStorage) -> Result<PackSession> {
        let mut session = PackSession::open(storage)?;
        let waiting = Stopwatch::start();
        while !session.flag(&LOCK, &[])? {
            if waiting.passed() >= UNDO_MAX {
                return Err(StorageError::Refused {
                    what: Refusal::PackRunning,
                    message: format!("{}: A pack or undo operation is in progress", session.name),
                });
            }
            pause(UNDO_MAX / 20);
        }
        if !session.flag(storage.shared.sql.pack.is_ready, &[])? {
            session.simple(&format!("begin; {CREATING} {} commit", storage.shared.sql.pack.create))?;
        }
        Ok(session)
    }

    /// The rows of one statement.
    pub fn ask(&mut self, statement: &'static Statement, values: &[Value<'_>]) -> Result<Rows> {
        self.try_ask(statement, values)?.map_err(|error| self.explain(&error))
    }

    /// As [`PackSession::ask`]; the inner error is the database's.
    pub fn try_ask(
        &mut self,
        statement: &'static Statement,
        values: &[Value<'_>],
    ) -> Result<StdResult<Rows, ServerError>> {
        let mut batch = Batch::new();
        batch.execute(statement, values)?;
        batch.sync();
        let answers = self.session.run(&batch).map_err(|error| self.lost(&error))?;
        match answers.into_iter().next() {
            Some(Err(error)) => Ok(Err(error)),
            Some(Ok(rows)) => Ok(Ok(only(Ok(rows))?)),
            None => Err(malformed("a result")),
        }
    }

    /// The first column of the only row.
    pub fn flag(&mut self, statement: &'static Statement, values: &[Value<'_>]) -> Result<bool> {
        let rows = self.ask(statement, values)?;
        Ok(rows.first().ok_or_else(|| malformed("a row"))?.required_bool(0)?)
    }

    /// Runs SQL without results.
    pub fn simple(&mut self, sql: &str) -> Result<()> {
        self.try_simple(sql)?.map_err(|error| self.explain(&error))
    }

    /// As [`PackSession::simple`]; the inner error is the database's.
    pub fn try_simple(&mut self, sql: &str) -> Result<StdResult<(), ServerError>> {
        self.session.simple(sql).map_err(|error| self.lost(&error))
    }

    fn lost(&self, error: &crate::postgres::Lost) -> StorageError {
        StorageError::Disconnected(format!(
            "{}: packing: {error}. Nothing that is reachable was removed. Pack again: the next pack goes on",
            self.name
        ))
    }

    /// What to do about an error.
    pub fn explain(&self, error: &ServerError) -> StorageError {
        let name = &self.name;
        let advice = match error.code.as_str() {
            "42501" => {
                "the role must own the tables and the large objects: all servers and clients have to use the same role"
            }
            "53200" => "a larger max_locks_per_transaction permits larger batches",
            "57014" => "the statement was cancelled: statement_timeout must be 0 for packs",
            _ => return refused(error),
        };
        StorageError::Refused {
            what: Refusal::Pack,
            message: format!(
                "{name}: packing: PostgreSQL: {error}; {advice}. What is reachable is intact. Pack again when this is \
                 mended"
            ),
        }
    }
}

/// Waits while others hold locks of the database, whose end nothing reports.
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}
