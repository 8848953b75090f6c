//! Several addresses of one server, each with its own rules: who may connect, to which storages, and how many. All are
//! there, or the server does not start.

mod proxies;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

use crate::support::client::{RawClient, Speaks, answer_to_register, connect_from, record};
use crate::support::pickle::{Value, text};
use crate::support::process::{Server, free_address};
use crate::tls::identities::{Identity, params};
use rustls::pki_types::PrivatePkcs8KeyDer;

const MAPPINGS: &str = "<mappingstorage 1>\n</mappingstorage>\n<mappingstorage secret>\n</mappingstorage>\n";

pub fn register(client: &mut RawClient, storage: &str, read_only: bool) -> Result<Value, (String, Value)> {
    client.call("register", vec![text(storage), Value::Bool(read_only)]).expect("connected")
}

pub fn connect(address: SocketAddr, speaks: Speaks) -> RawClient {
    RawClient::connect(address, speaks).expect("greeted")
}

pub fn connect_unix(path: &Path, speaks: Speaks) -> RawClient {
    let stream = UnixStream::connect(path).expect("connected");
    RawClient::greet_on(TcpStream::from(OwnedFd::from(stream)), speaks).expect("greeted")
}

pub fn listen(name: &str, address: impl std::fmt::Display, more: &str) -> String {
    format!("<listen {name}>\naddress {address}\n{more}\n</listen>\n")
}

/// The rest of what the server sends until it closes the connection.
fn rest(mut stream: &TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(std::time::Duration::from_secs(60))).expect("a limit");
    let mut rest = Vec::new();
    // A reset is an end, too.
    if let Err(error) = stream.read_to_end(&mut rest) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    }
    rest
}

/// The answer to `ruok` on a connection.
pub fn ruok(mut probe: impl Read + Write) -> serde_json::Value {
    let mut frame = |request: &[u8]| {
        probe.write_all(request).expect("sent");
        let mut len = [0; 4];
        probe.read_exact(&mut len).expect("a frame");
        let mut payload = vec![0; u32::from_be_bytes(len) as usize];
        probe.read_exact(&mut payload).expect("a frame");
        payload
    };
    frame(b"");
    serde_json::from_slice(&frame(b"\0\0\0\x04ruok")).expect("JSON")
}

#[test]
fn one_storage_at_several_addresses() {
    let (second, third) = (free_address(), free_address());
    let zeo = format!("address {second}\naddress ./zeo.sock");
    let storage = "<filestorage 1>\npath Data.fs\n</filestorage>\n".to_string() + &listen("third", third, "");
    let mut server = Server::start_any(&zeo, &storage, |_| ());
    let mut writer = connect(server.address, Speaks::Z5);
    register(&mut writer, "1", false).expect("registered");
    let mut readers: Vec<RawClient> = [second, third].map(|address| connect(address, Speaks::Z4)).into();
    let socket = server.directory().join("zeo.sock");
    readers.push(connect_unix(&socket, Speaks::Z5));
    for reader in &mut readers {
        register(reader, "1", false).expect("registered");
    }
    let oid = writer.new_oids(1).expect("oids")[0];
    writer.commit(&[(oid, 0, &record(b"1"))]).expect("connected").expect("committed");
    for reader in &mut readers {
        let load = reader.queue_load(oid);
        reader.flush().expect("sent");
        reader.answer(load).expect("connected").expect("loaded");
    }
    let log = server.log();
    let listening: Vec<&str> = log.lines().filter_map(|line| line.split(") listening on ").nth(1)).collect();
    let shown = |address: SocketAddr| format!("('{}', {})", address.ip(), address.port());
    let expected = [
        shown(server.address),
        shown(second),
        "./zeo.sock".into(),
        format!("{} (<listen third>)", shown(third)),
    ];
    assert_eq!(listening, expected, "{log}");
    assert!(server.stop().success(), "{}", server.talk());
    assert!(!socket.exists(), "a stop unlinks the sockets of all addresses");
    for mut client in readers.into_iter().chain([writer]) {
        assert!(client.next().is_err(), "a stop ends the connections at all addresses");
    }
}

