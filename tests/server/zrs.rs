//! `<zrs>`: what raw secondaries get from a primary, and what a secondary makes of a primary that the test is.
//! `compat-tests/zrs` has the real ones.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use md5::{Digest, Md5};

use crate::http::get;
use crate::support::client::{RawClient, Speaks, record};
use crate::support::pickle::{Value, text};
use crate::support::process::{Server, free_address};
use crate::zeoadmin::zeoadmin;
use runzeo::ids::{Oid, Tid};
use runzeo::internal::replication::zrs::message::{Message, RecordHead, Transaction, put_commit};
use runzeo::storage::TransactionMeta;

const WAIT: Duration = Duration::from_secs(60);

fn primary(address: SocketAddr) -> Server {
    primary_of(address, "<filestorage>\npath Data.fs\nblob-dir blobs\n</filestorage>")
}

fn primary_of(address: SocketAddr, base: &str) -> Server {
    let storage =
        format!("%import zc.zrs\n%import zc.zlibstorage\n<zrs 1>\nreplicate-to {address}\n{base}\n</zrs>");
    let server = Server::start_any("", &storage, |_| ());
    server.wait_for_log("listening for secondaries on");
    server
}

/// A connection whose ends speak in frames.
struct Wire {
    stream: TcpStream,
    sum: Md5,
}

impl Wire {
    fn new(stream: TcpStream) -> Wire {
        stream.set_read_timeout(Some(WAIT)).unwrap();
        Wire { stream, sum: Md5::new() }
    }

    /// A secondary that has said hello.
    fn follow(address: SocketAddr, protocol: &[u8], start: u64) -> Wire {
        let mut wire = Wire::new(TcpStream::connect(address).unwrap());
        wire.send(protocol);
        wire.send(&start.to_be_bytes());
        wire.sum = Md5::new_with_prefix(start.to_be_bytes());
        wire
    }

    /// Sends a frame; the other end may be gone.
    fn send(&mut self, payload: &[u8]) {
        let frame = [&u32::try_from(payload.len()).unwrap().to_be_bytes()[..], payload].concat();
        let _ = self.stream.write_all(&frame);
        self.sum.update(payload);
    }

    /// The payload of the next frame; `None` at the end.
    fn frame(&mut self) -> Option<Vec<u8>> {
        let mut head = [0; 4];
        match self.stream.read_exact(&mut head) {
            Ok(()) => {}
            Err(error)
                if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) =>
            {
                return None;
            }
            Err(error) => panic!("no frame: {error}"),
        }
        let mut payload = vec![0; u32::from_be_bytes(head) as usize];
        self.stream.read_exact(&mut payload).unwrap();
        Some(payload)
    }

    /// The next transaction of a primary, with the data of its records. The checksum must be right.
    fn transaction(&mut self) -> (Tid, Vec<(RecordHead, Vec<u8>)>) {
        let Message::Transaction(Transaction { tid, .. }) = self.message() else { panic!("no transaction") };
        let mut records = Vec::new();
        loop {
            let before = self.sum.clone();
            match self.message() {
                Message::Record(record) => {
                    let data = self.frame().unwrap();
                    self.sum.update(&data);
                    for _ in 0..record.blocks.unwrap_or(0) {
                        let block = self.frame().unwrap();
                        self.sum.update(&block);
                    }
                    records.push((record, data));
                }
                Message::Commit { checksum } => {
                    assert_eq!(checksum, before.finalize().to_vec());
                    return (tid, records);
                }
                Message::Transaction(_) => panic!("a transaction in a transaction"),
            }
        }
    }

    fn message(&mut self) -> Message {
        let payload = self.frame().expect("a message");
        self.sum.update(&payload);
        Message::parse(&payload).unwrap()
    }

    fn is_closed(&mut self) -> bool {
        self.frame().is_none()
    }

    /// As a primary: a transaction with one record of object 1.
    fn send_transaction(&mut self, tid: u64, data: &[u8], checksum: Option<&[u8]>) {
        self.begin_transaction(tid, data);
        let right = self.sum.clone().finalize();
        let mut commit = Vec::new();
        put_commit(checksum.unwrap_or(&right), &mut commit);
        self.send(&commit);
    }

    fn begin_transaction(&mut self, tid: u64, data: &[u8]) {
        let (meta, mut head) = (TransactionMeta::default(), Vec::new());
        Transaction { tid: Tid(tid), status: b' ', meta }.put(&mut head).unwrap();
        self.send(&head);
        let mut head = Vec::new();
        RecordHead { oid: Oid(1), tid: Tid(tid), data_txn: None, blocks: None }.put(&mut head);
        self.send(&head);
        self.send(data);
    }
}

