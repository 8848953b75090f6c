//! Opening a database: its tables, our functions, and the first session of the sequencer.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::super::options::PostgresOptions;
use super::super::readers::Home;
use super::super::servers::Servers;
use super::super::session::{self, AskError, LOG, Purpose, ask, malformed, refused};
use super::super::shared::DatabaseState;
use super::super::sql::{Statements, free, functions, preserving, schema};
use super::super::standby::{self, ServerState};
use super::desk::Desk;
use super::gather::Gathering;
use super::present::Present;
use super::writer::SequencerThread;
use crate::base::clock::Stopwatch;
use crate::base::ids::Tid;
use crate::base::sync::Arc;
use crate::postgres::dsn::{Dsn, Target};
use crate::postgres::{Connection, Lost, Statement, Type, Value};
use crate::storage::{Refusal, Replication, Result, StorageError};

static OUR_TABLES: Statement = Statement {
    sql: "select table_name::text from information_schema.tables \
          where table_schema = 'public' and table_name = any($1)",
    types: &[Type::TextArray],
};
/// RelStorage before 3.5 locks rows where later versions and this server use advisory locks.
static IS_OLD: Statement = Statement {
    sql: "select exists (select from pg_proc where proname = 'lock_objects_and_detect_conflicts' \
          and prosrc not like '%advisory%')",
    types: &[],
};
static HAS_OLD_COLUMN: Statement = Statement {
    sql: "select exists (select from information_schema.columns \
          where table_schema = 'public' and table_name = 'transaction' and column_name = 'empty')",
    types: &[],
};
/// A server that has gone without a word has left its row behind; the one with the greatest tid stays.
static REGISTER: Statement = Statement {
    sql: "with gone as (delete from runzeo_writers w where tid < (select max(tid) from runzeo_writers) \
          and not exists (select from pg_stat_activity where application_name = 'runzeo: writer ' || w.server)) \
          insert into runzeo_writers (server, number, tid) values ($1, 0, 0) on conflict (server) do nothing",
    types: &[Type::Text],
};
/// One server at a time creates what is missing.
const CREATING: &str = "select pg_advisory_xact_lock(5915983, 1);";

/// Reads are as of the last published transaction, which a standby has later or earlier than the primary.
pub const RO_REPLICA_CONF: &str = "ro-replica-conf is for a storage with read-only true: a server that writes reads at \
     the primary, too. To read from standbys, run a second server with read-only true there, and give clients the \
     addresses of both, with read-only-fallback";

/// A database that is ready to be served.
pub struct ReadyDatabase {
    session: Connection,
    /// The server that it is at.
    identity: String,
    state: ServerState,
    pub replication: Replication,
    servers: Servers,
    /// The name of this server in the database.
    pub server: String,
    /// The newest transaction.
    pub last: Tid,
    pub sql: &'static Statements,
}

/// Connects, and creates what is missing, unless the storage is read-only.
pub fn found(options: &PostgresOptions, mut servers: Servers) -> Result<ReadyDatabase> {
    let name = options.name();
    if !options.read_only && options.ro_replica_conf.is_some() {
        return Err(refusal(&name, RO_REPLICA_CONF));
    }
    let dsn = servers.dsn().map_err(|why| refusal(&name, &why))?;
    let server = random_name()?;
    let mut session = session::open(&dsn, purpose(options.read_only, &server))
        .map_err(|lost| at_standby(options, dsn, &name, lost))?;
    servers.chosen(session.peer());
    let state = standby::state(&mut session)?;
    if state.is_standby && !options.read_only {
        return Err(refusal(&name, &is_standby(&session)));
    }
    let may_create = options.create_schema && !options.read_only;
    let mut sql = if options.keep_history { &preserving::STATEMENTS } else { &free::STATEMENTS };
    check_tables(&mut session, &name, sql, options.read_only, may_create)?;
    if options.read_only && sql.forgets && !has_functions(&mut session, sql)? {
        sql = &free::READ_ONLY;
    }
    if !options.read_only {
        create_functions(&mut session, sql)?;
        register(&mut session, &server)?;
    }
    if !state.is_standby {
        session::listen(&mut session)?;
    }
    let rows = ask(&mut session, &sql.last, &[Value::Int8(0)])?;
    let last = Tid(rows.first().ok_or_else(|| malformed("a tid"))?.required_int8(0)? as u64);
    let identity = session::identity(&mut session)?;
    // Behind what was just found.
    let state = standby::state(&mut session)?;
    let replication = standby::replication(&mut session)?;
    Ok(ReadyDatabase { session, identity, state, replication, servers, server, last, sql })
}

/// What the sequencer's session is for.
pub fn purpose(read_only: bool, server: &str) -> Purpose<'_> {
    if read_only { Purpose::Follow } else { Purpose::Write { server } }
}

/// A storage that is to write has found no server for it: says so, if there is a standby.
fn at_standby(options: &PostgresOptions, mut dsn: Dsn, name: &str, lost: Lost) -> StorageError {
    if !options.read_only {
        dsn.target = Target::Any;
        if let Ok(mut session) = session::open(&dsn, Purpose::Read)
            && standby::state(&mut session).is_ok_and(|state| state.is_standby)
        {
            return refusal(name, &is_standby(&session));
        }
    }
    StorageError::Disconnected(format!("{name}: {lost}"))
}

fn is_standby(session: &Connection) -> String {
    format!(
        "{} is a standby, which cannot be written: name all servers of the database in the dsn, with \
         target_session_attrs=read-write, or set read-only true to serve what it has",
        session.peer()
    )
}