/// What a server with one address says has not changed.
#[test]
fn one_address_is_one_line() {
    let server = Server::start();
    let address = server.address;
    server.wait_for_log(&format!("listening on ('{}', {})\n", address.ip(), address.port()));
    RawClient::register(address, Speaks::Z5).expect("served");
    assert_eq!(server.count_in_log("listening on"), 1);
}

/// A start that fails at one address leaves nothing behind at the others.
#[test]
fn all_addresses_or_none() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    let live = UnixListener::bind(path("live.sock")).expect("a socket");
    // The file of a server that was killed.
    drop(UnixListener::bind(path("stale.sock")).expect("a socket"));
    let unused = free_address();
    let run = |zeo: &str, listen: &str| {
        let config = format!("<zeo>\naddress {zeo}\n</zeo>\n{MAPPINGS}{listen}");
        fs::write(path("zeo.conf"), config).expect("written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_runzeo"));
        command.args(["-C", "zeo.conf", "--test"]).current_dir(directory.path());
        let output = command.output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let taken_at = taken.local_addr().expect("an address");
    let port = taken_at.port();
    let section = listen("other", taken_at, "");
    let (code, said) = run("./stale.sock", &section);
    let expected = format!("zeo.conf:9: <listen other>: address ('127.0.0.1', {port}) already in use");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains(&expected), "{said}");
    let (code, said) = run(&format!("{unused}\naddress ./live.sock"), "");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("zeo.conf:3: <zeo>: address './live.sock' already in use"), "{said}");
    // Found when it listens, so after the first socket was made.
    let section = listen("other", "./no-such-directory/zeo.sock", "");
    let (code, said) = run("./first.sock", &section);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("zeo.conf:9: <listen other>: can't listen on ./no-such-directory/zeo.sock"),
        "{said}"
    );
    assert!(!path("first.sock").exists(), "the socket of the first address is removed");
    // The messages for one address are what they were.
    let (code, said) = run(&taken_at.to_string(), "");
    assert_eq!(code, Some(2));
    assert!(said.contains(&format!("Error: address ('127.0.0.1', {port}) already in use\n")), "{said}");
    let (code, said) = run("./stale.sock", &listen("more", unused, ""));
    assert_eq!(code, Some(0), "{said}");
    assert!(!path("stale.sock").exists() && path("live.sock").exists());
    drop(live);
}

/// A storage that is not served at an address and one that does not exist are the same, byte for byte.
#[test]
fn storages_of_a_listener() {
    let public = free_address();
    let server =
        Server::start_any("", &(MAPPINGS.to_string() + &listen("public", public, "storages 1")), |_| ());
    for speaks in Speaks::ALL {
        let answer = |storage: &str, read_only: bool| {
            let stream = TcpStream::connect(public).expect("connected");
            answer_to_register(stream, speaks, storage, read_only)
        };
        for read_only in [false, true] {
            let (hidden, missing) = (answer("secret", read_only), answer("sekret", read_only));
            let find = |bytes: &[u8], name: &[u8]| bytes.windows(6).position(|window| window == name);
            let at = find(&hidden, b"secret").expect("the name in the answer");
            let mut renamed = hidden;
            renamed[at..at + 6].copy_from_slice(b"sekret");
            assert_eq!(renamed, missing, "{speaks:?}");
        }
        let mut client = connect(public, speaks);
        register(&mut client, "secret", false).expect_err("not served there");
        register(&mut client, "1", false).expect("served there");
        register(&mut connect(server.address, speaks), "secret", false).expect("served at the other address");
    }
    let shown = ruok(TcpStream::connect(public).expect("connected"));
    let names: Vec<&String> = shown.as_object().expect("a dict").keys().collect();
    assert_eq!(names, ["1"], "a probe learns of no other storage");
    assert!(server.ruok().get("secret").is_some());
    server.wait_for_log("unknown storage_id: secret (not one of the 'storages' of this listener)");
    assert!(server.log().contains("unknown storage_id: sekret\n"), "{}", server.log());
}

