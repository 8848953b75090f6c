//! A server that is a script: the test reads the client's messages one by one and says what is answered.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use runzeo::ids::{Oid, Tid};
use runzeo::internal::base::address::Address;

use crate::servers::tcp;
use crate::support::msgpack;
use crate::support::pickle::{self, Dialect, Value, id, text};

/// Longest wait for what must come.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time in which what must not come would come.
const SILENCE: Duration = Duration::from_millis(150);

/// How the messages are encoded: the first letter of the greeting.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Codec {
    Pickle,
    Msgpack,
    /// A server of this protocol, before Z5, on Python 2.
    Old(&'static str),
}

/// Runs a session with each encoding.
pub fn with_each_codec(session: impl Fn(Codec)) {
    for codec in [Codec::Pickle, Codec::Msgpack] {
        eprintln!("-- {codec:?}");
        session(codec);
    }
}

impl Codec {
    /// The greeting with this number; of an older server, its own.
    pub fn greeting(self, number: &str) -> String {
        match self {
            Codec::Pickle => format!("Z{number}"),
            Codec::Msgpack => format!("M{number}"),
            Codec::Old(name) => name.into(),
        }
    }

    fn dumps(self, message: &Value) -> Vec<u8> {
        let payload = match self {
            Codec::Pickle => pickle::dumps(message, Dialect::Python3),
            Codec::Msgpack => msgpack::dumps(message),
            Codec::Old(_) => pickle::dumps(message, Dialect::Python2),
        };
        sized(&payload)
    }

    fn loads(self, payload: &[u8]) -> Value {
        match self {
            Codec::Pickle | Codec::Old(_) => pickle::loads(payload),
            Codec::Msgpack => msgpack::loads(payload),
        }
    }

    /// A reply, with its length.
    pub fn reply(self, to: i64, result: Value) -> Vec<u8> {
        self.message(to, Value::Int(0), ".reply", result)
    }

    /// A call of the client without a reply.
    pub fn push(self, method: &str, args: Vec<Value>) -> Vec<u8> {
        self.message(0, Value::Bool(true), method, Value::Tuple(args))
    }

    /// An object in a list of those that have changed; ZODB 3.8 has a version with it.
    pub fn oid(self, oid: Oid) -> Value {
        match self {
            Codec::Old("Z308") => Value::Tuple(vec![id(oid.0), text("")]),
            _ => id(oid.0),
        }
    }

    /// The invalidation of one transaction.
    pub fn invalidation(self, tid: Tid, oids: &[Oid]) -> Vec<u8> {
        let oids = oids.iter().map(|oid| self.oid(*oid)).collect();
        self.push("invalidateTransaction", vec![id(tid.0), Value::List(oids)])
    }

    fn message(self, id: i64, flag: Value, name: &str, argument: Value) -> Vec<u8> {
        self.dumps(&Value::Tuple(vec![Value::Int(id), flag, text(name), argument]))
    }
}

fn sized(payload: &[u8]) -> Vec<u8> {
    [&(payload.len() as u32).to_be_bytes(), payload].concat()
}

/// The address of a server that is a script.
pub struct Peer {
    listener: TcpListener,
    codec: Codec,
}

