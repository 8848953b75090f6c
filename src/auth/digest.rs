//! `digest`: challenge and response, as in HTTP's digest authentication (RFC 2069) with SHA-1.
//!
//! | step | who | what |
//! |---|---|---|
//! | 1 | client | `auth_get_challenge()` |
//! | 2 | server | `(realm, challenge, key nonce)` |
//! | 3 | client | `auth_response((user, challenge, H(secret:challenge)))` |
//! | 4 | server | true or false |
//!
//! `H` is SHA-1 in hexadecimal, and `secret` is `H(user:realm:password)`, which is what the password file holds. Both
//! sides then sign what they send with the session key SHA-1(secret:key nonce) + secret.
//!
//! A challenge serves for one response. An unknown user gets the reply of a wrong password, after the same work.

use std::sync::Arc;

use sha1::{Digest as _, Sha1};
use subtle::ConstantTimeEq;

use super::password_file::PasswordFile;
use super::{Exchange, Kind, Protocol, Settings, Verdict, arguments, for_log, string};
use crate::wire::exception::PyException;
use crate::wire::value::Value;

/// The protocol.
pub const KIND: Kind = Kind { name: "digest", open, hash };

/// Random bytes in a challenge.
const NONCE_LEN: usize = 20;
/// Bytes of the secret in a session key. It has 40.
const KEY_SECRET_LEN: usize = 44;

const GET_CHALLENGE: &str = "auth_get_challenge";
const RESPONSE: &str = "auth_response";

struct Digest {
    passwords: Arc<PasswordFile>,
    realm: Option<String>,
    /// Stands for the secret of users that do not exist.
    decoy: String,
}

fn open(settings: &Settings) -> Result<Arc<dyn Protocol>, String> {
    let passwords = PasswordFile::open(&settings.database, settings.realm.as_deref())?;
    Ok(Arc::new(Digest {
        passwords: Arc::new(passwords),
        realm: settings.realm.clone(),
        decoy: nonce().map_err(|error| format!("the system cannot give random numbers: {error}"))?,
    }))
}

/// The secret of a user. Python writes `None` for a realm that is not there.
fn hash(user: &str, realm: Option<&str>, password: &str) -> String {
    hex_digest(&[user.as_bytes(), realm.unwrap_or("None").as_bytes(), password.as_bytes()])
}

