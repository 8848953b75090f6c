//! Who may connect: authentication protocols, as ZEO 4 and ZODB 3 know them.
//!
//! A protocol is a few methods that a client calls before `register`. The server names the protocol in its reply to
//! `getAuthProtocol`, passes those calls on, and lets nobody register before the protocol says that the client has
//! passed. A session key that comes with this authenticates every later message, see `wire::mac`.
//!
//! [`digest`] is built in. Who wants another builds a server with it: implement [`Protocol`] and [`Exchange`], add
//! a [`Kind`] to [`Protocols::builtin`], and hand that to `commands::runzeo::run_with`. A protocol that lets in who knows
//! a word, which is the one line of its `authentication-database`:
//!
//! ```
//! use std::sync::Arc;
//! use runzeo::auth::{Exchange, Kind, Protocol, Protocols, Settings, Verdict, arguments, string};
//! use runzeo::wire::{exception::PyException, value::Value};
//!
//! #[derive(Clone)]
//! struct Word(String);
//!
//! fn open(settings: &Settings) -> Result<Arc<dyn Protocol>, String> {
//!     let word = std::fs::read_to_string(&settings.database).map_err(|error| error.to_string())?;
//!     Ok(Arc::new(Word(word.trim().into())))
//! }
//!
//! impl Protocol for Word {
//!     fn methods(&self) -> &[&str] {
//!         &["say_word"]
//!     }
//!     fn begin(&self) -> Box<dyn Exchange> {
//!         Box::new(self.clone())
//!     }
//! }
//!
//! impl Exchange for Word {
//!     fn call(&mut self, method: &str, args: &[Value]) -> Result<Verdict, PyException> {
//!         let [word] = arguments(method, args)?;
//!         let user = "somebody".to_string();
//!         Ok(match string(method, word)? == self.0.as_bytes() {
//!             true => Verdict::Passed { user, reply: Value::Bool(true), session_key: None },
//!             false => Verdict::Failed { user, reply: Value::Bool(false) },
//!         })
//!     }
//! }
//!
//! let mut protocols = Protocols::builtin();
//! protocols.register(Kind { name: "word", open, hash: |_user, _realm, password| password.into() });
//!
//! let database = tempfile::NamedTempFile::new().unwrap();
//! std::fs::write(&database, "sesame\n").unwrap();
//! let settings = Settings { database: database.path().into(), realm: None };
//! let protocol = (protocols.get("word").unwrap().open)(&settings).unwrap();
//! let said = protocol.begin().call("say_word", &[Value::text("sesame")]);
//! assert!(matches!(said, Ok(Verdict::Passed { .. })));
//! ```

pub mod digest;
pub mod password_file;
#[cfg(feature = "test-storages")]
pub mod plaintext;

use std::path::PathBuf;
use std::sync::Arc;

use crate::wire::exception::PyException;
use crate::wire::value::Value;

/// What the configuration says to a protocol.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// `authentication-database`
    pub database: PathBuf,
    /// `authentication-realm`
    pub realm: Option<String>,
}

/// An authentication protocol in use.
pub trait Protocol: Send + Sync {
    /// What a client may call before `register`.
    fn methods(&self) -> &[&str];

    /// Those methods that `getExtensionMethods` lists.
    fn extension_methods(&self) -> &[&str] {
        &[]
    }

    /// A client has connected.
    fn begin(&self) -> Box<dyn Exchange>;
}

/// What one client and the protocol say to each other.
pub trait Exchange: Send {
    /// The client calls one of [`Protocol::methods`]. Not called again after [`Verdict::Passed`]. What is wrong with a
    /// call is for its caller; a proof that does not hold is [`Verdict::Failed`].
    fn call(&mut self, method: &str, arguments: &[Value]) -> Result<Verdict, PyException>;
}

/// What has come of a call.
#[derive(Debug)]
pub enum Verdict {
    /// There is more to say.
    Undecided { reply: Value },
    /// Not this time. `user` is for the log: whoever the client says it is.
    Failed { user: String, reply: Value },
    /// The client is who it says it is. If there is a session key, every message after the reply is signed with it, in
    /// both directions.
    Passed { user: String, reply: Value, session_key: Option<Vec<u8>> },
}

/// A protocol that may be configured.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// For `authentication-protocol` and the client's modules.
    pub name: &'static str,
    /// Get ready to serve. The error is for the operator.
    pub open: fn(&Settings) -> Result<Arc<dyn Protocol>, String>,
    /// What the password file holds of a user, a realm and a password.
    pub hash: fn(&str, Option<&str>, &str) -> String,
}

/// The protocols that this server knows.
#[derive(Clone, Debug)]
pub struct Protocols(Vec<Kind>);

impl Protocols {
    /// Those of the server itself.
    pub fn builtin() -> Protocols {
        Protocols(vec![
            digest::KIND,
            #[cfg(feature = "test-storages")]
            plaintext::KIND,
        ])
    }

    /// Add one; it replaces another of this name.
    pub fn register(&mut self, kind: Kind) {
        self.0.retain(|known| known.name != kind.name);
        self.0.push(kind);
    }

    /// The protocol of this name, or an error that says which there are.
    pub fn get(&self, name: &str) -> Result<&Kind, String> {
        self.0.iter().find(|kind| kind.name == name).ok_or_else(|| {
            let names: Vec<_> = self.0.iter().map(|kind| format!("'{}'", kind.name)).collect();
            format!(
                "there is no authentication protocol '{}'; use {}",
                name.escape_debug(),
                names.join(" or ")
            )
        })
    }
}

/// Exactly `N` arguments, or what Python says.
pub fn arguments<'a, const N: usize>(
    method: &str,
    arguments: &'a [Value],
) -> Result<&'a [Value; N], PyException> {
    arguments.try_into().map_err(|_| {
        let given = arguments.len();
        PyException::builtin("TypeError", format!("{method}() takes {N} arguments ({given} given)"))
    })
}

/// A string of either kind: Python 2 clients send bytes.
pub fn string<'a>(method: &str, value: &'a Value) -> Result<&'a [u8], PyException> {
    match value {
        Value::Bytes(bytes) => Ok(bytes),
        Value::Text(text) => Ok(text.as_bytes()),
        _ => Err(PyException::builtin("TypeError", format!("{method}(): a string is required"))),
    }
}

/// A name that somebody unknown has sent, fit for a line of the log.
pub fn for_log(name: &[u8]) -> String {
    const SHOWN_MAX: usize = 60;
    let shown = name.get(..SHOWN_MAX).unwrap_or(name);
    let more = if shown.len() < name.len() { "..." } else { "" };
    format!("{}{more}", String::from_utf8_lossy(shown).escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_found_by_name() {
        let mut protocols = Protocols::builtin();
        assert_eq!(protocols.get("digest").map(|kind| kind.name), Ok("digest"));
        let error = protocols.get("sesame\n").unwrap_err();
        assert!(
            error.starts_with("there is no authentication protocol 'sesame\\n'; use 'digest'"),
            "{error}"
        );
        protocols.register(Kind { name: "own", ..digest::KIND });
        assert!(protocols.get("own").is_ok());
    }

    #[test]
    fn names_in_the_log_are_harmless() {
        assert_eq!(for_log(b"foo"), "foo");
        assert_eq!(for_log(b"a\nERROR"), "a\\nERROR");
        assert_eq!(for_log(&[b'x'; 100]), format!("{}...", "x".repeat(60)));
    }
}
