//! Sessions of the database, and what its errors mean for a client of the server.

use std::time::Duration;

use crate::postgres::dsn::Dsn;
use crate::postgres::{
    Answer, Batch, Connection, Login, Lost, Malformed, ProcessState, Rows, ServerError, SilenceCheck,
    Statement, TooLarge, Type, Value,
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
    /// The search alone, of a storage that is only read.
    Follow,
    /// Reads of published states.
    Read,
    /// Large objects.
    Blobs { server: &'a str },
    /// A pack.
    Pack,
    /// Transactions of another storage.
    Copy,
    /// One question about another session.
    Question,
}

impl Purpose<'_> {
    pub fn application_name(self) -> String {
        match self {
            Purpose::Write { server } => format!("runzeo: writer {server}"),
            Purpose::Follow => "runzeo: follower".into(),
            Purpose::Read => "runzeo: reader".into(),
            Purpose::Blobs { server } => format!("runzeo: blobs {server}"),
            Purpose::Pack => "runzeo: pack".into(),
            Purpose::Copy => "runzeo: copy".into(),
            Purpose::Question => "runzeo: question".into(),
        }
    }
}

/// Which server of PostgreSQL, and since which start: after a failover another one answers under the same name.
static IDENTITY: Statement = Statement {
    sql: "select system_identifier::text || ' ' || pg_postmaster_start_time()::text from pg_control_system()",
    types: &[],
};

/// The time after which a network that is gone is noticed, by both ends.
const NETWORK_TIMEOUT: Duration = Duration::from_secs(30);

/// After this time without an answer the server is asked whether it is at work.
const SILENCE: Duration = Duration::from_secs(10);

/// `(process) -> does it work`: `false` if it waits for its client.
static IS_AT_WORK: Statement = Statement {
    sql: "select wait_event_type is distinct from 'Client' from pg_stat_activity \
          where pid = $1 and usename = current_user",
    types: &[Type::Int4],
};

/// The session that commits asks something ten times a second. If this process stands still, because it was stopped or
/// its machine has, the database ends the session after this time, in milliseconds: before the votes of others, which
/// wait for its locks, give up.
const STANDSTILL: &str = "20000";

/// Since version 14: a statement ends when its client is gone, and not at its own end.
const CLIENT_CHECK: &str = "set client_connection_check_interval = 10000";
const FIRST_WITH_CHECKS: u32 = 14;

/// The session that commits finds everything by keys, in few rows. So its statements are planned once, for indexes:
/// statistics, which are old after many commits, do not matter, and no commit waits for the planner. Nor for processes
/// that would help: for "all later transactions" the planner expects a third of the table, and starts some.
const WRITER_PLANS: &[(&str, &str)] = &[
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("max_parallel_workers_per_gather", "0"),
];

/// What is read is found by keys, too. An array of few loads would be planned anew each time, which takes longer than
/// the loads.
const READER_PLANS: &[(&str, &str)] = &[("plan_cache_mode", "force_generic_plan")];

