//! Authentication: written password files are read back unchanged, and calls without credentials neither succeed nor
//! panic.

use std::sync::{Arc, OnceLock};

use runzeo::auth::{Protocol, Protocols, Settings, Verdict};
use runzeo::internal::auth::password_file::Passwords;
use runzeo::internal::wire::protocol::{Dialect, Encoding, Generation, Wire};
use runzeo::internal::wire::request::Request;

pub fn run(data: &[u8]) {
    match data.split_first() {
        Some((0, file)) => password_file(file),
        Some((_, messages)) => messages_of_a_stranger(messages),
        None => {}
    }
}

fn password_file(file: &[u8]) {
    let Ok(passwords) = Passwords::parse(file) else { return };
    let written = passwords.to_bytes();
    // Only for names that `save` refuses to write.
    let realm_by_name = passwords.realm.is_none() && written.starts_with(b"realm ");
    assert!(realm_by_name || Passwords::parse(&written).as_ref() == Ok(&passwords));
}

fn digest() -> &'static Arc<dyn Protocol> {
    static DIGEST: OnceLock<Arc<dyn Protocol>> = OnceLock::new();
    DIGEST.get_or_init(|| {
        let database = std::env::temp_dir().join(format!("runzeo-fuzz-passwords-{}", std::process::id()));
        std::fs::write(&database, "realm r\nfoo: 0123456789012345678901234567890123456789\n").unwrap();
        let kind = *Protocols::builtin().get("digest").unwrap();
        let protocol =
            (kind.open)(&Settings { database: database.clone(), realm: Some("r".into()) }).unwrap();
        // The passwords that were read stay valid.
        std::fs::remove_file(database).unwrap();
        protocol
    })
}

/// Makes calls one after the other; each byte 0xff ends one.
fn messages_of_a_stranger(messages: &[u8]) {
    let mut exchange = digest().begin();
    for message in messages.split(|byte| *byte == 0xff) {
        for dialect in [Dialect::Python2, Dialect::Python3] {
            let wire = Wire { generation: Generation::Z4, encoding: Encoding::Pickle(dialect) };
            let Ok(call) = wire.decode(message) else { continue };
            let Request::Other { name, args } = call.request else { continue };
            if !digest().methods().contains(&name.as_ref()) {
                continue;
            }
            match exchange.call(&name, &args) {
                Ok(Verdict::Passed { .. }) => panic!("passed without the password"),
                Ok(Verdict::Undecided { .. } | Verdict::Failed { .. }) | Err(_) => {}
            }
        }
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let ask = b"(K\x01K\x00U\x12auth_get_challenge)t.";
    let respond = b"(K\x02K\x00U\rauth_response((U\x03fooU\x04realU\x05digestttt.";
    vec![
        b"\0realm r\nfoo: 1234\nbar:5\n".to_vec(),
        b"\0foo: 1234\r\n\n".to_vec(),
        [&[1][..], ask, &[0xff], respond].concat(),
        [&[1][..], b"\x80\x03(K\x02K\x00X\r\0\0\0auth_response(C\x03fooC\x01cC\x01r\x87\x85t."].concat(),
    ]
}
