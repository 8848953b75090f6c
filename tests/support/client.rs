//! One connection, frame by frame, in the order of arrival.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use rustls::{ClientConfig, ClientConnection};
use sha1::Sha1;

use super::msgpack;
use super::pickle::{Dialect, Value, dumps, id, loads, text};

/// The generations and codecs of the tests: `Z5` as Python 3, `M5` with msgpack, and the older ones as Python 2.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Speaks {
    Z308,
    Z309,
    Z3101,
    Z4,
    Z5,
    M5,
}

impl Speaks {
    pub const ALL: [Speaks; 6] = [Self::Z308, Self::Z309, Self::Z3101, Self::Z4, Self::Z5, Self::M5];

    pub fn dialect(self) -> Dialect {
        if self.is_old() { Dialect::Python2 } else { Dialect::Python3 }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Z308 => "Z308",
            Self::Z309 => "Z309",
            Self::Z3101 => "Z3101",
            Self::Z4 => "Z4",
            Self::Z5 => "Z5",
            Self::M5 => "M5",
        }
    }

    /// Before Z5: serials at vote, no tid from `register`.
    pub fn is_old(self) -> bool {
        self < Self::Z5
    }

    /// ZODB 3.8: a version beside each oid.
    pub fn has_versions(self) -> bool {
        self == Self::Z308
    }

    /// `undo` is answered at once; later it is `undoa`, which is part of vote.
    pub fn answers_undo(self) -> bool {
        self <= Self::Z309
    }

    /// An oid in a list of invalidations.
    pub fn changed_oid(self, item: &Value) -> u64 {
        if self.has_versions() { item.tuple()[0].id() } else { item.id() }
    }
}

/// A message from the server.
#[derive(Debug)]
pub enum Incoming {
    Reply {
        id: i64,
        value: Value,
    },
    /// An error reply: exception class, and its arguments or attributes.
    Error {
        id: i64,
        class: String,
        detail: Value,
    },
    Push {
        method: String,
        args: Vec<Value>,
    },
}

pub struct RawClient {
    pub speaks: Speaks,
    stream: TcpStream,
    /// TLS between the stream and this client.
    tls: Option<Box<ClientConnection>>,
    buffer: Vec<u8>,
    start: usize,
    out: Vec<u8>,
    next_id: i64,
    /// The codes for sending and receiving, if there is a session key.
    codes: Option<[Hmac<Sha1>; 2]>,
}

pub const LATEST: u64 = i64::MAX as u64;

/// A connection from another address: all of 127/8 is local.
pub fn connect_from(source: Ipv4Addr, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect(&address.into())?;
    Ok(socket.into())
}

impl RawClient {
    /// Connects and greets, without `register`.
    pub fn connect(address: SocketAddr, speaks: Speaks) -> io::Result<Self> {
        Self::greeted(TcpStream::connect(address)?, speaks, None)
    }

    /// The same with another name in the handshake: a protocol whose messages look like those of `speaks`.
    pub fn connect_announcing(address: SocketAddr, speaks: Speaks, name: &str) -> io::Result<Self> {
        Self::greeted_as(TcpStream::connect(address)?, speaks, name, None)
    }

    /// The same on an existing connection, see [`connect_from`].
    pub fn greet_on(stream: TcpStream, speaks: Speaks) -> io::Result<Self> {
        Self::greeted(stream, speaks, None)
    }

    /// The same, with a time limit for the greeting.
    pub fn connect_within(address: SocketAddr, speaks: Speaks, timeout: Duration) -> io::Result<Self> {
        let probe = TcpStream::connect(address)?;
        probe.set_read_timeout(Some(timeout))?;
        // The first byte of the greeting.
        probe.peek(&mut [0])?;
        Self::greeted(probe, speaks, None)
    }

    /// The same with TLS.
    pub fn connect_tls(address: SocketAddr, speaks: Speaks, config: &Arc<ClientConfig>) -> io::Result<Self> {
        Self::begin_tls(TcpStream::connect(address)?, speaks, config)
    }

    /// The same on an existing connection, see [`connect_from`].
    pub fn begin_tls(stream: TcpStream, speaks: Speaks, config: &Arc<ClientConfig>) -> io::Result<Self> {
        let name = "localhost".try_into().expect("a name");
        let tls = ClientConnection::new(Arc::clone(config), name).expect("a client");
        Self::greeted(stream, speaks, Some(Box::new(tls)))
    }

