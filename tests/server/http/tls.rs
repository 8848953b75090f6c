//! TLS of `<http>`: who shows a certificate that is accepted is answered; nobody else, and nobody holds a thread for
//! long.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rcgen::date_time_ymd;
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

use super::{Answer, FILE, answer, connect, get};
use crate::limits::wait_until;
use crate::reload::reload_of;
use crate::support::client::{RawClient, Speaks};
use crate::support::process::{Server, free_address};
use crate::tls::identities::{Identity, params};

struct Secured {
    server: Server,
    address: SocketAddr,
    files: TempDir,
    own: Identity,
}

impl Secured {
    /// A server that answers who shows this certificate.
    fn start(client: &Identity) -> Secured {
        Secured::start_as(Identity::self_signed(params("server")), client)
    }

    fn start_as(own: Identity, client: &Identity) -> Secured {
        let (files, address) = (tempfile::tempdir().expect("a directory"), free_address());
        fs::write(files.path().join("server.pem"), own.pem_with_key()).expect("written");
        fs::write(files.path().join("clients.pem"), client.pem()).expect("written");
        let directory = files.path().display();
        let ssl = format!(
            "<ssl>\ncertificate {directory}/server.pem\nauthenticate {directory}/clients.pem\n</ssl>"
        );
        let storages = format!("{FILE}\n<http>\naddress {address}\n{ssl}\n</http>");
        let server = Server::start_any("admin-socket admin", &storages, |_| ());
        server.wait_for_log("listening on");
        Secured { server, address, files, own }
    }

    fn configuration(&self) -> PathBuf {
        self.server.directory().join("zeo.conf")
    }

    /// Replaces a text of the configuration, and reloads it: the exit code and what is printed.
    fn reload(&self, from: &str, to: &str) -> (i32, String) {
        let text = fs::read_to_string(self.configuration()).expect("a file");
        assert!(text.contains(from), "{text}");
        fs::write(self.configuration(), text.replace(from, to)).expect("written");
        wait_until("it reloads", || reload_of(self.server.directory(), &["--dry-run"]).0 != 1);
        reload_of(self.server.directory(), &[])
    }

    /// The answer, or why there is none.
    fn get(&self, path: &str, client: Option<&Identity>) -> Result<Answer, std::io::Error> {
        let mut stream = self.stream(client);
        // TLS compares the name, so it does not matter here.
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: any.example\r\n\r\n").as_bytes())?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        Ok(answer(&mut &bytes[..]))
    }

    fn stream(&self, client: Option<&Identity>) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.own.certificate.der().clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let config = match client {
            None => builder.with_no_client_auth(),
            Some(client) => {
                let key = PrivatePkcs8KeyDer::from(client.key.serialize_der());
                builder
                    .with_client_auth_cert(vec![client.certificate.der().clone()], key.into())
                    .expect("a certificate")
            }
        };
        let name = ServerName::try_from("localhost").expect("a name");
        let connection = ClientConnection::new(Arc::new(config), name).expect("a connection");
        StreamOwned::new(connection, connect(self.address))
    }
}

#[test]
fn who_shows_a_certificate_is_answered() {
    let (known, unknown) = (Identity::self_signed(params("known")), Identity::self_signed(params("unknown")));
    let secured = Secured::start(&known);
    for path in ["/", "/live", "/metrics", "/status.json"] {
        let answer = secured.get(path, Some(&known)).expect("an answer");
        assert_eq!(answer.status, 200, "{path}");
        let len: usize = answer.field("Content-Length").expect("a length").parse().expect("a number");
        assert_eq!(answer.body.len(), len);
    }
    assert!(secured.get("/live", Some(&unknown)).is_err());
    secured.server.wait_for_log("no TLS for <http>: ");
    assert!(secured.get("/live", None).is_err());
    // What is no TLS gets no answer of HTTP.
    let mut plain = connect(secured.address);
    plain.write_all(b"GET /live HTTP/1.1\r\nHost: zeo\r\n\r\n").expect("sent");
    let mut said = Vec::new();
    let _ = plain.read_to_end(&mut said);
    assert!(!said.starts_with(b"HTTP"), "{said:?}");
    // The clients of ZEO have no TLS here.
    RawClient::register(secured.server.address, Speaks::Z5).expect("registered");
}

#[test]
fn a_renewed_certificate_is_used_without_a_restart() {
    let known = Identity::self_signed(params("known"));
    let mut secured = Secured::start(&known);
    let renewed = Identity::self_signed(params("renewed"));
    fs::write(secured.files.path().join("server.pem"), renewed.pem_with_key()).expect("written");
    secured.server.signal("USR2");
    secured.own = renewed;
    let deadline = Instant::now() + Duration::from_secs(60);
    while secured.get("/live", Some(&known)).is_err() {
        assert!(Instant::now() < deadline, "{}", secured.server.log());
        thread::sleep(Duration::from_millis(20));
    }
}

