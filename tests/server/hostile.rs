//! Malformed input and abuse: during an attack an honest client continues without an error, the server's memory stays
//! bounded, and afterwards all descriptors and threads are released.

mod connections;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::support::client::{RawClient, Speaks, record};
use crate::support::pickle::{Dialect, Value, dumps, id, text};
use crate::support::process::Server;

const MB: u64 = 1 << 20;

/// An honest client: commits and loads continuously, checking every answer.
struct Honest {
    rounds: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u64, Duration)>,
}

impl Honest {
    fn start(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let rounds = Arc::new(AtomicU64::new(0));
        let made = rounds.clone();
        let thread = thread::spawn(move || {
            let (mut client, _) = RawClient::register(address, Speaks::Z5).expect("register");
            let oid = client.new_oids(1).expect("new_oids")[0];
            let mut tid = 0;
            let mut count = 0;
            let mut longest = Duration::ZERO;
            while !stopped.load(Ordering::Relaxed) {
                let started = Instant::now();
                let data = record(format!("honest {count}").as_bytes());
                tid = client.commit(&[(oid, tid, &data)]).expect("connection").expect("commit");
                let load = client.queue_load(oid);
                client.flush().expect("send");
                let loaded = client.answer(load).expect("connection").expect("load");
                assert_eq!((loaded.tuple()[0].bytes(), loaded.tuple()[1].id()), (data.as_slice(), tid));
                longest = longest.max(started.elapsed());
                count += 1;
                made.store(count, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(2));
            }
            (count, longest)
        });
        Self { rounds, stop, thread }
    }

    /// Waits for this number of further rounds.
    fn wait_for_rounds(&self, more: u64) {
        let wanted = self.rounds.load(Ordering::Relaxed) + more;
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.rounds.load(Ordering::Relaxed) < wanted {
            assert!(Instant::now() < deadline && !self.thread.is_finished(), "the honest client is stuck");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends the client; returns the number of its rounds and the longest one.
    fn finish(self) -> (u64, Duration) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the honest client met an error")
    }
}

/// Runs the attack beside an honest client, and checks the server afterwards.
fn under_attack(growth_max: u64, attack: impl FnOnce(&Server)) {
    under_attack_with("", growth_max, attack);
}

fn under_attack_with(zeo: &str, growth_max: u64, attack: impl FnOnce(&Server)) {
    let mut server = Server::start_with(zeo);
    let honest = Honest::start(server.address);
    honest.wait_for_rounds(3);
    let (fds, threads, rss) = (server.fd_count(), server.thread_count(), server.rss());
    server.reset_peak();
    attack(&server);
    honest.wait_for_rounds(3);
    let peak = server.peak_rss();
    let (rounds, longest) = honest.finish();
    assert!(server.is_alive(), "the server is gone: {}", server.talk());
    println!("honest client: {rounds} rounds, longest {longest:?}; memory {} -> {} MB", rss / MB, peak / MB);
    assert!(longest < Duration::from_secs(60), "the honest client waited {longest:?}");
    assert!(peak < rss + growth_max, "memory grew from {} MB to {} MB", rss / MB, peak / MB);
    // Ended connections are gone, with their threads. One more descriptor may belong to a log or a temporary file in
    // use.
    let deadline = Instant::now() + Duration::from_secs(60);
    while server.fd_count() > fds + 1 || server.thread_count() > threads + 1 {
        assert!(
            Instant::now() < deadline,
            "{fds} -> {} descriptors, {threads} -> {} threads",
            server.fd_count(),
            server.thread_count()
        );
        thread::sleep(Duration::from_millis(20));
    }
    let log = server.log();
    assert!(!log.contains("panicked"), "a panic: {}", server.talk());
    assert!(server.stop().success(), "the orderly end");
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.address).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("timeout");
    stream.set_write_timeout(Some(Duration::from_secs(60))).expect("timeout");
    stream
}

/// Reads the greeting and answers it.
fn greeted(server: &Server) -> TcpStream {
    let mut stream = connect(server);
    let mut greeting = [0; 6];
    stream.read_exact(&mut greeting).expect("greeting");
    stream.write_all(b"\0\0\0\x02Z5").expect("handshake");
    stream
}

fn registered(server: &Server) -> RawClient {
    RawClient::register(server.address, Speaks::Z5).expect("register").0
}

/// Sends bytes that the server may refuse at any moment.
fn try_send(stream: &mut TcpStream, bytes: &[u8]) {
    let _ = stream.write_all(bytes);
}

fn frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes().to_vec();
    frame.extend_from_slice(payload);
    frame
}