    fn greeted(stream: TcpStream, speaks: Speaks, tls: Option<Box<ClientConnection>>) -> io::Result<Self> {
        Self::greeted_as(stream, speaks, speaks.name(), tls)
    }

    fn greeted_as(
        stream: TcpStream,
        speaks: Speaks,
        name: &str,
        tls: Option<Box<ClientConnection>>,
    ) -> io::Result<Self> {
        // A Unix socket has no delay.
        let _ = stream.set_nodelay(true);
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.set_write_timeout(Some(Duration::from_secs(60)))?;
        let mut client = Self {
            speaks,
            stream,
            tls,
            buffer: Vec::new(),
            start: 0,
            out: Vec::new(),
            next_id: 1,
            codes: None,
        };
        let greeting = client.frame()?;
        assert_eq!(greeting, b"Z5", "the server's greeting");
        client.queue_frame(name.as_bytes());
        Ok(client)
    }

    /// Connects and registers; for Z5 also returns the tid from `register`.
    pub fn register(address: SocketAddr, speaks: Speaks) -> io::Result<(Self, Option<u64>)> {
        let mut client = Self::connect(address, speaks)?;
        let tid = client.register_now()?;
        Ok((client, tid))
    }

    /// Registers; returns the answer.
    pub fn register_now(&mut self) -> io::Result<Option<u64>> {
        let id = self.queue_call("register", vec![text("1"), Value::Bool(false)]);
        self.flush()?;
        match self.next()? {
            Incoming::Reply { id: got, value } if got == id => Ok((!value.is_none()).then(|| value.id())),
            other => panic!("reply to register: {other:?}"),
        }
    }

    /// From now on every frame in both directions has a code.
    pub fn use_session_key(&mut self, key: &[u8]) {
        let code = Hmac::<Sha1>::new_from_slice(key).expect("a key");
        self.codes = Some([code.clone(), code]);
    }

    /// Sends frames without codes again, although the server expects them.
    pub fn forget_session_key(&mut self) {
        self.codes = None;
    }

    pub fn queue_frame(&mut self, payload: &[u8]) {
        match &mut self.codes {
            None => self.out.extend_from_slice(&(payload.len() as u32).to_be_bytes()),
            Some([sending, _]) => {
                sending.update(payload);
                self.out.extend_from_slice(&(payload.len() as u32 | 0x8000_0000).to_be_bytes());
                self.out.extend_from_slice(&sending.clone().finalize().into_bytes());
            }
        }
        self.out.extend_from_slice(payload);
    }

    pub fn queue_raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// The bytes that `flush` will send.
    pub fn queued(&self) -> Vec<u8> {
        self.out.clone()
    }

    fn queue_message(&mut self, id: i64, is_async: bool, method: &str, args: Vec<Value>) {
        let flag = if self.speaks.is_old() { Value::Int(is_async.into()) } else { Value::Bool(is_async) };
        let message = Value::Tuple(vec![Value::Int(id), flag, text(method), Value::Tuple(args)]);
        let payload = match self.speaks {
            Speaks::M5 => msgpack::dumps(&message),
            _ => dumps(&message, self.speaks.dialect()),
        };
        self.queue_frame(&payload);
    }

    /// Queues a call with an answer, and returns its id.
    pub fn queue_call(&mut self, method: &str, args: Vec<Value>) -> i64 {
        let id = self.next_id;
        self.next_id += 1;
        self.queue_message(id, false, method, args);
        id
    }

    pub fn queue_async(&mut self, method: &str, args: Vec<Value>) {
        // Before Z5 asynchronous messages are numbered like all others.
        let id = if self.speaks.is_old() { self.next_id } else { 0 };
        self.next_id += i64::from(self.speaks.is_old());
        self.queue_message(id, true, method, args);
    }

    /// Queues a load of the newest revision, by the call of the generation.
    pub fn queue_load(&mut self, oid: u64) -> i64 {
        match self.speaks {
            Speaks::Z308 => self.queue_call("loadEx", vec![id(oid), text("")]),
            Speaks::Z5 | Speaks::M5 => self.queue_call("loadBefore", vec![id(oid), id(LATEST)]),
            _ => self.queue_call("loadEx", vec![id(oid)]),
        }
    }

    pub fn queue_begin(&mut self, txn: i64) {
        self.queue_begin_as(txn, None);
    }