impl ReadyDatabase {
    /// The server that all sessions are at.
    pub fn home(&self, dsn: &Dsn) -> Home {
        Home { dsn: dsn.only_at(self.session.peer()), identity: self.identity.clone() }
    }

    /// The state of the sequencer's thread.
    pub fn writer(
        self,
        desk: Arc<Desk>,
        shared: Arc<DatabaseState>,
        options: PostgresOptions,
    ) -> SequencerThread {
        SequencerThread {
            desk,
            shared,
            read_only: options.read_only,
            options,
            session: self.session,
            server: self.server,
            number: 0,
            held: HashMap::new(),
            next_id: 0,
            waiting: VecDeque::new(),
            gathering: Gathering::new(),
            free: Vec::new(),
            catch_ups: Vec::new(),
            ahead: Vec::new(),
            last_search: Stopwatch::start(),
            is_notified: false,
            last_estimate: None,
            commit_wait: Duration::ZERO,
            was_kept_waiting: false,
            present: Present::new(self.last),
            noted: self.last,
            state: self.state,
            servers: self.servers,
        }
    }
}

/// Names this server in `runzeo_writers`.
pub fn register(session: &mut Connection, server: &str) -> std::result::Result<(), AskError> {
    ask(session, &REGISTER, &[Value::Text(server)]).map(drop)
}

/// The tables of the kind of database that is configured, all of them; or none, and they are created.
fn check_tables(
    session: &mut Connection,
    name: &str,
    sql: &'static Statements,
    read_only: bool,
    may_create: bool,
) -> Result<()> {
    let is_true = |session: &mut Connection, statement: &'static Statement| -> Result<bool> {
        let rows = ask(session, statement, &[])?;
        Ok(rows.first().ok_or_else(|| malformed("a truth value"))?.required_bool(0)?)
    };
    let there = tables(session)?;
    check_kind(name, sql, &there)?;
    let missing: Vec<&str> =
        sql.tables.iter().copied().filter(|table| !there.iter().any(|one| one == table)).collect();
    if missing.is_empty() {
        if is_true(session, &HAS_OLD_COLUMN)? || is_true(session, &IS_OLD)? {
            return Err(refusal(
                name,
                "it was made by a version of RelStorage before 3.5: open it once with a later one, and let no \
                 older one write to it any more",
            ));
        }
        return Ok(());
    }
    if !may_create {
        let advice = if read_only {
            "; a read-only storage creates none: begin with a server that writes, and let a standby replay that"
        } else {
            ""
        };
        return Err(refusal(name, &format!("tables are missing: {}{advice}", missing.join(", "))));
    }
    if !there.is_empty() {
        return Err(refusal(
            name,
            &format!("some tables are there, and others are missing: {}", missing.join(", ")),
        ));
    }
    create(session, &format!("begin; {CREATING} {} commit;", sql.create_tables)).or_else(|error| {
        // Another server may have been faster.
        let there = tables(session)?;
        check_kind(name, sql, &there)?;
        if there.len() == sql.tables.len() { Ok(()) } else { Err(error) }
    })?;
    log::info!(target: LOG, "{name}: created the tables");
    Ok(())
}

fn tables(session: &mut Connection) -> Result<Vec<String>> {
    let rows = ask(session, &OUR_TABLES, &[Value::Texts(&schema::PRESERVING)])?;
    rows.iter().map(|row| Ok(row.required_text(0)?.to_owned())).collect()
}

/// RelStorage tells the kinds apart in the same way.
fn check_kind(name: &str, sql: &Statements, there: &[String]) -> Result<()> {
    let has = |table: &str| there.iter().any(|one| one == table);
    let keeps_history = has("transaction") || has("current_object");
    let (is, advice) = match (sql.forgets, keeps_history) {
        (true, true) => ("the database keeps history, and keep-history is false", "true"),
        (false, false) if has("object_state") => {
            ("the database keeps no history, and keep-history is true", "false")
        }
        _ => return Ok(()),
    };
    let how = format!(
        "{is}: set keep-history {advice}, or copy the database with zodbconvert into one of the other kind"
    );
    Err(refusal(name, &how))
}

fn has_functions(session: &mut Connection, sql: &'static Statements) -> Result<bool> {
    let rows = ask(session, &sql.has_functions, &[])?;
    Ok(rows.first().ok_or_else(|| malformed("a truth value"))?.required_bool(0)?)
}

fn create_functions(session: &mut Connection, sql: &'static Statements) -> Result<()> {
    if has_functions(session, sql)? {
        return Ok(());
    }
    create(session, &format!("begin; {CREATING} {} {} commit;", functions::CREATE, sql.create_functions))
}

/// Runs statements that create something, in one transaction.
fn create(session: &mut Connection, sql: &str) -> Result<()> {
    let lost = |error| StorageError::from(AskError::Lost(error));
    if let Err(error) = session.simple(sql).map_err(lost)? {
        session.simple("rollback").map_err(lost)?.map_err(|error| refused(&error))?;
        return Err(refused(&error));
    }
    Ok(())
}

fn refusal(name: &str, why: &str) -> StorageError {
    StorageError::Refused { what: Refusal::Options, message: format!("{name}: {why}") }
}

/// A name that no other server has.
fn random_name() -> Result<String> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|error| StorageError::Io { doing: "reading random bytes".into(), error: error.into() })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
