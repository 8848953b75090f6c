//! Which calls are allowed when. Every method that the server knows, in every dialect: before `register`, with and
//! without passwords, only the calls that lead to it are answered; and read-only storages are never changed.
//!
//! The methods are those of [`Request`]: a new one does not compile here until it is classified, and fails the test
//! until it is called.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use runzeo::auth::Value;
use runzeo::auth::{Protocols, Settings};
use runzeo::internal::base::clock::TimeSource;
use runzeo::internal::net::stream::Stream;
use runzeo::internal::pickle::Dialect;
use runzeo::internal::server::Server;
use runzeo::internal::server::connection::Connection;
use runzeo::internal::server::hosted::{Hosted, HostedOptions};
use runzeo::internal::server::limits::Limits;
use runzeo::internal::server::outbox::Outbox;
use runzeo::internal::server::policy::{Authentication, Policy, PolicyOptions};
use runzeo::internal::server::record_memory::RecordMemory;
use runzeo::internal::server::session::serve;
use runzeo::internal::server::workers::Pools;
use runzeo::internal::wire::answers::FromServer;
use runzeo::internal::wire::calls::Call as Sent;
use runzeo::internal::wire::frame::put_frame;
use runzeo::internal::wire::protocol::{Encoding, Generation, Greeting, Wire};
use runzeo::internal::wire::request::Request;
use runzeo::storage::file::{FileStorage, FileStorageOptions};
use runzeo::storage::prelude::*;
use tempfile::TempDir;

/// The effect of a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Class {
    /// Leads to `register`, and is answered before it.
    Needed,
    /// Ignored at any time.
    Ignored,
    /// Changes nothing.
    Reads,
    /// Changes the storage, or is a step of a change.
    Writes,
    /// A later step of a change: without the first step it is an error of its own.
    Continues,
    /// Removes old revisions. As in Python's server, clients with read access may call it, unless the storage itself is
    /// read-only.
    Packs,
    /// Looks at packs, or ends one: it leaves the storage as it is, and is for clients that may pack.
    Steers,
}

/// The number of a request among all, and its class.
fn classify(request: &Request<'_>) -> (usize, Class) {
    use Class::*;
    match request {
        Request::Register { .. } => (0, Needed),
        Request::GetAuthProtocol => (1, Needed),
        Request::GetInfo => (2, Reads),
        Request::GetSizeInfo => (3, Reads),
        Request::GetExtensionMethods => (4, Reads),
        // An unknown call ends the connection, registered or not.
        Request::Other { .. } => (5, Reads),
        Request::LastTransaction => (6, Reads),
        Request::Ping => (7, Reads),
        Request::ServerStatus => (8, Reads),
        Request::SetClientLabel { .. } => (9, Reads),
        Request::NewOid => (10, Writes),
        Request::NewOids { .. } => (11, Writes),
        Request::GetInvalidations { .. } => (12, Reads),
        Request::ZeoVerify { .. } => (13, Reads),
        Request::Verify { .. } => (14, Reads),
        Request::EndZeoVerify => (15, Reads),
        Request::LoadBefore { .. } => (16, Reads),
        Request::Load { .. } => (17, Reads),
        Request::LoadEx { .. } => (18, Reads),
        Request::ZeoLoad { .. } => (19, Reads),
        Request::LoadSerial { .. } => (20, Reads),
        Request::GetSerial { .. } => (21, Reads),
        Request::GetTid { .. } => (22, Reads),
        Request::History { .. } => (23, Reads),
        Request::RecordIternext { .. } => (24, Reads),
        Request::ModifiedInVersion { .. } => (25, Reads),
        Request::Versions { .. } => (26, Reads),
        Request::VersionEmpty { .. } => (27, Reads),
        Request::TpcBegin(_) => (28, Writes),
        Request::Store { .. } => (29, Writes),
        Request::CheckCurrentSerial { .. } => (30, Writes),
        Request::DeleteObject { .. } => (31, Writes),
        Request::Restore { .. } => (32, Writes),
        Request::Vote { .. } => (33, Writes),
        Request::TpcFinish { .. } => (34, Writes),
        Request::TpcAbort { .. } => (35, Writes),
        Request::StoreBlobStart => (36, Writes),
        Request::StoreBlobChunk { .. } => (37, Continues),
        Request::StoreBlobEnd { .. } => (38, Continues),
        Request::StoreBlobShared { .. } => (39, Writes),
        Request::SendBlob { .. } => (40, Reads),
        Request::Undo { .. } => (41, Writes),
        Request::UndoLog { .. } => (42, Reads),
        Request::UndoInfo { .. } => (43, Reads),
        // Always refused.
        Request::VersionOperation { .. } => (44, Continues),
        Request::Pack { .. } => (45, Packs),
        Request::IteratorStart { .. } => (46, Reads),
        Request::IteratorNext { .. } => (47, Reads),
        Request::IteratorRecordStart { .. } => (48, Reads),
        Request::IteratorRecordNext { .. } => (49, Reads),
        Request::IteratorGc { .. } => (50, Reads),
        Request::KeepAlive => (51, Ignored),
        // A wrong number of arguments. Before `register` only its own is answered.
        Request::Malformed { method, .. } if method == "register" => (52, Needed),
        Request::Malformed { .. } => (52, Reads),
        Request::Quiet => (53, Reads),
        Request::CancelPack { own_plan: true } => (54, Reads),
        Request::CancelPack { own_plan: false } => (54, Steers),
        Request::PlanPack { .. } => (55, Steers),
    }
}