    /// Begins a transaction with its own tid, as a copy does.
    pub fn queue_begin_as(&mut self, txn: i64, tid: Option<u64>) {
        let extension = Value::Dict(Vec::new());
        let tid = tid.map_or(Value::None, id);
        self.queue_async(
            "tpc_begin",
            vec![Value::Int(txn), text("user"), text(""), extension, tid, text(" ")],
        );
    }

    pub fn queue_store(&mut self, oid: u64, serial: u64, data: &[u8], txn: i64) {
        let mut args = vec![id(oid), id(serial), Value::Bytes(data.to_vec())];
        if self.speaks.has_versions() {
            args.push(text(""));
        }
        args.push(Value::Int(txn));
        self.queue_async("storea", args);
    }

    pub fn flush(&mut self) -> io::Result<()> {
        let result = match &mut self.tls {
            None => self.stream.write_all(&self.out),
            Some(tls) => rustls::Stream::new(&mut **tls, &mut self.stream).write_all(&self.out),
        };
        self.out.clear();
        result
    }

    /// Sends one call and returns its answer; earlier messages are dropped.
    pub fn call(&mut self, method: &str, args: Vec<Value>) -> io::Result<Result<Value, (String, Value)>> {
        let wanted = self.queue_call(method, args);
        self.flush()?;
        self.answer(wanted)
    }

    pub fn answer(&mut self, wanted: i64) -> io::Result<Result<Value, (String, Value)>> {
        loop {
            match self.next()? {
                Incoming::Reply { id, value } if id == wanted => return Ok(Ok(value)),
                Incoming::Error { id, class, detail } if id == wanted => return Ok(Err((class, detail))),
                _ => {}
            }
        }
    }

    /// Commits one transaction; `Err` is the server's answer to the vote. Other messages are dropped.
    pub fn commit(&mut self, stores: &[(u64, u64, &[u8])]) -> io::Result<Result<u64, (String, Value)>> {
        let txn = self.next_id + 1000;
        self.queue_begin(txn);
        for (oid, serial, data) in stores {
            self.queue_store(*oid, *serial, data, txn);
        }
        if let Err(error) = self.call("vote", vec![Value::Int(txn)])? {
            let _ = self.call("tpc_abort", vec![Value::Int(txn)])?;
            return Ok(Err(error));
        }
        Ok(self.call("tpc_finish", vec![Value::Int(txn)])?.map(|tid| tid.id()))
    }

    pub fn new_oids(&mut self, count: usize) -> io::Result<Vec<u64>> {
        let mut oids = Vec::new();
        while oids.len() < count {
            let new = self.call("new_oids", vec![Value::Int(100)])?.expect("new_oids");
            oids.extend(new.tuple().iter().map(Value::id));
        }
        oids.truncate(count);
        Ok(oids)
    }

    /// The next message, decoded.
    pub fn next(&mut self) -> io::Result<Incoming> {
        let frame = self.frame()?;
        let message = if self.speaks == Speaks::M5 { msgpack::loads(&frame) } else { loads(&frame) };
        let parts = message.tuple();
        let [id, flag, method, args] = parts else { panic!("a message of four parts: {message:?}") };
        if method.bytes() != b".reply" {
            return Ok(Incoming::Push {
                method: String::from_utf8_lossy(method.bytes()).into_owned(),
                args: args.tuple().to_vec(),
            });
        }
        let Value::Int(id) = id else { panic!("id {id:?}") };
        match (self.speaks, flag, args) {
            (Speaks::Z5 | Speaks::M5, Value::Int(2), Value::Tuple(error)) => {
                let class = String::from_utf8_lossy(error[0].bytes()).into_owned();
                Ok(Incoming::Error { id: *id, class, detail: error[1].clone() })
            }
            // Before Z5 an error is the pair of class and instance.
            (speaks, _, Value::Tuple(pair))
                if speaks.is_old() && matches!(pair.first(), Some(Value::Global(_))) =>
            {
                Ok(Incoming::Error { id: *id, class: format!("{:?}", pair[0]), detail: pair[1].clone() })
            }
            _ => Ok(Incoming::Reply { id: *id, value: args.clone() }),
        }
    }

