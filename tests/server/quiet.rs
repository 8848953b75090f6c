//! Connections that have asked for no invalidations: further ones of a client that hears them on its first.

use crate::support::client::{Incoming, RawClient, Speaks, record};
use crate::support::pickle::Value;
use crate::support::process::Server;

#[test]
fn a_quiet_connection_commits_and_loads_but_hears_nothing() {
    for speaks in Speaks::ALL {
        let server = Server::start();
        let connect = || RawClient::register(server.address, speaks).expect("a connection").0;
        let (mut quiet, mut other) = (connect(), connect());
        assert!(matches!(quiet.call("runzeo_quiet", vec![]), Ok(Ok(Value::None))), "{speaks:?}");

        let oids = other.new_oids(2).expect("oids");
        let data = record(b"a state");
        let first = other.commit(&[(oids[0], 0, &data), (oids[1], 0, &data)]).expect("a commit");
        let first = tid(first, &mut other, oids[0]);
        let second = other.commit(&[(oids[0], first, &data)]).expect("a commit");
        let second = tid(second, &mut other, oids[0]);

        // The first answer would come behind the invalidations of both.
        let call = quiet.queue_call("lastTransaction", vec![]);
        quiet.flush().expect("sent");
        match quiet.next().expect("a message") {
            Incoming::Reply { id, value } => assert_eq!((id, value.id()), (call, second), "{speaks:?}"),
            other => panic!("{speaks:?}: {other:?}"),
        }

        // The others hear of its transactions.
        let third = quiet.commit(&[(oids[1], first, &data)]).expect("a commit").expect("no conflict");
        let heard = loop {
            match other.next().expect("a message") {
                Incoming::Push { method, args } if method == "invalidateTransaction" => break args,
                Incoming::Push { .. } => {}
                message => panic!("{speaks:?}: {message:?}"),
            }
        };
        assert_eq!((heard[0].id(), speaks.changed_oid(&heard[1].tuple()[0])), (third, oids[1]), "{speaks:?}");
    }
}

/// The tid of the commit, which is the newest one of the object.
fn tid(committed: Result<u64, (String, Value)>, client: &mut RawClient, oid: u64) -> u64 {
    committed.expect("no conflict");
    client.call("getTid", vec![crate::support::pickle::id(oid)]).expect("an answer").expect("a tid").id()
}

#[test]
fn the_call_comes_after_register() {
    let server = Server::start();
    let mut client = RawClient::connect(server.address, Speaks::Z5).expect("a connection");
    client.queue_call("runzeo_quiet", vec![]);
    client.flush().expect("sent");
    assert!(client.next().is_err(), "the connection ends");
}
