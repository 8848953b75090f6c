//! `zeoup` with servers of every generation, and with what is no server that is up.

use std::net::TcpListener;
use std::process::Command;
use std::time::Instant;

use runzeo::client::Address;
use runzeo::client::records::{PersistentMapping, PyValue};
use runzeo::client::{Client, ClientOptions};
use runzeo::ids::Oid;
use runzeo::storage::TransactionMeta;

use crate::identities::{Identity, params};
use crate::passwords::servers_with_password;
use crate::pythons::python;
use crate::servers::{AnyServer, PythonServer, tcp, with_each};
use crate::support::process::{Server, free_address};

/// Runs it; the exit code, and what it prints.
fn zeoup(arguments: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_zeoup")).args(arguments).output().expect("it runs");
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().expect("a code"), text)
}

fn port_of(server: &AnyServer) -> String {
    match server {
        AnyServer::Ours(server) => server.address.port().to_string(),
        AnyServer::Python(server) => server.address.port().to_string(),
    }
}

/// The counter, as Python's script keeps it.
fn counter(client: &Client) -> Option<i128> {
    let mut view = client.view();
    view.refresh_from_server().expect("a view");
    let objects = client.objects_in(view);
    let monitor = objects.root().expect("a root").reference("monitor")?;
    let monitor = PersistentMapping::of(objects.load(monitor).expect("an object")).expect("a mapping");
    let counter = objects.load(monitor.reference("zeoup")?).expect("an object");
    counter.attribute("value").and_then(PyValue::as_integer)
}

fn create_root(client: &Client, python2: bool) {
    use runzeo::client::records::Format;
    let mut objects = client.objects();
    objects.root_or_new(if python2 { Format::PYTHON2 } else { Format::PYTHON3 }).expect("a root");
    client.commit_objects(objects, TransactionMeta::default()).expect("a commit");
}

#[test]
fn a_server_of_any_generation_is_up() {
    with_each(|name, server| {
        let port = port_of(&server);
        let is_up = |arguments: &[&str]| {
            let (code, text) = zeoup(&[&["-p", &port, "-h", "127.0.0.1"], arguments].concat());
            assert_eq!((code, text.starts_with("Elapsed time: ")), (0, true), "{name}: {text}");
        };
        // An empty database: there is no root, and a transaction is taken.
        is_up(&["--nowrite"]);
        is_up(&[]);
        is_up(&["--nowrite"]);

        let client = Client::open(ClientOptions::new(vec![server.address()])).expect("a connection");
        create_root(&client, name.ends_with("py27"));
        is_up(&["--nowrite"]);
        assert_eq!(counter(&client), None, "{name}");
        is_up(&[]);
        assert_eq!(counter(&client), Some(1), "{name}");
        is_up(&["-1"]);
        assert_eq!(counter(&client), Some(2), "{name}");

        let (code, text) = zeoup(&["-p", &port, "-h", "127.0.0.1", "-S", "other"]);
        assert_eq!(code, 1, "{name}: {text}");
        assert!(text.contains("other") && !text.contains("ClientDisconnected"), "{name}: {text}");
    });
}

/// Python's script counts on with our counter, and we with its.
#[test]
fn the_counter_is_pythons() {
    for environment in ["zeo4-py27", "zodb38-py27"] {
        let Some(server) = PythonServer::start(environment, "", |_| ()) else { continue };
        let port = server.address.port().to_string();
        let pythons = || {
            let output = Command::new(python(environment).expect("Python"))
                .args(["-m", "ZEO.scripts.zeoup", "-h", "127.0.0.1", "-p", &port])
                .output()
                .expect("Python");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(text.starts_with("Elapsed time: "), "{environment}: {text}");
        };
        pythons();
        let client = Client::open(ClientOptions::new(vec![tcp(server.address)])).expect("a connection");
        assert_eq!(counter(&client), Some(1), "{environment}");
        assert_eq!(zeoup(&["-h", "127.0.0.1", "-p", &port]).0, 0);
        pythons();
        assert_eq!(counter(&client), Some(3), "{environment}");
        let root = client.objects().load(Oid::ZERO).expect("a root");
        assert!(root.format.is_python2());
    }
}

#[test]
fn what_is_not_up_is_said_in_one_line() {
    let refused = free_address().port().to_string();
    let (code, text) = zeoup(&["-h", "127.0.0.1", "-p", &refused]);
    assert_eq!(code, 1);
    assert!(text.starts_with("ClientDisconnected: 127.0.0.1:"), "{text}");
    assert!(text.contains("refused"), "{text}");

    // Accepts connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("an address").port().to_string();
    let begun = Instant::now();
    let (code, text) = zeoup(&["-h", "127.0.0.1", "-p", &port, "--timeout", "0.5"]);
    assert_eq!((code, text.starts_with("ClientDisconnected: ")), (1, true), "{text}");
    assert!(begun.elapsed().as_secs() < 25, "the default would be 30 s");
    let (code, text) = zeoup(&["-h", "127.0.0.1", "-p", &port, "--timeout", "0.5", "--nagios"]);
    assert_eq!(code, 2);
    assert!(
        text.starts_with(&format!("ZEO CRITICAL - 127.0.0.1:{port} storage 1: ClientDisconnected: ")),
        "{text}"
    );
    assert_eq!((text.lines().count(), text.contains("|time=0.")), (1, true), "{text}");

    let (code, text) = zeoup(&["--nagios"]);
    assert_eq!((code, text.as_str()), (3, "ZEO UNKNOWN - give -p PORT, -U PATH or --config FILE\n"));
    let (code, text) = zeoup(&["-h", "127.0.0.1"]);
    assert_eq!(code, 1);
    assert!(text.contains("For help, use "), "{text}");
}

