//! One blocking connection to a server, and the calls that the workloads make over it.
//!
//! Each client checks what all clients rely on: replies belong to requests, invalidations come in the order of their
//! transactions, and a new transaction is later than all earlier ones.

use crate::wire::{Dialect, Encoder, Frames, Id8, MAX_TID, Message, MessageId, Value};
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::sync::Mutex;
use std::time::Duration;

pub type Result<T> = std::result::Result<T, String>;

/// Bytes that a real client reads at once. A smaller buffer would split a batch of replies, so that server and client
/// would work at the same time where the real ones take turns.
const INPUT_LEN: usize = 128 << 10;
/// Upper bound on the oids that any server gives out at once.
const NEW_OIDS_MAX: usize = 100;

/// How to reach a server.
#[derive(Clone)]
pub struct Target {
    pub address: String,
    /// The protocol in the answer to the greeting; `None`: the protocol of the greeting.
    pub protocol: Option<String>,
    /// It registers as a client that only reads.
    pub read_only: bool,
    /// Time limit of each reply.
    pub timeout: Duration,
}

pub struct Client {
    pub stream: TcpStream,
    pub dialect: Dialect,
    pub out: Encoder,
    frames: Frames,
    next_id: u32,
    last_tid: Id8,
    last_invalidation: Id8,
    /// Classes of the exceptions in `serialnos` (protocol 4) since the last vote.
    store_errors: Vec<String>,
    /// The server's message about the last conflict.
    pub conflict: String,
}

/// Connections are opened one at a time: ZEO 4 listens with a backlog of 5, and a connection lost in an overflow waits
/// for its greeting for ever. (The burst workload opens all at once on purpose.)
static OPENING: Mutex<()> = Mutex::new(());

impl Client {
    pub fn open(target: &Target) -> Result<Client> {
        let _one_at_a_time = OPENING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let stream =
            TcpStream::connect(&target.address).map_err(|e| format!("connect to {}: {e}", target.address))?;
        let mut client = Client::from_stream(stream, target.timeout)?;
        client.greet(target)?;
        client.wait_registered()?;
        Ok(client)
    }

    /// A client over a connected socket, before the greeting.
    pub fn from_stream(stream: TcpStream, timeout: Duration) -> Result<Client> {
        stream.set_nodelay(true).map_err(|e| format!("socket: {e}"))?;
        let client = Client {
            stream,
            dialect: Dialect::Z5,
            out: Encoder::new(Dialect::Z5),
            frames: Frames::new(INPUT_LEN),
            next_id: 0,
            last_tid: [0; 8],
            last_invalidation: [0; 8],
            store_errors: vec![],
            conflict: String::new(),
        };
        client.set_timeout(timeout)?;
        Ok(client)
    }

    pub fn set_timeout(&self, timeout: Duration) -> Result<()> {
        let timeout = Some(timeout.max(Duration::from_millis(1)));
        self.stream.set_read_timeout(timeout).map_err(|e| format!("socket: {e}"))?;
        self.stream.set_write_timeout(timeout).map_err(|e| format!("socket: {e}"))
    }

    /// Reads the server's greeting, answers it, and registers for the storage.
    pub fn greet(&mut self, target: &Target) -> Result<()> {
        let frame = self.receive()?;
        let greeting = String::from_utf8_lossy(self.frames.bytes(frame)).into_owned();
        let protocol = target.protocol.as_deref().unwrap_or(&greeting);
        self.speak(match protocol.as_bytes() {
            b"M5" => Dialect::M5,
            b"Z5" => Dialect::Z5,
            [b'Z', b'4', ..] => Dialect::Z4Python2,
            _ => return Err(format!("the server greets with {greeting:?}; cannot speak {protocol:?}")),
        });
        self.out.bytes.extend_from_slice(&(protocol.len() as u32).to_be_bytes());
        self.out.bytes.extend_from_slice(protocol.as_bytes());
        self.begin("register", 2);
        self.out.text("1");
        self.out.boolean(target.read_only);
        self.out.end();
        self.flush()
    }

    pub fn wait_registered(&mut self) -> Result<()> {
        let id = self.next_id;
        let frame = self.receive()?;
        // The dialect of the reply distinguishes a Python 3 server of protocol 4 from a Python 2 one.
        if self.dialect == Dialect::Z4Python2 && self.frames.bytes(frame.clone()).first() == Some(&0x80) {
            self.speak(Dialect::Z4Python3);
        }
        let message = self.message(frame)?;
        if message.id != MessageId::Int(i64::from(id)) || !message.is_reply() {
            return Err("register got something else than its reply".into());
        }
        message.reply()?.map_err(|e| format!("register: {e}"))?;
        self.last_tid = self.last_transaction()?;
        Ok(())
    }