/// Other files and other rules, for later connections; what SIGUSR2 reads afterwards are those.
#[test]
fn a_reload_applies_its_certificates_and_rules() {
    let [first, second] = ["first", "second"].map(|name| Identity::self_signed(params(name)));
    let mut secured = Secured::start(&first);
    let directory = secured.files.path().to_path_buf();
    fs::write(directory.join("others.pem"), second.pem()).expect("written");
    fs::write(directory.join("new.pem"), secured.own.pem_with_key()).expect("written");
    let (code, said) = secured.reload("clients.pem", "others.pem");
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("  <http> <ssl> authenticate: "), "{said}");
    assert!(secured.get("/live", Some(&first)).is_err());
    assert_eq!(secured.get("/live", Some(&second)).expect("an answer").status, 200);
    assert_eq!(secured.reload("server.pem", "new.pem").0, 0);
    secured.own = Identity::self_signed(params("renewed"));
    assert!(secured.get("/live", Some(&second)).is_err(), "it is not renewed yet");
    fs::write(directory.join("new.pem"), secured.own.pem_with_key()).expect("written");
    secured.server.signal("USR2");
    wait_until("it is renewed", || secured.get("/live", Some(&second)).is_ok());

    // Files that cannot be used change nothing.
    let (code, said) = secured.reload("new.pem", "missing.pem");
    assert_eq!(code, 4, "{said}");
    assert_eq!(secured.get("/live", Some(&second)).expect("an answer").status, 200);
    let (code, said) = secured.reload("missing.pem", "new.pem\n#");
    assert_eq!(code, 0, "{said}");
    let (code, said) = secured.reload("</http>", "allow 192.0.2.1\n</http>");
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("  <http> allow: not set -> 192.0.2.1"), "{said}");
    assert!(secured.get("/live", Some(&second)).is_err());
    assert_eq!(secured.reload("allow 192.0.2.1", "allow 127.0.0.0/8").0, 0);

    // No TLS any more.
    let text = fs::read_to_string(secured.configuration()).expect("a file");
    let (before, rest) = text.split_once("<ssl>").expect("a section");
    let (_, after) = rest.split_once("</ssl>").expect("its end");
    fs::write(secured.configuration(), before.to_string() + after).expect("written");
    assert_eq!(reload_of(secured.server.directory(), &[]).0, 0);
    assert_eq!(get(secured.address, "/live").status, 200);
}

/// A section that goes stays in use until the restart, with its certificates and rules.
#[test]
fn a_section_that_has_gone_stays_until_the_restart() {
    let known = Identity::self_signed(params("known"));
    let mut secured = Secured::start(&known);
    let text = fs::read_to_string(secured.configuration()).expect("a file");
    let (before, rest) = text.split_once("<http>").expect("a section");
    let (_, after) = rest.split_once("</http>").expect("its end");
    wait_until("it serves", || reload_of(secured.server.directory(), &[]).0 == 0);
    fs::write(secured.configuration(), before.to_string() + after).expect("written");
    let (code, said) = reload_of(secured.server.directory(), &[]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("<http> has gone"), "{said}");
    secured.own = Identity::self_signed(params("renewed"));
    fs::write(secured.files.path().join("server.pem"), secured.own.pem_with_key()).expect("written");
    secured.server.signal("USR2");
    wait_until("it is renewed", || secured.get("/live", Some(&known)).is_ok());
    assert!(secured.get("/live", None).is_err());
}

#[test]
fn a_certificate_that_expires_soon_is_a_warning() {
    let known = Identity::self_signed(params("known"));
    let mut soon = params("server");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time");
    let expires = Duration::from_secs(now.as_secs() + 5 * 86400);
    soon.not_after = date_time_ymd(1970, 1, 1) + expires;
    let mut secured = Secured::start_as(Identity::self_signed(soon), &known);
    wait_until("it serves", || {
        secured.get("/startup", Some(&known)).is_ok_and(|answer| answer.status == 200)
    });
    let listener = format!("('127.0.0.1', {})", secured.address.port());
    let metrics = secured.get("/metrics", Some(&known)).expect("an answer").body;
    let series = format!("zeo_tls_certificate_expiry_timestamp_seconds{{listener=\"{listener}\"}} ");
    let value = metrics.lines().find_map(|line| line.strip_prefix(&series)).expect("a series");
    assert_eq!(value.parse::<f64>().expect("a number"), expires.as_secs_f64());
    let what = format!("the certificate of {listener} expires in 5 days");
    let status = |secured: &Secured| secured.get("/status.json", Some(&known)).expect("an answer").body;
    assert!(status(&secured).contains(&what), "{}", status(&secured));
    assert!(secured.get("/", Some(&known)).expect("an answer").body.contains("expires in 5 days"));
    // A renewed one is none.
    secured.own = Identity::self_signed(params("renewed"));
    fs::write(secured.files.path().join("server.pem"), secured.own.pem_with_key()).expect("written");
    secured.server.signal("USR2");
    wait_until("it is renewed", || secured.get("/live", Some(&known)).is_ok());
    assert!(!status(&secured).contains("the certificate of"));
}

/// A byte now and then, in the handshake and in a record after it, holds a thread for as long as without TLS.
#[test]
fn slow_peers_are_ended_in_time() {
    let known = Identity::self_signed(params("known"));
    let secured = Secured::start(&known);
    let begun = Instant::now();
    let mut raw = connect(secured.address);
    raw.write_all(&[22, 3, 1]).expect("sent");
    let mut stream = secured.stream(Some(&known));
    stream.write_all(b"GET /li").expect("sent");
    // The head of a record whose bytes come slowly.
    stream.sock.write_all(&[23, 3, 3, 0, 200]).expect("sent");
    let mut slow = [raw, stream.sock.try_clone().expect("a socket")];
    let mut is_open = [true, true];
    while is_open.contains(&true) {
        assert!(begun.elapsed() < Duration::from_secs(30), "{is_open:?}");
        thread::sleep(Duration::from_millis(200));
        for (socket, is_open) in slow.iter_mut().zip(&mut is_open) {
            socket.set_read_timeout(Some(Duration::from_millis(1))).expect("a timeout");
            let ended = socket.write_all(&[0]).is_err() || matches!(socket.read(&mut [0; 4096]), Ok(0));
            *is_open = *is_open && !ended;
        }
    }
    assert_eq!(secured.get("/live", Some(&known)).expect("an answer").status, 200);
}