/// Opens a session. Each end notices within half a minute that the other one has gone without a word: no locks are left
/// behind, and no thread waits for ever. What the connection string says about this comes first.
pub fn open(dsn: &Dsn, purpose: Purpose<'_>) -> std::result::Result<Connection, Lost> {
    let mut dsn = dsn.clone();
    let keep_alive = &mut dsn.keep_alive;
    keep_alive.idle = keep_alive.idle.or(Some(Duration::from_secs(10)));
    keep_alive.interval = keep_alive.interval.or(Some(Duration::from_secs(5)));
    keep_alive.count = keep_alive.count.or(Some(3));
    keep_alive.user_timeout = keep_alive.user_timeout.or(Some(NETWORK_TIMEOUT));
    let settings = [
        ("default_transaction_isolation", "read committed"),
        ("tcp_keepalives_idle", "10"),
        ("tcp_keepalives_interval", "5"),
        ("tcp_keepalives_count", "3"),
        ("tcp_user_timeout", "30000"),
        ("idle_in_transaction_session_timeout", "60000"),
        ("statement_timeout", "0"),
        ("lock_timeout", "1000"),
        // The questions are short, but many cost much by the planner's count (a switched-off kind of plan most of all).
        // Compiling one would take a second, in each session.
        ("jit", "off"),
    ];
    let plans = match purpose {
        Purpose::Write { .. } | Purpose::Follow => WRITER_PLANS,
        Purpose::Read => READER_PLANS,
        _ => &[],
    };
    let settings = settings.iter().chain(plans);
    let application_name = purpose.application_name();
    let session = Connection::open(
        &dsn,
        &Login {
            application_name: application_name.clone(),
            settings: settings.map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            connect_timeout: Some(CONNECT_TIMEOUT),
        },
    );
    let mut session = session.map_err(|error| Lost::new(error.to_string()))?;
    // The process is this server's, whatever the other hosts are.
    let here = dsn.only_at(session.peer());
    session.set_silence(SilenceCheck {
        after: SILENCE,
        ask: Box::new(move |process| process_state(&here, process)),
    });
    let has_checks = session.server_version() >= FIRST_WITH_CHECKS;
    if let Purpose::Write { .. } = purpose {
        // It is found by this name, whatever the connection string says.
        let mut settings = format!("set application_name = '{application_name}'");
        if has_checks {
            settings += &format!("; set idle_session_timeout = {STANDSTILL}");
        }
        session.simple(&settings)?.map_err(|error| Lost::by_server(&error))?;
    }
    if has_checks && !matches!(purpose, Purpose::Read) {
        // Not every system can check it.
        if let Err(error) = session.simple(CLIENT_CHECK)? {
            log::debug!(target: LOG, "{error}");
        }
    }
    Ok(session)
}

/// Hears of other servers' commits. On a standby this is an error.
pub fn listen(session: &mut Connection) -> std::result::Result<(), AskError> {
    session.simple("listen runzeo").map_err(AskError::Lost)?.map_err(|error| AskError::Other(refused(&error)))
}

/// Asks on a session of its own what a process of the server does.
fn process_state(dsn: &Dsn, process: i32) -> ProcessState {
    let login = Login {
        application_name: Purpose::Question.application_name(),
        settings: Vec::new(),
        connect_timeout: Some(CONNECT_TIMEOUT),
    };
    let mut session = match Connection::open(dsn, &login) {
        Ok(session) => session,
        // It answers, but takes no more sessions.
        Err(error) if error.code.is_some() => return ProcessState::AtWork,
        Err(_) => return ProcessState::Unreachable,
    };
    session.set_deadline(Some(CONNECT_TIMEOUT));
    let is_at_work = ask(&mut session, &IS_AT_WORK, &[Value::Int4(process)]).and_then(|rows| {
        let row = rows.first();
        Ok(row.map(|row| row.required_bool(0)).transpose()?.unwrap_or(false))
    });
    match is_at_work {
        Ok(true) => ProcessState::AtWork,
        Ok(false) => ProcessState::Idle,
        Err(_) => ProcessState::Unreachable,
    }
}

/// Tells the servers of a database, and their starts, apart.
pub fn identity(session: &mut Connection) -> std::result::Result<String, AskError> {
    let rows = ask(session, &IDENTITY, &[])?;
    let row = rows.first().ok_or_else(|| malformed("an identity"))?;
    Ok(row.required_text(0)?.to_owned())
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

impl From<StorageError> for AskError {
    fn from(error: StorageError) -> AskError {
        AskError::Other(error)
    }
}

impl From<Malformed> for AskError {
    fn from(error: Malformed) -> AskError {
        AskError::Other(error.into())
    }
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

/// `serialization_failure`: a standby has ended a statement that replication waited for. (Nothing here is
/// serializable.)
pub const RECOVERY_CONFLICT: &str = "40001";

/// The error of a statement, for a client.
pub fn refused(error: &ServerError) -> StorageError {
    match error.code.as_str() {
        "25006" => StorageError::ReadOnly,
        RECOVERY_CONFLICT => StorageError::Server {
            class: STORAGE_ERROR.into(),
            message: format!(
                "PostgreSQL: {error}. A standby ends what keeps replication waiting: hot_standby_feedback = on there, \
                 or a longer max_standby_streaming_delay, avoids it"
            ),
        },
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
