//! Whole connections: a real session of a real server, over a pair of sockets. For all bytes from a peer, before and
//! after `register` and authentication, the session ends when the peer closes the connection, without a panic; it sends
//! only frames, and an unregistered peer gets no data of a storage.
//!
//! The first byte selects the kind of client, the second how far the valid beginning goes; then come payloads, which
//! are sent as frames (with codes, if there is a key), or raw bytes.

mod seeds;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use runzeo::auth::{Protocols, Settings};
use runzeo::internal::base::clock::TimeSource;
use runzeo::internal::net::stream::Stream;
use runzeo::internal::server::Server;
use runzeo::internal::server::connection::Connection;
use runzeo::internal::server::hosted::{Hosted, HostedOptions};
use runzeo::internal::server::limits::Limits;
use runzeo::internal::server::outbox::Outbox;
use runzeo::internal::server::policy::{Authentication, Policy, PolicyOptions};
use runzeo::internal::server::record_memory::RecordMemory;
use runzeo::internal::server::session::serve;
use runzeo::internal::server::workers::Pools;
use runzeo::internal::storage::mapping::MappingStorage;
use runzeo::internal::wire::frame::put_frame;
use runzeo::internal::wire::mac::RunningMac;
use runzeo::internal::wire::protocol::Greeting;
use runzeo::storage::file::{FileStorage, FileStorageOptions};
use runzeo::storage::prelude::*;
pub use seeds::seeds;
use sha1::{Digest, Sha1};

const GENERATIONS: [&[u8]; 8] = [b"Z5", b"M5", b"Z4", b"Z3101", b"Z309", b"Z308", b"Z200", b"Z310"];
/// The stack size of the server's own sessions.
const STACK_LEN: usize = 256 << 10;
/// After this number of connections the storages are created again.
const CONNECTIONS_MAX: usize = 2000;
/// Ends a payload.
const END: &[u8] = b"\xff\xfe";

const WITH_PASSWORD: u8 = 0x08;
const RAW: u8 = 0x10;
const READ_ONLY: u8 = 0x20;
const WRONG_CODES: u8 = 0x40;

/// How far the valid beginning goes.
const HANDSHAKE: u8 = 1;
const AUTHENTICATED: u8 = 2;
const REGISTERED: u8 = 3;
const IN_TRANSACTION: u8 = 4;

/// A server with a file storage, and a read-only one in memory.
struct World {
    server: Arc<Server>,
    policy: Arc<Policy>,
    storages: Vec<Arc<dyn Storage>>,
    directory: PathBuf,
    connections: usize,
}

impl World {
    fn start(protected: bool) -> World {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // In memory, because every commit waits for the disk.
        let directory = super::directory(&format!("session-{number}"));
        let file = FileStorage::open(FileStorageOptions {
            blob_dir: Some(directory.join("blobs")),
            ..FileStorageOptions::new(directory.join("Data.fs"))
        })
        .expect("a file storage");
        let storages: Vec<Arc<dyn Storage>> =
            vec![Arc::new(file), Arc::new(MappingStorage::new("memory".into()))];
        let hosted = storages.iter().zip(["1", "2"]).map(|(storage, name)| {
            let options = HostedOptions {
                read_only: name == "2",
                invalidation_queue_size: 10,
                invalidation_age: None,
                transaction_timeout: None,
                client_conflict_resolution: true,
                transaction_objects: None,
            };
            let pools = Pools::start(RecordMemory::default(), &TimeSource::default()).expect("threads");
            Hosted::new(name.into(), Arc::clone(storage), options, pools, TimeSource::default())
                .expect("hosted")
        });
        let authentication = protected
            .then(|| Arc::new(Authentication { name: "digest".into(), protocol: digest(&directory) }));
        let policy = Policy::new(PolicyOptions { authentication, ..PolicyOptions::default() });
        let server = Server::new(
            hosted.collect(),
            Greeting::new(false),
            Limits::default(),
            10_000,
            TimeSource::default(),
        )
        .expect("a server");
        World { server, policy, storages, directory, connections: 0 }
    }

    fn stop(&self) {
        self.server.stop();
        self.storages.iter().for_each(|storage| _ = storage.close());
        // The directory is not needed any more.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn secret() -> String {
    hex(&Sha1::digest("foo:r:bar"))
}

fn digest(directory: &std::path::Path) -> Arc<dyn runzeo::auth::Protocol> {
    let database = directory.join("passwords");
    std::fs::write(&database, format!("realm r\nfoo: {}\n", secret())).expect("passwords");
    let kind = *Protocols::builtin().get("digest").expect("digest");
    (kind.open)(&Settings { database, realm: Some("r".into()) }).expect("digest")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Connection ids, as from an acceptor.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Set by a panic, because a session catches its own panics.
static PANICKED: AtomicBool = AtomicBool::new(false);

fn notice_panics() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICKED.store(true, Ordering::SeqCst);
            before(info);
        }));
    });
}