fn client(server: &Server) -> RawClient {
    RawClient::register(server.address, Speaks::Z5).unwrap().0
}

#[test]
fn a_secondary_gets_what_is_there_and_what_is_published() {
    let address = free_address();
    let server = primary(address);
    let mut client = client(&server);
    let first = client.commit(&[(1, 0, &record(b"one")), (2, 0, &record(&[7; 100_000]))]).unwrap().unwrap();
    let mut late = Wire::follow(address, b"zrs2.1", 0);
    let (tid, records) = late.transaction();
    assert_eq!(tid.0, first);
    let found: Vec<_> =
        records.iter().map(|(record, data)| (record.oid.0, record.tid.0, data.len())).collect();
    assert_eq!(found, [(1, first, record(b"one").len()), (2, first, record(&[7; 100_000]).len())]);
    let second = client.commit(&[(1, first, &record(b"two"))]).unwrap().unwrap();
    assert_eq!(late.transaction().0.0, second);
    // One that has the first one gets the second one only, and is kept alive by empty frames.
    let mut other = Wire::follow(address, b"zrs2.1", first);
    other.stream.write_all(&[0; 4]).unwrap();
    let (tid, records) = other.transaction();
    assert_eq!((tid.0, &records[0].1), (second, &record(b"two")));
    server.wait_for_log("a secondary follows from the beginning");
    server.wait_for_log(&format!("a secondary follows behind transaction {} of", Tid(first)));
}

/// The records are those that clients see.
#[test]
fn any_storage_with_transactions_can_be_a_primary() {
    for base in [
        "<mappingstorage>\n</mappingstorage>",
        "<demostorage>\n</demostorage>",
        "<zlibstorage>\n<filestorage>\npath Data.fs\n</filestorage>\n</zlibstorage>",
    ] {
        let address = free_address();
        let server = primary_of(address, base);
        let mut client = client(&server);
        let mut wire = Wire::follow(address, b"zrs2.1", 0);
        let first = client.commit(&[(1, 0, &record(&[7; 1000]))]).unwrap().unwrap();
        let second = client.commit(&[(1, first, &record(b"two"))]).unwrap().unwrap();
        for (tid, data) in [(first, record(&[7; 1000])), (second, record(b"two"))] {
            let (found, records) = wire.transaction();
            assert_eq!((found.0, records[0].1 == data), (tid, true), "{base}");
        }
    }
}

#[test]
fn who_is_no_secondary_is_closed() {
    let address = free_address();
    let server = primary(address);
    let last = client(&server).commit(&[(1, 0, &record(b"one"))]).unwrap().unwrap();
    for (protocol, start, why) in [
        (&b"zrs9"[..], &[0; 8][..], "'zrs9' is no protocol of ZRS"),
        (b"zrs2.0", &[0; 8], "there are blobs here"),
        (b"zrs2.1", b"short", "has not 8 bytes"),
        (b"GET / HTT", b"", "a frame of 9 bytes, where 8 are the most"),
        (b"zrs2.1", &(last + 1).to_be_bytes(), "is later than the last one here"),
        (b"zrs2.1", &(last - 1).to_be_bytes(), "is not here, and no pack can have removed it"),
    ] {
        let mut wire = Wire::new(TcpStream::connect(address).unwrap());
        wire.send(protocol);
        wire.send(start);
        assert!(wire.is_closed(), "{why}");
        server.wait_for_log(why);
    }
    let mut talks = Wire::follow(address, b"zrs2.1", last);
    talks.send(b"more");
    assert!(talks.is_closed());
    server.wait_for_log("it has sent more than its greeting");
    // Many that say nothing are no reason not to serve another one.
    let silent: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
    assert_eq!(Wire::follow(address, b"zrs2.1", 0).transaction().0.0, last);
    drop(silent);
}

#[test]
fn a_secondary_that_reads_nothing_holds_nobody_up() {
    let address = free_address();
    let mut server = primary(address);
    let mut client = client(&server);
    let mut stuck = Wire::follow(address, b"zrs2.1", 0);
    let data = record(&vec![5; 4 << 20]);
    let mut serial = 0;
    for _ in 0..10 {
        serial = client.commit(&[(1, serial, &data)]).unwrap().unwrap();
    }
    assert_eq!(stuck.transaction().1[0].1.len(), data.len());
    // One that says nothing is not waited for, one that has gone without a word neither.
    let _silent = TcpStream::connect(address).unwrap();
    let gone = Wire::follow(address, b"zrs2.1", 0);
    gone.stream.shutdown(std::net::Shutdown::Write).unwrap();
    let since = Instant::now();
    assert!(server.stop().success());
    assert!(since.elapsed() < Duration::from_secs(40), "the server waits for it");
}

