//! One connection, frame by frame, in the order of arrival.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::pickle::{Dialect, Value, dumps, id, loads, text};

/// The two shapes of protocol that the tests speak: `Z5` as Python 3 does, and `Z4` as Python 2 does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Speaks {
    Z4,
    Z5,
}

impl Speaks {
    pub fn dialect(self) -> Dialect {
        match self {
            Self::Z4 => Dialect::Python2,
            Self::Z5 => Dialect::Python3,
        }
    }
}

/// What arrives.
#[derive(Debug)]
pub enum Incoming {
    Reply {
        id: i64,
        value: Value,
    },
    /// An error reply: exception class, and its arguments or attributes
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
    buffer: Vec<u8>,
    start: usize,
    out: Vec<u8>,
    next_id: i64,
}

pub const LATEST: u64 = i64::MAX as u64;

impl RawClient {
    /// Connected and greeted, not registered.
    pub fn connect(address: SocketAddr, speaks: Speaks) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.set_write_timeout(Some(Duration::from_secs(60)))?;
        let mut client = Self { speaks, stream, buffer: Vec::new(), start: 0, out: Vec::new(), next_id: 1 };
        let greeting = client.frame()?;
        assert_eq!(greeting, b"Z5", "the server's greeting");
        client.queue_frame(match speaks {
            Speaks::Z4 => b"Z4",
            Speaks::Z5 => b"Z5",
        });
        Ok(client)
    }

    /// Connected and registered; for Z5 with the tid that `register` gave.
    pub fn register(address: SocketAddr, speaks: Speaks) -> io::Result<(Self, Option<u64>)> {
        let mut client = Self::connect(address, speaks)?;
        let id = client.queue_call("register", vec![text("1"), Value::Bool(false)]);
        client.flush()?;
        match client.next()? {
            Incoming::Reply { id: got, value } if got == id => {
                let tid = (!value.is_none()).then(|| value.id());
                Ok((client, tid))
            }
            other => panic!("reply to register: {other:?}"),
        }
    }

    pub fn queue_frame(&mut self, payload: &[u8]) {
        self.out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        self.out.extend_from_slice(payload);
    }

    pub fn queue_raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    fn queue_message(&mut self, id: i64, is_async: bool, method: &str, args: Vec<Value>) {
        let flag = match self.speaks {
            Speaks::Z4 => Value::Int(is_async.into()),
            Speaks::Z5 => Value::Bool(is_async),
        };
        let message = Value::Tuple(vec![Value::Int(id), flag, text(method), Value::Tuple(args)]);
        let payload = dumps(&message, self.speaks.dialect());
        self.queue_frame(&payload);
    }

    /// Queues a request that will be answered, and returns its id.
    pub fn queue_call(&mut self, method: &str, args: Vec<Value>) -> i64 {
        let id = self.next_id;
        self.next_id += 1;
        self.queue_message(id, false, method, args);
        id
    }

    pub fn queue_async(&mut self, method: &str, args: Vec<Value>) {
        // Z4 numbers its asynchronous messages like all others.
        let id = if self.speaks == Speaks::Z4 { self.next_id } else { 0 };
        self.next_id += i64::from(self.speaks == Speaks::Z4);
        self.queue_message(id, true, method, args);
    }

    /// The newest revision, in the words of the generation.
    pub fn queue_load(&mut self, oid: u64) -> i64 {
        match self.speaks {
            Speaks::Z4 => self.queue_call("loadEx", vec![id(oid)]),
            Speaks::Z5 => self.queue_call("loadBefore", vec![id(oid), id(LATEST)]),
        }
    }

    pub fn queue_begin(&mut self, txn: i64) {
        let extension = Value::Dict(Vec::new());
        let args = vec![Value::Int(txn), text("user"), text(""), extension, Value::None, text(" ")];
        self.queue_async("tpc_begin", args);
    }

    pub fn queue_store(&mut self, oid: u64, serial: u64, data: &[u8], txn: i64) {
        self.queue_async("storea", vec![id(oid), id(serial), Value::Bytes(data.to_vec()), Value::Int(txn)]);
    }

    pub fn flush(&mut self) -> io::Result<()> {
        let result = self.stream.write_all(&self.out);
        self.out.clear();
        result
    }

    /// Sends one call and returns its answer; what arrives before it is dropped.
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

    /// Commits one transaction; `Err` is what the server answered to its vote. Drops what else arrives.
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
        let message = loads(&frame);
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
            (Speaks::Z5, Value::Int(2), Value::Tuple(error)) => {
                let class = String::from_utf8_lossy(error[0].bytes()).into_owned();
                Ok(Incoming::Error { id: *id, class, detail: error[1].clone() })
            }
            // Before Z5 an error is the pair of class and instance.
            (Speaks::Z4, _, Value::Tuple(pair)) if matches!(pair.first(), Some(Value::Global(_))) => {
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
                let len = u32::from_be_bytes(*prefix) as usize;
                if ready.len() >= 4 + len {
                    let payload = ready[4..4 + len].to_vec();
                    self.start += 4 + len;
                    return Ok(payload);
                }
            }
            self.buffer.drain(..self.start);
            self.start = 0;
            let old = self.buffer.len();
            self.buffer.resize(old + 65536, 0);
            let got = self.stream.read(&mut self.buffer[old..]);
            self.buffer.truncate(old + got.as_ref().map_or(0, |n| *n));
            if got? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    pub fn set_read_timeout(&self, timeout: Duration) {
        self.stream.set_read_timeout(Some(timeout)).expect("read timeout");
    }

    /// Nothing more from us; the server may still answer.
    pub fn half_close(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }
}

/// An object record with these bytes in it.
pub fn record(content: &[u8]) -> Vec<u8> {
    let mut data = b"cpersistent.mapping\nPersistentMapping\nq\x01.}q\x01U\x04dataq\x02}U\x01vT".to_vec();
    data.extend_from_slice(&(content.len() as u32).to_le_bytes());
    data.extend_from_slice(content);
    data.extend_from_slice(b"ss.");
    data
}

/// The bytes that `record` put in.
pub fn content(record: &[u8]) -> &[u8] {
    let head = self::record(b"").len() - 3;
    &record[head..record.len() - 3]
}