/// The peer's side.
struct Peer {
    socket: UnixStream,
    /// Bytes to be sent together: in small pieces they would not fit into the socket.
    out: Vec<u8>,
    /// All received bytes.
    received: Vec<u8>,
    /// Offset of the first byte that was not examined.
    seen: usize,
    codes: Option<RunningMac>,
}

impl Peer {
    fn send(&mut self, payload: &[u8], break_code: bool) {
        let begun = self.out.len();
        match &mut self.codes {
            None => put_frame(payload, &mut self.out),
            Some(codes) => {
                let mut frame = Vec::new();
                put_frame(payload, &mut frame);
                codes.sign_frames(&frame, &mut self.out);
                if let (true, Some(byte)) = (break_code, self.out.get_mut(begun + 4 + payload.len() % 20)) {
                    *byte ^= 1;
                }
            }
        }
    }

    fn flush(&mut self) {
        // The session may have closed the connection.
        let _ = self.socket.write_all(&std::mem::take(&mut self.out));
    }

    /// The next payload; `None` if the session has ended.
    fn receive(&mut self) -> Option<Vec<u8>> {
        self.flush();
        loop {
            let rest = &self.received[self.seen..];
            if let Some((payload, len)) = first_frame(rest) {
                let payload = payload.to_vec();
                self.seen += len;
                return Some(payload);
            }
            let mut chunk = [0; 4096];
            match self.socket.read(&mut chunk) {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.received.extend_from_slice(&chunk[..count]),
            }
        }
    }

    /// Receives up to the end. A reset is an end too.
    fn receive_all(&mut self) {
        let _ = self.socket.read_to_end(&mut self.received);
    }
}

/// A payload, and the length of its frame.
fn first_frame(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let prefix = u32::from_be_bytes(*bytes.first_chunk()?);
    let head = if prefix >> 31 == 1 { 24 } else { 4 };
    let len = head + (prefix & 0x7fff_ffff) as usize;
    Some((bytes.get(head..len)?, len))
}

pub fn run(data: &[u8]) {
    let Some((&[who, stage], script)) = data.split_first_chunk() else { return };
    static WORLDS: [Mutex<Option<World>>; 2] = [Mutex::new(None), Mutex::new(None)];
    let protected = who & WITH_PASSWORD != 0;
    let mut world = WORLDS[usize::from(protected)].lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(old) = world.take_if(|world| world.connections >= CONNECTIONS_MAX) {
        old.stop();
    }
    let world = world.get_or_insert_with(|| World::start(protected));
    world.connections += 1;
    notice_panics();
    connection(world, who, stage % 5, script);
    assert!(!PANICKED.swap(false, Ordering::SeqCst), "a panic in the server");
}

/// Runs one connection; returns the bytes that the peer received.
fn connection(world: &World, who: u8, stage: u8, script: &[u8]) -> Vec<u8> {
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    // A timeout, so that no failure blocks for ever.
    ours.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
    theirs.set_write_timeout(Some(Duration::from_millis(200))).expect("a limit");
    let mut peer = Peer { socket: ours, out: Vec::new(), received: Vec::new(), seen: 0, codes: None };
    let stream = Stream::new(theirs.into(), false, None, None).expect("a stream");
    let outbox = Arc::new(Outbox::new(stream, Limits::default().unsent));
    let connection = Arc::new(Connection::new(
        NEXT_ID.fetch_add(1, Ordering::Relaxed),
        outbox,
        "fuzz".into(),
        SystemTime::now(),
    ));
    let pass = world.server.admission().admit(&connection, None, &world.policy).expect("room for one");
    let served = Arc::clone(&world.server);
    let session = move || serve(&served, connection, pass);
    // An authenticating client has to wait for answers. All others send everything before the session starts, which
    // saves a thread.
    if who & WITH_PASSWORD != 0 && stage >= AUTHENTICATED {
        let session = thread::Builder::new().stack_size(STACK_LEN).spawn(session).expect("a thread");
        speak(&mut peer, who, stage, script);
        peer.receive_all();
        assert!(session.join().is_ok(), "the session panicked");
    } else {
        speak(&mut peer, who, stage, script);
        session();
        peer.receive_all();
    }
    let asks = |word: &[u8]| script.windows(word.len()).any(|bytes| bytes == word);
    let registers = stage >= REGISTERED || asks(b"register");
    check(&peer.received, registers || asks(b"auth_") || asks(b"getAuth"));
    peer.received
}

