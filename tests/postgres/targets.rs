//! Several hosts: which one a session is opened with.

use runzeo::internal::postgres::{Connection, Dsn};

use crate::support::postgres::{PostgresServer, free_port};
use crate::{connect, dsn, login};

fn pair(one: &PostgresServer, other: &PostgresServer, more: &str) -> Dsn {
    let dirs = format!("{},{}", one.socket_dir().display(), other.socket_dir().display());
    dsn(&format!("host=/nonexistent,{dirs} user=postgres dbname=postgres {more}"))
}

/// The directory of the server that a session was opened with.
fn chosen(dsn: &Dsn) -> Result<String, String> {
    Connection::open(dsn, &login())
        .map(|connection| connection.peer().host.clone())
        .map_err(|error| error.to_string())
}

#[test]
fn the_session_is_with_a_server_of_the_wanted_kind() {
    let Some(primary) = PostgresServer::start(&[]) else { return };
    let standby = primary.standby();
    let is = |server: &PostgresServer| Ok(server.socket_dir().display().to_string());
    for (target, expected) in [
        ("any", &standby),
        ("read-write", &primary),
        ("primary", &primary),
        ("read-only", &standby),
        ("standby", &standby),
        ("prefer-standby", &standby),
    ] {
        let dsn = pair(&standby, &primary, &format!("target_session_attrs={target}"));
        assert_eq!(chosen(&dsn), is(expected), "{target}");
    }
    let prefer = |one, other| chosen(&pair(one, other, "target_session_attrs=prefer-standby"));
    assert_eq!(prefer(&primary, &standby), is(&standby));
    standby.stop("immediate");
    assert_eq!(prefer(&primary, &standby), is(&primary));
    let none = chosen(&pair(&primary, &standby, "target_session_attrs=standby")).expect_err("there is none");
    assert!(
        none.contains("/nonexistent") && none.contains("not a standby") && none.contains("No such file"),
        "{none}"
    );
    // A primary whose sessions only read.
    connect(&primary)
        .simple("alter role postgres set default_transaction_read_only = on")
        .expect("a server")
        .expect("set");
    let alone = |target: &str| chosen(&dsn(&format!("{} target_session_attrs={target}", primary.dsn())));
    assert!(alone("read-write").expect_err("read-only").contains("read-only"));
    assert_eq!(alone("read-only"), is(&primary));
    assert_eq!(alone("primary"), is(&primary));
}

#[test]
fn hosts_share_the_sessions_in_a_random_order() {
    let (Some(one), Some(other)) = (PostgresServer::start(&[]), PostgresServer::start(&[])) else { return };
    let dsn = pair(&one, &other, "load_balance_hosts=random");
    let mut found = std::collections::BTreeSet::new();
    // The chance that all are the same is 2 to the power of -99.
    for _ in 0..100 {
        found.insert(chosen(&dsn).expect("a session"));
    }
    assert_eq!(found.len(), 2);
}

#[test]
fn an_error_of_a_server_ends_the_search_and_a_refused_connection_does_not() {
    let port = free_port();
    let Some(server) = PostgresServer::start(&["--port", &port]) else { return };
    let none = free_port();
    let open = |hosts: &str, more: &str| {
        let text = format!("host={hosts} user=postgres sslmode=disable {more}");
        Connection::open(&dsn(&text), &login())
    };
    open("127.0.0.1,127.0.0.1", &format!("port={none},{port} dbname=postgres")).expect("the second");
    let error = open("127.0.0.1,127.0.0.1", &format!("port={port} dbname=missing")).expect_err("no database");
    assert_eq!(error.code.expect("the server's").as_str(), "3D000");
    assert!(!error.is_retriable && error.what.matches("3D000").count() == 1, "{error}");
    let error = open("127.0.0.1", &format!("port={none} dbname=postgres")).expect_err("no server");
    assert!(error.is_retriable && error.code.is_none(), "{error}");
    let error = open("host.invalid", "dbname=postgres").expect_err("no host");
    assert!(error.is_retriable && error.what.contains("host.invalid"), "{error}");
    // Too many sessions.
    let mut connection = connect(&server);
    connection.simple("create role few login connection limit 0").expect("a server").expect("a role");
    let error = open("127.0.0.1", &format!("port={port} dbname=postgres user=few")).expect_err("too many");
    assert!(error.is_retriable && error.code.expect("the server's").as_str() == "53300", "{error}");
}
