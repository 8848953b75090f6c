//! The log lines about the actions of clients.

use crate::support::client::{Incoming, RawClient, Speaks, connect_from};
use crate::support::pickle::{Value, id, text};
use crate::support::process::Server;

/// A client that wanted to write to a read-only storage was refused without a line in the log.
#[test]
fn who_is_refused_as_read_only_leaves_one_line() {
    let server = Server::start_with("read-only true");
    for _ in 0..3 {
        let mut client = RawClient::connect(server.address, Speaks::Z5).expect("connect");
        let refused = client.call("register", vec![text("1"), Value::Bool(false)]).expect("the connection");
        assert!(refused.expect_err("the server is read-only").0.contains("ReadOnlyError"));
    }
    let mut reader = RawClient::connect(server.address, Speaks::Z5).expect("connect");
    let registered = reader.call("register", vec![text("1"), Value::Bool(true)]).expect("the connection");
    registered.expect("to read is permitted");
    let log = server.log();
    let line = ") refused: it wants to write, and storage '1' is read-only";
    assert_eq!(log.matches(line).count(), 1, "{log}");
    assert!(log.contains("(127.0.0.1:") && log.contains(") received handshake 'Z5'"), "{log}");
}

/// An undo of an invalid transaction id ended in an AssertionError without a message, and a line about an internal
/// error.
#[test]
fn an_undo_of_no_transaction_id_is_an_undo_error() {
    let server = Server::start();
    let (mut client, _) = RawClient::register(server.address, Speaks::Z5).expect("connect");
    for wrong in [&b"AAAA"[..], b"AQIDBAUGBwg", b""] {
        client.queue_begin(1);
        client.queue_async("undoa", vec![Value::Bytes(wrong.to_vec()), Value::Int(1)]);
        let error = client.call("vote", vec![Value::Int(1)]).expect("the connection").expect_err("no id");
        assert!(error.0.contains("UndoError"), "{error:?}");
        client.call("tpc_abort", vec![Value::Int(1)]).expect("the connection").expect("an abort");
    }
    assert!(!server.log().contains("ERROR"), "{}", server.log());
}

/// Sends the call `count` times, and waits for the answers.
fn flood(client: &mut RawClient, count: usize, method: &str, args: &[Value]) {
    for _ in 0..count {
        client.queue_call(method, args.to_vec());
    }
    client.flush().expect("send");
    let mut answers = 0;
    while answers < count {
        // Packs are answered in the order in which they end.
        answers += usize::from(!matches!(client.next().expect("connected"), Incoming::Push { .. }));
    }
}

/// Number of lines that the summaries report as left out.
fn left_out(log: &str, what: &str) -> usize {
    let summary = format!(" more {what} are left out of the log");
    let number = |line: &str| line.split(&summary).next()?.rsplit(' ').next()?.parse::<usize>().ok();
    log.lines().filter(|line| line.contains(&summary)).map(|line| number(line).expect("a number")).sum()
}

/// A client with read access only wrote 10 MB of log lines a second, with calls that are errors or out of order, and
/// with packs.
#[test]
fn a_reader_does_not_fill_the_disk_with_the_log() {
    const COUNT: usize = 1000;
    let mut server = Server::start_with("read-only true");
    let mut reader = RawClient::connect(server.address, Speaks::Z5).expect("connect");
    let read_only = vec![text("1"), Value::Bool(true)];
    reader.call("register", read_only.clone()).expect("connected").expect("to read is permitted");
    let before = server.log().len();
    let long = text(&"x".repeat(1000));
    flood(&mut reader, COUNT, "register", &read_only);
    flood(&mut reader, COUNT, "iterator_next", &[Value::Int(7)]);
    flood(&mut reader, COUNT, "loadSerial", &[long.clone(), long]);
    flood(&mut reader, COUNT, "pack", &[Value::Float(0.0), Value::Bool(true)]);
    flood(&mut reader, COUNT, "history", &[id(1), text("x")]);
    let written = server.log().len() - before;
    assert!(written < 300 << 10, "{written} bytes: {}", server.talk());

    // Lines about other clients are not hidden.
    let stream = connect_from([127, 0, 0, 2].into(), server.address).expect("connect");
    let mut other = RawClient::greet_on(stream, Speaks::Z5).expect("greeted");
    other.call("register", read_only.clone()).expect("connected").expect("register");
    for (method, args) in [("register", read_only), ("iterator_next", vec![Value::Int(8)])] {
        other.call(method, args).expect("connected").expect_err("wrong");
    }
    let of_other = |log: &str, what: &str| {
        log.lines().filter(|line| line.contains("(127.0.0.2:") && line.contains(what)).count()
    };
    let log = server.log();
    assert_eq!(of_other(&log, "duplicate register() call"), 2, "{}", server.talk());
    assert_eq!(of_other(&log, "call raised KeyError"), 1, "{}", server.talk());

    // A server that is stopped reports the lines that it left out.
    assert!(server.stop().success(), "{}", server.talk());
    let log = server.log();
    for what in ["errors of calls", "calls that were out of order", "lines about packs"] {
        let line = log.lines().find(|line| line.contains(&format!(" more {what} are left out of the log, ")));
        assert!(line.is_some_and(|line| line.ends_with("of them of 127.0.0.1")), "{what}: {}", server.talk());
    }
}

