//! Clients that verify each object of their cache, because what has changed since their last transaction is not known.

use crate::support::client::{Incoming, RawClient, Speaks, record};
use crate::support::pickle::id;
use crate::support::process::Server;

/// Clients of ZODB 3.9 and 3.10 go on naming the transaction of before, until they hear of another one. At a server
/// that has it, what it had changed would not be invalidated.
#[test]
fn a_client_that_keeps_its_last_transaction_hears_of_the_present_one() {
    let server = Server::start();
    let (mut writer, _) = RawClient::register(server.address, Speaks::Z5).expect("a connection");
    let last = writer.commit(&[(1, 0, &record(b"a state"))]).expect("a commit").expect("no conflict");
    for speaks in Speaks::ALL {
        let mut client = RawClient::register(server.address, speaks).expect("a connection").0;
        let verification = client.queue_call("getInvalidations", vec![id(1)]);
        let after = client.queue_call("lastTransaction", vec![]);
        client.flush().expect("sent");
        let (mut is_answered, mut heard) = (false, Vec::new());
        loop {
            match client.next().expect("a message") {
                Incoming::Reply { id, value } if id == verification => {
                    assert!(value.is_none(), "{speaks:?}: {value:?}");
                    is_answered = true;
                }
                Incoming::Reply { id, value } => {
                    assert_eq!((id, value.id()), (after, last), "{speaks:?}");
                    break;
                }
                Incoming::Push { method, args } if method == "invalidateTransaction" => {
                    assert!(is_answered, "{speaks:?}: the reply comes first");
                    heard.push((args[0].id(), args[1].tuple().len()));
                }
                Incoming::Push { .. } => {}
                other => panic!("{speaks:?}: {other:?}"),
            }
        }
        let keeps_it = matches!(speaks, Speaks::Z309 | Speaks::Z3101);
        assert_eq!(heard, if keeps_it { vec![(last, 0)] } else { vec![] }, "{speaks:?}");
    }
}
