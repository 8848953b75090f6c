//! Digest authentication of clients before ZEO 5: what is accepted, what is refused, and what an unauthenticated client
//! may do.

use std::fs;
use std::io;
use std::time::Duration;

use crate::support::client::{RawClient, Speaks, load_beside_commits, record};
use crate::support::pickle::{Value, text};
use crate::support::process::Server;
use sha1::{Digest, Sha1};
use tempfile::TempDir;

/// A server with the user foo, whose password is bar.
struct Protected {
    server: Server,
    _passwords: TempDir,
}

impl Protected {
    fn start() -> Protected {
        let passwords = tempfile::tempdir().expect("a directory");
        let path = passwords.path().join("passwords");
        fs::write(&path, format!("realm r\nfoo: {}\n", secret("bar"))).expect("write");
        let zeo = format!(
            "authentication-protocol digest\nauthentication-database {}\nauthentication-realm r",
            path.display()
        );
        Protected { server: Server::start_with(&zeo), _passwords: passwords }
    }

    fn connect(&self) -> RawClient {
        let client = RawClient::connect(self.server.address, Speaks::Z4).expect("connect");
        client.set_read_timeout(Duration::from_secs(60));
        client
    }

    /// An authenticated and registered client.
    fn client(&self) -> RawClient {
        let mut client = self.connect();
        let (challenge, nonce) = ask(&mut client);
        assert!(passes(&mut client, "foo", &challenge, &secret("bar")));
        client.use_session_key(&session_key(&secret("bar"), &nonce));
        register(&mut client).expect("register");
        client
    }
}

