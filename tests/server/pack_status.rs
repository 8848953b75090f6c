//! What monitoring learns of packs that have ended.

use crate::support::client::{RawClient, Speaks, record};
use crate::support::pickle::Value;
use crate::support::process::Server;

#[test]
fn ruok_has_the_result_of_the_last_pack() {
    let server = Server::start();
    assert_eq!(server.ruok()["1"].get("last-pack"), None, "as with Python's server");
    let (mut client, _) = RawClient::register(server.address, Speaks::Z5).expect("a connection");
    let mut serial = 0;
    for _ in 0..2 {
        serial = client.commit(&[(0, serial, &record(&[b'x'; 1000]))]).expect("connected").expect("a commit");
    }
    let mut pack =
        |time: f64| client.call("pack", vec![Value::Float(time), Value::Bool(true)]).expect("an answer");

    pack(4e9).expect("a pack");
    let last = &server.ruok()["1"]["last-pack"];
    let number = |key: &str| last[key].as_f64().unwrap_or_else(|| panic!("{key} in {last}"));
    assert!(last["error"].is_null() && number("began") > 1.7e9 && number("seconds") > 0.0, "{last}");
    assert!(number("size-after") > 1000.0 && number("size-after") < number("size-before") - 1000.0, "{last}");

    pack(-1e12).expect_err("a time that does not exist");
    let last = &server.ruok()["1"]["last-pack"];
    assert_eq!(last["error"], "the pack time is out of range");
    assert_eq!(last["size-before"], last["size-after"]);
}
