//! Rules, read-only listeners and passwords: what a client that is connected loses, and what others find.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use super::{STORAGE, Site};
use crate::authentication::{ask, passes, secret, session_key};
use crate::limits::{client, commit_something, wait_until};
use crate::listeners::{connect, listen, register};
use crate::support::client::{RawClient, Speaks, connect_from, record};
use crate::support::pickle::{Value, text};
use crate::support::process::free_address;

fn rules(rules: &[&str]) -> String {
    let rules: String = rules.iter().map(|rule| format!("rule {rule}\n")).collect();
    format!("{STORAGE}\n<access>\n{rules}</access>\n")
}

/// A registered client of 127.0.0.2 and so on.
fn from(last: u8, address: SocketAddr) -> RawClient {
    let stream = connect_from(Ipv4Addr::new(127, 0, 0, last), address).expect("connected");
    let mut client = RawClient::greet_on(stream, Speaks::Z5).expect("greeted");
    register(&mut client, "1", false).expect("registered");
    client
}

/// The class of the error that a call ends with.
fn refused(client: &mut RawClient, method: &str, args: Vec<Value>) -> String {
    client.call(method, args).expect("connected").expect_err(method).0
}

#[test]
fn what_rules_take_away_is_lost_at_once() {
    let site = Site::start("", STORAGE);
    let address = site.server.address;
    let [mut open, mut voted, mut packer, mut other] = [2, 3, 4, 5].map(|last| from(last, address));
    for (client, is_voted) in [(&mut open, false), (&mut voted, true)] {
        let oid = client.new_oids(1).expect("oids")[0];
        client.queue_begin(7);
        client.queue_store(oid, 0, &record(b"1"), 7);
        if is_voted {
            client.call("vote", vec![Value::Int(7)]).expect("connected").expect("a vote");
        } else {
            client.call("lastTransaction", vec![]).expect("connected").expect("an answer");
        }
    }
    let said = site.apply(
        "",
        &rules(&["read 127.0.0.2/31", "read,write,iterate 127.0.0.4", "none 127.0.0.5", "all everyone"]),
    );
    assert!(said.contains("  <access> has come: rule read 127.0.0.2/31; "), "{said}");
    assert!(said.contains("\nclients that may not read any more, and are disconnected: "), "{said}");
    let restricted = said.lines().find(|line| line.starts_with("clients that may do less than before: "));
    assert_eq!(restricted.expect("a line").split(", ").count(), 3, "{said}");

    // What was begun before the vote cannot go on; what was promised by the vote is kept.
    let class = refused(&mut open, "vote", vec![Value::Int(7)]);
    assert!(class.contains("ReadOnlyError"), "{class}");
    open.call("tpc_abort", vec![Value::Int(7)]).expect("connected").expect("it ends");
    voted.call("tpc_finish", vec![Value::Int(7)]).expect("connected").expect("it was promised");
    for client in [&mut open, &mut voted] {
        let class = refused(client, "new_oids", vec![Value::Int(1)]);
        assert!(class.contains("ReadOnlyError"), "{class}");
        client.call("lastTransaction", vec![]).expect("connected").expect("it may read");
    }
    assert_eq!(site.server.ruok()["1"]["active_txns"], 0);
    commit_something(&mut packer);
    refused(&mut packer, "pack", vec![Value::Float(1.0), Value::Bool(true)]);
    let ended = std::iter::repeat_with(|| other.next()).take(3).any(|next| next.is_err());
    assert!(ended, "it is disconnected");
    site.server.wait_for_log("may not read storage '1' any more; the connection is closed");

    // Given back.
    let said = site.apply("", STORAGE);
    assert_eq!(said.lines().count(), 2, "{said}");
    [&mut open, &mut voted, &mut packer].into_iter().for_each(commit_something);
}

