//! The client of PostgreSQL, with real servers. Without an installed PostgreSQL these tests print SKIPPED.

#[path = "../support/mod.rs"]
mod support;

mod batches;
mod hostile;
mod logins;
mod sessions;
mod targets;

use std::time::Duration;

use runzeo::internal::postgres::{Batch, Connection, Dsn, Login, Statement, Value};
use support::postgres::PostgresServer;

/// A bound on what a test waits for; no test is faster or slower with another one.
const LONG: Duration = Duration::from_secs(60);

fn dsn(text: &str) -> Dsn {
    // Without the files of the user who runs the tests.
    Dsn::parse(text, &|name| (name == "HOME").then(|| "/nonexistent".into())).expect("a connection string")
}

fn login() -> Login {
    Login { application_name: "test".into(), settings: Vec::new(), connect_timeout: Some(LONG) }
}

fn connect(server: &PostgresServer) -> Connection {
    let mut connection = Connection::open(&dsn(&server.dsn()), &login()).expect("a session");
    connection.set_deadline(Some(LONG));
    connection
}

/// A batch of one statement.
fn one(statement: &Statement, values: &[Value<'_>]) -> Batch {
    let mut batch = Batch::new();
    batch.execute(statement, values).expect("small");
    batch.sync();
    batch
}