fn sha1(text: &str) -> Vec<u8> {
    Sha1::digest(text).to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn secret(password: &str) -> String {
    hex(&sha1(&format!("foo:r:{password}")))
}

pub fn session_key(secret: &str, nonce: &str) -> Vec<u8> {
    [&sha1(&format!("{secret}:{nonce}")), secret.as_bytes()].concat()
}

/// A call; an error is returned as its class.
fn call(client: &mut RawClient, method: &str, args: Vec<Value>) -> io::Result<Result<Value, String>> {
    Ok(client.call(method, args)?.map_err(|(class, _)| class))
}

/// Asks for challenge and nonce.
pub fn ask(client: &mut RawClient) -> (String, String) {
    let reply = call(client, "auth_get_challenge", vec![]).expect("connected").expect("a challenge");
    let [realm, challenge, nonce] = reply.tuple() else { panic!("{reply:?}") };
    assert_eq!(realm.bytes(), b"r");
    let string = |value: &Value| String::from_utf8(value.bytes().to_vec()).expect("text");
    (string(challenge), string(nonce))
}

fn respond(
    client: &mut RawClient,
    user: &str,
    challenge: &str,
    secret: &str,
) -> io::Result<Result<Value, String>> {
    let response = hex(&sha1(&format!("{secret}:{challenge}")));
    call(client, "auth_response", vec![Value::Tuple(vec![text(user), text(challenge), text(&response)])])
}

pub fn passes(client: &mut RawClient, user: &str, challenge: &str, secret: &str) -> bool {
    match respond(client, user, challenge, secret).expect("connected") {
        // Python 2's booleans are integers.
        Ok(reply) => matches!(reply, Value::Bool(true) | Value::Int(1)),
        Err(class) => panic!("{class}"),
    }
}

fn register(client: &mut RawClient) -> Result<Value, String> {
    call(client, "register", vec![text("1"), Value::Bool(false)]).expect("connected")
}

fn is_closed(client: &mut RawClient) -> bool {
    client.flush().is_err() || client.next().is_err()
}

#[test]
fn every_message_is_signed_in_the_order_of_sending() {
    let protected = Protected::start();
    let mut readers: Vec<RawClient> = (0..3).map(|_| protected.client()).collect();
    // Small ones in batches, and some that are larger than a socket's buffer. The clients check every code.
    load_beside_commits(&mut protected.client(), &mut readers, [10, 1000, 700_000]);
}

#[test]
fn a_message_with_a_wrong_code_ends_the_connection() {
    let protected = Protected::start();
    let wrong = "a message with a wrong authentication code; the connection is closed";
    // Another key.
    let mut client = protected.client();
    client.use_session_key(b"some other key");
    client.queue_call("lastTransaction", vec![]);
    assert!(is_closed(&mut client));
    protected.server.wait_for_log(wrong);
    // The same message again, with its code.
    let mut client = protected.client();
    let id = client.queue_call("lastTransaction", vec![]);
    let recorded = client.queued();
    client.flush().expect("send");
    client.answer(id).expect("connected").expect("answered");
    client.queue_raw(&recorded);
    assert!(is_closed(&mut client));
    // Without a code, as from an attacker who takes over the connection.
    let mut client = protected.client();
    client.forget_session_key();
    client.queue_call("lastTransaction", vec![]);
    assert!(is_closed(&mut client));
    protected.server.wait_for_log("a message without authentication code; the connection is closed");
    protected.client();
}

/// Every byte of a code is checked, and every byte of its payload; a truncated code is refused.
#[test]
fn a_forged_message_changes_nothing() {
    let protected = Protected::start();
    let mut writer = protected.client();
    let oid = writer.new_oids(1).expect("new_oids")[0];
    let tid = writer.commit(&[(oid, 0, &record(b"honest"))]).expect("connected").expect("commit");
    let forge = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut client = protected.client();
        client.queue_begin(1);
        client.queue_store(oid, tid, &record(b"forged"), 1);
        client.queue_call("vote", vec![Value::Int(1)]);
        client.queue_call("tpc_finish", vec![Value::Int(1)]);
        let mut messages = client.queued();
        change(&mut messages);
        // The queued message is dropped with the client; this is sent instead.
        let mut stream = client.stream().try_clone().expect("clone");
        let _ = std::io::Write::write_all(&mut stream, &messages);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        // Until the server closes the connection.
        let _ = std::io::Read::read_to_end(&mut stream, &mut Vec::new());
    };
    // The code of the first message is after its length, its payload after the code.
    for at in (4..24).chain([24, 30]) {
        forge(&|messages| messages[at] ^= 0x10);
    }
    for cut in [1, 10, 19, 20] {
        forge(&|messages| drop(messages.drain(4..4 + cut)));
    }
    forge(&|messages| messages[0] &= 0x7f);
    forge(&|messages| messages.splice(0..0, [0; 24]).for_each(drop));
    for seed in 1..20u8 {
        forge(&|messages| {
            let noise = (0..500u32).map(|n| (n.wrapping_mul(2_654_435_761 + u32::from(seed)) >> 13) as u8);
            messages.splice(0..0, noise).for_each(drop);
        });
    }
    let load = writer.queue_load(oid);
    writer.flush().expect("send");
    let loaded = writer.answer(load).expect("connected").expect("load");
    assert_eq!((loaded.tuple()[0].bytes(), loaded.tuple()[1].id()), (record(b"honest").as_slice(), tid));
    // A valid message does change it.
    writer.commit(&[(oid, tid, &record(b"changed"))]).expect("connected").expect("commit");
}

/// Megabytes of signed replies for a client that reads none of them.
#[test]
fn replies_that_nobody_reads() {
    let protected = Protected::start();
    let mut writer = protected.client();
    let oid = writer.new_oids(1).expect("new_oids")[0];
    writer.commit(&[(oid, 0, &record(&vec![b'x'; 1 << 20]))]).expect("connected").expect("commit");
    let before = protected.server.rss();
    let mut silent: Vec<RawClient> = (0..4).map(|_| protected.client()).collect();
    for client in &mut silent {
        for _ in 0..500 {
            client.queue_load(oid);
        }
        client.flush().expect("send");
    }
    std::thread::sleep(Duration::from_millis(500));
    let other = writer.new_oids(200).expect("new_oids")[150];
    let tid = writer.commit(&[(other, 0, &record(b"2"))]).expect("connected").expect("commit");
    assert!(tid > 0 && protected.server.rss() < before + (256 << 20), "{} bytes", protected.server.rss());
}