/// One more than the last number.
const REQUESTS: usize = 56;

type Call = (&'static str, Vec<Value>);

/// Every method with valid arguments.
fn calls(wire: Wire) -> Vec<Call> {
    let id = |number: u64| Value::bytes(number.to_be_bytes());
    let (oid, tid, none) = (id(1), id(u64::MAX >> 1), id(0));
    let (txn, record) = (Value::Int(5), Value::bytes(*b"cm\nC\n.}."));
    let blob = Value::bytes(*b"cZODB.blob\nBlob\n.N.");
    let version = || wire.knows_versions().then(|| Value::text(""));
    // Where generations with versions have one, between the data and the transaction.
    let stored =
        |before: Vec<Value>| before.into_iter().chain(version()).chain([txn.clone()]).collect::<Vec<_>>();
    let (oid, tid, none, record) = (|| oid.clone(), || tid.clone(), || none.clone(), || record.clone());
    let begin = vec![
        txn.clone(),
        Value::text("u"),
        Value::text("d"),
        Value::Dict(vec![]),
        Value::None,
        Value::text(" "),
    ];
    let mut calls: Vec<Call> = vec![
        ("register", vec![Value::text("1"), Value::Bool(true)]),
        ("register", vec![]),
        ("getAuthProtocol", vec![]),
        ("get_info", vec![]),
        ("get_size_info", vec![]),
        ("getExtensionMethods", vec![]),
        ("no_such_method", vec![]),
        ("_private", vec![]),
        ("__class__", vec![]),
        ("lastTransaction", vec![]),
        ("ping", vec![]),
        ("server_status", vec![]),
        ("set_client_label", vec![Value::text("label")]),
        ("runzeo_quiet", vec![]),
        ("runzeo_cancel_pack", vec![]),
        ("runzeo_cancel_pack", vec![Value::Bool(true)]),
        ("runzeo_pack_plan", vec![Value::Float(1e9)]),
        ("new_oid", vec![]),
        ("new_oids", vec![Value::Int(2)]),
        ("getInvalidations", vec![tid()]),
        ("zeoVerify", vec![oid(), none(), Value::None]),
        ("endZeoVerify", vec![]),
        ("loadBefore", vec![oid(), tid()]),
        ("load", vec![oid()]),
        ("loadEx", vec![oid()]),
        ("zeoLoad", vec![oid()]),
        ("loadSerial", vec![oid(), tid()]),
        ("getSerial", vec![oid()]),
        ("getTid", vec![oid()]),
        ("record_iternext", vec![]),
        ("modifiedInVersion", vec![oid()]),
        ("versions", vec![]),
        ("versionEmpty", vec![Value::text("")]),
        ("tpc_begin", begin),
        ("storea", stored(vec![oid(), none(), record()])),
        ("checkCurrentSerialInTransaction", vec![oid(), none(), txn.clone()]),
        ("deleteObject", vec![oid(), none(), txn.clone()]),
        ("restorea", vec![oid(), none(), record(), Value::None, txn.clone()]),
        ("vote", vec![txn.clone()]),
        ("tpc_finish", vec![txn.clone()]),
        ("tpc_abort", vec![txn.clone()]),
        ("storeBlobStart", vec![]),
        ("storeBlobChunk", vec![Value::bytes(*b"chunk")]),
        ("storeBlobEnd", stored(vec![oid(), none(), blob.clone()])),
        ("storeBlobShared", stored(vec![oid(), none(), blob, Value::text("x.tmp")])),
        ("sendBlob", vec![oid(), tid()]),
        ("undoa", vec![Value::bytes(*b"AAAAAAAAAAE="), txn.clone()]),
        ("undo", vec![Value::bytes(*b"AAAAAAAAAAE="), txn]),
        ("undoLog", vec![Value::Int(0), Value::Int(-20)]),
        ("undoInfo", vec![Value::Int(0), Value::Int(-20), Value::None]),
        ("commitVersion", vec![]),
        ("pack", vec![Value::Float(1e10), Value::Bool(true)]),
        ("iterator_start", vec![Value::None, Value::None]),
        ("iterator_next", vec![Value::Int(0)]),
        ("iterator_record_start", vec![Value::Int(0), tid()]),
        ("iterator_record_next", vec![Value::Int(0)]),
        ("iterator_gc", vec![Value::List(vec![Value::Int(0)])]),
        // Of the authentication protocol, if there is one.
        ("auth_get_challenge", vec![]),
        ("auth_response", vec![Value::Tuple(vec![Value::text("foo"), Value::text("c"), Value::text("r")])]),
        (".reply", vec![]),
    ];
    if wire.knows_versions() {
        calls.push(("verify", vec![oid(), Value::text(""), none()]));
        calls.push(("history", vec![oid(), Value::text("")]));
    } else {
        calls.push(("verify", vec![oid(), none()]));
        calls.push(("history", vec![oid()]));
    }
    calls
}

const DIALECTS: [(&[u8], Generation, Encoding); 8] = [
    (b"Z5", Generation::Z5, Encoding::Pickle(Dialect::Python3)),
    (b"M5", Generation::Z5, Encoding::Msgpack),
    (b"Z4", Generation::Z4, Encoding::Pickle(Dialect::Python2)),
    (b"Z4", Generation::Z4, Encoding::Pickle(Dialect::Python3)),
    (b"Z3101", Generation::Z3101, Encoding::Pickle(Dialect::Python2)),
    (b"Z309", Generation::Z309, Encoding::Pickle(Dialect::Python2)),
    (b"Z308", Generation::Z308, Encoding::Pickle(Dialect::Python2)),
    (b"Z200", Generation::Z200, Encoding::Pickle(Dialect::Python2)),
];

fn wires() -> impl Iterator<Item = (&'static [u8], Wire)> {
    DIALECTS.into_iter().map(|(answer, generation, encoding)| (answer, Wire { generation, encoding }))
}

/// The number and class of the call for a peer of this wire.
fn class_of(wire: Wire, (method, args): &Call) -> (usize, Class) {
    let mut frame = Vec::new();
    wire.put_call(7, &Sent::Other { name: method, args }, &mut frame);
    classify(&wire.decode(&frame[4..]).expect("a message").request)
}

/// What is read-only.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum ReadOnly {
    Nothing,
    Registration,
    Listener,
    Server,
    Storage,
}

