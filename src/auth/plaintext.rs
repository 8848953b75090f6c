//! `plaintext`: the client sends its password. For the tests of ZEO 4, which have this protocol; it protects nothing on
//! the network.

use std::sync::Arc;

use sha1::{Digest, Sha1};
use subtle::ConstantTimeEq;

use super::password_file::PasswordFile;
use super::{Exchange, Kind, Protocol, Settings, Verdict, arguments, for_log, string};
use crate::wire::exception::PyException;
use crate::wire::value::Value;

/// The protocol.
pub const KIND: Kind =
    Kind { name: "plaintext", open, hash: |_, _, password| hex_digest(password.as_bytes()) };

struct Plaintext {
    passwords: Arc<PasswordFile>,
    realm: Option<String>,
}

fn open(settings: &Settings) -> Result<Arc<dyn Protocol>, String> {
    let passwords = Arc::new(PasswordFile::open(&settings.database, settings.realm.as_deref())?);
    Ok(Arc::new(Plaintext { passwords, realm: settings.realm.clone() }))
}

fn hex_digest(text: &[u8]) -> String {
    Sha1::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Protocol for Plaintext {
    fn methods(&self) -> &[&str] {
        &["auth"]
    }

    fn begin(&self) -> Box<dyn Exchange> {
        Box::new(Attempt { passwords: Arc::clone(&self.passwords), realm: self.realm.clone() })
    }
}

struct Attempt {
    passwords: Arc<PasswordFile>,
    realm: Option<String>,
}

impl Exchange for Attempt {
    fn call(&mut self, method: &str, args: &[Value]) -> Result<Verdict, PyException> {
        let [user, password] = arguments(method, args)?;
        let (user, password) = (string(method, user)?, string(method, password)?);
        let known = self.passwords.lookup(user).unwrap_or_default();
        let agrees: bool = known.ct_eq(hex_digest(password).as_bytes()).into();
        if !agrees {
            return Ok(Verdict::Failed { user: for_log(user), reply: Value::Bool(false) });
        }
        let realm = self.realm.as_deref().unwrap_or("None").as_bytes();
        let session_key = hex_digest(&[user, realm, password].join(&b':')).into_bytes();
        Ok(Verdict::Passed { user: for_log(user), reply: Value::Bool(true), session_key: Some(session_key) })
    }
}