    fn speak(&mut self, dialect: Dialect) {
        self.dialect = dialect;
        self.out.dialect = dialect;
    }

    /// Begins a synchronous call in the send buffer; returns its message id.
    pub fn begin(&mut self, method: &str, arg_count: usize) -> u32 {
        self.next_id += 1;
        self.out.call(self.next_id, method, arg_count);
        self.next_id
    }

    pub fn flush(&mut self) -> Result<()> {
        if !self.out.bytes.is_empty() {
            self.stream.write_all(&self.out.bytes).map_err(|e| format!("write: {e}"))?;
            self.out.bytes.clear();
        }
        Ok(())
    }

    /// Sends the buffer if it has grown large.
    pub fn flush_if_large(&mut self) -> Result<()> {
        if self.out.bytes.len() > 1 << 18 { self.flush() } else { Ok(()) }
    }

    /// Whether the next message has arrived.
    pub fn is_ready(&self) -> bool {
        self.frames.is_ready()
    }

    /// Reads once; for a non-blocking socket.
    pub fn receive_some(&mut self) -> std::io::Result<usize> {
        self.frames.fill(&mut self.stream)
    }

    /// The next message, if it has arrived.
    pub fn received(&mut self) -> Option<Range<usize>> {
        self.frames.next()
    }

    pub fn receive(&mut self) -> Result<Range<usize>> {
        loop {
            if let Some(frame) = self.frames.next() {
                return Ok(frame);
            }
            match self.frames.fill(&mut self.stream) {
                Ok(0) => return Err("the server closed the connection".into()),
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Err("no reply in time".into()),
                Err(e) => return Err(format!("read: {e}")),
            }
        }
    }