/// A server in this process with one file storage, which is not empty.
struct World {
    server: Arc<Server>,
    policy: Arc<Policy>,
    storage: Arc<dyn Storage>,
    read_only: ReadOnly,
    directory: TempDir,
}

impl World {
    fn new(read_only: ReadOnly, with_passwords: bool) -> World {
        let directory = tempfile::tempdir().expect("a directory");
        let options = FileStorageOptions {
            blob_dir: Some(directory.path().join("blobs")),
            ..FileStorageOptions::new(directory.path().join("Data.fs"))
        };
        let open = |options| -> Arc<dyn Storage> { Arc::new(FileStorage::open(options).expect("a storage")) };
        let mut world = World::serving(open(options.clone()), directory, ReadOnly::Nothing, false);
        world.fill();
        if read_only == ReadOnly::Storage {
            world.storage.close().expect("closed");
            let options = FileStorageOptions { read_only: true, ..options };
            world = World::serving(open(options), world.directory, read_only, with_passwords);
        } else {
            world = World::serving(world.storage, world.directory, read_only, with_passwords);
        }
        world
    }

    fn serving(
        storage: Arc<dyn Storage>,
        directory: TempDir,
        read_only: ReadOnly,
        with_passwords: bool,
    ) -> World {
        let options = HostedOptions {
            read_only: read_only == ReadOnly::Server,
            invalidation_queue_size: 10,
            invalidation_age: None,
            transaction_timeout: None,
            client_conflict_resolution: false,
            transaction_objects: None,
        };
        let hosted = Hosted::new(
            "1".into(),
            Arc::clone(&storage),
            options,
            Pools::start(RecordMemory::default(), &TimeSource::default()).unwrap(),
            TimeSource::default(),
        )
        .expect("hosted");
        let authentication = with_passwords.then(|| {
            let database = directory.path().join("passwords");
            fs::write(&database, format!("realm r\nfoo: {}\n", "0".repeat(40))).expect("passwords");
            let kind = *Protocols::builtin().get("digest").expect("digest");
            let protocol = (kind.open)(&Settings { database, realm: Some("r".into()) }).expect("digest");
            Arc::new(Authentication { name: "digest".into(), protocol })
        });
        let policy = Policy::new(PolicyOptions {
            authentication,
            read_only: read_only == ReadOnly::Listener,
            ..PolicyOptions::default()
        });
        let server =
            Server::new(vec![hosted], Greeting::new(false), Limits::default(), 10_000, TimeSource::default())
                .expect("a server");
        World { server, policy, storage, read_only, directory }
    }