/// Each message of an unauthenticated client was a line: 57 MB in five seconds.
#[test]
fn unauthenticated_connections_do_not_fill_the_disk() {
    let passwords = format!("realm r\nfoo: {}\n", "a".repeat(40));
    let zeo = "authentication-protocol digest\nauthentication-database passwords\nauthentication-realm r";
    let storage = "<filestorage 1>\npath Data.fs\n</filestorage>";
    let mut server = Server::start_any(zeo, storage, |directory| {
        std::fs::write(directory.join("passwords"), passwords).expect("write");
    });
    let register = [text("1"), Value::Bool(false)];
    let mut connection = RawClient::connect(server.address, Speaks::Z4).expect("connect");
    flood(&mut connection, 1000, "register", &register);
    for _ in 0..30 {
        let mut connection = RawClient::connect(server.address, Speaks::Z5).expect("connect");
        let _ = connection.call("register", register.to_vec());
    }
    // One line for each attempt, up to twenty of one address.
    for _ in 0..30 {
        let mut guesser = RawClient::connect(server.address, Speaks::Z4).expect("connect");
        let challenge = guesser.call("auth_get_challenge", vec![]).expect("connected").expect("a challenge");
        let response = Value::Tuple(vec![text("foo"), challenge.tuple()[1].clone(), text(&"b".repeat(40))]);
        guesser.call("auth_response", vec![response]).expect("connected").expect("an answer");
    }
    assert!(server.stop().success(), "{}", server.talk());
    let log = server.log();
    // One a minute.
    for what in ["Client was never authenticated", "clients of ZEO 5 and later cannot give"] {
        assert!((1..10).contains(&log.matches(what).count()), "{what}: {}", server.talk());
    }
    let failed = log.matches("authentication failed for 'foo'").count();
    let left_out = left_out(&log, "failed authentications");
    assert!(failed >= 20 && failed + left_out == 30, "{failed}, {left_out}: {}", server.talk());
}

/// If all clients of a site restart, all lines are kept; a client that connects in a loop does not fill the disk.
#[test]
fn who_connects_in_a_loop_has_so_many_lines() {
    let mut server = Server::start();
    let come_and_go = |count: usize| {
        for _ in 0..count {
            let (mut client, _) = RawClient::register(server.address, Speaks::Z5).expect("connect");
            client.call("getInvalidations", vec![id(1)]).expect("connected").expect("an answer");
        }
    };
    let counts = || {
        let log = server.log();
        ["received handshake", "invq empty", ") disconnected"].map(|what| log.matches(what).count())
    };
    come_and_go(300);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while counts() != [300; 3] {
        assert!(std::time::Instant::now() < deadline, "{:?}: {}", counts(), server.talk());
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    come_and_go(300);
    // A busy machine may be in the next minute by now: then all are logged.
    assert!(counts().iter().all(|count| *count <= 600), "{:?}", counts());
    assert!(server.stop().success(), "{}", server.talk());
    let log = server.log();
    for (line, what) in [("received handshake", "handshakes"), (") disconnected", "ends of connections")] {
        assert_eq!(log.matches(line).count() + left_out(&log, what), 600, "{what}: {}", server.talk());
    }
}

/// A record names its class. A conflict logged that name, and text after a line feed in it became another log line.
#[test]
fn names_of_classes_forge_no_line() {
    let server = Server::start();
    let (mut client, _) = RawClient::register(server.address, Speaks::Z5).expect("connect");
    let forged = "Cls\n------\n2026-11-26T00:00:00 CRITICAL ZEO forged\r\u{1b}[2J\u{202e}";
    let utf8 = |text: &str| [&b"X"[..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
    let by_stack = [b"\x80\x04", utf8("mod").as_slice(), &utf8(forged), b"\x93.\x80\x04}."].concat();
    let by_names = [b"\x80\x02(", utf8("mod").as_slice(), &utf8(forged), b"\x86Nt.\x80\x02}."].concat();
    let by_line = b"\x80\x02cmod\nCls\r\x1b[2J\xe2\x80\xae\n.\x80\x02}.".to_vec();
    for data in [by_stack, by_names, by_line] {
        let oid = client.new_oids(1).expect("connected")[0];
        let first = client.commit(&[(oid, 0, &data)]).expect("connected").expect("commit");
        client.commit(&[(oid, first, &data)]).expect("connected").expect("commit");
        let (class, _) = client.commit(&[(oid, first, &data)]).expect("connected").expect_err("a conflict");
        assert!(class.contains("ConflictError"), "{class}");
    }
    let log = server.log();
    assert!(log.contains("A conflict on an object of class mod.Cls\\n------\\n2026-11-26"), "{log}");
    assert!(!log.contains("\n2026-11-26T00:00:00 CRITICAL"), "{log}");
    assert!(!log.contains(['\r', '\u{1b}', '\u{202e}']), "{log}");
}