    /// The next frame's payload. End of stream is `UnexpectedEof`.
    pub fn frame(&mut self) -> io::Result<Vec<u8>> {
        loop {
            let ready = &self.buffer[self.start..];
            if let Some(prefix) = ready.first_chunk::<4>() {
                let prefix = u32::from_be_bytes(*prefix);
                let len = (prefix & 0x7fff_ffff) as usize;
                assert_eq!(prefix >> 31 == 1, self.codes.is_some(), "a message with a code, or without one");
                let head = if self.codes.is_some() { 24 } else { 4 };
                if ready.len() >= head + len {
                    let payload = ready[head..head + len].to_vec();
                    if let Some([_, receiving]) = &mut self.codes {
                        receiving.update(&payload);
                        let code = receiving.clone().finalize().into_bytes();
                        assert_eq!(code[..], ready[4..24], "the server's code");
                    }
                    self.start += head + len;
                    return Ok(payload);
                }
            }
            self.buffer.drain(..self.start);
            self.start = 0;
            let old = self.buffer.len();
            self.buffer.resize(old + 65536, 0);
            let got = match &mut self.tls {
                None => self.stream.read(&mut self.buffer[old..]),
                Some(tls) => rustls::Stream::new(&mut **tls, &mut self.stream).read(&mut self.buffer[old..]),
            };
            self.buffer.truncate(old + got.as_ref().map_or(0, |n| *n));
            match got {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                // A process that was stopped, or its machine, hears that when it goes on.
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
    }

    pub fn set_read_timeout(&self, timeout: Duration) {
        self.stream.set_read_timeout(Some(timeout)).expect("read timeout");
    }

    /// Closes the sending direction; the server may still answer.
    pub fn half_close(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }
}

/// The bytes of the answer to `register` on a new stream.
pub fn answer_to_register(mut stream: TcpStream, speaks: Speaks, storage: &str, read_only: bool) -> Vec<u8> {
    let mut client = RawClient::greet_on(stream.try_clone().expect("cloned"), speaks).expect("greeted");
    client.queue_call("register", vec![text(storage), Value::Bool(read_only)]);
    client.flush().expect("sent");
    let mut len = [0; 4];
    stream.read_exact(&mut len).expect("a frame");
    let mut payload = vec![0; u32::from_be_bytes(len) as usize];
    stream.read_exact(&mut payload).expect("a frame");
    payload
}

/// An object record with these bytes in it.
pub fn record(content: &[u8]) -> Vec<u8> {
    let mut data = b"cpersistent.mapping\nPersistentMapping\nq\x01.}q\x01U\x04dataq\x02}U\x01vT".to_vec();
    data.extend_from_slice(&(content.len() as u32).to_le_bytes());
    data.extend_from_slice(content);
    data.extend_from_slice(b"ss.");
    data
}

/// The content that `record` was given.
pub fn content(record: &[u8]) -> &[u8] {
    let head = self::record(b"").len() - 3;
    &record[head..record.len() - 3]
}

/// The name of a transaction in undoLog.
pub fn undo_id(tid: u64) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    // 8 bytes and a zero are 72 bits: 12 digits, the last of which is only the zero.
    let bits = u128::from(tid) << 8;
    let digits = (0..12).rev().map(|at| char::from(DIGITS[(bits >> (6 * at)) as usize & 63]));
    let text: String = digits.collect();
    format!("{}=", &text[..11])
}

/// Commits one object thirty times, with data of the three lengths in turn. After each commit every reader loads it
/// five times: each reply has the new record, and the invalidation arrives.
pub fn load_beside_commits(writer: &mut RawClient, readers: &mut [RawClient], lens: [usize; 3]) {
    let oid = writer.new_oids(1).expect("new_oids")[0];
    let mut tid = 0;
    for round in 0..30 {
        let data = record(&vec![b'x'; lens[round % 3]]);
        tid = writer.commit(&[(oid, tid, &data)]).expect("connected").expect("commit");
        for reader in &mut *readers {
            for _ in 0..5 {
                reader.queue_load(oid);
            }
            reader.flush().expect("send");
        }
        for reader in &mut *readers {
            let (mut loaded, mut is_invalidated) = (0, false);
            while loaded < 5 || !is_invalidated {
                match reader.next().expect("connected") {
                    Incoming::Reply { value, .. } => {
                        assert!(value.tuple()[0].bytes() == data, "round {round}");
                        loaded += 1;
                    }
                    Incoming::Push { method, .. } => is_invalidated |= method == "invalidateTransaction",
                    Incoming::Error { class, .. } => panic!("{class}"),
                }
            }
        }
    }
}