    /// One committed object.
    fn fill(&self) {
        let (answer, wire) = wires().next().expect("a wire");
        let mut peer = Peer::connect(self, answer, wire);
        assert!(peer.register(false).is_ok());
        for (method, args) in calls(wire) {
            if ["tpc_begin", "storea", "vote", "tpc_finish"].contains(&method) {
                peer.call(method, &args).expect("an answer").expect("committed");
            }
        }
    }

    /// All files with their contents.
    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        fn collect(dir: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
            for entry in fs::read_dir(dir).expect("a directory").flatten() {
                let path = entry.path();
                // The lock and the note beside the file may change.
                let is_own = path
                    .extension()
                    .is_some_and(|suffix| ["lock", "index", "tmp"].iter().any(|own| suffix == *own));
                match path.is_dir() {
                    true => collect(&path, found),
                    false if is_own => {}
                    false => found.push((path.clone(), fs::read(&path).expect("a file"))),
                }
            }
        }
        let mut found = Vec::new();
        collect(self.directory.path(), &mut found);
        found.sort();
        found
    }
}

/// One client.
struct Peer {
    wire: Wire,
    socket: UnixStream,
    session: Option<JoinHandle<()>>,
}

impl Peer {
    /// Connects and answers the greeting.
    fn connect(world: &World, answer: &[u8], wire: Wire) -> Peer {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        ours.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
        let (server, policy) = (Arc::clone(&world.server), Arc::clone(&world.policy));
        let session = std::thread::spawn(move || {
            let stream = Stream::new(theirs.into(), false, None, None).expect("a stream");
            let outbox = Arc::new(Outbox::new(stream, Limits::default().unsent));
            let connection = Arc::new(Connection::new(server_id(), outbox, "peer".into(), SystemTime::now()));
            let pass = server.admission().admit(&connection, None, &policy).expect("room");
            serve(&server, connection, pass);
        });
        let mut peer = Peer { wire, socket: ours, session: Some(session) };
        assert_eq!(peer.payload().expect("a greeting"), b"Z5");
        let mut frame = Vec::new();
        put_frame(answer, &mut frame);
        peer.socket.write_all(&frame).expect("sent");
        peer
    }

