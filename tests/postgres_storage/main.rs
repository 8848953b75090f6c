//! What is particular to a storage in PostgreSQL, with real servers. Without an installed PostgreSQL these tests print
//! SKIPPED.

#[path = "../support/mod.rs"]
mod support;

mod copies;
mod failovers;
mod failures;
mod free;
mod links;
mod loads;
mod packs;
mod standby;

use std::sync::Arc;
use std::time::{Duration, Instant};

use runzeo::internal::postgres::{Batch, Connection, Dsn, Login, Statement};
use runzeo::internal::storage::postgres::{PostgresOptions, PostgresStorage};
use runzeo::storage::prelude::*;
use support::postgres::PostgresServer;
use support::storage::Answers;

/// A bound on what a test waits for; no test is faster or slower with another one.
const LONG: Duration = Duration::from_secs(60);

fn dsn(server: &PostgresServer) -> Dsn {
    Dsn::parse(&server.dsn(), &|_| None).expect("a connection string")
}

/// A storage in the database of this server.
fn storage(server: &PostgresServer) -> PostgresStorage {
    storage_of(PostgresOptions::new(dsn(server)))
}

fn storage_of(options: PostgresOptions) -> PostgresStorage {
    let storage = PostgresStorage::open(options).expect("a storage");
    storage.set_publisher(Arc::new(Answers));
    storage
}

/// A session beside the storage.
struct Sql(Connection);

impl Sql {
    fn connect(server: &PostgresServer) -> Sql {
        let login =
            Login { application_name: "test".into(), settings: Vec::new(), connect_timeout: Some(LONG) };
        let mut connection = Connection::open(&dsn(server), &login).expect("a session");
        connection.set_deadline(Some(LONG));
        Sql(connection)
    }

    fn run(&mut self, sql: &str) {
        self.0.simple(sql).expect("a session").unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// Rows of numbers; a null is -1.
    fn rows(&mut self, sql: &str) -> Vec<Vec<i64>> {
        let mut batch = Batch::new();
        let statement = Statement { sql: Box::leak(sql.to_owned().into_boxed_str()), types: &[] };
        batch.execute(&statement, &[]).expect("small");
        batch.sync();
        let answer = self.0.run(&batch).expect("a session").remove(0);
        let rows = answer.unwrap_or_else(|error| panic!("{sql}: {error}")).remove(0);
        let numbers = |row: runzeo::internal::postgres::Row<'_>| {
            (0..row.columns()).map(|at| row.int8(at).expect("a number").unwrap_or(-1)).collect()
        };
        rows.iter().map(numbers).collect()
    }

    fn number(&mut self, sql: &str) -> i64 {
        self.rows(sql)[0][0]
    }
}

/// Why nothing is served any more; `None` also while the database is away.
fn lost_for_good(storage: &PostgresStorage) -> Option<String> {
    storage.failure().filter(|why| why.contains("is not in the database any more"))
}

/// Waits for what comes by itself.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < LONG, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