/// The server must close the connection in time; earlier data is dropped.
fn expect_hang_up(stream: &mut TcpStream, what: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("timeout");
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => assert!(Instant::now() < deadline, "{what}: goes on talking"),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return,
            Err(error) => panic!("{what}: the connection stays open ({error})"),
        }
    }
}

fn garbage(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

fn message(method: &str, args: Vec<Value>, is_async: bool) -> Vec<u8> {
    let message = Value::Tuple(vec![Value::Int(7), Value::Bool(is_async), text(method), Value::Tuple(args)]);
    dumps(&message, Dialect::Python3)
}

#[test]
fn garbage_at_every_stage() {
    under_attack(64 * MB, |server| {
        for seed in 1..40 {
            let bytes = garbage(1 + seed as usize * 97, seed);
            let mut before = connect(server);
            try_send(&mut before, &bytes);
            let mut framed = connect(server);
            try_send(&mut framed, &frame(&bytes));
            expect_hang_up(&mut framed, "garbage for a handshake");
            let mut after = greeted(server);
            try_send(&mut after, &frame(&bytes));
            expect_hang_up(&mut after, "garbage for a first message");
            let mut client = registered(server);
            client.queue_frame(&bytes);
            let _ = client.flush();
            expect_hang_up(&mut client.stream().try_clone().expect("clone"), "garbage for a message");
        }
    });
}

#[test]
fn wrong_handshakes() {
    under_attack(64 * MB, |server| {
        let long = vec![b'Z'; 100_000];
        let wrong: [&[u8]; 9] =
            [b"", b"Z", b"Z9", b"z5", b"Z55", b"HTTP", b"Z\xff\xff", b"\x80\x03N.", &long];
        for handshake in wrong {
            let mut stream = connect(server);
            try_send(&mut stream, &frame(handshake));
            expect_hang_up(&mut stream, &format!("handshake {:?}", String::from_utf8_lossy(handshake)));
        }
        let mut http = connect(server);
        try_send(&mut http, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        drop(http);
    });
}

#[test]
fn half_frames() {
    under_attack(96 * MB, |server| {
        let whole = frame(&message("lastTransaction", vec![], false));
        let mut open = Vec::new();
        for cut in 1..whole.len() {
            let mut stream = greeted(server);
            try_send(&mut stream, &whole[..cut]);
            open.push(stream);
            let mut client = registered(server);
            client.queue_raw(&whole[..cut]);
            let _ = client.flush();
        }
        thread::sleep(Duration::from_millis(300));
    });
}

#[test]
fn huge_lengths() {
    // An announced length takes no memory: only received bytes do.
    under_attack(256 * MB, |server| {
        let mut open = Vec::new();
        for prefix in [0x7fff_ffff_u32, 0xffff_ffff, 0x8000_0000, 0x4000_0000, 0x1000_0001] {
            for _ in 0..8 {
                let mut stream = greeted(server);
                try_send(&mut stream, &prefix.to_be_bytes());
                try_send(&mut stream, &vec![0; MB as usize]);
                open.push(stream);
                let mut client = registered(server);
                client.queue_raw(&prefix.to_be_bytes());
                client.queue_raw(&[b'x'; 1000]);
                let _ = client.flush();
            }
        }
        thread::sleep(Duration::from_millis(500));
    });
}

#[test]
fn unknown_methods() {
    under_attack(64 * MB, |server| {
        let methods = ["__class__", "_private", "no_such_method", "", "close", "register_object", "\u{20ac}"];
        for method in methods {
            for is_async in [false, true] {
                let mut stream = greeted(server);
                try_send(&mut stream, &frame(&message(method, vec![], is_async)));
                let mut client = registered(server);
                client.queue_frame(&message(method, vec![Value::Int(1)], is_async));
                let _ = client.flush();
                // Python's server closes the connection; an error reply is allowed too, so only an answer is required.
                let mut stream = client.stream().try_clone().expect("clone");
                if !is_async {
                    assert!(
                        stream.read(&mut [0; 16]).is_ok_and(|_| true) || method.is_empty(),
                        "no answer to {method}"
                    );
                }
            }
        }
        // Before `register` all other calls are refused.
        for method in ["lastTransaction", "new_oids", "vote", "get_info", "loadBefore", "server_status"] {
            let mut stream = greeted(server);
            try_send(&mut stream, &frame(&message(method, vec![], false)));
            expect_hang_up(&mut stream, method);
        }
    });
}

const METHODS: [&str; 27] = [
    "register",
    "get_info",
    "getInvalidations",
    "history",
    "record_iternext",
    "loadBefore",
    "loadSerial",
    "getTid",
    "lastTransaction",
    "new_oids",
    "server_status",
    "set_client_label",
    "tpc_begin",
    "storea",
    "restorea",
    "checkCurrentSerialInTransaction",
    "deleteObject",
    "vote",
    "tpc_finish",
    "tpc_abort",
    "iterator_start",
    "iterator_next",
    "iterator_record_start",
    "iterator_record_next",
    "iterator_gc",
    "ping",
    "loadEx",
];

#[test]
fn wrong_arguments() {
    under_attack(96 * MB, |server| {
        let odd = [
            vec![],
            vec![Value::None],
            vec![Value::Int(-1)],
            vec![Value::Int(i64::MAX)],
            vec![text("text"), text("text")],
            vec![Value::Bytes(b"short".to_vec()), Value::None],
            vec![id(1), Value::Bytes(vec![0; 9])],
            vec![Value::Bytes(vec![0; 200_000])],
            vec![Value::Dict(vec![(text("a"), Value::List(vec![Value::None; 100]))]); 3],
            vec![Value::Float(f64::NAN); 6],
            vec![Value::Tuple(vec![]); 12],
            vec![Value::None; 300],
        ];
        for method in METHODS {
            for args in &odd {
                for is_async in [false, true] {
                    let mut client = registered(server);
                    client.set_read_timeout(Duration::from_secs(60));
                    client.queue_frame(&message(method, args.clone(), is_async));
                    let _ = client.flush();
                    if is_async {
                        continue;
                    }
                    // Its answer, an error, or the end of the connection: anything but silence.
                    if let Err(error) = client.frame() {
                        let silence =
                            matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
                        assert!(!silence, "no answer to {method}{args:?}");
                    }
                }
            }
        }
    });
}

/// Pickles that cost more than their length, exhaust the stack, or name functions that must not be called.
fn bad_pickles() -> Vec<(&'static str, Vec<u8>)> {
    let with = |head: &[u8], unit: &[u8], count: usize, tail: &[u8]| {
        let mut pickle = head.to_vec();
        for _ in 0..count {
            pickle.extend_from_slice(unit);
        }
        pickle.extend_from_slice(tail);
        pickle
    };
    let mut laughs = b"\x80\x03]q\x00.".to_vec();
    laughs.truncate(5);
    for level in 0..60u8 {
        // Each list contains the one before ten times.
        laughs.extend_from_slice(b"](");
        laughs.extend_from_slice(&[b'h', level].repeat(10));
        laughs.extend_from_slice(&[b'e', b'q', level + 1]);
    }
    laughs.push(b'.');
    let mut strings = b"\x80\x03B\x00\x00\x10\x00".to_vec();
    strings.extend_from_slice(&vec![b'x'; 1 << 20]);
    strings.extend_from_slice(b"q\x00(");
    strings.extend_from_slice(&b"h\x00".repeat(200_000));
    strings.extend_from_slice(b"t.");
    vec![
        ("deep lists", with(b"\x80\x03", b"](", 500_000, &with(b"", b"e", 500_000, b"."))),
        ("deep tuples", with(b"\x80\x03N", b"\x85", 1_000_000, b".")),
        ("twenty million marks", with(b"\x80\x03", b"(", 20_000_000, b".")),
        ("twenty million duplicates", with(b"\x80\x03N", b"2", 20_000_000, b".")),
        ("marks only", with(b"\x80\x03", b"(", 1_000_000, b"t.")),
        ("billion laughs", laughs),
        ("one string two hundred thousand times", strings),
        ("duplicates", with(b"\x80\x03]", b"2", 1_000_000, b".")),
        ("doubling tuples", with(b"\x80\x03)", b"2\x86", 500_000, b".")),
        ("a list in itself", b"\x80\x03]q\x00h\x00a.".to_vec()),
        ("a huge long", with(b"\x80\x03\x8b\xff\xff\xff\x7f", b"\xff", 1000, b".")),
        ("a long long", with(b"\x80\x03\x8b\x40\x42\x0f\x00", b"\x7f", 1_000_000, b".")),
        ("a negative length", b"\x80\x03\x8b\xff\xff\xff\xff.".to_vec()),
        ("an integer of a million digits", with(b"I", b"9", 1_000_000, b"\n.")),
        ("bytes beyond the frame", b"\x80\x03B\xff\xff\xff\x7fabc.".to_vec()),
        ("text beyond the frame", b"\x80\x03X\xff\xff\xff\xffabc.".to_vec()),
        ("a 64-bit length", b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc.".to_vec()),
        ("a frame opcode beyond the frame", b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fN.".to_vec()),
        ("text that is no UTF-8", b"\x80\x03X\x02\0\0\0\xff\xfe.".to_vec()),
        ("an empty stack", b"\x80\x03.".to_vec()),
        ("pop from nothing", b"\x80\x030.".to_vec()),
        ("append to nothing", b"\x80\x03Na.".to_vec()),
        ("setitems without a mark", b"\x80\x03}u.".to_vec()),
        ("no stop", b"\x80\x03N".to_vec()),
        ("a memo that is not there", b"\x80\x03h\x05.".to_vec()),
        ("a memo at four thousand million", b"\x80\x03Nr\xff\xff\xff\xff.".to_vec()),
        ("a textual memo", with(b"Np", b"9", 100_000, b"\n.")),
        ("os.system", b"\x80\x03cos\nsystem\nX\x04\0\0\0true\x85R.".to_vec()),
        ("a class by name", b"\x80\x03(X\x02\0\0\0osX\x06\0\0\0system\x93.".to_vec()),
        ("an extension", b"\x80\x03\x82\x01.".to_vec()),
        ("a persistent reference", b"\x80\x03N\x51.".to_vec()),
        ("protocol 250", b"\x80\xfaN.".to_vec()),
        ("an endless line", with(b"S'", b"a", 3_000_000, b"")),
        ("a string with bad escapes", b"S'\\xzz\\'\n.".to_vec()),
        ("a message of three", b"\x80\x03K\x01\x89X\x04\0\0\0ping\x87.".to_vec()),
        ("a message that is a number", b"\x80\x03K\x01.".to_vec()),
        ("a message with a list for a method", b"\x80\x03(K\x01\x89])t.".to_vec()),
        ("arguments that are a number", b"\x80\x03(K\x01\x89X\x04\0\0\0pingK\x01t.".to_vec()),
    ]
}

#[test]
fn bad_pickles_cost_nothing() {
    under_attack(192 * MB, |server| {
        for (what, pickle) in bad_pickles() {
            let started = server.cpu_time();
            let mut first = greeted(server);
            try_send(&mut first, &frame(&pickle));
            expect_hang_up(&mut first, what);
            let mut client = registered(server);
            client.queue_frame(&pickle);
            let _ = client.flush();
            expect_hang_up(&mut client.stream().try_clone().expect("clone"), what);
            let took = server.cpu_time() - started;
            assert!(took < Duration::from_secs(2), "{what} took {took:?} of the processor");
        }
    });
}

fn bad_msgpacks() -> Vec<(&'static str, Vec<u8>)> {
    let with =
        |head: &[u8], unit: &[u8], count: usize, tail: &[u8]| [head, &unit.repeat(count), tail].concat();
    vec![
        ("deep arrays", with(b"", b"\x91", 1_000_000, b"\xc0")),
        ("twenty million arrays in each other", with(b"", b"\x91", 20_000_000, b"\xc0")),
        ("deep maps", with(b"", b"\x81\xc0", 500_000, b"\xc0")),
        ("an array of four thousand million", b"\xdd\xff\xff\xff\xff\xc0".to_vec()),
        ("a map of four thousand million", b"\xdf\xff\xff\xff\xff\xc0".to_vec()),
        ("arrays of four thousand million in each other", with(b"", b"\xdd\xff\xff\xff\xff", 1000, b"\xc0")),
        ("bytes beyond the frame", b"\xc6\xff\xff\xff\xffabc".to_vec()),
        ("text beyond the frame", b"\xdb\x7f\xff\xff\xffabc".to_vec()),
        ("an extension", b"\xc9\xff\xff\xff\xff\x01abc".to_vec()),
        ("text that is no UTF-8", b"\x94\x01\xc2\xa2\xff\xfe\x90".to_vec()),
        ("a reserved byte", b"\xc1".to_vec()),
        ("nothing", b"".to_vec()),
        ("two values", b"\xc0\xc0".to_vec()),
        ("a million small values", with(b"\xdd\x00\x0f\x42\x40", b"\x01", 1_000_000, b"")),
        ("a message of three", b"\x93\x01\xc2\xa4ping".to_vec()),
        ("a message with a number for a method", b"\x94\x01\xc2\x05\x90".to_vec()),
    ]
}

#[test]
fn bad_msgpack_costs_nothing() {
    under_attack_with("", 192 * MB, |server| {
        for (what, message) in bad_msgpacks() {
            let started = server.cpu_time();
            let mut stream = connect(server);
            stream.read_exact(&mut [0; 6]).expect("greeting");
            // The client may choose msgpack, whatever the greeting offers.
            stream.write_all(b"\0\0\0\x02M5").expect("handshake");
            try_send(&mut stream, &frame(&message));
            expect_hang_up(&mut stream, what);
            let took = server.cpu_time() - started;
            assert!(took < Duration::from_secs(2), "{what} took {took:?} of the processor");
        }
    });
}
