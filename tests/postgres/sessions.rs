//! What a session does beside batches, and how it ends: notifications, cancel, streams, COPY, servers that are killed
//! or stand still.

use std::ops::ControlFlow;
use std::thread;
use std::time::Duration;

use runzeo::internal::postgres::{Batch, Connection, Lost, Statement, Type, Value, Wake};

use crate::support::postgres::PostgresServer;
use crate::{LONG, connect, dsn, login, one};

const SLEEP: Statement = Statement { sql: "select pg_catalog.pg_sleep($1)", types: &[Type::Float8] };
/// Not in FROM, where the server would make all rows first.
const SERIES: Statement =
    Statement { sql: "select generate_series(1, $1), repeat('x', 1000)", types: &[Type::Int8] };
const NOTIFY: Statement = Statement { sql: "select pg_catalog.pg_notify('news', $1)", types: &[Type::Text] };

fn simple(connection: &mut Connection, sql: &str) {
    connection.simple(sql).expect("a server").expect(sql);
}

#[test]
fn notifications_come_during_waits_and_during_batches() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let (mut listener, mut other) = (connect(&server), connect(&server));
    let wake = Wake::new().expect("a descriptor");
    simple(&mut listener, "listen news");
    assert_eq!(listener.wait(Duration::ZERO, &wake).expect("a server"), []);
    // While it waits.
    let text = "größer".to_string();
    let batch = one(&NOTIFY, &[Value::Text(&text)]);
    let other_pid = other.backend_pid();
    let sender = thread::spawn(move || {
        assert!(other.run(&batch).expect("a server")[0].is_ok());
        other
    });
    let news = listener.wait(LONG, &wake).expect("a server");
    assert_eq!((news.len(), news[0].channel.as_str(), news[0].payload.as_str()), (1, "news", &*text));
    assert_eq!(news[0].pid, other_pid);
    let mut other = sender.join().expect("no panic");
    // While it does something else: they are kept.
    for count in 0..3 {
        simple(&mut other, &format!("notify news, '{count}'"));
    }
    assert!(listener.run(&one(&SLEEP, &[Value::Float8(0.0)])).expect("a server")[0].is_ok());
    let payloads: Vec<_> = listener.wait(LONG, &wake).expect("a server");
    let payloads: Vec<_> = payloads.iter().map(|news| news.payload.as_str()).collect();
    assert_eq!(payloads, ["0", "1", "2"]);
    // A wake before the wait ends it; only once.
    wake.wake();
    wake.wake();
    assert_eq!(listener.wait(LONG, &wake).expect("a server"), []);
    let waker = wake.clone();
    let thread = thread::spawn(move || waker.wake());
    assert_eq!(listener.wait(LONG, &wake).expect("a server"), []);
    thread.join().expect("no panic");
}

#[test]
fn a_cancel_ends_what_the_session_does() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let mut connection = connect(&server);
    let token = connection.cancel_token();
    let thread = thread::spawn(move || connection.run(&one(&SLEEP, &[Value::Float8(3600.0)])));
    // A cancel that comes too early has no effect.
    while !thread.is_finished() {
        token.cancel(LONG).expect("a server");
        thread::yield_now();
    }
    let answers = thread.join().expect("no panic").expect("a server");
    assert_eq!(answers[0].as_ref().expect_err("cancelled").code.as_str(), "57014");
}