#[test]
fn read_only_servers_and_nagios() {
    let server = Server::start();
    let port = server.address.port().to_string();
    create_root(&Client::open(ClientOptions::new(vec![tcp(server.address)])).expect("a connection"), false);
    let (code, text) = zeoup(&["-h", "127.0.0.1", "-p", &port, "--nagios"]);
    assert_eq!(code, 0, "{text}");
    let expected = format!("ZEO OK - 127.0.0.1:{port} storage 1: a transaction was committed in ");
    assert!(text.starts_with(&expected) && text.contains(" s|time="), "{text}");

    let read_only = Server::start_with("read-only true");
    let port = read_only.address.port().to_string();
    let (code, text) = zeoup(&["-h", "127.0.0.1", "-p", &port]);
    assert_eq!((code, text.starts_with("ReadOnlyError")), (1, true), "{text}");
}

/// Runs it with this text as the file of `--config`.
fn zeoup_with_config(text: &str, arguments: &[&str]) -> (i32, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("client.conf");
    std::fs::write(&path, text).expect("a file");
    zeoup(&[&["--config", path.to_str().expect("a path")], arguments].concat())
}

/// A server that asks for a password: the account is in a `<zeoclient>`. Python's servers of ZEO 5 and later have none.
#[test]
fn passwords_come_from_a_configuration() {
    let (_dir, servers) = servers_with_password(&["zeo4-py27", "zodb38-py27"]);
    for (environment, server) in servers {
        let Address::Tcp { port: Some(port), .. } = server.address() else { panic!("a TCP address") };
        let with_password = |password: &str, arguments: &[&str]| {
            let address = server.address();
            let account = format!("username user\npassword {password}\nrealm ZEO");
            zeoup_with_config(&format!("<zeoclient>\nserver {address}\n{account}\n</zeoclient>\n"), arguments)
        };
        let (code, text) = with_password("secret", &["--nagios"]);
        assert_eq!((code, text.starts_with("ZEO OK - ")), (0, true), "{environment}: {text}");
        let (code, text) = with_password("secret", &[]);
        assert_eq!((code, text.starts_with("Elapsed time: ")), (0, true), "{environment}: {text}");
        let (code, text) = with_password("wrong", &["--nagios"]);
        assert_eq!((code, text.contains("AuthError: ")), (2, true), "{environment}: {text}");
        let (code, text) = zeoup(&["-h", "127.0.0.1", "-p", &port.to_string()]);
        assert_eq!((code, text.starts_with("AuthError: ")), (1, true), "{environment}: {text}");
    }
}

/// The certificates are in the `<ssl>` of a configuration; without them there is no connection.
#[test]
fn certificates_come_from_a_configuration() {
    let own = Identity::self_signed(params("server"));
    let client = Identity::self_signed(params("client"));
    let dir = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let (shown, trusted) = (write("client.pem", &client.pem_with_key()), write("trusted.pem", &own.pem()));
    let ssl = format!(
        "<ssl>\ncertificate {}\nauthenticate {}\n</ssl>",
        write("server.pem", &own.pem_with_key()),
        write("clients.pem", &client.pem())
    );
    let mut servers = vec![("ours", AnyServer::Ours(Server::start_with(&ssl)))];
    servers.extend(
        PythonServer::start("zeo6-py311", &ssl, |_| ()).map(|server| ("ZEO 6", AnyServer::Python(server))),
    );
    for (name, server) in servers {
        let config = |ssl: &str| format!("<zeoclient>\nserver {}\n{ssl}</zeoclient>\n", server.address());
        let good = config(&format!(
            "<ssl>\ncertificate {shown}\nauthenticate {trusted}\nserver-hostname localhost\n</ssl>\n"
        ));
        let (code, text) = zeoup_with_config(&good, &[]);
        assert_eq!((code, text.starts_with("Elapsed time: ")), (0, true), "{name}: {text}");
        let stranger = config(&format!(
            "<ssl>\ncertificate {shown}\nauthenticate {shown}\nserver-hostname localhost\n</ssl>\n"
        ));
        // What is not TLS gets no greeting.
        let cases = [(stranger, "SSLError: ", "60"), (config(""), "ClientDisconnected: ", "2")];
        for (refused, class, seconds) in cases {
            let (code, text) = zeoup_with_config(&refused, &["--timeout", seconds, "--nagios"]);
            let is_critical = text.starts_with("ZEO CRITICAL - ") && text.contains(class);
            assert_eq!((code, is_critical), (2, true), "{name}: {text}");
        }
    }
}