/// Sends the valid beginning, and then the script.
fn speak(peer: &mut Peer, who: u8, stage: u8, script: &[u8]) {
    begin(peer, who, stage);
    if who & RAW != 0 {
        peer.out.extend_from_slice(script);
    } else {
        let mut rest = script;
        while !rest.is_empty() {
            let len = rest.windows(END.len()).position(|bytes| bytes == END).unwrap_or(rest.len());
            peer.send(&rest[..len], who & WRONG_CODES != 0);
            rest = rest.get(len + END.len()..).unwrap_or_default();
        }
    }
    peer.flush();
    let _ = peer.socket.shutdown(std::net::Shutdown::Write);
}

/// The server must send frames, of which the last may be cut off, and few to an unregistered peer: the greeting, the
/// answers to the authentication, perhaps the answer to `ruok`.
fn check(mut received: &[u8], is_somebody: bool) {
    let mut count = 0;
    while let Some((_, len)) = first_frame(received) {
        received = &received[len..];
        count += 1;
    }
    assert!(is_somebody || count <= 4, "{count} frames for a stranger");
}

/// The valid beginning.
fn begin(peer: &mut Peer, who: u8, stage: u8) {
    if stage < HANDSHAKE {
        return;
    }
    let generation = GENERATIONS[usize::from(who & 7)];
    peer.send(generation, false);
    let msgpack = generation == b"M5";
    if stage >= AUTHENTICATED && who & WITH_PASSWORD != 0 {
        authenticate(peer);
    }
    let storage = if who & READ_ONLY != 0 { b'2' } else { b'1' };
    if stage >= REGISTERED {
        match msgpack {
            true => {
                peer.send(&[b"\x94\x01\xc2\xa8register\x92\xa1", &[storage][..], b"\xc2"].concat(), false)
            }
            false => {
                peer.send(&[b"(K\x01I00\nU\x08register(U\x01", &[storage][..], b"I00\ntt."].concat(), false)
            }
        }
    }
    if stage >= IN_TRANSACTION {
        match msgpack {
            true => peer.send(b"\x94\x00\xc3\xa9tpc_begin\x96\x05\xc4\x01u\xc4\x01d\x80\xc0\xa1 ", false),
            false => peer.send(b"(K\x02I01\nU\x09tpc_begin(K\x05U\x01uU\x01d}NU\x01 tt.", false),
        }
    }
}

/// The authentication of ZEO 4. With M5 or Z5 it is refused.
fn authenticate(peer: &mut Peer) {
    peer.receive();
    peer.send(b"(K\x01I00\nU\x12auth_get_challenge)t.", false);
    let Some(reply) = peer.receive() else { return };
    let strings = strings_in(&reply);
    let [.., challenge, nonce] = strings.as_slice() else { return };
    let secret = secret();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let response = hex(&Sha1::digest(format!("{secret}:{}", text(challenge))));
    let mut call = b"(K\x02I00\nU\x0dauth_response((U\x03fooU".to_vec();
    call.push(challenge.len() as u8);
    call.extend_from_slice(challenge);
    call.push(b'U');
    call.push(response.len() as u8);
    call.extend_from_slice(response.as_bytes());
    call.extend_from_slice(b"ttt.");
    peer.send(&call, false);
    if peer.receive().is_some() {
        let key = [&Sha1::digest(format!("{secret}:{}", text(nonce)))[..], secret.as_bytes()].concat();
        peer.codes = Some(RunningMac::new(&key));
    }
}

/// The longer strings in a reply, in order.
fn strings_in(reply: &[u8]) -> Vec<Vec<u8>> {
    use runzeo::auth::Value;
    use runzeo::internal::pickle::read::{Accept, read};
    let Ok(tree) = read(reply, Accept::RECORD) else { return Vec::new() };
    let Ok(Value::Tuple(parts)) = Value::from_tree(&tree, tree.root()) else { return Vec::new() };
    match parts.last() {
        Some(Value::Tuple(items)) => items.iter().filter_map(|item| Some(item.string()?.to_vec())).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The valid beginnings reach their stage; otherwise the messages after them would not be tested.
    #[test]
    fn beginnings() {
        let answers = |who: u8, script: &[u8]| {
            let world = World::start(who & WITH_PASSWORD != 0);
            let received = connection(&world, who, IN_TRANSACTION, script);
            world.stop();
            String::from_utf8_lossy(&received).into_owned()
        };
        let status = b"(K\x07I00\nU\x0dserver_status)t.";
        for who in [0, 2, 3, 5, 2 | WITH_PASSWORD, 5 | WITH_PASSWORD] {
            let text = answers(who, status);
            assert!(text.contains("connections"), "{who}: {text:?}");
        }
        let text = answers(1, b"\x94\x07\xc2\xadserver_status\x90");
        assert!(text.contains("connections"), "{text:?}");
        let text = answers(WITH_PASSWORD, status);
        assert!(!text.contains("connections"), "{text:?}");
        let text = answers(2 | WITH_PASSWORD | WRONG_CODES, status);
        assert!(!text.contains("connections"), "{text:?}");
    }
}
