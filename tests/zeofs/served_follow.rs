//! `zeofs tail --follow` of a server: what comes, a server that goes and comes back, and one whose database was
//! restored.

use std::fs;
use std::path::Path;

use runzeo::client::{Client, ClientOptions};
use runzeo::ids::{Oid, Tid};
use runzeo::storage::TransactionMeta;
use rustix::process::Signal;

use crate::files::zeofs;
use crate::follow::Tail;
use crate::servers::{AnyServer, PythonServer, tcp};
use crate::support::client::record;
use crate::support::process::Server;

/// A server of this program, and Python's of each generation that lists its transactions.
fn servers() -> Vec<AnyServer> {
    let mut all = vec![AnyServer::Ours(Server::start())];
    for environment in ["zeo6-py311", "zeo5-py38", "zeo4-py27"] {
        all.extend(PythonServer::start(environment, "", |_| ()).map(AnyServer::Python));
    }
    all
}

/// Commits one object. Returns the tid.
fn commit(client: &Client, oid: u64, serial: Tid, content: &[u8]) -> Tid {
    let mut transaction = client.transaction(TransactionMeta::default());
    transaction.store(Oid(oid), serial, &record(content)).expect("it is kept");
    client.commit(transaction).expect("a commit").tid
}

fn client(server: &AnyServer) -> Client {
    Client::open(ClientOptions::new(vec![server.address()])).expect("a connection")
}

#[test]
fn a_server_that_goes_and_comes_back_is_followed() {
    for mut server in servers() {
        let writer = client(&server);
        let first = commit(&writer, 0, Tid::ZERO, b"root");
        let mut serial = commit(&writer, 0, first, b"root again");
        let url = format!("zeo://{}", server.address());
        let mut tail = Tail::start(&["--json", "-n", "1"], Path::new(&url));
        let shown = tail.expect(serial);
        assert_eq!(
            (shown["records"].as_u64(), shown["objects"][0]["oid"].as_str()),
            (Some(1), Some("0000000000000000"))
        );
        for number in 1..5 {
            // One that only makes an object, of which older servers do not tell.
            let new = commit(&writer, number, Tid::ZERO, b"new");
            let shown = tail.expect(new);
            assert!(shown.get("pos").is_none() && shown.get("len").is_none(), "{shown}");
            serial = commit(&writer, 0, serial, b"changed");
            tail.expect(serial);
        }
        server.kill();
        assert_eq!(tail.next()["kind"], "disconnected");
        tail.expect_nothing();
        server.start_again();
        let back = tail.next();
        assert_eq!(
            (back["kind"].as_str(), back["found"].as_str()),
            (Some("connected"), Some(&*serial.to_string()))
        );
        let writer = client(&server);
        let after = commit(&writer, 0, serial, b"after");
        tail.expect(after);
        tail.expect_nothing();
        tail.signal(Signal::TERM);
        assert_eq!(tail.wait(), Some(0));
        let all = Tail::start(&["--json", "-n", "99"], Path::new(&url));
        all.expect(first);
        let (text, _) = zeofs(&["tail", "--json", "-n", "99", &url]);
        assert_eq!(String::from_utf8(text).unwrap().lines().count(), 11);
    }
}

#[test]
fn a_database_that_was_restored_is_said_and_followed() {
    for mut server in servers() {
        let path = server.directory().join("Data.fs");
        let writer = client(&server);
        let first = commit(&writer, 0, Tid::ZERO, b"root");
        let second = commit(&writer, 0, first, b"root again");
        let backup = fs::read(&path).unwrap();
        let lost = commit(&writer, 0, second, b"is lost");
        let tail = Tail::start(&["--json", "-n", "1"], Path::new(&format!("zeo://{}", server.address())));
        tail.expect(lost);
        server.kill();
        assert_eq!(tail.next()["kind"], "disconnected");
        for name in ["Data.fs.index", "Data.fs.tid", "Data.fs.note"] {
            _ = fs::remove_file(server.directory().join(name));
        }
        // As it is when this transaction ends: a server may have reserved space behind it.
        fs::write(&path, backup).unwrap();
        server.start_again();
        let line = tail.next();
        assert_eq!(line["kind"], "restored", "{line}");
        assert_eq!(
            (line["last"].as_str(), line["found"].as_str()),
            (Some(&*lost.to_string()), Some(&*second.to_string())),
            "{line}"
        );
        let writer = client(&server);
        let new = commit(&writer, 5, Tid::ZERO, b"new");
        let mut line = tail.next();
        // A server of ours notes that its file was exchanged.
        while line["tid"].as_str() != Some(&*new.to_string()) {
            assert_eq!(line["kind"], "transaction", "{line}");
            line = tail.next();
        }
    }
}

/// The last transaction that was shown is packed away while the connection is lost: that is no restore.
#[test]
fn a_pack_is_no_restore() {
    let mut server = Server::start();
    let writer = Client::open(ClientOptions::new(vec![tcp(server.address)])).expect("a connection");
    let root = commit(&writer, 0, Tid::ZERO, b"root");
    let garbage = commit(&writer, 7, Tid::ZERO, b"garbage");
    let tail = Tail::start(&["--json", "-n", "1"], Path::new(&format!("zeo://{}", server.address)));
    tail.expect(garbage);
    writer.pack_now().expect("packed");
    tail.expect_nothing();
    server.restart();
    assert_eq!(tail.next()["kind"], "disconnected");
    let line = tail.next();
    assert_eq!(
        (line["kind"].as_str(), line["found"].as_str()),
        (Some("connected"), Some(&*root.to_string())),
        "{line}"
    );
}