impl Peer {
    pub fn new(codec: Codec) -> Peer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        Peer { listener, codec }
    }

    pub fn address(&self) -> Address {
        tcp(self.listener.local_addr().expect("an address"))
    }

    /// The next connection. Nothing is sent yet.
    pub fn accept(&self) -> Session {
        self.accept_within(PATIENCE).expect("a connection")
    }

    /// Nobody connects for some time.
    pub fn expect_no_connection(&self, time: Duration) {
        assert!(self.accept_within(time).is_none(), "a connection too many");
    }

    fn accept_within(&self, time: Duration) -> Option<Session> {
        let until = Instant::now() + time;
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => return Some(Session::new(stream, self.codec)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
            if Instant::now() >= until {
                return None;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// The next connection, up to the client's call of `register` for writing, whose number is returned.
    pub fn accept_registering(&self) -> (Session, i64) {
        let mut session = self.accept();
        session.greet("5");
        let register = session.expect_register(false);
        (session, register)
    }

    /// The next connection, up to the moment when it is in use: the client's cache is empty, or has `last` as its last
    /// transaction and no current revision.
    pub fn accept_ready(&self, last: Tid) -> Session {
        let (mut session, register) = self.accept_registering();
        session.reply(register, id(last.0));
        session.expect_get_info();
        session
    }
}

/// One connection, seen by the server.
pub struct Session {
    stream: TcpStream,
    pub codec: Codec,
    /// Received, and not read yet.
    received: Vec<u8>,
}

impl Session {
    fn new(stream: TcpStream, codec: Codec) -> Session {
        stream.set_nonblocking(false).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        Session { stream, codec, received: Vec::new() }
    }

    // -- what the server sends

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the client reads");
    }

    /// Greets with this number, to which the client's answer is `5`.
    pub fn greet(&mut self, number: &str) {
        self.send_greeting(&self.codec.greeting(number));
        let answer = self.frame(PATIENCE).expect("an answer to the greeting");
        assert_eq!(String::from_utf8_lossy(&answer), self.codec.greeting("5"));
    }

    pub fn send_greeting(&mut self, greeting: &str) {
        self.send(&sized(greeting.as_bytes()));
    }

    pub fn reply(&mut self, to: i64, result: Value) {
        self.send(&self.codec.reply(to, result));
    }

    /// The answer is an exception.
    pub fn raise(&mut self, to: i64, class: &str, argument: &str) {
        let raised = Value::Tuple(vec![text(class), Value::Tuple(vec![text(argument)])]);
        self.send(&self.codec.message(to, Value::Int(2), ".reply", raised));
    }

    /// The answer is a conflict.
    pub fn raise_conflict(&mut self, to: i64, oid: Oid, committed: Tid, read: Tid) {
        let facts = vec![
            (text("message"), text("database conflict error")),
            (text("oid"), id(oid.0)),
            (text("serials"), Value::Tuple(vec![id(committed.0), id(read.0)])),
        ];
        let raised = Value::Tuple(vec![text("ZODB.POSException.ConflictError"), Value::Dict(facts)]);
        self.send(&self.codec.message(to, Value::Int(2), ".reply", raised));
    }

    pub fn invalidate(&mut self, tid: Tid, oids: &[Oid]) {
        self.send(&self.codec.invalidation(tid, oids));
    }

    pub fn end(self) {
        self.stream.shutdown(Shutdown::Both).expect("the connection ends");
    }

    // -- what the client must send

    /// The next message is this call. Returns its number.
    pub fn expect(&mut self, method: &str, args: &[Value]) -> i64 {
        let (number, is_one_way) = self.expect_any(method, args);
        assert!(!is_one_way && number > 0, "{method} has a reply: number {number}");
        number
    }

    /// The next message is this call, which has no reply.
    pub fn expect_one_way(&mut self, method: &str, args: &[Value]) {
        let (number, is_one_way) = self.expect_any(method, args);
        assert!(is_one_way, "{method} has no reply: number {number}");
    }

    fn expect_any(&mut self, method: &str, args: &[Value]) -> (i64, bool) {
        let found = self.next();
        let wanted = Value::Tuple(args.to_vec());
        assert_eq!((found.method.as_str(), &found.argument), (method, &wanted));
        (found.number, found.is_one_way)
    }

    pub fn expect_register(&mut self, read_only: bool) -> i64 {
        // Until the first reply the client does not know which Python the server runs, and text is that of both.
        let found = self.next();
        let [storage, for_reading] = found.argument.tuple() else { panic!("{found:?}") };
        assert_eq!((found.method.as_str(), storage.bytes()), ("register", &b"1"[..]));
        assert_eq!((for_reading, found.is_one_way), (&Value::Bool(read_only), false));
        found.number
    }

    /// Register, and a server without a last transaction in its answer.
    pub fn expect_last_transaction(&mut self, last: Tid) {
        let number = self.expect("lastTransaction", &[]);
        self.reply(number, id(last.0));
    }

    pub fn expect_get_info(&mut self) {
        let number = self.expect("get_info", &[]);
        self.reply(number, info(42));
    }

    /// A load, which is answered with this revision.
    pub fn expect_load(&mut self, oid: Oid, before: Tid, data: &[u8], start: Tid, end: Option<Tid>) {
        let number = self.expect("loadBefore", &[id(oid.0), id(before.0)]);
        self.reply(number, revision(data, start, end));
    }

    /// Of a client that has cached revisions: the question whether the newest is the server's. Python's client does not
    /// ask.
    pub fn expect_same_database(&mut self, oid: Oid, tid: Tid) {
        let number = self.expect("getTid", &[id(oid.0)]);
        self.reply(number, id(tid.0));
    }

    /// The stores of a transaction and its vote, which is answered with `resolved`. Returns the number of the call that
    /// finishes it.
    pub fn expect_commit(&mut self, stores: &[(Oid, Tid, &[u8])], resolved: &[Oid]) -> i64 {
        let begin = self.next();
        assert!(begin.is_one_way && begin.method == "tpc_begin", "{begin:?}");
        let txn = begin.argument.tuple()[0].clone();
        for (oid, serial, data) in stores {
            let args = [id(oid.0), id(serial.0), Value::Bytes(data.to_vec()), txn.clone()];
            self.expect_one_way("storea", &args);
        }
        let vote = self.expect("vote", std::slice::from_ref(&txn));
        self.reply(vote, Value::List(resolved.iter().map(|oid| id(oid.0)).collect()));
        self.expect("tpc_finish", &[txn])
    }

    /// The client sends nothing for some time.
    pub fn expect_nothing(&mut self) {
        if let Some(frame) = self.frame(SILENCE) {
            panic!("a message too many: {:?}", self.codec.loads(&frame));
        }
    }

    /// The client closes the connection, and sends nothing before.
    pub fn expect_end(mut self) {
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let mut rest = std::mem::take(&mut self.received);
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("the connection does not end: {error}"),
        }
        assert!(rest.is_empty(), "a message too many: {}", rest.escape_ascii());
    }

    /// The next message, whatever it is.
    pub fn next(&mut self) -> Message {
        let frame = self.frame(PATIENCE).expect("a message");
        let message = self.codec.loads(&frame);
        let [number, flag, method, argument] = message.tuple() else { panic!("no message: {message:?}") };
        let Value::Int(number) = *number else { panic!("a number of another kind: {message:?}") };
        let is_one_way = matches!(flag, Value::Bool(true) | Value::Int(1));
        let method = String::from_utf8_lossy(method.bytes()).into_owned();
        Message { number, is_one_way, method, argument: argument.clone() }
    }

    /// The next message as it was sent; `None`: none has come in this time.
    fn frame(&mut self, time: Duration) -> Option<Vec<u8>> {
        let until = Instant::now() + time;
        loop {
            if let Some((len, rest)) = self.received.split_first_chunk::<4>() {
                let len = u32::from_be_bytes(*len) as usize;
                if rest.len() >= len {
                    let frame = rest[..len].to_vec();
                    self.received.drain(..4 + len);
                    return Some(frame);
                }
            }
            let left = until.checked_duration_since(Instant::now())?.max(Duration::from_millis(1));
            self.stream.set_read_timeout(Some(left)).expect("a socket");
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => panic!("the client has closed the connection"),
                Ok(count) => self.received.extend_from_slice(&bytes[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// A message of the client.
#[derive(Debug)]
pub struct Message {
    pub number: i64,
    pub is_one_way: bool,
    pub method: String,
    pub argument: Value,
}

/// The answer of `get_info`.
fn info(length: i64) -> Value {
    let size = (text("size"), Value::Int(1000));
    Value::Dict(vec![(text("length"), Value::Int(length)), size, (text("supportsUndo"), Value::Bool(true))])
}

/// The answer to a load.
pub fn revision(data: &[u8], start: Tid, end: Option<Tid>) -> Value {
    Value::Tuple(vec![Value::Bytes(data.to_vec()), id(start.0), end.map_or(Value::None, |end| id(end.0))])
}
