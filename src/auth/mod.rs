//! Authentication protocols of ZEO 4 and ZODB 3, and how to add one.
//!
//! A protocol is a few methods that a client calls before `register`. The server names the protocol in its reply to
//! `getAuthProtocol`, passes those calls to an [`Exchange`], and refuses `register` until the exchange has ended with
//! [`Verdict::Passed`]. If that comes with a session key, every later message is authenticated by it, see `wire::mac`.
//!
//! `digest` is built in. A server with another protocol is a small program of its own: implement [`Protocol`] and
//! [`Exchange`], register a [`Kind`] in
//! [`Extensions::protocols`](../commands/struct.Extensions.html#structfield.protocols), and call
//! [`commands::runzeo::run_with`](../commands/runzeo/fn.run_with.html). `examples/password_server.rs` is a complete
//! one.

pub(crate) mod digest;
pub(crate) mod password_file;
mod protocols;

use std::path::PathBuf;
use std::sync::Arc;

pub use crate::wire::exception::PyException;
pub use crate::wire::value::Value;

pub use password_file::PasswordFile;
pub use protocols::Protocols;

/// What the configuration says about a protocol.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// `authentication-database`: a file with what the protocol needs to know of its users. If `zeopasswd` writes it,
    /// it is a [`PasswordFile`].
    pub database: PathBuf,
    /// `authentication-realm`; not empty.
    pub realm: Option<String>,
}

/// An authentication protocol in use: one for the server, shared by all connections.
pub trait Protocol: Send + Sync {
    /// The methods that a client may call before `register`.
    fn methods(&self) -> &[&str];

    /// Those of [`Protocol::methods`] that the reply to `getExtensionMethods` lists. None, unless implemented.
    fn extension_methods(&self) -> &[&str] {
        &[]
    }

    /// The exchange with a client that has connected.
    fn begin(&self) -> Box<dyn Exchange>;
}

/// The state of authentication on one connection.
pub trait Exchange: Send {
    /// The client calls one of [`Protocol::methods`]. Not called again after [`Verdict::Passed`].
    ///
    /// An error, such as a wrong number of arguments, is raised by the client's call and decides nothing. A wrong
    /// password is no error but [`Verdict::Failed`].
    fn call(&mut self, method: &str, arguments: &[Value]) -> Result<Verdict, PyException>;
}

/// The outcome of a call.
#[derive(Debug)]
pub enum Verdict {
    /// The exchange goes on.
    Undecided {
        /// What the call returns.
        reply: Value,
    },
    /// The client may try again. The failure is logged.
    Failed {
        /// The name that the client gives itself, for the log; see [`for_log`].
        user: String,
        /// What the call returns.
        reply: Value,
    },
    /// The client may register.
    Passed {
        /// Its name, for the log; see [`for_log`].
        user: String,
        /// What the call returns.
        reply: Value,
        /// `Some`: each message after the reply, in both directions, carries a code made with it.
        session_key: Option<Vec<u8>>,
    },
}

/// A protocol that can be configured.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// The value of `authentication-protocol`, and the name under which clients look up their side of it.
    pub name: &'static str,
    /// Makes the protocol at the start of the server. An error ends the start; it is logged and printed.
    pub open: fn(&Settings) -> Result<Arc<dyn Protocol>, String>,
    /// The entry of the password file for a user, a realm and a password, for `zeopasswd`.
    pub hash: fn(&str, Option<&str>, &str) -> String,
}

/// Exactly `N` arguments. Else a `TypeError` as Python raises it.
pub fn arguments<'a, const N: usize>(
    method: &str,
    arguments: &'a [Value],
) -> Result<&'a [Value; N], PyException> {
    arguments.try_into().map_err(|_| {
        let given = arguments.len();
        PyException::builtin("TypeError", format!("{method}() takes {N} arguments ({given} given)"))
    })
}

/// The bytes of a string; Python 2 clients send it as bytes. Else a `TypeError`.
pub fn string<'a>(method: &str, value: &'a Value) -> Result<&'a [u8], PyException> {
    match value {
        Value::Bytes(bytes) => Ok(bytes),
        Value::Text(text) => Ok(text.as_bytes()),
        _ => Err(PyException::builtin("TypeError", format!("{method}(): a string is required"))),
    }
}

/// A user's name as clients sent it, escaped and cut for a line of the log.
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
    fn names_in_the_log_are_harmless() {
        assert_eq!(for_log(b"foo"), "foo");
        assert_eq!(for_log(b"a\nERROR"), "a\\nERROR");
        assert_eq!(for_log(&[b'x'; 100]), format!("{}...", "x".repeat(60)));
    }
}
