//! The limit: a server that answers protocol Z5 with canned replies, one blocking thread per connection. It has no
//! storage: loads look up nothing, votes check nothing. A commit is appended to the file and synced under one lock. The
//! difference to a real server is the cost of the real server's storage and guarantees.
//!
//! In its second form every load is answered with another record of a file, by one positioned read each: the limit for
//! a server that keeps its records in the file, instead of one record in the processor's cache.

use crate::client::Result;
use crate::random::Random;
use crate::records;
use crate::wire::{Dialect, Encoder, Frames, Id8, Message};
use socket2::{Domain, Socket, Type};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

const GREETING: &[u8] = b"\0\0\0\x02Z5";
const SERIAL: &Id8 = b"\x03\0\0\0\0\0\0\x01";
/// The header that FileStorage adds to a record.
const RECORD_HEADER: &[u8] = &[0; 42];
const STACK_LEN: usize = 128 << 10;
const BACKLOG: i32 = 4096;
/// About the total size of the objects in the usual plans.
const RECORDS_LEN: usize = 100 << 20;

struct Limit {
    record: Vec<u8>,
    /// The records that are read one by one, in the second form.
    records: Option<Records>,
    log: Mutex<Log>,
    oid: Mutex<u64>,
    connections: Mutex<HashMap<usize, Arc<Mutex<TcpStream>>>>,
}

struct Log {
    tid: u64,
    file: File,
}

struct Records {
    file: File,
    count: usize,
}

impl Records {
    fn create(path: &Path, record: &[u8]) -> Result<Records> {
        let count = RECORDS_LEN.div_ceil(record.len());
        let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path);
        let written = file.and_then(|mut file| file.write_all(&record.repeat(count)).map(|()| file));
        written.map(|file| Records { file, count }).map_err(|e| format!("{}: {e}", path.display()))
    }
}

/// Serves for ever, on the address and file in a configuration of [`crate::servers`].
pub fn serve(record_len: usize, from_file: bool, conf: &Path) -> Result<()> {
    let text = std::fs::read_to_string(conf).map_err(|e| format!("{}: {e}", conf.display()))?;
    let value = |key: &str| {
        let found = text.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(' '));
        found.ok_or_else(|| format!("{}: no {key}", conf.display()))
    };
    let (address, path) = (value("address")?, value("path")?);
    let file = OpenOptions::new().create(true).append(true).open(path).map_err(|e| format!("{path}: {e}"))?;
    let listener = listen(address).map_err(|e| format!("{address}: {e}"))?;
    let record = records::mapping(false, record_len, 5);
    let records = from_file.then(|| Records::create(&Path::new(path).with_extension("records"), &record));
    let limit = Arc::new(Limit {
        record,
        records: records.transpose()?,
        log: Mutex::new(Log { tid: 0x0400_0000_0000_0000, file }),
        oid: Mutex::new(1 << 20),
        connections: Mutex::default(),
    });
    for (number, stream) in listener.incoming().enumerate() {
        let Ok(stream) = stream else { continue };
        let limit = limit.clone();
        let session = move || {
            // It fails only for a peer that is gone or does not speak the protocol.
            let _ = Session::run(&limit, stream, number);
            lock(&limit.connections).remove(&number);
        };
        std::thread::Builder::new()
            .stack_size(STACK_LEN)
            .spawn(session)
            .map_err(|e| format!("thread: {e}"))?;
    }
    Ok(())
}

/// A listener with a backlog for bursts of connections, which std's listener does not have.
fn listen(address: &str) -> io::Result<TcpListener> {
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

struct Session<'a> {
    limit: &'a Limit,
    number: usize,
    writer: Arc<Mutex<TcpStream>>,
    out: Encoder,
    stored: Vec<u8>,
    oids: Vec<Id8>,
    /// The last record that was read.
    record: Vec<u8>,
    random: Random,
}

