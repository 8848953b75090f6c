//! Connections through a proxy: its header names the client, for the log, `allow` and the limits. What is no header
//! ends the connection.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use super::*;
use crate::tls::identities::{Identity, params};
use rustls::pki_types::PrivatePkcs8KeyDer;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The proxy is 127.0.0.9.
fn proxy(address: SocketAddr) -> TcpStream {
    connect_from(Ipv4Addr::new(127, 0, 0, 9), address).expect("connected")
}

fn through(address: SocketAddr, header: &[u8]) -> TcpStream {
    let mut stream = proxy(address);
    // Of a long one the server may close the connection before its end.
    let _ = stream.write_all(header);
    stream
}

fn v1(client: &str) -> Vec<u8> {
    format!("PROXY TCP4 {client} 127.0.0.1 4711 8100\r\n").into_bytes()
}

fn v2(client: [u8; 4]) -> Vec<u8> {
    let addresses = [&client[..], &[127, 0, 0, 1, 0x12, 0x67, 0x1f, 0xa4]].concat();
    [&SIGNATURE[..], &[0x21, 0x11, 0, 12], &addresses].concat()
}

fn start(zeo: &str, more: &str) -> (Server, SocketAddr) {
    let address = free_address();
    let section = listen("front", address, &format!("proxy-protocol 127.0.0.9\n{more}"));
    (Server::start_any(zeo, &(MAPPINGS.to_string() + &section), |_| ()), address)
}

#[test]
fn the_client_is_who_the_proxy_says() {
    let (server, address) = start("", "allow 10.0.0.0/8 2001:db8::/32 127.0.0.1");
    let mut six = [&SIGNATURE[..], &[0x21, 0x21, 0, 36], &[0; 36]].concat();
    six[16..20].copy_from_slice(&[0x20, 1, 0x0d, 0xb8]);
    six[31] = 7;
    for (header, shown) in
        [(v1("10.1.1.1"), "10.1.1.1:4711"), (v2([10, 2, 2, 2]), "10.2.2.2:4711"), (six, "[2001:db8::7]:0")]
    {
        for speaks in [Speaks::Z4, Speaks::Z5] {
            let mut client = RawClient::greet_on(through(address, &header), speaks).expect("greeted");
            register(&mut client, "1", false).expect("registered");
            client.call("set_client_label", vec![text("label")]).expect("connected").expect("labelled");
            drop(client);
        }
        server.wait_for_log(&format!("({shown}) received handshake"));
        server.wait_for_log_count(&format!("(label {shown}) disconnected"), 2);
    }
    // A client that is not allowed, through a proxy that is.
    for header in [v1("192.0.2.1"), v2([192, 0, 2, 2]), b"PROXY UNKNOWN\r\n".to_vec()] {
        assert_eq!(rest(&through(address, &header)), b"");
    }
    for refused in ["192.0.2.1:4711", "192.0.2.2:4711", "127.0.0.9:"] {
        server.wait_for_log(&format!("({refused}"));
    }
    assert_eq!(server.count_in_log("refused: 'allow' does not have this address"), 3);
    // A client without a proxy sends no header, and its header is none.
    let mut direct = connect(address, Speaks::Z5);
    register(&mut direct, "1", false).expect("registered");
    let mut forger = TcpStream::connect(address).expect("connected");
    forger.write_all(&v1("10.1.1.1")).expect("sent");
    assert_eq!(rest(&forger), b"\0\0\0\x02Z5", "greeted, and closed");
}

#[test]
fn the_limits_are_those_of_the_client() {
    let (server, address) = start("max-connections-per-address 2", "");
    let client = |from: &str| RawClient::greet_on(through(address, &v1(from)), Speaks::Z5);
    let registered = |from: &str| {
        let mut client = client(from).expect("greeted");
        let answer = register(&mut client, "1", false);
        (client, answer)
    };
    let clients =
        [registered("10.1.1.1"), registered("10.1.1.1"), registered("10.1.1.2"), registered("10.1.1.2")];
    assert!(clients.iter().all(|(_, answer)| answer.is_ok()));
    let (third, refused) = registered("10.1.1.1");
    assert!(format!("{refused:?}").contains("max-connections-per-address (2)"), "{refused:?}");
    let unregistered = client("10.1.1.1").expect("greeted");
    assert_eq!(rest(&through(address, &v1("10.1.1.1"))), b"", "two may be unregistered");
    drop((third, unregistered, clients));
    server.wait_for_log("(10.1.1.1:4711) refused: max-connections-per-address (2) are connected from there");
    // No connection is counted any more.
    for _ in 0..3 {
        let mut client = client("10.1.1.1");
        while client.is_err() {
            client = self::client_again(address);
        }
        let mut client = client.expect("greeted");
        while register(&mut client, "1", false).is_err() {}
    }
}

