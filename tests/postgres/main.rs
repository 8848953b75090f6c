//! The client of PostgreSQL, with real servers. Without an installed PostgreSQL these tests print SKIPPED.

#[path = "../support/mod.rs"]
mod support;

mod batches;

use std::time::Duration;

use runzeo::internal::postgres::{Connection, Dsn, Login};
use support::postgres::PostgresServer;

/// A bound on what a test waits for; no test is faster or slower with another one.
const LONG: Duration = Duration::from_secs(60);

fn dsn(text: &str) -> Dsn {
    Dsn::parse(text, &|_| None).expect("a connection string")
}

fn connect(server: &PostgresServer) -> Connection {
    let login = Login { application_name: "test".into(), settings: Vec::new(), connect_timeout: Some(LONG) };
    let mut connection = Connection::open(&dsn(&server.dsn()), &login).expect("a session");
    connection.set_deadline(Some(LONG));
    connection
}