    /// The next payload; `None` at the end of the connection.
    fn payload(&mut self) -> Option<Vec<u8>> {
        let mut prefix = [0; 4];
        self.socket.read_exact(&mut prefix).ok()?;
        let mut payload = vec![0; u32::from_be_bytes(prefix) as usize];
        self.socket.read_exact(&mut payload).ok()?;
        Some(payload)
    }

    /// The answer, or `None` if the connection ends instead.
    fn call(&mut self, method: &str, args: &[Value]) -> Option<Result<Value, String>> {
        let mut frame = Vec::new();
        self.wire.put_call(7, &Sent::Other { name: method, args }, &mut frame);
        // The server may have ended the connection.
        let _ = self.socket.write_all(&frame);
        loop {
            let payload = self.payload()?;
            if let Ok(FromServer::Reply { id: 7, answer }) = self.wire.from_server(&payload) {
                return Some(answer.value().map_err(|error| error.to_string()));
            }
        }
    }

    fn register(&mut self, read_only: bool) -> Result<Value, String> {
        self.call("register", &[Value::text("1"), Value::Bool(read_only)]).expect("an answer to register")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        if let Some(session) = self.session.take() {
            session.join().expect("the session");
        }
    }
}

/// As the acceptor gives them out.
fn server_id() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

#[test]
fn every_request_is_called() {
    let called: BTreeSet<usize> = wires()
        .flat_map(|(_, wire)| calls(wire).into_iter().map(move |call| class_of(wire, &call).0))
        .collect();
    let missing: Vec<usize> = (0..REQUESTS).filter(|number| !called.contains(number)).collect();
    assert!(missing.is_empty(), "nothing calls the requests numbered {missing:?}");
    assert_eq!(called.len(), REQUESTS);
}

#[test]
fn nothing_but_what_is_needed_before_register() {
    let world = World::new(ReadOnly::Nothing, false);
    let (before, last) = (world.files(), world.storage.last_transaction());
    for (answer, wire) in wires() {
        for call in calls(wire) {
            let (_, class) = class_of(wire, &call);
            let mut peer = Peer::connect(&world, answer, wire);
            let what = || format!("{} in {wire:?}", call.0);
            match class {
                Class::Needed => assert!(peer.call(call.0, &call.1).is_some(), "{} is not answered", what()),
                Class::Ignored => {
                    let mut frame = Vec::new();
                    wire.put_call(-1, &Sent::Other { name: call.0, args: &call.1 }, &mut frame);
                    peer.socket.write_all(&frame).expect("sent");
                    assert!(peer.register(true).is_ok(), "{} does harm", what());
                }
                _ => assert_eq!(peer.call(call.0, &call.1), None, "{} is answered", what()),
            }
        }
    }
    assert!(world.files() == before, "the files have changed");
    assert_eq!(world.storage.last_transaction(), last);
}

