//! Authentication: the methods of the protocol. Their state, and the check of later messages, is in `identity`.

use crate::auth::Verdict;
use crate::base::level::{ERROR, INFO, WARNING};
use crate::base::untrusted::Untrusted;
use crate::server::client_log;
use crate::server::connection_counts::RefusedFor;
use crate::server::session::Session;
use crate::wire::exception::PyException;
use crate::wire::mac::RunningMac;
use crate::wire::value::Value;

/// Failed attempts on one connection; with the last one it is closed.
const FAILURES_MAX: u32 = 3;

/// The answer to a call of the authentication protocol.
pub(super) struct Authenticated {
    pub result: Result<Value, PyException>,
    /// To be installed behind the reply.
    pub session_key: Option<Vec<u8>>,
    /// The reply is the last one.
    pub is_last: bool,
}

impl Session {
    /// A call of a method of the protocol. `None`: it has no such method, or no password is
    /// needed.
    pub(super) fn authenticate(&mut self, method: &str, args: &[Value]) -> Option<Authenticated> {
        if !self.demanded.as_ref()?.protocol.methods().contains(&method)
            || !self.connection.wire().knows_authentication()
        {
            return None;
        }
        let connection = &self.connection;
        let answer = |result| Authenticated { result, session_key: None, is_last: false };
        let Some(exchange) = &mut self.identity.exchange else {
            return Some(answer(Err(PyException::builtin("ValueError", "authenticated already"))));
        };
        Some(match exchange.call(method, args) {
            Ok(Verdict::Undecided { reply }) => answer(Ok(reply)),
            Ok(Verdict::Passed { user, reply, session_key }) => {
                let message = format_args!("authenticated as '{}'", Untrusted(&user));
                connection.peer.log(&client_log::IDENTITIES, INFO, message);
                self.identity.exchange = None;
                self.identity.client.user = Some(user);
                Authenticated { session_key, ..answer(Ok(reply)) }
            }
            Ok(Verdict::Failed { user, reply }) => {
                let message = format_args!("authentication failed for '{}'", Untrusted(&user));
                connection.peer.log(&client_log::FAILED_AUTHENTICATIONS, WARNING, message);
                self.audit_refused(None, &message.to_string());
                Authenticated { is_last: self.failed_again(), ..answer(Ok(reply)) }
            }
            Err(exception) => Authenticated { is_last: self.failed_again(), ..answer(Err(exception)) },
        })
    }

    fn failed_again(&mut self) -> bool {
        self.server.counts().refuse(RefusedFor::Password);
        self.identity.failures += 1;
        let is_last = self.identity.failures >= FAILURES_MAX;
        if is_last {
            let message = format_args!("{FAILURES_MAX} attempts failed; the connection is closed");
            self.connection.peer.log(&client_log::UNREGISTERED, ERROR, message);
        }
        is_last
    }

    /// From here on every message in both directions has a code.
    pub(super) fn use_session_key(&mut self, key: &[u8]) {
        self.connection.outbox.sign_from_here(RunningMac::new(key));
        self.identity.incoming = Some(Box::new(RunningMac::new(key)));
    }

    /// `register` without authentication. Clients from ZEO 5 on have no authentication, and can never register.
    pub(super) fn refuse_unauthenticated(&self) -> PyException {
        self.server.counts().refuse(RefusedFor::Password);
        let log = |message| self.connection.peer.log(&client_log::UNREGISTERED, ERROR, message);
        let message = if self.connection.wire().knows_authentication() {
            log(format_args!("refused: Client was never authenticated with server!"));
            "Client was never authenticated with server!"
        } else {
            log(format_args!(
                "refused: authentication-protocol demands a user and a password, which clients of ZEO 5 and later \
                 cannot give; the connection is closed"
            ));
            "this server demands a user and a password, which clients of ZEO 5 and later cannot give"
        };
        PyException::new("ZEO.Exceptions", "AuthError", vec![Value::text(message)])
    }
}
