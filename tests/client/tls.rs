//! Clients with TLS: which servers they accept, and what they say otherwise.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{DnType, ExtendedKeyUsagePurpose, date_time_ymd};
use runzeo::internal::base::address::Address;
use runzeo::internal::base::cancel::Cancel;
use runzeo::internal::client::dial::{DialError, DialOptions, dial};
use runzeo::internal::client::library::Client;
use runzeo::internal::client::link::{LinkOptions, start};
use runzeo::internal::client::options::ClientOptions;
use runzeo::internal::net::tls::{ClientTls, Files, HostCheck, Peers};
use runzeo::internal::wire::calls::Call;
use runzeo::internal::wire::value::Value;
use tempfile::TempDir;

use crate::identities::{Identity, authority, params};
use crate::link::{Watcher, ask, register};
use crate::servers::{AnyServer, PythonServer};
use crate::support::process::Server;

/// Where all files of a test are.
struct World {
    files: TempDir,
    client: Identity,
}

impl World {
    fn new() -> World {
        let world = World {
            files: tempfile::tempdir().expect("a directory"),
            client: Identity::self_signed(params("client")),
        };
        world.write("client.pem", &world.client.pem_with_key());
        world
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.files.path().join(name);
        fs::write(&path, text).expect("write");
        path
    }

    /// Servers that show this certificate, ours and Python's.
    fn servers(&self, own: &Identity) -> Vec<(&'static str, AnyServer)> {
        let certificate = self.write("server.pem", &own.pem_with_key());
        let clients = self.write("clients.pem", &self.client.pem());
        let ssl = format!(
            "<ssl>\ncertificate {}\nauthenticate {}\n</ssl>",
            certificate.display(),
            clients.display()
        );
        let mut servers = vec![("ours", AnyServer::Ours(Server::start_with(&ssl)))];
        let python = PythonServer::start("zeo6-py311", &ssl, |_| ());
        servers.extend(python.map(|server| ("zeo6-py311", AnyServer::Python(server))));
        servers
    }

    fn client(&self, trusted: &str, check: HostCheck) -> ClientTls {
        self.client_as(&self.client, trusted, check)
    }

    fn client_as(&self, client: &Identity, trusted: &str, check: HostCheck) -> ClientTls {
        let files = Files {
            certificate: self.write("shown.pem", &client.pem_with_key()),
            key: None,
            password: None,
            peers: Peers::Listed(self.write("trusted.pem", trusted)),
        };
        ClientTls::load(&files, check).expect("certificates")
    }
}

fn named(host: &str) -> HostCheck {
    HostCheck { is_off: false, host: Some(host.into()) }
}

const ANY: HostCheck = HostCheck { is_off: true, host: None };

fn connect(address: &Address, tls: ClientTls) -> Result<(), DialError> {
    let options = DialOptions { tls: Some(Arc::new(tls)), ..DialOptions::default() };
    let dialled = dial(address, &options, &Cancel::default())?;
    let link = start(dialled, Arc::new(Watcher::default()), LinkOptions::default()).expect("threads");
    register(&link);
    for _ in 0..10 {
        ask(&link, "lastTransaction", &[]).expect("a transaction id");
    }
    // More than a record of TLS, both ways.
    let long = "x".repeat(100_000);
    let error =
        link.call(&Call::Other { name: "lastTransaction", args: &[Value::text(long)] }, None, |answer| {
            answer.value().map_err(|error| error.to_string())
        });
    assert!(error.expect("a link").is_err());
    link.close();
    Ok(())
}

