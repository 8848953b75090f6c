//! The private cluster of PostgreSQL, by `scripts/postgres`, with fsync.

use crate::client::Result;
use runzeo::internal::postgres::{Batch, Connection, Dsn, Login, Statement};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What the script ends with if no PostgreSQL is installed.
const SKIPPED: i32 = 77;
/// Clients of RelStorage have up to three sessions each.
const SETTINGS: &[&str] = &["max_connections=200", "shared_buffers=256MB", "max_wal_size=4GB"];

static SESSIONS: Statement = Statement {
    sql: "select count(*) from pg_stat_activity where application_name like 'runzeo:%'",
    types: &[],
};

/// A running cluster. It is stopped and removed when this is dropped.
pub struct Cluster {
    dir: tempfile::TempDir,
}

impl Cluster {
    /// `None`: no PostgreSQL is installed.
    pub fn start() -> Result<Option<Cluster>> {
        // The path of a socket is short, and the cluster's owner must be let in.
        let dir = tempfile::Builder::new().prefix("bench-pg").tempdir_in("/tmp");
        let dir = dir.map_err(|e| format!("/tmp: {e}"))?;
        let place = dir.path().join("cluster");
        let mut command = script();
        command.arg("start").arg(&place).arg("--durable");
        command.args(SETTINGS.iter().flat_map(|setting| ["--set", setting]));
        let status = command.status().map_err(|e| format!("scripts/postgres: {e}"))?;
        if status.code() == Some(SKIPPED) {
            return Ok(None);
        }
        let cluster = Cluster { dir };
        if status.success() { Ok(Some(cluster)) } else { Err("PostgreSQL does not start".into()) }
    }

    fn place(&self) -> PathBuf {
        self.dir.path().join("cluster")
    }

    pub fn dsn(&self) -> String {
        format!("host={} user=postgres dbname=postgres", self.place().join("socket").display())
    }

    /// The process that has started all others of the cluster.
    pub fn pid(&self) -> Result<u32> {
        let path = self.place().join("data/postmaster.pid");
        let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        text.lines()
            .next()
            .and_then(|line| line.parse().ok())
            .ok_or_else(|| format!("{}: no pid", path.display()))
    }

    fn connect(&self) -> Result<Connection> {
        let dsn = Dsn::parse(&self.dsn(), &|_| None).map_err(|e| e.to_string())?;
        let login = Login {
            application_name: "bench".into(),
            settings: Vec::new(),
            connect_timeout: Some(Duration::from_secs(10)),
        };
        Connection::open(&dsn, &login).map_err(|e| e.to_string())
    }

    /// Runs a statement.
    pub fn execute(&self, sql: &str) -> Result<()> {
        let done = self.connect()?.simple(sql).map_err(|e| e.to_string())?;
        done.map_err(|e| format!("{sql}: {e}"))
    }

    /// Sessions of this program's servers.
    pub fn sessions(&self) -> Result<i64> {
        let mut batch = Batch::new();
        batch.execute(&SESSIONS, &[]).map_err(|e| e.to_string())?;
        batch.sync();
        let answers = self.connect()?.run(&batch).map_err(|e| e.to_string())?;
        let answer = answers.into_iter().next().ok_or("no answer")?.map_err(|e| e.to_string())?;
        let row = answer.first().and_then(|rows| rows.first()).ok_or("no row")?;
        row.required_int8(0).map_err(|e| e.to_string())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A failure cannot be reported any more.
        let _ = script().arg("stop").arg(self.place()).arg("immediate").status();
    }
}

fn script() -> Command {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/postgres"))
}