impl Session<'_> {
    fn run(limit: &Limit, stream: TcpStream, number: usize) -> Result<()> {
        let io = |e: io::Error| e.to_string();
        stream.set_nodelay(true).map_err(io)?;
        let mut reader = stream.try_clone().map_err(io)?;
        let mut session = Session {
            limit,
            number,
            writer: Arc::new(Mutex::new(stream)),
            out: Encoder::new(Dialect::Z5),
            stored: vec![],
            oids: vec![],
            record: limit.record.clone(),
            random: Random::new(number as u64 + 1),
        };
        lock(&session.writer).write_all(GREETING).map_err(io)?;
        let mut frames = Frames::new(1 << 16);
        let mut is_greeted = false;
        loop {
            while let Some(frame) = frames.next() {
                if is_greeted {
                    session.handle(&Message::parse(Dialect::Z5, frames.bytes(frame))?)?;
                }
                is_greeted = true;
            }
            if !session.out.bytes.is_empty() {
                lock(&session.writer).write_all(&session.out.bytes).map_err(io)?;
                session.out.bytes.clear();
            }
            if frames.fill(&mut reader).map_err(io)? == 0 {
                return Ok(());
            }
        }
    }

    fn handle(&mut self, message: &Message<'_>) -> Result<()> {
        match message.name {
            b"loadBefore" => {
                if let Some(records) = &self.limit.records {
                    let position = self.random.below(records.count) * self.record.len();
                    let read = records.file.read_exact_at(&mut self.record, position as u64);
                    read.map_err(|e| e.to_string())?;
                }
                self.out.reply(message.raw_id);
                self.out.current_revision(&self.record, SERIAL);
                self.out.end_reply();
            }
            b"tpc_begin" => {
                self.stored.clear();
                self.oids.clear();
            }
            b"storea" => {
                let arguments = message.byte_string_arguments()?;
                let [oid, _serial, data, ..] = arguments.as_slice() else {
                    return Err("storea: arguments".into());
                };
                self.oids.push((*oid).try_into().map_err(|_| "storea: oid")?);
                self.stored.extend_from_slice(RECORD_HEADER);
                self.stored.extend_from_slice(data);
            }
            b"vote" => {
                self.out.reply(message.raw_id);
                self.out.empty_list();
                self.out.end_reply();
            }
            b"tpc_finish" => {
                let tid = self.commit()?;
                self.out.call_async("info", 1);
                self.out.info(1, 1 << 30);
                self.out.end();
                self.out.reply(message.raw_id);
                self.out.byte_string(&tid);
                self.out.end_reply();
            }
            b"new_oids" => {
                let count =
                    message.value()?.items().first().and_then(|n| n.as_int()).unwrap_or(1).clamp(1, 100);
                let mut last = lock(&self.limit.oid);
                let oids: Vec<Id8> = (1..=count as u64).map(|i| (*last + i).to_be_bytes()).collect();
                *last += count as u64;
                self.out.reply(message.raw_id);
                self.out.id_list(&oids);
                self.out.end_reply();
            }
            b"register" | b"lastTransaction" => {
                if message.name == b"register" {
                    lock(&self.limit.connections).insert(self.number, self.writer.clone());
                }
                self.out.reply(message.raw_id);
                self.out.byte_string(SERIAL);
                self.out.end_reply();
            }
            _ if message.flag != 0 => {}
            _ => {
                self.out.reply(message.raw_id);
                self.out.none();
                self.out.end_reply();
            }
        }
        Ok(())
    }

    /// Appends, syncs, and sends the invalidations, all under the lock so that invalidations are in order.
    fn commit(&mut self) -> Result<Id8> {
        let mut log = lock(&self.limit.log);
        log.tid += 1;
        let tid = log.tid.to_be_bytes();
        log.file.write_all(&self.stored).map_err(|e| e.to_string())?;
        log.file.sync_data().map_err(|e| e.to_string())?;
        let mut invalidation = Encoder::new(Dialect::Z5);
        invalidation.call_async("invalidateTransaction", 2);
        invalidation.byte_string(&tid);
        invalidation.id_list(&self.oids);
        invalidation.end();
        for (number, connection) in lock(&self.limit.connections).iter() {
            if *number != self.number {
                // Its own session notices that a listener is gone.
                let _ = lock(connection).write_all(&invalidation.bytes);
            }
        }
        Ok(tid)
    }
}