    pub fn message(&self, frame: Range<usize>) -> Result<Message<'_>> {
        Message::parse(self.dialect, self.frames.bytes(frame))
    }

    /// Handles a message that is no reply.
    pub fn handle_pushed(&mut self, frame: Range<usize>) -> Result<()> {
        let message = Message::parse(self.dialect, self.frames.bytes(frame))?;
        match message.name {
            b"invalidateTransaction" => {
                let tid = message.invalidated_tid()?;
                if tid <= self.last_invalidation {
                    return Err(format!("invalidation {tid:02x?} after {:02x?}", self.last_invalidation));
                }
                self.last_invalidation = tid;
            }
            b"serialnos" => {
                for item in message.value()?.items().first().map(Value::items).unwrap_or_default() {
                    if let Some(Value::Object(class, _)) = item.items().get(1) {
                        self.store_errors.push(class.clone());
                    }
                }
            }
            b"info" | b"receiveBlobStart" | b"receiveBlobStop" => {}
            b".reply" => return Err(format!("unexpected reply to {:?}", message.id)),
            name => return Err(format!("unexpected message {:?}", String::from_utf8_lossy(name))),
        }
        Ok(())
    }

    /// Waits for the reply to message `id`.
    pub fn wait(&mut self, id: u32) -> Result<std::result::Result<Value, crate::wire::ServerError>> {
        loop {
            let frame = self.receive()?;
            let message = self.message(frame.clone())?;
            if !message.is_reply() {
                self.handle_pushed(frame)?;
            } else if message.id == MessageId::Int(i64::from(id)) {
                return message.reply();
            } else {
                return Err(format!("reply to {:?} while waiting for {id}", message.id));
            }
        }
    }

    /// Waits for the reply to message `id`, which must not be an exception.
    pub fn wait_ok(&mut self, id: u32, method: &str) -> Result<Value> {
        self.wait(id)?.map_err(|e| format!("{method}: {e}"))
    }

    /// Sends a call without arguments; returns its message id.
    pub fn send(&mut self, method: &str) -> Result<u32> {
        let id = self.begin(method, 0);
        self.out.end();
        self.flush()?;
        Ok(id)
    }

    pub fn last_transaction(&mut self) -> Result<Id8> {
        let id = self.send("lastTransaction")?;
        self.wait_ok(id, "lastTransaction")?.id8()
    }

    pub fn new_oids(&mut self, count: usize) -> Result<Vec<Id8>> {
        let mut oids = vec![];
        while oids.len() < count {
            let id = self.begin("new_oids", 1);
            self.out.int((count - oids.len()).min(NEW_OIDS_MAX) as i64);
            self.out.end();
            self.flush()?;
            let reply = self.wait_ok(id, "new_oids")?;
            if reply.items().is_empty() {
                return Err(format!("new_oids returned {reply:?}"));
            }
            for oid in reply.items() {
                oids.push(oid.id8()?);
            }
        }
        oids.truncate(count);
        Ok(oids)
    }

    /// Queues a load of the current revision; returns its message id (0 if the message is identified by its oid).
    pub fn queue_load(&mut self, oid: &Id8) -> u32 {
        if self.dialect.is_legacy() {
            let id = self.begin("loadEx", 1);
            self.out.byte_string(oid);
            self.out.end();
            id
        } else {
            self.out.load_before(oid, &MAX_TID);
            0
        }
    }

    /// The serial of the current revision; `None` if there is no such object.
    pub fn load_serial(&mut self, oid: &Id8) -> Result<Option<Id8>> {
        let id = self.queue_load(oid);
        self.flush()?;
        self.wait_load(id, oid)
    }

    /// Waits for the reply to [`Client::queue_load`], which returned `id`.
    pub fn wait_load(&mut self, id: u32, oid: &Id8) -> Result<Option<Id8>> {
        loop {
            let frame = self.receive()?;
            let message = self.message(frame.clone())?;
            if !message.is_reply() {
                self.handle_pushed(frame)?;
                continue;
            }
            if message.id != MessageId::Int(i64::from(id)) && message.id != MessageId::Load(oid) {
                return Err(format!("reply to {:?} while waiting for a load", message.id));
            }
            return match message.reply()? {
                Ok(Value::None) => Ok(None),
                Ok(_) => Ok(Some(message.loaded()?.1)),
                Err(e) if e.class.ends_with("KeyError") => Ok(None),
                Err(e) => Err(format!("load: {e}")),
            };
        }
    }

    pub fn queue_begin(&mut self, transaction: i64) {
        self.out.call_async("tpc_begin", 6);
        self.out.int(transaction);
        self.out.byte_string(b"");
        self.out.byte_string(b"");
        self.out.empty_dict();
        self.out.none();
        self.out.text(" ");
        self.out.end();
    }

    pub fn queue_store(&mut self, oid: &Id8, serial: &Id8, data: &[u8], transaction: i64) {
        self.out.call_async("storea", 4);
        self.out.byte_string(oid);
        self.out.byte_string(serial);
        self.out.byte_string(data);
        self.out.int(transaction);
        self.out.end();
    }

    fn send_for(&mut self, method: &str, transaction: i64) -> Result<u32> {
        let id = self.begin(method, 1);
        self.out.int(transaction);
        self.out.end();
        self.flush()?;
        Ok(id)
    }

    /// Sends the queued messages, then votes. `true`: ready to finish; `false`: conflict.
    pub fn vote(&mut self, transaction: i64) -> Result<bool> {
        self.store_errors.clear();
        let id = self.send_for("vote", transaction)?;
        match self.wait(id)? {
            Err(e) if e.is_conflict() => {
                self.conflict = e.to_string();
                Ok(false)
            }
            Err(e) => Err(format!("vote: {e}")),
            Ok(reply) => match self.store_errors.first() {
                Some(class) if class.contains("Conflict") => Ok(false),
                Some(class) => Err(format!("vote: {class}")),
                // A dict is a conflict for the client to resolve.
                None => Ok(!reply.items().iter().any(|item| matches!(item, Value::Dict(_)))),
            },
        }
    }

    pub fn send_finish(&mut self, transaction: i64) -> Result<u32> {
        self.send_for("tpc_finish", transaction)
    }

    pub fn wait_finish(&mut self, id: u32) -> Result<Id8> {
        let tid = self.wait_ok(id, "tpc_finish")?.id8()?;
        if tid <= self.last_tid {
            return Err(format!("transaction {tid:02x?} does not follow {:02x?}", self.last_tid));
        }
        self.last_tid = tid;
        Ok(tid)
    }

    pub fn finish(&mut self, transaction: i64) -> Result<Id8> {
        let id = self.send_finish(transaction)?;
        self.wait_finish(id)
    }

    pub fn abort(&mut self, transaction: i64) -> Result<()> {
        let id = self.send_for("tpc_abort", transaction)?;
        self.wait_ok(id, "tpc_abort").map(drop)
    }
}

/// A transaction id that looks like a Python client's `id(transaction)`.
pub fn transaction_id(sequence: u64) -> i64 {
    0x7f3a_0000_0000 + sequence as i64 * 16
}
