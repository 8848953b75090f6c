//! The start of a session: parameters, authentication, and what the server says before it is ready.

use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::backend::{self, Message};
use postgres_protocol::message::frontend;

use super::collect::Pieces;
use super::connection::Connection;
use super::dsn::Dsn;
use super::error::{Lost, ServerError};
use super::session::{decode, error_of, unexpected};
use crate::base::clock::IoDeadline;

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
pub(super) enum LoginError {
    /// The server refuses it.
    Refused(ServerError),
    Lost(Lost),
}

impl From<Lost> for LoginError {
    fn from(lost: Lost) -> LoginError {
        LoginError::Lost(lost)
    }
}

/// Begins the session.
pub(super) fn log_in(
    connection: &mut Connection,
    dsn: &Dsn,
    login: &Login,
    until: Option<IoDeadline>,
) -> Result<(), LoginError> {
    let mut message = BytesMut::new();
    let application = dsn.application_name.as_deref().unwrap_or(&login.application_name);
    let mut parameters = vec![
        ("user", dsn.user.as_str()),
        ("database", dsn.dbname.as_str()),
        ("client_encoding", "UTF8"),
        ("application_name", application),
    ];
    parameters.extend(dsn.options.as_deref().map(|options| ("options", options)));
    parameters.extend(login.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    frontend::startup_message(parameters, &mut message)
        .map_err(|error| Lost::new(format!("a parameter that cannot be sent: {error}")))?;
    let mut refused = None;
    connection.try_exchange(Pieces::new(vec![&message]), until, &mut |session, frame| {
        match frame.tag {
            backend::ERROR_RESPONSE_TAG => {
                refused = Some(error_of(frame)?);
                return Ok(true);
            }
            backend::READY_FOR_QUERY_TAG => return Ok(true),
            _ => {}
        }
        match decode(frame)? {
            Message::AuthenticationOk => {}
            Message::BackendKeyData(body) => {
                (session.pid, session.key) = (body.process_id(), body.secret_key());
            }
            _ => return Err(unexpected(frame.tag)),
        }
        Ok(false)
    })?;
    refused.map_or(Ok(()), |error| Err(LoginError::Refused(error)))
}
