//! Sessions of the database, and what its errors mean for a client of the server.

use std::time::Duration;

use crate::postgres::dsn::Dsn;
use crate::postgres::{
    Answer, Batch, Connection, Login, Lost, Malformed, Rows, ServerError, Statement, TooLarge, Value,
};
use crate::storage::{Refusal, Result, StorageError};

/// The log target.
pub const LOG: &str = "ZEO.PostgreSQL";

/// How long the server and the network may take to answer, unless a session waits for locks.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What a session is for, as `pg_stat_activity` shows it.
#[derive(Clone, Copy, Debug)]
pub enum Purpose<'a> {
    /// Locks, commits, and the search for what others have committed. `server`: the name of the row in
    /// `runzeo_writers`, by which this session is found and ended after its connection is lost.
    Write { server: &'a str },
    /// Reads of published states.
    Read,
    /// Large objects.
    Blobs { server: &'a str },
    /// A pack.
    Pack,
}

impl Purpose<'_> {
    pub fn application_name(self) -> String {
        match self {
            Purpose::Write { server } => format!("runzeo: writer {server}"),
            Purpose::Read => "runzeo: reader".into(),
            Purpose::Blobs { server } => format!("runzeo: blobs {server}"),
            Purpose::Pack => "runzeo: pack".into(),
        }
    }
}

/// Opens a session. A server that goes away without a word is noticed by the other end within half a minute, so that it
/// leaves no locks behind.
pub fn open(dsn: &Dsn, purpose: Purpose<'_>) -> std::result::Result<Connection, Lost> {
    let settings = [
        ("default_transaction_isolation", "read committed"),
        ("tcp_keepalives_idle", "10"),
        ("tcp_keepalives_interval", "5"),
        ("tcp_keepalives_count", "3"),
        ("idle_in_transaction_session_timeout", "60000"),
        ("statement_timeout", "0"),
        ("lock_timeout", "1000"),
    ];
    let application_name = purpose.application_name();
    let session = Connection::open(
        dsn,
        &Login {
            application_name: application_name.clone(),
            settings: settings.map(|(name, value)| (name.into(), value.into())).to_vec(),
            connect_timeout: Some(CONNECT_TIMEOUT),
        },
    );
    let mut session = session.map_err(|error| Lost::new(error.to_string()))?;
    if let Purpose::Write { .. } = purpose {
        // It is found by this name, whatever the connection string says.
        let named = session.simple(&format!("set application_name = '{application_name}'"))?;
        named.map_err(|error| Lost::by_server(&error))?;
    }
    Ok(session)
}

/// The rows of one statement.
pub fn ask(
    session: &mut Connection,
    statement: &'static Statement,
    values: &[Value<'_>],
) -> std::result::Result<Rows, AskError> {
    let mut batch = Batch::new();
    batch.execute(statement, values).map_err(|error| AskError::Other(error.into()))?;
    batch.sync();
    let answer = session.run(&batch).map_err(AskError::Lost)?.into_iter().next();
    let answer = answer.ok_or_else(|| AskError::Other(malformed("a result")))?;
    only(answer).map_err(AskError::Other)
}

/// Why there are no rows.
pub enum AskError {
    Lost(Lost),
    Other(StorageError),
}

impl From<AskError> for StorageError {
    fn from(error: AskError) -> StorageError {
        match error {
            AskError::Lost(lost) => StorageError::Disconnected(lost.to_string()),
            AskError::Other(other) => other,
        }
    }
}

/// The rows of a step of one statement.
pub fn only(answer: Answer) -> Result<Rows> {
    let rows = answer.map_err(|error| refused(&error))?;
    rows.into_iter().next().ok_or_else(|| malformed("a result"))
}

/// The error of a statement, for a client.
pub fn refused(error: &ServerError) -> StorageError {
    match error.code.as_str() {
        "25006" => StorageError::ReadOnly,
        "53200" => StorageError::Server {
            class: STORAGE_ERROR.into(),
            message: format!(
                "PostgreSQL: {error}. If it is the locks: a transaction of many objects needs a larger \
                 max_locks_per_transaction"
            ),
        },
        _ => StorageError::Server { class: STORAGE_ERROR.into(), message: format!("PostgreSQL: {error}") },
    }
}

const STORAGE_ERROR: &str = "ZODB.POSException.StorageError";

/// The database cannot be reached, or broke the connection.
pub fn lost(name: &str, error: &Lost) -> StorageError {
    StorageError::Disconnected(format!("{name}: {error}"))
}

/// The database has answered with something else than its statements return.
pub fn malformed(what: &str) -> StorageError {
    StorageError::Server {
        class: STORAGE_ERROR.into(),
        message: format!("PostgreSQL: {what} is missing in the answer"),
    }
}

impl From<Malformed> for StorageError {
    fn from(error: Malformed) -> StorageError {
        StorageError::Server { class: STORAGE_ERROR.into(), message: error.to_string() }
    }
}

impl From<TooLarge> for StorageError {
    fn from(error: TooLarge) -> StorageError {
        StorageError::Refused { what: Refusal::TransactionTooLarge, message: error.to_string() }
    }
}