#[test]
fn a_recorded_response_is_worth_nothing() {
    let protected = Protected::start();
    let mut client = protected.connect();
    let (challenge, _) = ask(&mut client);
    assert!(passes(&mut client, "foo", &challenge, &secret("bar")));
    // On another connection, with and without a challenge of its own.
    for asks in [false, true] {
        let mut thief = protected.connect();
        if asks {
            ask(&mut thief);
        }
        let refused = respond(&mut thief, "foo", &challenge, &secret("bar")).expect("connected");
        assert!(refused.unwrap_err().contains("ValueError"));
        assert!(register(&mut thief).unwrap_err().contains("AuthError"));
    }
}

#[test]
fn nothing_before_authentication() {
    let protected = Protected::start();
    for method in
        ["lastTransaction", "get_info", "new_oids", "loadEx", "vote", "getExtensionMethods", "auth", "_auth"]
    {
        let mut client = protected.connect();
        client.queue_call(method, vec![]);
        assert!(is_closed(&mut client), "{method}");
    }
    let mut client = protected.connect();
    let name = call(&mut client, "getAuthProtocol", vec![]).expect("connected").expect("a name");
    assert_eq!(name.bytes(), b"digest");
    assert!(register(&mut client).unwrap_err().contains("AuthError"));
    // After failures a client is not trusted, and unknown users get the same answer as others.
    for user in ["foo", "nobody"] {
        let (challenge, _) = ask(&mut client);
        assert!(!passes(&mut client, user, &challenge, &secret("guess")));
        assert!(register(&mut client).unwrap_err().contains("AuthError"));
    }
    protected.server.wait_for_log("authentication failed for 'nobody'");
    // The third attempt is answered and is the last.
    let (challenge, _) = ask(&mut client);
    assert!(!passes(&mut client, "line\nbreak", &challenge, &secret("guess")));
    client.queue_call("getAuthProtocol", vec![]);
    assert!(is_closed(&mut client));
    protected.server.wait_for_log("authentication failed for 'line\\nbreak'");
}

#[test]
fn nonsense_in_place_of_credentials() {
    let protected = Protected::start();
    let odd = [
        vec![],
        vec![Value::None],
        vec![Value::Tuple(vec![])],
        vec![Value::Tuple(vec![Value::None; 3])],
        vec![Value::Tuple(vec![text("foo"), text(""), text("")])],
        vec![Value::Dict(vec![])],
        vec![text("foo"), text("bar")],
        vec![Value::Bytes(vec![b'x'; 60_000])],
    ];
    for args in odd {
        let mut client = protected.connect();
        ask(&mut client);
        let refused = call(&mut client, "auth_response", args.clone()).expect("connected");
        assert!(refused.is_err(), "{args:?}");
    }
    let mut client = protected.connect();
    client.queue_call("auth_response", vec![Value::Bytes(vec![b'x'; 100_000])]);
    assert!(is_closed(&mut client), "an unregistered connection needs no long messages");
    protected.client();
}

#[test]
fn who_has_passed_cannot_change_the_key() {
    let protected = Protected::start();
    let mut client = protected.client();
    for method in ["auth_get_challenge", "auth_response"] {
        let refused = call(&mut client, method, vec![]).expect("connected");
        assert!(refused.unwrap_err().contains("ValueError"), "{method}");
    }
    let listed = call(&mut client, "getExtensionMethods", vec![]).expect("connected").expect("a dict");
    let Value::Dict(listed) = listed else { panic!("{listed:?}") };
    let listed: Vec<_> = listed.iter().map(|(name, _)| name.bytes().to_vec()).collect();
    assert!(listed.contains(&b"auth_get_challenge".to_vec()) && listed.contains(&b"auth_response".to_vec()));
}

#[test]
fn a_client_that_knows_no_passwords_is_told_so() {
    let protected = Protected::start();
    let mut client = RawClient::connect(protected.server.address, Speaks::Z5).expect("connect");
    let (class, detail) = client
        .call("register", vec![text("1"), Value::Bool(false)])
        .expect("connected")
        .expect_err("refused");
    assert_eq!(class, "ZEO.Exceptions.AuthError");
    assert!(format!("{detail:?}").contains("demands a user and a password"), "{detail:?}");
    assert!(is_closed(&mut client));
    protected.server.wait_for_log("refused: authentication-protocol demands a user and a password");
    let mut client = RawClient::connect(protected.server.address, Speaks::Z5).expect("connect");
    client.queue_call("auth_get_challenge", vec![]);
    assert!(is_closed(&mut client));
}