fn nonce() -> Result<String, getrandom::Error> {
    let mut random = [0; NONCE_LEN];
    getrandom::fill(&mut random)?;
    Ok(hex(&random))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// SHA-1 of the parts with colons between them.
fn digest(parts: &[&[u8]]) -> [u8; 20] {
    Sha1::digest(parts.join(&b':')).into()
}

fn hex_digest(parts: &[&[u8]]) -> String {
    hex(&digest(parts))
}

fn is_secret(entry: &[u8]) -> bool {
    entry.len() == 40 && entry.iter().all(u8::is_ascii_hexdigit)
}

fn session_key(secret: &[u8], key_nonce: &[u8]) -> Vec<u8> {
    let mut key = digest(&[secret, key_nonce]).to_vec();
    key.extend(secret.iter().take(KEY_SECRET_LEN));
    key
}

/// Steps 1 to 3 from the client's point of view: the method for the challenge, and the method for the response.
pub(crate) const CLIENT_METHODS: [&str; 2] = [GET_CHALLENGE, RESPONSE];

/// A client's answer to a challenge.
pub(crate) struct ClientResponse {
    /// The third part of the argument of `auth_response`.
    pub response: String,
    /// The key of both sides from the reply on, if the server accepts the response.
    pub session_key: Vec<u8>,
}

/// The response to a challenge of a server whose realm is `realm`.
pub(crate) fn respond(
    user: &str,
    realm: Option<&str>,
    password: &str,
    challenge: &[u8],
    key_nonce: &[u8],
) -> ClientResponse {
    let secret = hash(user, realm, password);
    ClientResponse {
        response: hex_digest(&[secret.as_bytes(), challenge]),
        session_key: session_key(secret.as_bytes(), key_nonce),
    }
}

impl Protocol for Digest {
    fn methods(&self) -> &[&str] {
        &[GET_CHALLENGE, RESPONSE]
    }

    fn extension_methods(&self) -> &[&str] {
        self.methods()
    }

    fn begin(&self) -> Box<dyn Exchange> {
        Box::new(Dialogue {
            passwords: Arc::clone(&self.passwords),
            realm: self.realm.clone(),
            decoy: self.decoy.clone(),
            asked: None,
        })
    }
}

/// With one client.
struct Dialogue {
    passwords: Arc<PasswordFile>,
    realm: Option<String>,
    decoy: String,
    asked: Option<Challenge>,
}

struct Challenge {
    challenge: String,
    key_nonce: String,
}

impl Exchange for Dialogue {
    fn call(&mut self, method: &str, args: &[Value]) -> Result<Verdict, PyException> {
        match method {
            GET_CHALLENGE => {
                let [] = arguments(method, args)?;
                self.challenge()
            }
            _ => {
                let [response] = arguments(method, args)?;
                self.response(response)
            }
        }
    }
}

impl Dialogue {
    fn challenge(&mut self) -> Result<Verdict, PyException> {
        let nonce = || {
            let no_random = |error| {
                PyException::builtin("OSError", format!("the system cannot give random numbers: {error}"))
            };
            nonce().map_err(no_random)
        };
        let asked = self.asked.insert(Challenge { challenge: nonce()?, key_nonce: nonce()? });
        let reply = Value::Tuple(vec![
            self.realm.as_ref().map_or(Value::None, Value::text),
            Value::text(&asked.challenge),
            Value::text(&asked.key_nonce),
        ]);
        Ok(Verdict::Undecided { reply })
    }

    fn response(&mut self, response: &Value) -> Result<Verdict, PyException> {
        let (Value::Tuple(parts) | Value::List(parts)) = response else {
            return Err(PyException::builtin("TypeError", format!("{RESPONSE}(): a tuple is required")));
        };
        let [user, challenge, response] = parts.as_slice() else {
            return Err(PyException::builtin("ValueError", "need (user, challenge, response)"));
        };
        let user = string(RESPONSE, user)?;
        let (challenge, response) = (string(RESPONSE, challenge)?, string(RESPONSE, response)?);
        let asked = self.asked.take().filter(|asked| asked.challenge.as_bytes() == challenge);
        let Some(asked) = asked else { return Err(PyException::builtin("ValueError", "invalid challenge")) };

        // An entry that no password can have (`foo: *`) is a user who is locked out.
        let known = self.passwords.lookup(user).filter(|secret| is_secret(secret));
        let secret = known.as_deref().unwrap_or(self.decoy.as_bytes());
        let expected = hex_digest(&[secret, challenge]);
        let agrees: bool = expected.as_bytes().ct_eq(response).into();
        let user = for_log(user);
        Ok(if agrees && known.is_some() {
            let session_key = Some(session_key(secret, asked.key_nonce.as_bytes()));
            Verdict::Passed { user, reply: Value::Bool(true), session_key }
        } else {
            Verdict::Failed { user, reply: Value::Bool(false) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A dialogue with a server that knows foo, whose password is bar.
    fn dialogue(dir: &tempfile::TempDir, realm: Option<&str>) -> Box<dyn Exchange> {
        let database = dir.path().join("passwords");
        let head = realm.map(|realm| format!("realm {realm}\n")).unwrap_or_default();
        fs::write(&database, format!("{head}foo: {}\n", hash("foo", realm, "bar"))).unwrap();
        open(&Settings { database, realm: realm.map(String::from) }).unwrap().begin()
    }

    fn ask(dialogue: &mut dyn Exchange) -> (String, String) {
        let Ok(Verdict::Undecided { reply: Value::Tuple(reply) }) = dialogue.call(GET_CHALLENGE, &[]) else {
            panic!("no challenge")
        };
        match &reply[..] {
            [_, Value::Text(challenge), Value::Text(nonce)] => (challenge.clone(), nonce.clone()),
            other => panic!("{other:?}"),
        }
    }

    fn respond(
        dialogue: &mut dyn Exchange,
        user: &str,
        challenge: &str,
        secret: &str,
    ) -> Result<Verdict, String> {
        let response = hex_digest(&[secret.as_bytes(), challenge.as_bytes()]);
        let response = Value::Tuple(vec![Value::text(user), Value::bytes(challenge), Value::text(response)]);
        dialogue.call(RESPONSE, &[response]).map_err(|error| error.to_string())
    }

    /// Secret, response and key as `ZEO.auth.auth_digest` of 4.3.1 computes them.
    #[test]
    fn as_python_computes_it() {
        assert_eq!(hash("foo", Some("Digest Realm"), "bar"), "5b683080eb6cbcd793339cb364743f5adcfa88f3");
        assert_eq!(hash("foo", None, "bar"), "a48de65089b8795492faf823568e0e5a92f9c248");
        assert_eq!(hash("jürgen", Some("r"), "pässword"), "4c7ceab7f1eba905529bcccee3c662f0809a861b");
        let secret = hash("foo", Some("Digest Realm"), "bar");
        assert_eq!(
            hex_digest(&[secret.as_bytes(), b"challenge"]),
            "66fda7b4097c6f82554dbcea838f6ffb55e0de54"
        );
        assert_eq!(
            hex(&session_key(secret.as_bytes(), b"nonce")),
            "1465188c031a5e1a8a2999909ecaef532277357935623638333038306562366362636437393333333963623336343734336635616463666138386633"
        );
    }

    #[test]
    fn the_right_password_passes_once() {
        let dir = tempfile::tempdir().unwrap();
        for realm in [Some("a realm"), None] {
            let mut dialogue = dialogue(&dir, realm);
            let secret = hash("foo", realm, "bar");
            let (challenge, nonce) = ask(&mut *dialogue);
            match respond(&mut *dialogue, "foo", &challenge, &secret) {
                Ok(Verdict::Passed { user, reply: Value::Bool(true), session_key: Some(key) }) => {
                    assert_eq!(
                        (user.as_str(), key),
                        ("foo", session_key(secret.as_bytes(), nonce.as_bytes()))
                    );
                }
                other => panic!("{other:?}"),
            }
            let again = respond(&mut *dialogue, "foo", &challenge, &secret);
            assert_eq!(again.unwrap_err(), "ValueError: invalid challenge", "replayed");
        }
    }

    #[test]
    fn unknown_users_look_like_wrong_passwords() {
        let dir = tempfile::tempdir().unwrap();
        let mut dialogue = dialogue(&dir, Some("r"));
        for (user, password) in [("foo", "noogie"), ("nobody", "bar"), ("", ""), ("realm r", "x")] {
            let (challenge, _) = ask(&mut *dialogue);
            match respond(&mut *dialogue, user, &challenge, &hash(user, Some("r"), password)) {
                Ok(Verdict::Failed { reply: Value::Bool(false), .. }) => {}
                other => panic!("{user}: {other:?}"),
            }
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut dialogue = dialogue(&dir, Some("r"));
        let secret = hash("foo", Some("r"), "bar");
        assert!(respond(&mut *dialogue, "foo", "", &secret).is_err(), "without a challenge");
        let (challenge, _) = ask(&mut *dialogue);
        let (newer, _) = ask(&mut *dialogue);
        assert_ne!(challenge, newer);
        assert!(respond(&mut *dialogue, "foo", &challenge, &secret).is_err(), "a former challenge");
        assert!(respond(&mut *dialogue, "foo", &newer, &secret).is_err(), "one attempt for each challenge");
        for arguments in [
            &[][..],
            &[Value::None],
            &[Value::Tuple(Vec::new())],
            &[Value::Tuple(vec![Value::None, Value::None, Value::None])],
            &[Value::None, Value::None],
        ] {
            ask(&mut *dialogue);
            assert!(dialogue.call(RESPONSE, arguments).is_err(), "{arguments:?}");
        }
        assert!(dialogue.call(GET_CHALLENGE, &[Value::None]).is_err());
    }
}
