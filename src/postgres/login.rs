//! The start of a session: parameters, authentication, and what the server says before it is ready.

use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::backend::{self, Message};
use postgres_protocol::message::frontend;

use super::authenticate::Authentication;
use super::collect::Pieces;
use super::connection::{Connection, TimeLimit};
use super::dsn::{Dsn, Secret};
use super::error::{Lost, ServerError};
use super::session::{decode, error_of, unexpected};
use crate::base::clock::IoDeadline;
use crate::net::tls::outgoing::end_point;

/// What the program adds to the connection string.
#[derive(Clone, Debug, Default)]
pub struct Login {
    /// Used if the connection string has no `application_name`.
    pub application_name: String,
    /// Settings of the session, such as `tcp_keepalives_idle`.
    pub settings: Vec<(String, String)>,
    /// Used if the connection string has no `connect_timeout`. `None`: without end.
    pub connect_timeout: Option<Duration>,
}

/// Why a session could not begin.
#[derive(Debug)]
pub enum LoginError {
    /// The server refuses it.
    Refused(ServerError),
    /// The client refuses it, or has no password.
    Own(String),
    Lost(Lost),
}

impl From<Lost> for LoginError {
    fn from(lost: Lost) -> LoginError {
        LoginError::Lost(lost)
    }
}

/// Begins the session.
pub fn log_in(
    connection: &mut Connection,
    dsn: &Dsn,
    login: &Login,
    password: Option<Secret>,
    until: Option<IoDeadline>,
) -> Result<(), LoginError> {
    let tls = connection.transport.tls();
    let (is_encrypted, end_point) = (tls.is_some(), tls.and_then(end_point));
    let mut authentication = Authentication::new(dsn, password, is_encrypted, end_point);
    let mut message = start_up(dsn, login)?;
    loop {
        let answer = next_message(connection, &message, until)?;
        match authentication.answer(answer).map_err(LoginError::Own)? {
            Some(answer) => message = answer,
            None => break,
        }
    }
    let mut refused = None;
    connection.try_exchange(Pieces::default(), TimeLimit::whole(until), &mut |session, frame| {
        match frame.tag {
            backend::READY_FOR_QUERY_TAG => return Ok(true),
            backend::ERROR_RESPONSE_TAG => {
                refused = Some(error_of(frame)?);
                return Ok(true);
            }
            _ => {}
        }
        let Message::BackendKeyData(body) = decode(frame)? else { return Err(unexpected(frame.tag)) };
        (session.pid, session.key) = (body.process_id(), body.secret_key());
        Ok(false)
    })?;
    connection.set_begun();
    refused.map_or(Ok(()), |error| Err(LoginError::Refused(error)))
}

fn start_up(dsn: &Dsn, login: &Login) -> Result<BytesMut, LoginError> {
    let application = dsn.application_name.as_ref().or(dsn.fallback_application_name.as_ref());
    let mut parameters = vec![
        ("user", dsn.user.as_str()),
        ("database", dsn.dbname.as_str()),
        ("client_encoding", "UTF8"),
        ("application_name", application.unwrap_or(&login.application_name)),
    ];
    parameters.extend(dsn.options.as_deref().map(|options| ("options", options)));
    parameters.extend(login.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let mut message = BytesMut::new();
    frontend::startup_message(parameters, &mut message)
        .map_err(|error| LoginError::Own(format!("a setting that cannot be sent: {error}")))?;
    Ok(message)
}

/// Sends a message and returns what the server answers.
fn next_message(
    connection: &mut Connection,
    message: &[u8],
    until: Option<IoDeadline>,
) -> Result<Message, LoginError> {
    let mut answer = None;
    connection.try_exchange(Pieces::new(vec![message]), TimeLimit::whole(until), &mut |_, frame| {
        answer = Some(match frame.tag {
            backend::ERROR_RESPONSE_TAG => Err(LoginError::Refused(error_of(frame)?)),
            _ => Ok(decode(frame)?),
        });
        Ok(true)
    })?;
    answer.unwrap_or_else(|| Err(Lost::protocol("no answer").into()))
}