#[test]
fn a_stream_passes_rows_one_by_one() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let mut connection = connect(&server);
    for (limit, portion) in [(0, 10), (1, 1), (10, 10), (25_000, 1000), (5, 1000)] {
        let mut expected = 0;
        let streamed = connection.stream(&SERIES, &[Value::Int8(limit)], portion, &mut |row| {
            expected += 1;
            assert_eq!(row.int8(0), Ok(Some(expected)));
            ControlFlow::Continue(())
        });
        streamed.expect("a server").expect("no error");
        assert_eq!(expected, limit);
    }
    // After a break the connection can be used.
    let mut seen = 0;
    let streamed = connection.stream(&SERIES, &[Value::Int8(1 << 40)], 100, &mut |_| {
        seen += 1;
        if seen == 150 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    streamed.expect("a server").expect("no error");
    assert_eq!(seen, 150);
    // It only reads, and it fails as a whole.
    simple(&mut connection, "create table t (n bigint)");
    const WRITE: Statement = Statement { sql: "insert into t values (1) returning n", types: &[] };
    const DIVIDE: Statement =
        Statement { sql: "select 1 / (3 - n) from generate_series(1, 5) n", types: &[] };
    let mut none = |_: runzeo::internal::postgres::Row<'_>| ControlFlow::Continue(());
    let written = connection.stream(&WRITE, &[], 1, &mut none).expect("a server");
    assert_eq!(written.expect_err("read-only").code.as_str(), "25006");
    let divided = connection.stream(&DIVIDE, &[], 1, &mut none).expect("a server");
    assert_eq!(divided.expect_err("division by zero").code.as_str(), "22012");
    // Forgotten statements are prepared again.
    simple(&mut connection, "discard all");
    connection.stream(&SERIES, &[Value::Int8(3)], 2, &mut none).expect("a server").expect("no error");
    const WRONG: Statement = Statement { sql: "select nothing", types: &[] };
    let wrong = connection.stream(&WRONG, &[], 2, &mut none).expect("a server");
    assert_eq!(wrong.expect_err("no such column").code.as_str(), "42703");
    simple(&mut connection, "select 1");
}

#[test]
fn copies_go_in_and_out() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let mut connection = connect(&server);
    simple(&mut connection, "create table t (n bigint primary key, s text)");
    let mut next = 0;
    let copied = connection.copy_in("copy t from stdin", &mut |piece| {
        for _ in 0..10_000 {
            piece.extend_from_slice(format!("{next}\t{}\n", "y".repeat(100)).as_bytes());
            next += 1;
        }
        Ok(next < 200_000)
    });
    assert_eq!(copied.expect("a server"), Ok(200_000));
    let mut lines = 0;
    let copied = connection.copy_out("copy t to stdout", &mut |line| {
        lines += 1;
        assert!(line.ends_with(b"y\n"));
        ControlFlow::Continue(())
    });
    assert_eq!((copied.expect("a server"), lines), (Ok(200_000), 200_000));
    let mut lines = 0;
    let copied = connection.copy_out("copy t to stdout", &mut |_| {
        lines += 1;
        if lines == 10 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!((copied.expect("a server"), lines), (Ok(0), 10));
    // The server refuses the data; the client gives up; statements that are none.
    let code = |result: Result<Result<u64, _>, Lost>| {
        let error: runzeo::internal::postgres::ServerError = result.expect("a server").expect_err("an error");
        error.code.as_str().to_string()
    };
    let twice = connection.copy_in("copy t from stdin", &mut |piece| {
        piece.extend_from_slice(b"1\tx\n");
        Ok(false)
    });
    assert_eq!(code(twice), "23505");
    let mut pieces = 0;
    let endless = connection.copy_in("copy t from stdin", &mut |piece| {
        // More than the socket takes at once: the error comes while a piece is on its way.
        piece.extend_from_slice(b"no number\tx\n".repeat(300_000).as_slice());
        pieces += 1;
        Ok(pieces < 10_000)
    });
    assert_eq!(code(endless), "22P02");
    assert!(pieces < 10_000, "the error ends the copy, not the end of the data");
    let given_up = connection.copy_in("copy t from stdin", &mut |piece| {
        piece.extend_from_slice(b"1000000\tx\n");
        Err("the source is gone".into())
    });
    assert!(
        given_up
            .as_ref()
            .expect("a server")
            .as_ref()
            .expect_err("an error")
            .message
            .contains("source is gone")
    );
    assert_eq!(code(given_up), "57014");
    assert_eq!(code(connection.copy_in("copy nothing from stdin", &mut |_| Ok(false))), "42P01");
    assert_eq!(code(connection.copy_in("select 1", &mut |_| Ok(false))), "42601");
    assert_eq!(code(connection.copy_out("select 1", &mut |_| ControlFlow::Continue(()))), "42601");
    assert_eq!(
        code(connection.copy_out("copy nothing to stdout", &mut |_| ControlFlow::Continue(()))),
        "42P01"
    );
    const COUNT: Statement = Statement { sql: "select count(*) from t", types: &[] };
    let answers = connection.run(&one(&COUNT, &[])).expect("a server");
    assert_eq!(answers[0].as_ref().expect("no error")[0].first().expect("a row").int8(0), Ok(Some(200_000)));
}

#[test]
fn a_killed_server_is_noticed() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let mut idle = connect(&server);
    let mut busy = connect(&server);
    let thread = thread::spawn(move || {
        let lost = busy.run(&one(&SLEEP, &[Value::Float8(3600.0)])).expect_err("killed");
        (busy, lost)
    });
    let waiter = thread::spawn(move || idle.wait(LONG, &Wake::new().expect("a descriptor")));
    thread::sleep(Duration::from_millis(100));
    server.stop("immediate");
    let (mut busy, lost) = thread.join().expect("no panic");
    // Every later call says the same.
    assert_eq!(busy.run(&Batch::new()).map(drop).err().unwrap_or_else(|| lost.clone()), lost);
    assert_eq!(busy.simple("select 1").expect_err("lost"), lost);
    assert_eq!(busy.lost(), Some(&lost));
    assert!(waiter.join().expect("no panic").is_err());
}

#[test]
fn a_session_that_the_server_ends_says_why() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let (mut idle, mut busy, mut other) = (connect(&server), connect(&server), connect(&server));
    let pids = [idle.backend_pid(), busy.backend_pid()];
    let thread = thread::spawn(move || busy.run(&one(&SLEEP, &[Value::Float8(3600.0)])).expect_err("ended"));
    for pid in pids {
        simple(&mut other, &format!("select pg_terminate_backend({pid})"));
    }
    for lost in
        [thread.join().expect("no panic"), idle.wait(LONG, &Wake::new().expect("one")).expect_err("ended")]
    {
        assert_eq!(lost.code.expect("the server's reason").as_str(), "57P01", "{lost}");
    }
    // The reason is also found if only the next write shows that the session is over.
    let mut idle = connect(&server);
    simple(&mut other, &format!("select pg_terminate_backend({}, 60000)", idle.backend_pid()));
    let lost = idle.simple("select 1").expect_err("ended");
    assert_eq!(lost.code.expect("the server's reason").as_str(), "57P01", "{lost}");
}

#[test]
fn a_server_that_stands_still_meets_the_deadline() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let mut connection = connect(&server);
    let pid = rustix::process::Pid::from_raw(connection.backend_pid()).expect("a process");
    let signal = |signal| rustix::process::kill_process(pid, signal).expect("a process of the test");
    signal(rustix::process::Signal::STOP);
    connection.set_deadline(Some(Duration::from_millis(200)));
    let large = vec![0; 20 << 20];
    const LENGTH: Statement = Statement { sql: "select length($1)", types: &[Type::Bytea] };
    let lost = connection.run(&one(&LENGTH, &[Value::Bytes(&large)])).expect_err("no answer");
    assert!(lost.reason.contains("in time"), "{lost}");
    signal(rustix::process::Signal::CONT);
    // The same for a server that takes no new sessions: its first process stands still.
    let pid = rustix::process::Pid::from_raw(server.pid()).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("a process of the test");
    let mut login = login();
    login.connect_timeout = Some(Duration::from_millis(200));
    let error = Connection::open(&dsn(&server.dsn()), &login).expect_err("no answer");
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).expect("a process of the test");
    assert!(error.is_retriable && error.what.contains("in time"), "{error}");
}