fn refusal(address: &Address, tls: ClientTls) -> String {
    match connect(address, tls) {
        Err(DialError::Tls(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn good_certificates() {
    let world = World::new();
    let root = Identity::self_signed(authority("root"));
    let signed = root.sign(params("server"));
    for (name, server) in world.servers(&signed) {
        let address = server.address();
        for (trusted, check) in
            [(signed.pem(), named("localhost")), (root.pem(), named("LocalHost")), (root.pem(), ANY)]
        {
            connect(&address, world.client(&trusted, check))
                .unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        let wrong_host = refusal(&address, world.client(&root.pem(), HostCheck::default()));
        assert_eq!(
            wrong_host,
            "'CN=server': the certificate of the server is for 'localhost', not for '127.0.0.1'; name one of them in \
             'server-hostname'",
            "{name}"
        );
        let by_name = match address {
            Address::Tcp { port, .. } => Address::Tcp { host: Some("localhost".into()), port },
            other => other,
        };
        connect(&by_name, world.client(&root.pem(), HostCheck::default()))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

/// From the configuration to the connection.
#[test]
fn a_section_with_ssl() {
    let world = World::new();
    let root = Identity::self_signed(authority("root"));
    let server = root.sign(params("server"));
    let own = world.write("own.pem", &world.client.pem_with_key());
    let trusted = world.write("root.pem", &root.pem());
    for (name, server) in world.servers(&server) {
        let open = |keys: &str| {
            let text = format!(
                "<clientstorage>\nserver {}\nwait-timeout 30\n<ssl>\ncertificate {}\nauthenticate {}\n{keys}\n</ssl>\n\
                 </clientstorage>\n",
                server.address(),
                own.display(),
                trusted.display()
            );
            Client::open(ClientOptions::from_zconfig(&text).expect(&text)).map(drop)
        };
        for keys in ["server-hostname localhost", "check-hostname false"] {
            open(keys).unwrap_or_else(|error| panic!("{name}: {keys}: {error}"));
        }
    }
    let missing = "<zeoclient>\nserver 1\n<ssl>\ncertificate none.pem\n</ssl>\n</zeoclient>\n";
    let options = ClientOptions::from_zconfig(missing).expect("fine");
    let error = Client::open(options).map(drop).expect_err("no certificate").to_string();
    assert!(error.contains("<ssl>: certificate: none.pem: No such file"), "{error}");
}

#[test]
fn bad_certificates_of_servers() {
    let world = World::new();
    let root = Identity::self_signed(authority("root"));
    let stranger = Identity::self_signed(params("stranger"));
    let mut late = params("late");
    late.not_after = date_time_ymd(2021, 1, 1);
    let mut for_clients = params("for clients");
    for_clients.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let late_listed = Identity::self_signed(late.clone());
    for (own, trusted, expected) in [
        (
            &stranger,
            root.pem(),
            "'CN=stranger': the certificate is not in 'authenticate', and no authority there has signed it",
        ),
        (&root.sign(late), root.pem(), "'CN=late': the certificate, or one that it depends on, has expired"),
        (&late_listed, late_listed.pem(), "'CN=late': the certificate expired on 2021-01-01T00:00:00Z"),
        (
            &root.sign(for_clients),
            root.pem(),
            "'CN=for clients': the certificate is not for servers (extended key usage)",
        ),
    ] {
        for (name, server) in world.servers(own) {
            assert_eq!(refusal(&server.address(), world.client(&trusted, ANY)), expected, "{name}");
        }
    }
}

/// A certificate without alternative names is for its common name.
#[test]
fn common_names() {
    let world = World::new();
    let mut old = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
    old.distinguished_name.push(DnType::CommonName, "zodb.example.org");
    let old = Identity::self_signed(old);
    for (name, server) in world.servers(&old) {
        let address = server.address();
        connect(&address, world.client(&old.pem(), named("zodb.example.org")))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let other = refusal(&address, world.client(&old.pem(), named("example.org")));
        assert!(other.contains("is for 'zodb.example.org', not for 'example.org'"), "{name}: {other}");
    }
}

#[test]
fn servers_that_refuse_this_client() {
    let world = World::new();
    let own = Identity::self_signed(params("server"));
    let other = Identity::self_signed(params("another client"));
    for (name, server) in world.servers(&own) {
        let why = refusal(&server.address(), world.client_as(&other, &own.pem(), ANY));
        // Python's server closes the connection and says nothing.
        let expected = match server {
            AnyServer::Ours(_) => "the server does not accept the certificate of this client (unknown ca)",
            AnyServer::Python(_) => {
                "the server closed the connection after the TLS handshake; its log says why"
            }
        };
        assert!(why.starts_with(expected), "{name}: {why}");
    }
}

#[test]
fn a_server_without_tls() {
    let world = World::new();
    let server = Server::start();
    let own = Identity::self_signed(params("server"));
    assert_eq!(
        refusal(&crate::servers::tcp(server.address), world.client(&own.pem(), ANY)),
        "the server does not speak TLS; does its configuration have <ssl>?"
    );
}

#[test]
fn unix_sockets_need_a_name() {
    let world = World::new();
    let path = world.files.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    let why = refusal(&Address::Unix(path), world.client(&world.client.pem(), HostCheck::default()));
    assert!(why.contains("<ssl> needs 'server-hostname'"), "{why}");
}
