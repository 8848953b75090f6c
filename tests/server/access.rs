//! `<access>`: what clients may do with a storage, by what they have shown of themselves.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;

use crate::authentication::{ask, passes, secret, session_key};
use crate::listeners::{connect, connect_unix, listen, register, ruok};
use crate::support::client::{RawClient, Speaks, answer_to_register, connect_from, record};
use crate::support::pickle::Value;
use crate::support::process::{Server, free_address};
use crate::tls::identities::{Identity, params};
use rustls::pki_types::PrivatePkcs8KeyDer;
use sha2::{Digest, Sha256};

const FILE: &str = "<filestorage 1>\npath Data.fs\n</filestorage>\n";

fn access(storage: &str, rules: &[&str]) -> String {
    let rules: String = rules.iter().map(|rule| format!("rule {rule}\n")).collect();
    format!("<access {storage}>\n{rules}</access>\n")
}

/// Clients of different networks: 127.0.0.2 and so on.
fn from(last: u8, address: SocketAddr, speaks: Speaks) -> RawClient {
    let stream = connect_from(Ipv4Addr::new(127, 0, 0, last), address).expect("connected");
    RawClient::greet_on(stream, speaks).expect("greeted")
}

/// The class of the error that a call ends with; `None`: it succeeds.
fn refused(client: &mut RawClient, method: &str, args: Vec<Value>) -> Option<String> {
    client.call(method, args).expect("connected").err().map(|(class, detail)| format!("{class} {detail:?}"))
}

/// The calls that need a right, with the right.
fn needing() -> Vec<(&'static str, &'static str, Vec<Value>)> {
    let time = || vec![Value::Float(1e9), Value::Bool(true)];
    vec![
        ("pack", "pack", time()),
        ("pack", "runzeo_pack_plan", vec![Value::Float(1e9)]),
        ("pack", "runzeo_cancel_pack", vec![]),
        ("iterate", "iterator_start", vec![Value::None, Value::None]),
        ("iterate", "record_iternext", vec![]),
        ("write", "new_oids", vec![Value::Int(1)]),
    ]
}

/// A client has what the first rule says that fits it, and nothing else.
#[test]
fn rights_are_those_of_the_rule() {
    let rules = [
        "read 127.0.0.2",
        "read,write 127.0.0.3",
        "read,write,undo,pack 127.0.0.4",
        "read,iterate 127.0.0.5",
        "all 127.0.0.1",
    ];
    let server = Server::start_any("", &(FILE.to_string() + &access("1", &rules)), |_| ());
    let mut writer = connect(server.address, Speaks::Z5);
    register(&mut writer, "1", false).expect("registered");
    let oid = writer.new_oids(1).expect("oids")[0];
    writer.commit(&[(oid, 0, &record(b"1"))]).expect("connected").expect("committed");
    for speaks in Speaks::ALL {
        for (last, rights) in [
            (2, &["read"][..]),
            (3, &["read", "write"]),
            (4, &["read", "write", "undo", "pack"]),
            (5, &["read", "iterate"]),
            (1, &["read", "write", "undo", "pack", "iterate", "admin"]),
        ] {
            let can_write = rights.contains(&"write");
            let mut client = from(last, server.address, speaks);
            if !can_write {
                let (class, _) = register(&mut client, "1", false).expect_err("it may only read");
                assert!(class.contains("ReadOnlyError"), "{class}");
            }
            register(&mut client, "1", !can_write).expect("registered");
            let load = client.queue_load(oid);
            client.flush().expect("sent");
            client.answer(load).expect("connected").expect("loaded");
            for (right, method, args) in needing() {
                let refused = refused(&mut client, method, args);
                if rights.contains(&right) {
                    assert_eq!(refused, None, "{speaks:?} {last} {method}");
                    continue;
                }
                let refused = refused.unwrap_or_else(|| panic!("{speaks:?} {last}: {method} is not refused"));
                match right {
                    _ if can_write || right == "iterate" => assert!(
                        refused.contains("StorageError") && refused.contains(&format!("to {right}")),
                        "{refused}"
                    ),
                    _ => assert!(refused.contains("ReadOnlyError"), "{refused}"),
                }
            }
        }
    }
    assert_eq!(server.count_in_log("call raised"), 0, "{}", server.log());
    let counted = server.ruok()["1"]["denied"].as_u64().expect("a number");
    assert!(counted > 100, "{counted}");
    // Once a minute for each address.
    for last in 2..6 {
        let line = format!("refused by <access> of storage '1': address 127.0.0.{last} has no right to ");
        assert_eq!(server.count_in_log(&line), 1, "{}", server.log());
    }
    server.wait_for_log("refused: it wants to write, and may only read storage '1' here");
    server.wait_for_log("registered for storage '1' as address 127.0.0.3: read, write\n");
    server.wait_for_log(
        "registered for storage '1' as address 127.0.0.1: read, write, undo, pack, iterate, admin\n",
    );
}

