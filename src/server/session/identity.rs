//! The state of a connection's authentication, and the codes of its messages.

use crate::auth::{Exchange, Protocol};
use crate::base::level::INFO;
use crate::server::access::ClientIdentity;
use crate::server::client_log;
use crate::server::connection::Connection;
use crate::wire::frame::Frame;
use crate::wire::mac::RunningMac;

/// The state of a connection's authentication.
#[derive(Default)]
pub struct Identity {
    /// The server's side of the protocol; `None` after the client has passed, or without authentication.
    pub exchange: Option<Box<dyn Exchange>>,
    /// What the client has shown so far.
    pub client: ClientIdentity,
    /// Failed attempts.
    pub failures: u32,
    /// Checks the codes of the client's messages, if there is a session key.
    pub incoming: Option<Box<RunningMac>>,
    /// Whether it was logged that messages have codes although there is no session key.
    uncheckable_noted: bool,
}

impl Identity {
    pub fn new(protocol: Option<&dyn Protocol>) -> Identity {
        Identity { exchange: protocol.map(Protocol::begin), ..Identity::default() }
    }

    /// Whether no (further) authentication is required.
    pub fn is_proved(&self) -> bool {
        self.exchange.is_none()
    }

    /// Has the frame the code that it must have? The error is for the log; the connection ends with it.
    pub fn check(&mut self, frame: &Frame<'_>, connection: &Connection) -> Result<(), &'static str> {
        match (&mut self.incoming, frame.mac) {
            (None, None) => Ok(()),
            (Some(incoming), Some(code)) => match incoming.check_next(frame.payload, code) {
                true => Ok(()),
                false => Err("a message with a wrong authentication code"),
            },
            (Some(_), None) => Err("a message without authentication code"),
            (None, Some(_)) => {
                if !std::mem::replace(&mut self.uncheckable_noted, true) {
                    let message = format_args!("Received MAC but no session key set");
                    connection.peer.log(&client_log::UNREGISTERED, INFO, message);
                }
                Ok(())
            }
        }
    }
}
