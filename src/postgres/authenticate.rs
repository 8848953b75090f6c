//! The proof of who the client is, as the server asks for it.

use std::str;

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use postgres_protocol::message::backend::{AuthenticationSaslBody, Message};
use postgres_protocol::message::frontend;

use super::dsn::{Binding, Dsn, Method, Secret};
use super::error::Lost;

/// Upper bound on the rounds that a server may ask for: its own default is 4096, and a million take a second.
const ROUNDS_MAX: u32 = 1_000_000;

/// The state of the authentication of one connection.
pub struct Authentication<'a> {
    dsn: &'a Dsn,
    password: Option<Secret>,
    /// Whether the connection is encrypted, and what binds to it, if it can be bound to.
    is_encrypted: bool,
    end_point: Option<Vec<u8>>,
    scram: Scram,
    /// Whether the server has asked for a proof, which was permitted.
    has_answered: bool,
}

/// How far SCRAM has come.
enum Scram {
    Not,
    Begun {
        exchange: ScramSha256,
        is_bound: bool,
    },
    Proved {
        exchange: ScramSha256,
        is_bound: bool,
    },
    /// The server has shown that it knows the password.
    Done {
        is_bound: bool,
    },
}

impl<'a> Authentication<'a> {
    pub fn new(
        dsn: &'a Dsn,
        password: Option<Secret>,
        is_encrypted: bool,
        end_point: Option<Vec<u8>>,
    ) -> Authentication<'a> {
        Authentication { dsn, password, is_encrypted, end_point, scram: Scram::Not, has_answered: false }
    }

    /// The answer to one of the server's messages: nothing for the end of the authentication.
    pub fn answer(&mut self, message: Message) -> Result<Option<BytesMut>, String> {
        let mut out = BytesMut::new();
        match message {
            Message::AuthenticationOk => return self.finish().map(|()| None),
            Message::AuthenticationCleartextPassword => {
                self.permit(Method::Password)?;
                frontend::password_message(self.password()?.as_bytes(), &mut out).map_err(broken)?;
            }
            Message::AuthenticationMd5Password(body) => {
                self.permit(Method::Md5)?;
                let hash = md5_hash(self.dsn.user.as_bytes(), self.password()?.as_bytes(), body.salt());
                frontend::password_message(hash.as_bytes(), &mut out).map_err(broken)?;
            }
            Message::AuthenticationSasl(body) => {
                let (mechanism, exchange, is_bound) = self.begin(&body)?;
                frontend::sasl_initial_response(mechanism, exchange.message(), &mut out).map_err(broken)?;
                self.scram = Scram::Begun { exchange, is_bound };
            }
            Message::AuthenticationSaslContinue(body) => {
                let Scram::Begun { mut exchange, is_bound } = self.take_scram() else {
                    return Err(out_of_turn());
                };
                check_rounds(body.data())?;
                exchange.update(body.data()).map_err(broken)?;
                frontend::sasl_response(exchange.message(), &mut out).map_err(broken)?;
                self.scram = Scram::Proved { exchange, is_bound };
            }
            Message::AuthenticationSaslFinal(body) => {
                let Scram::Proved { mut exchange, is_bound } = self.take_scram() else {
                    return Err(out_of_turn());
                };
                exchange.finish(body.data()).map_err(|error| {
                    format!("the server has not shown that it knows the password: {error}")
                })?;
                self.scram = Scram::Done { is_bound };
            }
            Message::AuthenticationGss | Message::AuthenticationGssContinue(_) => {
                return Err(not_here("GSSAPI"));
            }
            Message::AuthenticationSspi => return Err(not_here("SSPI")),
            Message::AuthenticationKerberosV5 => return Err(not_here("Kerberos 5")),
            Message::AuthenticationScmCredential => return Err(not_here("SCM credentials")),
            _ => return Err(out_of_turn()),
        }
        Ok(Some(out))
    }

    fn take_scram(&mut self) -> Scram {
        std::mem::replace(&mut self.scram, Scram::Not)
    }

    /// The server asks for nothing more.
    fn finish(&self) -> Result<(), String> {
        match self.scram {
            Scram::Done { is_bound } => {
                if self.dsn.channel_binding == Binding::Require && !is_bound {
                    return Err(unbound());
                }
                Ok(())
            }
            Scram::Not => self.check_bare(),
            _ => {
                Err("the server has ended the authentication without showing that it knows the password"
                    .into())
            }
        }
    }

    /// After a method that was permitted, or after none.
    fn check_bare(&self) -> Result<(), String> {
        if self.dsn.channel_binding == Binding::Require {
            return Err(unbound());
        }
        // A password was asked for and permitted, or nothing was asked for.
        if self.has_answered { Ok(()) } else { self.permit_none() }
    }

    fn begin(&mut self, body: &AuthenticationSaslBody) -> Result<(&'static str, ScramSha256, bool), String> {
        self.permit(Method::Scram)?;
        let (mut has_plain, mut has_bound) = (false, false);
        let mut mechanisms = body.mechanisms();
        while let Some(mechanism) = mechanisms.next().map_err(broken)? {
            has_plain |= mechanism == SCRAM_SHA_256;
            has_bound |= mechanism == SCRAM_SHA_256_PLUS;
        }
        let binding = self.dsn.channel_binding;
        let end_point = self.end_point.clone().filter(|_| binding != Binding::Disable);
        let password = self.password()?.as_bytes();
        if let Some(end_point) = end_point.clone().filter(|_| has_bound) {
            let binding = ChannelBinding::tls_server_end_point(end_point);
            return Ok((SCRAM_SHA_256_PLUS, ScramSha256::new(password, binding), true));
        }
        if binding == Binding::Require {
            return Err(match (self.is_encrypted, has_bound) {
                (false, _) => "channel_binding=require needs TLS: sslmode=require".into(),
                (true, false) => unbound(),
                (true, true) => {
                    "channel_binding=require: the server's certificate has a signature that cannot be \
                                 bound to"
                        .into()
                }
            });
        }
        if !has_plain {
            return Err("the server asks for an authentication of SASL other than SCRAM-SHA-256".into());
        }
        let binding = match end_point {
            // The server must not have left out the mechanism that binds.
            Some(_) => ChannelBinding::unrequested(),
            None => ChannelBinding::unsupported(),
        };
        Ok((SCRAM_SHA_256, ScramSha256::new(password, binding), false))
    }

    fn permit(&mut self, method: Method) -> Result<(), String> {
        self.has_answered = true;
        if self.dsn.channel_binding == Binding::Require && method != Method::Scram {
            return Err(unbound());
        }
        self.check_permitted(method)
    }

    fn permit_none(&self) -> Result<(), String> {
        self.check_permitted(Method::None)
    }

    fn check_permitted(&self, method: Method) -> Result<(), String> {
        if self.dsn.required_auth.permits(method) {
            return Ok(());
        }
        Err(match method {
            Method::None => {
                "the server asks for no authentication, which require_auth does not permit".into()
            }
            method => format!("the server asks for {method:?}, which require_auth does not permit"),
        })
    }

    fn password(&self) -> Result<&str, String> {
        let password = self.password.as_ref().map(|password| password.0.as_str());
        password.ok_or_else(|| {
            "the server asks for a password: give one with 'password', PGPASSWORD or a line of the password file".into()
        })
    }
}

/// Refuses to work for hours for a server that asks for it.
fn check_rounds(message: &[u8]) -> Result<(), String> {
    let text = str::from_utf8(message).map_err(|_| out_of_turn())?;
    let rounds =
        text.split(',').find_map(|part| part.strip_prefix("i=")).and_then(|count| count.parse().ok());
    match rounds {
        Some(0) | None => Err("the server's message of SCRAM has no number of rounds".into()),
        Some(rounds) if rounds > ROUNDS_MAX => {
            Err(format!("the server asks for {rounds} rounds of hashing; at most {ROUNDS_MAX} are made"))
        }
        Some(_) => Ok(()),
    }
}

fn unbound() -> String {
    "channel_binding=require: the server's authentication is not bound to the encrypted connection".into()
}

fn not_here(method: &str) -> String {
    format!("the server asks for authentication by {method}, which is not supported; see pg_hba.conf")
}

fn out_of_turn() -> String {
    Lost::protocol("a message of authentication out of turn").reason
}

fn broken(error: std::io::Error) -> String {
    format!("authentication: {error}")
}