#[test]
fn nothing_but_credentials_where_passwords_are_demanded() {
    let world = World::new(ReadOnly::Nothing, true);
    let (before, last) = (world.files(), world.storage.last_transaction());
    for (answer, wire) in wires() {
        for call in calls(wire) {
            let (_, class) = class_of(wire, &call);
            let mut peer = Peer::connect(&world, answer, wire);
            let what = || format!("{} in {wire:?}", call.0);
            let is_credential = wire.knows_authentication() && call.0.starts_with("auth_");
            match (call.0, class) {
                ("register", _) if call.1.is_empty() => {
                    assert!(matches!(peer.call("register", &[]), Some(Err(_))))
                }
                ("register", _) => {
                    let refused = peer.register(true).expect_err("a client without permission registers");
                    assert!(refused.contains("AuthError"), "{}: {refused}", what());
                }
                (_, Class::Needed) => {
                    assert!(peer.call(call.0, &call.1).is_some(), "{} is not answered", what())
                }
                _ if is_credential => {
                    assert!(peer.call(call.0, &call.1).is_some(), "{} is not answered", what());
                    assert!(peer.register(false).expect_err("not passed").contains("AuthError"));
                }
                (_, Class::Ignored) => {}
                _ => assert_eq!(peer.call(call.0, &call.1), None, "{} is answered", what()),
            }
        }
    }
    assert!(world.files() == before, "the files have changed");
    assert_eq!(world.storage.last_transaction(), last);
}

#[test]
fn nothing_writes_where_all_is_read_only() {
    for read_only in [ReadOnly::Registration, ReadOnly::Listener, ReadOnly::Server, ReadOnly::Storage] {
        let world = World::new(read_only, false);
        let (before, last) = (world.files(), world.storage.last_transaction());
        assert!(before.iter().any(|(path, bytes)| path.ends_with("Data.fs") && bytes.len() > 50));
        for (answer, wire) in wires() {
            if world.read_only != ReadOnly::Registration {
                let refused =
                    Peer::connect(&world, answer, wire).register(false).expect_err("registered to write");
                assert!(refused.contains("ReadOnlyError"), "{wire:?}: {refused}");
            }
            for call in calls(wire) {
                let (_, class) = class_of(wire, &call);
                let mut peer = Peer::connect(&world, answer, wire);
                peer.register(true).expect("registered to read");
                let what = format!("{} in {wire:?}, read-only {read_only:?}", call.0);
                match class {
                    Class::Writes => {
                        let refused = peer.call(call.0, &call.1).expect("an answer").expect_err(&what);
                        assert!(refused.contains("ReadOnlyError"), "{what}: {refused}");
                        // It leaves no state for a later step.
                        let vote = peer.call("vote", &[Value::Int(5)]).expect("an answer").expect_err(&what);
                        assert!(vote.contains("ReadOnlyError"), "{what}: {vote}");
                    }
                    Class::Continues => {
                        peer.call(call.0, &call.1).expect("an answer").expect_err(&what);
                    }
                    Class::Packs | Class::Steers if read_only == ReadOnly::Listener => {
                        let refused = peer.call(call.0, &call.1).expect("an answer").expect_err(&what);
                        assert!(refused.contains("ReadOnlyError"), "{what}: {refused}");
                    }
                    Class::Packs if read_only == ReadOnly::Storage => {
                        peer.call(call.0, &call.1).expect("an answer").expect_err(&what);
                    }
                    Class::Packs => {}
                    // An error of its own, the end, or an answer: only checks that nothing is changed.
                    Class::Needed | Class::Ignored | Class::Reads | Class::Steers => {
                        let mut frame = Vec::new();
                        wire.put_call(7, &Sent::Other { name: call.0, args: &call.1 }, &mut frame);
                        peer.socket.write_all(&frame).expect("sent");
                    }
                }
            }
        }
        assert!(world.files() == before, "{read_only:?}: the files have changed");
        assert_eq!(world.storage.last_transaction(), last, "{read_only:?}");
    }
}