/// The id of the first transaction in the answer to `undoInfo`.
fn newest(entries: Value) -> Value {
    let (Value::List(entries) | Value::Tuple(entries)) = entries else { panic!("{entries:?}") };
    let Some(Value::Dict(items)) = entries.first() else { panic!("{entries:?}") };
    items.iter().find(|(key, _)| key.bytes() == b"id").expect("an id").1.clone()
}

/// An undo that is refused undoes nothing.
#[test]
fn undo_is_a_right_of_its_own() {
    let rules = ["read,write 127.0.0.2", "read,write,undo 127.0.0.3"];
    let server = Server::start_any("", &(FILE.to_string() + &access("1", &rules)), |_| ());
    for speaks in [Speaks::Z309, Speaks::Z4, Speaks::Z5] {
        let mut client = from(2, server.address, speaks);
        register(&mut client, "1", false).expect("registered");
        let oid = client.new_oids(1).expect("oids")[0];
        let first = client.commit(&[(oid, 0, &record(b"1"))]).expect("connected").expect("committed");
        let second = client.commit(&[(oid, first, &record(b"2"))]).expect("connected").expect("committed");
        let undo = |last: u8| -> Result<Value, (String, Value)> {
            let mut client = from(last, server.address, speaks);
            register(&mut client, "1", false).expect("registered");
            let which =
                client.call("undoInfo", vec![Value::Int(0), Value::Int(-1), Value::None]).expect("connected");
            let which = newest(which.expect("a list"));
            client.queue_begin(7);
            if speaks.answers_undo() {
                client.call("undo", vec![which, Value::Int(7)]).expect("connected")?;
            } else {
                client.queue_async("undoa", vec![which, Value::Int(7)]);
            }
            client.call("vote", vec![Value::Int(7)]).expect("connected")?;
            client.call("tpc_finish", vec![Value::Int(7)]).expect("connected")
        };
        let (class, detail) = undo(2).expect_err("it has no right to undo");
        assert!(
            class.contains("StorageError") && format!("{detail:?}").contains("to undo"),
            "{class} {detail:?}"
        );
        let serial = |client: &mut RawClient| {
            let load = client.queue_load(oid);
            client.flush().expect("sent");
            client.answer(load).expect("connected").expect("loaded").tuple()[1].id()
        };
        assert_eq!(serial(&mut client), second);
        undo(3).expect("undone");
        assert!(serial(&mut client) > second);
    }
}

/// To a client that may not read a storage it does not exist, byte for byte, and `ruok` does not name it.
#[test]
fn what_may_not_be_read_does_not_exist() {
    let storages = "<mappingstorage secret>\n</mappingstorage>\n<mappingstorage open>\n</mappingstorage>\n";
    let rules = access("secret", &["all 127.0.0.2", "none 127.0.0.3", "none everyone"]);
    let server = Server::start_any("", &(storages.to_string() + &rules), |_| ());
    for speaks in Speaks::ALL {
        let answer = |storage: &str, read_only: bool| {
            let stream = connect_from(Ipv4Addr::new(127, 0, 0, 3), server.address).expect("connected");
            answer_to_register(stream, speaks, storage, read_only)
        };
        for read_only in [false, true] {
            let mut hidden = answer("secret", read_only);
            let at =
                hidden.windows(6).position(|window| window == b"secret").expect("the name in the answer");
            hidden[at..at + 6].copy_from_slice(b"sekret");
            assert_eq!(hidden, answer("sekret", read_only), "{speaks:?}");
        }
        register(&mut from(2, server.address, speaks), "secret", false).expect("it may");
        register(&mut from(3, server.address, speaks), "open", false).expect("a storage without rules");
    }
    let names = |last: u8| -> Vec<String> {
        let probe = connect_from(Ipv4Addr::new(127, 0, 0, last), server.address).expect("connected");
        ruok(probe).as_object().expect("a dict").keys().cloned().collect()
    };
    assert_eq!(names(3), ["open"]);
    assert_eq!(names(2), ["open", "secret"]);
    assert_eq!(
        server.count_in_log("refused by <access> of storage 'secret': address 127.0.0.3 may not read it"),
        1
    );
}

