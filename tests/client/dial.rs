//! Dialling: passwords, and what is refused.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use runzeo::internal::base::address::Address;
use runzeo::internal::base::cancel::Cancel;
use runzeo::internal::client::dial::{Credentials, DialError, DialOptions, dial};
use runzeo::internal::client::link::{LinkOptions, start};
use socket2::{Domain, Socket, Type};

use crate::link::{Watcher, register};
use crate::servers::{AnyServer, PythonServer, tcp};
use crate::support::process::Server;

const PASSWORDS: &str =
    "authentication-protocol digest\nauthentication-database passwords\nauthentication-realm A Realm";

fn credentials(username: &str, password: &str, realm: Option<&str>) -> Option<Credentials> {
    Some(Credentials { username: username.into(), password: password.into(), realm: realm.map(String::from) })
}

fn dial_with(address: &Address, credentials: Option<Credentials>) -> Result<(), DialError> {
    let options = DialOptions { credentials, ..DialOptions::default() };
    let dialled = dial(address, &options, &Cancel::default())?;
    let link =
        start(dialled, std::sync::Arc::new(Watcher::default()), LinkOptions::default()).expect("threads");
    register(&link);
    crate::link::ask(&link, "lastTransaction", &[]).expect("a transaction id");
    link.close();
    Ok(())
}

/// The password file of a server, made by our `zeopasswd`, which writes what Python's does.
fn write_passwords(directory: &Path) {
    let status = Command::new(env!("CARGO_BIN_EXE_zeopasswd"))
        .args(["-f", "passwords", "-p", "digest", "-r", "A Realm", "jim", "secret"])
        .current_dir(directory)
        .status()
        .expect("zeopasswd");
    assert!(status.success());
}

#[test]
fn passwords() {
    let absolute = |zeo: &str, directory: &Path| {
        zeo.replace(" passwords", &format!(" {}/passwords", directory.display()))
    };
    let shared = tempfile::tempdir().expect("a directory");
    write_passwords(shared.path());
    let zeo = absolute(PASSWORDS, shared.path());
    let mut servers = Vec::new();
    // Z5 has no passwords: a server that speaks Z4.
    for environment in ["zodb38-py27", "zodb310-py27", "zeo4-py27", "zeo4-py36"] {
        if let Some(server) = PythonServer::start(environment, &zeo, |_| ()) {
            servers.push((environment, AnyServer::Python(server)));
        }
    }
    for (name, server) in servers {
        let address = server.address();
        let realm = Some("A Realm");
        if let Err(error) = dial_with(&address, credentials("jim", "secret", realm)) {
            panic!("{name}: {error}");
        }
        let refused = |credentials| match dial_with(&address, credentials) {
            Err(DialError::Authentication(why)) => why,
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(
            refused(None),
            "the server demands a password, and no 'username' and 'password' are configured"
        );
        assert_eq!(
            refused(credentials("jim", "wrong", realm)),
            "the server does not accept the password of 'jim'"
        );
        assert_eq!(
            refused(credentials("jim", "secret", Some("another"))),
            "expected realm 'another', got realm 'A Realm'"
        );
        assert_eq!(refused(credentials("jim", "secret", None)), "expected realm None, got realm 'A Realm'");
    }
}

/// A peer that sends `greeting` and then waits.
fn peer_that_says(greeting: &'static [u8]) -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = tcp(listener.local_addr().expect("an address"));
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        stream.write_all(greeting).expect("the client reads");
        thread::sleep(Duration::from_secs(60));
    });
    address
}

fn refusal(greeting: &'static [u8]) -> String {
    let options = DialOptions { time_max: Duration::from_millis(300), ..DialOptions::default() };
    dial(&peer_that_says(greeting), &options, &Cancel::default()).expect_err("no ZEO server").to_string()
}

#[test]
fn what_is_no_server_is_refused() {
    assert_eq!(refusal(b""), "timed out waiting for the greeting of a ZEO server");
    assert_eq!(refusal(b"\0\0\0\x04Z3"), "timed out waiting for the greeting of a ZEO server");
    assert_eq!(
        refusal(b"\0\0\0\x04Z303"),
        "the server speaks Z303, the protocol of ZODB 3.7 or older; this client needs ZODB 3.8 or later"
    );
    assert_eq!(
        refusal(b"\0\0\0\x03abc"),
        "the server's handshake is 'abc', which is not of a known ZEO protocol"
    );
    assert_eq!(
        refusal(b"HTTP/1.1 400 Bad Request\r\n"),
        "a message of 1213486160 bytes, the limit is 65536; is it a ZEO server?"
    );
    assert_eq!(
        refusal(b"SSH-2.0-OpenSSH_9.2\r\n"),
        "a message of 1397966893 bytes, the limit is 65536; is it a ZEO server?"
    );
    let closed = tcp(TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address"));
    let refused = dial(&closed, &DialOptions::default(), &Cancel::default()).expect_err("no server");
    assert!(matches!(refused, DialError::Unreachable(_)), "{refused:?}");
}

/// An address that drops packets: the queue of its listener is full, and the clients that fill it.
fn address_that_drops_packets() -> (Address, Vec<Socket>) {
    let bound: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    listener.bind(&bound.into()).expect("a port");
    listener.listen(0).expect("listening");
    let address = listener.local_addr().expect("an address").as_socket().expect("of TCP");
    let mut sockets = vec![listener];
    loop {
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        if client.connect_timeout(&address.into(), Duration::from_millis(200)).is_err() {
            return (tcp(address), sockets);
        }
        sockets.push(client);
    }
}

#[test]
fn dialling_can_be_cancelled() {
    let (full, _clients) = address_that_drops_packets();
    for address in [full, peer_that_says(b"")] {
        let cancel = Cancel::default();
        let begun = Instant::now();
        thread::scope(|scope| {
            let dialling = scope.spawn(|| dial(&address, &DialOptions::default(), &cancel));
            thread::sleep(Duration::from_millis(200));
            assert!(!dialling.is_finished(), "{address}");
            cancel.cancel();
            let error = dialling.join().expect("no panic").expect_err("cancelled");
            assert!(matches!(error, DialError::Cancelled), "{error:?}");
        });
        assert!(begun.elapsed() < Duration::from_secs(10), "{address}: {:?}", begun.elapsed());
    }
}

#[test]
fn an_address_that_drops_packets_costs_the_time_limit_at_most() {
    let (full, _clients) = address_that_drops_packets();
    let options = DialOptions { time_max: Duration::from_millis(500), ..DialOptions::default() };
    let begun = Instant::now();
    let error = dial(&full, &options, &Cancel::default()).expect_err("nothing answers");
    assert_eq!(error.to_string(), "timed out waiting for a connection");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn names_paths_and_both_versions_of_ip() {
    let server = Server::start();
    let address = Address::Tcp { host: Some("localhost".into()), port: Some(server.address.port()) };
    dial_with(&address, None).expect("by name");
    let unknown = Address::Tcp { host: Some("no-such-host.invalid".into()), port: Some(1) };
    let error = dial_with(&unknown, None).expect_err("no such host");
    assert!(matches!(error, DialError::Unreachable(_)), "{error:?}");
}