/// Clients that register while rules change have the old rights or the new ones, and in the end the new ones.
#[test]
fn clients_that_register_during_a_reload_get_the_new_rules() {
    let site = Site::start("", STORAGE);
    let address = site.server.address;
    let sites = [STORAGE.to_string(), rules(&["read everyone"])];
    for turn in 0..10 {
        site.write("", &sites[(turn + 1) % 2]);
        let clients = std::thread::scope(|scope| {
            let registering = scope.spawn(|| {
                let mut clients = Vec::new();
                for _ in 0..20 {
                    let mut client = connect(address, Speaks::Z5);
                    // A writer is refused where nothing can be written.
                    if register(&mut client, "1", false).is_ok() {
                        clients.push(client);
                    }
                }
                clients
            });
            assert_eq!(site.reload(&[]).0, 0);
            registering.join().expect("no panic")
        });
        let may_write = turn % 2 == 1;
        for mut client in clients {
            let called = client.call("new_oids", vec![Value::Int(1)]).expect("connected");
            assert_eq!(called.is_ok(), may_write, "turn {turn}");
        }
    }
}

#[test]
fn a_listener_becomes_read_only_or_serves_less() {
    let more = free_address();
    let site = Site::start("", &(STORAGE.to_string() + "\n<mappingstorage 2>\n</mappingstorage>\n"));
    let storages = || STORAGE.to_string() + "\n<mappingstorage 2>\n</mappingstorage>\n";
    let with = |keys: &str| site.apply("", &(storages() + &listen("more", more, keys)));
    with("");
    let mut here = client(&site.server);
    let mut first = connect(more, Speaks::Z5);
    register(&mut first, "1", false).expect("registered");
    let mut second = connect(more, Speaks::Z5);
    register(&mut second, "2", false).expect("registered");
    with("read-only on");
    assert!(refused(&mut first, "new_oids", vec![Value::Int(1)]).contains("ReadOnlyError"));
    commit_something(&mut here);
    let mut third = connect(more, Speaks::Z5);
    register(&mut third, "1", false).expect_err("it cannot write");
    register(&mut third, "1", true).expect("it can read");
    with("max-connections 3");
    commit_something(&mut first);
    register(&mut connect(more, Speaks::Z5), "1", true).expect_err("three are connected");
    let said = with("storages 2");
    assert!(said.contains("disconnected: "), "{said}");
    wait_until("the clients of 1 are gone", || site.server.ruok()["1"]["connections"] == 1);
    second.call("lastTransaction", vec![]).expect("connected").expect("it stays");
    register(&mut connect(more, Speaks::Z5), "1", true).expect_err("it is not served here");
    // Where clients may come from counts for those that come.
    let said = with("allow 10.0.0.0/8");
    assert!(
        said.contains("\nclients that stay, and could not connect now (zeoadmin kill ends them): "),
        "{said}"
    );
    second.call("lastTransaction", vec![]).expect("connected").expect("it stays");
    assert!(RawClient::connect(more, Speaks::Z5).is_err());
}

#[test]
fn passwords_are_demanded_of_later_clients() {
    let site = Site::start("", STORAGE);
    let passwords = site.server.directory().join("passwords");
    fs::write(&passwords, format!("realm r\nfoo: {}\n", secret("bar"))).expect("written");
    let mut before = client(&site.server);
    let zeo = format!(
        "authentication-protocol digest\nauthentication-realm r\nauthentication-database {}",
        passwords.display()
    );
    let said = site.apply(&zeo, STORAGE);
    assert!(said.contains("could not connect now (zeoadmin kill ends them): "), "{said}");
    commit_something(&mut before);
    let mut without = connect(site.server.address, Speaks::Z4);
    without
        .call("register", vec![text("1"), Value::Bool(false)])
        .expect("connected")
        .expect_err("no password");
    let mut with = connect(site.server.address, Speaks::Z4);
    let (challenge, nonce) = ask(&mut with);
    assert!(passes(&mut with, "foo", &challenge, &secret("bar")));
    with.use_session_key(&session_key(&secret("bar"), &nonce));
    register(&mut with, "1", false).expect("registered");
    // A file that cannot be read changes nothing.
    fs::remove_file(&passwords).expect("it is there");
    let (code, said) = site.reload(&[]);
    assert!(code == 4 && said.contains("passwords"), "{said}");
    site.apply("", STORAGE);
    let mut later = client(&site.server);
    commit_something(&mut later);
    with.call("lastTransaction", vec![]).expect("connected").expect("it stays");
}