/// Passwords, certificates and processes: all kinds of identities on one server.
#[test]
fn who_a_client_is() {
    let files = tempfile::tempdir().expect("a directory");
    let path = |name: &str| files.path().join(name).display().to_string();
    let [own, a, b, c] = ["server", "a", "b", "c"].map(|name| Identity::self_signed(params(name)));
    fs::write(path("server.pem"), own.pem_with_key()).expect("written");
    fs::write(path("clients.pem"), [&a, &b, &c].map(Identity::pem).concat()).expect("written");
    let tls = free_address();
    let ssl =
        format!("<ssl>\ncertificate {}\nauthenticate {}\n</ssl>", path("server.pem"), path("clients.pem"));
    let fingerprint: String =
        Sha256::digest(b.certificate.der()).iter().map(|byte| format!("{byte:02X}:")).collect();
    let uid = rustix::process::geteuid().as_raw();
    let rules = [
        "read,write user:foo",
        "read,write cert:CN=a",
        &format!("read cert-sha256:{fingerprint}"),
        &format!("read,pack uid:{uid}"),
    ];
    let sections = FILE.to_string()
        + &listen("tls", tls, &format!("authentication none\n{ssl}"))
        + &listen("local", "./zeo.sock", "authentication none")
        + &listen("open", free_address(), "authentication none")
        + &access("", &rules);
    let zeo = "authentication-protocol digest\nauthentication-database passwords\nauthentication-realm r";
    let server = Server::start_any(zeo, &sections, |directory| {
        fs::write(directory.join("passwords"), format!("realm r\nfoo: {}\n", secret("bar")))
            .expect("passwords");
    });
    let mut user = connect(server.address, Speaks::Z4);
    let (challenge, nonce) = ask(&mut user);
    assert!(passes(&mut user, "foo", &challenge, &secret("bar")));
    user.use_session_key(&session_key(&secret("bar"), &nonce));
    register(&mut user, "1", false).expect("registered");
    server.wait_for_log("registered for storage '1' as user 'foo', address 127.0.0.1: read, write\n");

    let mut roots = rustls::RootCertStore::empty();
    roots.add(own.certificate.der().clone()).expect("a root");
    let secure = |client: &Identity| {
        let key = PrivatePkcs8KeyDer::from(client.key.serialize_der());
        let config = rustls::ClientConfig::builder()
            .with_root_certificates(roots.clone())
            .with_client_auth_cert(vec![client.certificate.der().clone()], key.into())
            .expect("a certificate");
        let stream = TcpStream::connect(tls).expect("connected");
        RawClient::begin_tls(stream, Speaks::Z5, &Arc::new(config)).expect("greeted")
    };
    register(&mut secure(&a), "1", false).expect("its subject");
    let (class, _) = register(&mut secure(&b), "1", false).expect_err("it may only read");
    assert!(class.contains("ReadOnlyError"), "{class}");
    register(&mut secure(&b), "1", true).expect("its fingerprint");
    let (class, _) = register(&mut secure(&c), "1", true).expect_err("no rule");
    assert!(class.contains("ValueError"), "{class}");
    server.wait_for_log("certificate 'CN=c', address 127.0.0.1 may not read it");

    let mut process = connect_unix(&server.directory().join("zeo.sock"), Speaks::Z5);
    register(&mut process, "1", true).expect("its user");
    assert_eq!(refused(&mut process, "pack", vec![Value::Float(1e9), Value::Bool(true)]), None);
    let line = format!("registered for storage '1' as uid {uid}, gid ");
    server.wait_for_log(&line);
    // The rights that it uses: one that has registered to read may pack.
    let log = server.log();
    let rights =
        log.lines().find_map(|found| found.split_once(&line)?.1.split_once(": ")).expect("the line").1;
    assert!(rights.starts_with("read, ") && rights.contains("pack"), "{rights}");
}
