//! The limits of `<zeo>`: the answer to a client that reaches one, the log line, and that honest clients continue and
//! nothing is left behind.

mod connections;
mod log_and_files;
pub mod messages;
mod questions;
mod transactions;
mod unregistered;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::client::{RawClient, Speaks, record};
use crate::support::pickle::{Value, text};
use crate::support::process::Server;

const MB: u64 = 1 << 20;

pub fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.address).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("timeout");
    stream.set_write_timeout(Some(Duration::from_secs(60))).expect("timeout");
    stream
}

/// A client that has read the greeting and answered it.
pub fn greeted(server: &Server) -> TcpStream {
    let mut stream = connect(server);
    stream.read_exact(&mut [0; 6]).expect("greeting");
    stream.write_all(b"\0\0\0\x02Z5").expect("handshake");
    stream
}

pub fn client(server: &Server) -> RawClient {
    RawClient::register(server.address, Speaks::Z5).expect("register").0
}

/// The error that a refused client gets.
pub fn refusal(server: &Server, speaks: Speaks) -> (RawClient, String) {
    let mut client = RawClient::connect(server.address, speaks).expect("greeted");
    let answer = client.call("register", vec![text("1"), Value::Bool(false)]).expect("an answer");
    let (class, detail) = answer.expect_err("a refusal");
    assert!(class.contains("ZODB.POSException") && class.contains("StorageError"), "{class}");
    (client, words(&detail))
}

/// All texts in a value.
pub fn words(value: &Value) -> String {
    match value {
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Text(text) => text.clone(),
        Value::Tuple(items) | Value::List(items) => items.iter().map(words).collect(),
        Value::Dict(items) => items.iter().map(|(key, value)| words(key) + &words(value)).collect(),
        Value::Object(class, arguments) => words(class) + &words(arguments),
        _ => String::new(),
    }
}

pub fn commit_something(client: &mut RawClient) {
    let oid = client.new_oids(1).expect("connected")[0];
    client.commit(&[(oid, 0, &record(b"1"))]).expect("connected").expect("commit");
}

/// Time until the server closes the connection; earlier data is dropped.
pub fn closed_after(stream: &mut TcpStream) -> Duration {
    let started = Instant::now();
    let mut buffer = [0; 65536];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return started.elapsed(),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return started.elapsed(),
            Err(error) => panic!("the connection stays open: {error}"),
        }
    }
}

pub fn is_closed(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("nonblocking");
    let read = (&mut &*stream).read(&mut [0; 65536]);
    stream.set_nonblocking(false).expect("blocking");
    match read {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}

pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "not so after 60 s: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Runs a test beside an honest client; afterwards no resources may be left.
pub fn beside_an_honest_client(zeo: &str, growth_max: u64, test: impl FnOnce(&Server)) {
    let mut server = Server::start_with(zeo);
    let mut honest = client(&server);
    commit_something(&mut honest);
    thread::sleep(Duration::from_millis(100));
    let (descriptors, threads, memory) = (server.fd_count(), server.thread_count(), server.rss());
    server.reset_peak();
    test(&server);
    commit_something(&mut honest);
    let peak = server.peak_rss();
    assert!(peak < memory + growth_max, "memory grew from {} to {} MB", memory / MB, peak / MB);
    wait_until("descriptors and threads are given back", || {
        server.fd_count() <= descriptors && server.thread_count() <= threads
    });
    assert!(!server.log().contains("panicked"), "{}", server.talk());
    assert!(server.is_alive() && server.stop().success(), "{}", server.talk());
}

/// Stops threads when dropped, even if the test fails.
pub struct Stop<'a>(pub &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