/// Passwords at one address, none at another and at the Unix socket; clients of all generations at the same time.
#[test]
fn passwords_at_one_address() {
    let plain = free_address();
    let zeo = "authentication-protocol digest\nauthentication-database passwords";
    let sections = MAPPINGS.to_string()
        + &listen("plain", plain, "authentication none")
        + &listen("local", "./zeo.sock", "authentication none");
    let server = Server::start_any(zeo, &sections, |directory| {
        fs::write(directory.join("passwords"), "foo: 0123\n").expect("passwords");
    });
    let socket = server.directory().join("zeo.sock");
    for speaks in Speaks::ALL {
        let (class, _) = register(&mut connect(server.address, speaks), "1", false).expect_err("no password");
        assert!(class.contains("AuthError"), "{class}");
        for mut client in [connect(plain, speaks), connect_unix(&socket, speaks)] {
            if speaks.is_old() {
                let name = client.call("getAuthProtocol", vec![]).expect("connected").expect("an answer");
                assert!(name.is_none(), "{name:?}");
            }
            register(&mut client, "1", false).expect("registered");
        }
    }
}

/// Another address is closed before a byte is read or sent.
#[test]
fn addresses_that_are_not_allowed() {
    let inner = free_address();
    let sections = MAPPINGS.to_string() + &listen("inner", inner, "allow 127.0.0.2 10.0.0.0/8 ::1");
    let server = Server::start_any("", &sections, |_| ());
    let from = |last: u8, address: SocketAddr| connect_from(Ipv4Addr::new(127, 0, 0, last), address);
    for _ in 0..50 {
        let mut refused = from(3, inner).expect("connected");
        let _ = refused.write_all(&[0; 1000]);
        assert_eq!(rest(&refused), b"", "no greeting");
    }
    assert_eq!(rest(&from(4, inner).expect("connected")), b"");
    let mut client = RawClient::greet_on(from(2, inner).expect("connected"), Speaks::Z5).expect("greeted");
    register(&mut client, "1", false).expect("registered");
    let mut client =
        RawClient::greet_on(from(3, server.address).expect("connected"), Speaks::Z5).expect("greeted");
    register(&mut client, "1", false).expect("the other address admits all");
    let line = "refused: 'allow' of ('127.0.0.1', ";
    assert_eq!(server.count_in_log(line), 2, "one line for an address: {}", server.log());
    let mut server = server;
    assert!(server.stop().success());
    let left_out =
        "49 more connections that 'allow' refuses are left out of the log, 49 of them of 127.0.0.3";
    assert!(server.log().contains(left_out), "{}", server.log());
}

#[test]
fn clients_of_one_listener_have_a_limit() {
    let small = free_address();
    let sections = MAPPINGS.to_string() + &listen("small", small, "max-connections 2");
    let server = Server::start_any("", &sections, |_| ());
    let client = |address| {
        let mut client = connect(address, Speaks::Z5);
        let registered = register(&mut client, "1", false);
        (client, registered)
    };
    let first = client(small);
    let second = client(small);
    assert!(first.1.is_ok() && second.1.is_ok());
    let (mut third, refused) = client(small);
    let (class, detail) = refused.expect_err("one too many");
    assert!(
        class.contains("StorageError") && format!("{detail:?}").contains("max-connections (2)"),
        "{detail:?}"
    );
    client(server.address).1.expect("the other address has room");
    drop(second);
    while register(&mut third, "1", false).is_err() {}
    drop(first);
    assert_eq!(server.count_in_log("refused: max-connections (2) clients of this listener are connected"), 1);
}

#[test]
fn mode_and_group_of_a_socket() {
    let directory = tempfile::tempdir().expect("a directory");
    // A group that this process may give a file to.
    let groups = rustix::process::getgroups().expect("groups");
    let own = fs::metadata(directory.path()).expect("a directory").gid();
    let is_root = rustix::process::geteuid().is_root();
    let other = groups.iter().map(|gid| gid.as_raw()).find(|gid| *gid != own).or(is_root.then_some(4711));
    let group = other.unwrap_or(own);
    let sections = MAPPINGS.to_string()
        + &listen("own", "./own.sock", &format!("socket-mode 620\nsocket-group {group}"));
    let zeo = "address ./zeo.sock\nsocket-mode 600";
    let server = Server::start_any(zeo, &sections, |_| ());
    let of = |name: &str| {
        let metadata = fs::metadata(server.directory().join(name)).expect("a socket");
        (metadata.permissions().mode() & 0o777, metadata.gid())
    };
    assert_eq!(of("own.sock"), (0o620, group));
    assert_eq!(of("zeo.sock").0, 0o600);
}