/// One that reads nothing is shown with all that it lacks.
#[test]
fn who_follows_a_primary_is_shown() {
    let (address, page) = (free_address(), free_address());
    let storage = format!(
        "%import zc.zrs\n<zrs 1>\nreplicate-to {address}\n<filestorage>\npath Data.fs\n</filestorage>\n</zrs>\n\
         <http>\naddress {page}\n</http>"
    );
    let server = Server::start_any("admin-socket admin", &storage, |_| ());
    server.wait_for_log("listening for secondaries on");
    let status = || String::from_utf8(zeoadmin(&server, &["status"]).stdout).unwrap();
    let wait_for = |what: &str| {
        let deadline = Instant::now() + WAIT;
        while !status().contains(what) {
            assert!(Instant::now() < deadline, "{what}: {}", status());
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    // It listens before its storage is shown.
    wait_for("storage 1: ");
    let metrics = |name: &str| {
        let answer = get(page, "/metrics").body;
        answer
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name}{{storage=\"1\"}} ")))
            .map(str::to_string)
    };
    assert_eq!((metrics("zeo_zrs_secondaries"), metrics("zeo_zrs_lag_bytes")), (Some("0".into()), None));
    let mut client = client(&server);
    let first = client.commit(&[(1, 0, &record(b"one"))]).unwrap().unwrap();
    let mut wire = Wire::follow(address, b"zrs2.1", 0);
    assert_eq!(wire.transaction().0.0, first);
    let peer = wire.stream.local_addr().unwrap();
    wait_for(&format!("  secondary at {peer} since "));
    wait_for(", which was sent everything\n");
    assert_eq!(metrics("zeo_zrs_lag_transactions"), Some("0".into()));
    // More than the buffers of both ends take.
    let (mut serial, data) = (first, record(&vec![5; 4 << 20]));
    for _ in 0..10 {
        serial = client.commit(&[(1, serial, &data)]).unwrap().unwrap();
    }
    wait_for(" behind (");
    let lacks = |name| metrics(name).unwrap().parse::<f64>().unwrap();
    let (bytes, transactions) = (lacks("zeo_zrs_lag_bytes"), lacks("zeo_zrs_lag_transactions"));
    assert!((1.0..=10.0).contains(&transactions), "{transactions}");
    assert!(bytes >= transactions * data.len() as f64 && bytes < 42e6, "{bytes} bytes");
    assert!(get(page, "/").body.contains(&peer.to_string()));
    for _ in 0..10 {
        wire.transaction();
    }
    wait_for(", which was sent everything\n");
    drop(wire);
    let deadline = Instant::now() + WAIT;
    while metrics("zeo_zrs_secondaries") != Some("0".into()) {
        assert!(Instant::now() < deadline, "{}", status());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What is published when the server stops arrives.
#[test]
fn a_primary_that_stops_sends_everything() {
    let address = free_address();
    let mut server = primary(address);
    let mut wire = Wire::follow(address, b"zrs2.1", 0);
    let mut client = client(&server);
    let (mut serial, data) = (0, record(&vec![5; 1 << 20]));
    for _ in 0..10 {
        serial = client.commit(&[(1, serial, &data)]).unwrap().unwrap();
    }
    let reader = std::thread::spawn(move || {
        let last = (0..10).map(|_| wire.transaction().0.0).last();
        (last, wire.is_closed())
    });
    assert!(server.stop().success());
    assert_eq!(reader.join().unwrap(), (Some(serial), true));
}

/// A secondary, and what listens in the place of its primary.
fn secondary() -> (Server, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let storage = format!(
        "%import zc.zrs\n<zrs 1>\nreplicate-from {address}\nkeep-alive-delay 1\n<filestorage>\npath Data.fs\n</filestorage>\n</zrs>"
    );
    (Server::start_any("", &storage, |_| ()), listener)
}

/// The secondary's next connection: its start, after which it waits.
fn accept(listener: &TcpListener, protocol: &[u8]) -> (Wire, u64) {
    let mut wire = Wire::new(listener.accept().unwrap().0);
    assert_eq!(wire.frame().as_deref(), Some(protocol));
    let start = u64::from_be_bytes(wire.frame().unwrap().try_into().unwrap());
    wire.sum = Md5::new_with_prefix(start.to_be_bytes());
    (wire, start)
}

fn wait_for_last(server: &Server, tid: u64) {
    let mut client = RawClient::connect(server.address, Speaks::Z5).unwrap();
    client.call("register", vec![text("1"), Value::Bool(true)]).unwrap().unwrap();
    let deadline = Instant::now() + WAIT;
    loop {
        let last = client.call("lastTransaction", vec![]).unwrap().unwrap();
        if last.id() == tid {
            return;
        }
        assert!(Instant::now() < deadline, "{last:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn only_what_is_whole_is_stored() {
    let (mut server, listener) = secondary();
    let (mut wire, start) = accept(&listener, b"zrs2.0");
    assert_eq!(start, 0);
    wire.send_transaction(1000, b"first", None);
    wait_for_last(&server, 1000);
    // Nothing comes, so it shows that it is there.
    assert_eq!(wire.frame().as_deref(), Some(&b""[..]));
    wire.send_transaction(2000, b"second", Some(&[0; 16]));
    server.wait_for_log("does not fit its content");
    let (mut wire, start) = accept(&listener, b"zrs2.0");
    assert_eq!(start, 1000);
    wire.begin_transaction(2000, b"second");
    drop(wire);
    server.wait_for_log("the connection to the primary is lost");
    let (mut wire, start) = accept(&listener, b"zrs2.0");
    assert_eq!(start, 1000);
    wire.send_transaction(2000, b"second", None);
    wait_for_last(&server, 2000);
    // Whoever kills it loses nothing.
    server.kill();
    drop(wire);
    server.start_again();
    let (mut wire, start) = accept(&listener, b"zrs2.0");
    assert_eq!(start, 2000);
    wire.send_transaction(3000, b"third", None);
    wait_for_last(&server, 3000);
    let stopping = std::thread::spawn(move || {
        assert!(server.stop().success());
    });
    while wire.frame().is_some() {}
    stopping.join().unwrap();
}

#[test]
fn a_primary_that_makes_no_sense_is_left() {
    let (server, listener) = secondary();
    let nonsense: [(&[u8], &str); 3] = [
        (b"\0\0\0\x01.", "cannot be understood: pickle"),
        (b"\0\0\0\x08(U\x01C(tt.", "cannot be understood: a tuple of 0, not 1"),
        (b"HTTP/1.1 400 Bad Request\r\n", "a frame of 1213486160 bytes"),
    ];
    for (bytes, why) in nonsense {
        let (mut wire, _) = accept(&listener, b"zrs2.0");
        wire.stream.write_all(bytes).unwrap();
        server.wait_for_log(why);
        while wire.frame().is_some() {}
    }
    // A blob, although it has said that it keeps none.
    let (mut wire, _) = accept(&listener, b"zrs2.0");
    let mut head = Vec::new();
    let meta = TransactionMeta::default();
    Transaction { tid: Tid(5), status: b' ', meta }.put(&mut head).unwrap();
    wire.send(&head);
    let mut head = Vec::new();
    RecordHead { oid: Oid(1), tid: Tid(5), data_txn: None, blocks: Some(1) }.put(&mut head);
    wire.send(&head);
    wire.send(b"cZODB.blob\nBlob\n.N.");
    server.wait_for_log("cannot be stored");
    // Nor one whose transaction is too long for a file. The connection ends at once, whatever is sent then.
    let (mut wire, _) = accept(&listener, b"zrs2.0");
    let meta = TransactionMeta { user: vec![b'x'; 70_000], ..TransactionMeta::default() };
    let mut head = Vec::new();
    Transaction { tid: Tid(5), status: b' ', meta }.put(&mut head).unwrap();
    wire.send(&head);
    let mut commit = Vec::new();
    put_commit(&wire.sum.clone().finalize(), &mut commit);
    wire.send(&commit);
    while wire.frame().is_some() {}
    server.wait_for_log("user name too long");
    // It goes on all the same.
    drop(wire);
    let (mut wire, start) = accept(&listener, b"zrs2.0");
    assert_eq!(start, 0);
    wire.send_transaction(1000, b"first", None);
    wait_for_last(&server, 1000);
}

#[test]
fn a_secondary_is_only_read() {
    let (server, listener) = secondary();
    let (_wire, _) = accept(&listener, b"zrs2.0");
    let mut client = RawClient::connect(server.address, Speaks::Z5).unwrap();
    let (class, _) = client.call("register", vec![text("1"), Value::Bool(false)]).unwrap().unwrap_err();
    assert!(class.contains("ReadOnlyError"), "{class}");
}