fn client_again(address: SocketAddr) -> std::io::Result<RawClient> {
    RawClient::greet_on(through(address, &v1("10.1.1.1")), Speaks::Z5)
}

/// Cut at every byte, with every byte changed, too long, of other families: the connection ends, and no other does.
#[test]
fn headers_that_are_none() {
    let (mut server, address) = start("handshake-timeout 5s", "");
    let mut honest = RawClient::greet_on(through(address, &v1("10.1.1.1")), Speaks::Z5).expect("greeted");
    register(&mut honest, "1", false).expect("registered");
    for header in [v1("10.1.1.1"), v2([10, 1, 1, 1])] {
        for len in 0..header.len() {
            let cut = through(address, &header[..len]);
            // The server may be faster.
            let _ = cut.shutdown(std::net::Shutdown::Write);
            assert_eq!(rest(&cut), b"", "{len} bytes of {}", header.escape_ascii());
        }
        for at in 0..header.len() {
            let mut changed = header.clone();
            changed[at] ^= 0x80;
            let changed = through(address, &changed);
            let _ = changed.shutdown(std::net::Shutdown::Write);
            let said = rest(&changed);
            // An address or port of version 2 is another one, as good as the first.
            assert!(said.is_empty() || said == b"\0\0\0\x02Z5", "{at}: {}", said.escape_ascii());
        }
    }
    let long = [b"PROXY UNKNOWN ", &[b'x'; 5000][..]].concat();
    for (header, why) in [
        (&long[..], "its line is longer than 107 bytes"),
        (b"\0\0\0\x02Z5\0\0\0\x02Z5", "it does not begin with the header of the PROXY protocol"),
        (b"PROXY TCP6 10.1.1.1 127.0.0.1 1 2\r\n", "its addresses or ports are not those of TCP6"),
        (b"PROXY UNIX /a /b 1 2\r\n", "its line is not PROXY TCP4 or TCP6"),
        (&[&SIGNATURE[..], &[0x21, 0x31, 0, 216], &[0; 216]].concat(), "its family is 0x31, not TCP's"),
        (&[&SIGNATURE[..], &[0x31, 0x11, 0, 12], &[0; 12]].concat(), "its version is 3, not 2"),
        (&[&SIGNATURE[..], &[0x21, 0x11, 0, 5], &[0; 5]].concat(), "its length is 5 bytes"),
    ] {
        assert_eq!(rest(&through(address, header)), b"", "{why}");
        server.wait_for_log(&format!("bad PROXY header: {why}"));
    }
    // One that promises more than it sends, and one that sends nothing.
    let slow = [through(address, &[&SIGNATURE[..], &[0x21, 0x11, 0xff, 0xff]].concat()), proxy(address)];
    slow.iter().for_each(|stream| assert_eq!(rest(stream), b""));
    server.wait_for_log("no PROXY header has come after 5 s (handshake-timeout)");
    honest.call("ping", vec![]).expect("connected").expect("an answer");
    assert!(server.is_alive());
    assert_eq!(server.count_in_log("internal error"), 0);
}

/// The header comes before TLS.
#[test]
fn a_header_before_tls() {
    let files = tempfile::tempdir().expect("a directory");
    let [own, known] = ["server", "known"].map(|name| Identity::self_signed(params(name)));
    let path = |name: &str| files.path().join(name);
    fs::write(path("server.pem"), own.pem_with_key()).expect("written");
    fs::write(path("clients.pem"), known.pem()).expect("written");
    let ssl = format!(
        "<ssl>\ncertificate {}\nauthenticate {}\n</ssl>",
        path("server.pem").display(),
        path("clients.pem").display()
    );
    let (server, address) = start("", &ssl);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(own.certificate.der().clone()).expect("a root");
    let key = PrivatePkcs8KeyDer::from(known.key.serialize_der());
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![known.certificate.der().clone()], key.into())
        .expect("a certificate");
    let config = std::sync::Arc::new(config);
    for header in [v1("10.1.1.1"), v2([10, 1, 1, 1])] {
        let mut client =
            RawClient::begin_tls(through(address, &header), Speaks::Z5, &config).expect("greeted");
        register(&mut client, "1", false).expect("registered");
    }
    server.wait_for_log("(10.1.1.1:4711) TLS 1.3, certificate of 'CN=known'");
    // No TLS behind the header, and TLS without one.
    let mut plain = through(address, &v1("10.1.1.1"));
    plain.write_all(b"\0\0\0\x02Z5").expect("sent");
    assert!(!rest(&plain).starts_with(b"\0\0\0\x02"), "no greeting");
    assert!(RawClient::begin_tls(proxy(address), Speaks::Z5, &config).is_err());
    register(&mut connect(server.address, Speaks::Z5), "1", false).expect("no TLS at the other address");
}