/// SIGUSR2 reads the certificates of all addresses again.
#[test]
fn renewed_certificates_of_all_addresses() {
    let files = tempfile::tempdir().expect("a directory");
    let path = |name: &str| files.path().join(name);
    let known = Identity::self_signed(params("known"));
    fs::write(path("clients.pem"), known.pem()).expect("written");
    let renew = |name: &str| {
        let own = Identity::self_signed(params(name));
        fs::write(path(name), own.pem_with_key()).expect("written");
        own
    };
    let names = ["one", "two"];
    let before = names.map(renew);
    let addresses = [free_address(), free_address()];
    let sections: String = names
        .iter()
        .zip(addresses)
        .map(|(name, address)| {
            let directory = files.path().display();
            let ssl = format!("certificate {directory}/{name}\nauthenticate {directory}/clients.pem");
            listen(name, address, &format!("<ssl>\n{ssl}\n</ssl>"))
        })
        .collect();
    let server = Server::start_any("", &(MAPPINGS.to_string() + &sections), |_| ());
    let is_served = |address, own: &Identity| {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(own.certificate.der().clone()).expect("a root");
        let key = PrivatePkcs8KeyDer::from(known.key.serialize_der());
        let config = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![known.certificate.der().clone()], key.into())
            .expect("a certificate");
        let stream = TcpStream::connect(address).expect("connected");
        RawClient::begin_tls(stream, Speaks::Z5, &std::sync::Arc::new(config)).is_ok()
    };
    for (address, own) in addresses.into_iter().zip(&before) {
        assert!(is_served(address, own));
    }
    let after = names.map(renew);
    server.signal("USR2");
    for ((address, old), new) in addresses.into_iter().zip(&before).zip(&after) {
        while !is_served(address, new) {}
        assert!(!is_served(address, old));
    }
    // What cannot be read is an error that names its section, and the other one is read all the same.
    fs::write(path("one"), "nonsense").expect("written");
    let last = renew("two");
    server.signal("USR2");
    server.wait_for_log("the renewed certificates cannot be used");
    assert!(server.log().contains("zeo.conf:"), "{}", server.log());
    while !is_served(addresses[1], &last) {}
    assert!(is_served(addresses[0], &after[0]));
}

/// On a read-only server readers may pack, as on Python's; at an address that says `read-only` itself they may not.
#[test]
fn packs_of_readers() {
    let (plain, reading) = (free_address(), free_address());
    let sections =
        MAPPINGS.to_string() + &listen("plain", plain, "") + &listen("reading", reading, "read-only yes");
    let server = Server::start_any("read-only yes", &sections, |_| ());
    let pack = |address| {
        let mut client = connect(address, Speaks::Z5);
        register(&mut client, "1", true).expect("registered");
        client
            .call("pack", vec![Value::Float(1e9), Value::Bool(true)])
            .expect("connected")
            .map_err(|(class, _)| class)
    };
    for address in [server.address, plain] {
        pack(address).expect("packed");
    }
    assert!(pack(reading).expect_err("refused").contains("ReadOnlyError"));
}

/// A read-only address beside one that writes; what is committed at one arrives at the other.
#[test]
fn a_read_only_address() {
    let reading = free_address();
    let sections = MAPPINGS.to_string() + &listen("reading", reading, "read-only yes");
    let server = Server::start_any("", &sections, |_| ());
    let mut writer = connect(server.address, Speaks::Z5);
    register(&mut writer, "1", false).expect("registered");
    let oid = writer.new_oids(1).expect("oids")[0];
    let tid = writer.commit(&[(oid, 0, &record(b"1"))]).expect("connected").expect("committed");
    for speaks in Speaks::ALL {
        let mut reader = connect(reading, speaks);
        let (class, _) = register(&mut reader, "1", false).expect_err("it wants to write");
        assert!(class.contains("ReadOnlyError"), "{class}");
        // As a client with read-only-fallback goes on.
        register(&mut reader, "1", true).expect("registered to read");
        let load = reader.queue_load(oid);
        reader.flush().expect("sent");
        let loaded = reader.answer(load).expect("connected").expect("loaded");
        assert_eq!(loaded.tuple()[1].id(), tid);
    }
}
