//! Servers that are none, or want to do harm. No PostgreSQL is needed.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use runzeo::internal::postgres::{Connection, Limits, OpenError, Statement};

use crate::{dsn, login, one};

const NEXT: Statement = Statement { sql: "select 1", types: &[] };

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len() + 4).expect("short");
    [&[tag][..], &len.to_be_bytes(), body].concat()
}

fn logged_in() -> Vec<u8> {
    let key = message(b'K', b"\0\0\0\x01\0\0\0\x02");
    [message(b'R', b"\0\0\0\0"), key, message(b'Z', b"I")].concat()
}

/// A session with a server that says this whatever it is asked, and its socket.
fn open(said: &[u8], limits: Limits) -> (Result<Connection, OpenError>, UnixStream) {
    let (client, mut server) = UnixStream::pair().expect("two sockets");
    server.write_all(said).expect("it fits into the buffer");
    let dsn = dsn("user=u password=secret host=/x");
    (Connection::over(client, &dsn, &login(), limits), server)
}

fn refused(said: &[u8], why: &str) {
    let error = open(said, Limits::default()).0.expect_err(why).to_string();
    assert!(error.contains(why) && !error.contains("secret") && !error.contains('\n'), "{error}");
}

#[test]
fn a_login_is_bounded() {
    let sasl = message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0");
    let rounds = |count: &str| {
        let body = [b"\0\0\0\x0br=x,s=AAAA,i=", count.as_bytes()].concat();
        [sasl.clone(), message(b'R', &body)].concat()
    };
    // Hours of work.
    refused(&rounds("4000000000"), "4000000000 rounds");
    refused(&rounds("0"), "no number of rounds");
    refused(&rounds("99999999999999999999"), "no number of rounds");
    refused(&rounds("4096"), "authentication");
    // A server that does not know the password.
    refused(&[sasl.clone(), logged_in()].concat(), "without showing that it knows the password");
    refused(&[sasl, message(b'R', b"\0\0\0\x0cv=AAAA")].concat(), "out of turn");
    for (method, name) in [(2, "Kerberos 5"), (6, "SCM"), (7, "GSSAPI"), (9, "SSPI")] {
        refused(&message(b'R', &[0, 0, 0, method]), name);
    }
    // Memory.
    refused(b"N\x7f\xff\xff\xff", "at most 1048576 are taken");
    refused(b"R\0\0\0\x02", "length 2");
    refused(b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not keep to the protocol");
    refused(&message(b'E', b"SFATAL\0C28000\0Mone\ntwo\x1b[2J\0\0"), "one two\\u{1b}[2J");
}

#[test]
fn answers_are_bounded() {
    let prepared = [message(b'3', b""), message(b'1', b""), message(b'Z', b"I")].concat();
    let row = message(b'D', &[&b"\0\x01\0\0\x02\x58"[..], &[7; 600]].concat());
    let answer = |rows: usize| {
        let rows = row.repeat(rows);
        let end = [message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat();
        [logged_in(), prepared.clone(), message(b'2', b""), rows, end].concat()
    };
    let limits = Limits { message: 1000, answers: 1000 };
    let run = |said: &[u8]| {
        let (connection, server) = open(said, limits);
        let answers = connection.expect("a session").run(&one(&NEXT, &[]));
        drop(server);
        answers.map(|answers| answers[0].as_ref().expect("no error")[0].len()).map_err(|lost| lost.reason)
    };
    assert_eq!(run(&answer(1)), Ok(1));
    assert!(run(&answer(2)).expect_err("too much").contains("more than 1000 bytes"));
    let lost = run(&[logged_in(), prepared.clone(), message(b'D', &[0; 1000])].concat());
    assert!(lost.expect_err("too long").contains("at most 1000 are taken"));
    // Answers to what was not asked.
    let twice = [logged_in(), prepared.clone(), message(b'C', b"A\0"), message(b'C', b"A\0")].concat();
    assert!(run(&twice).expect_err("one too many").contains("more commands"));
    let none = [logged_in(), prepared, message(b'Z', b"I")].concat();
    assert!(run(&none).expect_err("one too few").contains("without an answer"));
}

#[test]
fn a_server_that_never_stops_sending_meets_the_deadline() {
    let (connection, mut server) = open(&logged_in(), Limits::default());
    let mut connection = connection.expect("a session");
    connection.set_deadline(Some(Duration::from_millis(200)));
    let notices = message(b'N', b"SNOTICE\0C00000\0Mhello\0\0").repeat(1000);
    let sender = thread::spawn(move || while server.write_all(&notices).is_ok() {});
    let lost = connection.run(&one(&NEXT, &[])).expect_err("no answer");
    assert!(lost.reason.contains("in time"), "{lost}");
    drop(connection);
    sender.join().expect("no panic");
}

/// What comes behind the answer to the request for TLS is not encrypted, so it must not count as what the server says.
#[test]
fn nothing_is_slipped_in_before_tls() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let server = thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("a client");
        socket.read_exact(&mut [0; 8]).expect("the request");
        socket.write_all(&[&b"S"[..], &logged_in()].concat()).expect("sent");
        // Until the client goes away.
        drop(socket.read_to_end(&mut Vec::new()));
    });
    let text = format!("host=127.0.0.1 port={port} user=u sslmode=require");
    let error = Connection::open(&dsn(&text), &login()).expect_err("no TLS").to_string();
    assert!(error.contains("TLS with the server"), "{error}");
    server.join().expect("no panic");
}
