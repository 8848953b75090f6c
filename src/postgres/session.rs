//! What the server says unasked: its parameters, notifications, notices.

use std::collections::{HashMap, VecDeque};

use bytes::BytesMut;
use postgres_protocol::message::backend::{self, Message};

use super::error::{Lost, ServerError};
use super::inbox::Frame;

/// Logger of this module's lines.
pub const LOG: &str = "runzeo.postgres";

/// Upper bounds on what is kept.
const PARAMETERS_MAX: usize = 200;
const PARAMETER_LEN_MAX: usize = 16 << 10;
/// Bytes of notifications, each counted with [`NOTIFICATION_COST`].
const NOTIFICATIONS_LEN_MAX: usize = 32 << 20;
const NOTIFICATION_COST: usize = 100;

/// A message of another session's `NOTIFY`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Notification {
    pub channel: String,
    pub payload: String,
    /// The process of the session that sent it.
    pub pid: i32,
}

impl Notification {
    fn cost(&self) -> usize {
        self.channel.len() + self.payload.len() + NOTIFICATION_COST
    }
}

/// What is known about the session.
#[derive(Debug, Default)]
pub struct Session {
    parameters: HashMap<String, String>,
    notifications: VecDeque<Notification>,
    /// Cost of the notifications.
    notifications_len: usize,
    /// The server's process for this session, and the key that permits to cancel what it does.
    pub pid: i32,
    pub key: i32,
}

/// A message that is no row and not without content, decoded.
pub fn decode(frame: Frame<'_>) -> Result<Message, Lost> {
    let mut bytes = BytesMut::from(frame.whole);
    match Message::parse(&mut bytes) {
        Ok(Some(message)) => Ok(message),
        Ok(None) => Err(Lost::protocol("a message without an end")),
        Err(error) => Err(Lost::protocol(error)),
    }
}

/// The server's error in a message of type `E`.
pub fn error_of(frame: Frame<'_>) -> Result<ServerError, Lost> {
    match decode(frame)? {
        Message::ErrorResponse(body) => {
            ServerError::parse(body.fields()).ok_or_else(|| Lost::protocol("an error that cannot be read"))
        }
        _ => Err(unexpected(frame.tag)),
    }
}

/// A message that has no place where it came.
pub fn unexpected(tag: u8) -> Lost {
    Lost::protocol(format_args!("an unexpected message of type {:?}", char::from(tag)))
}

impl Session {
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// Whether there is a notification.
    pub fn is_notified(&self) -> bool {
        !self.notifications.is_empty()
    }

    pub fn take_notifications(&mut self) -> Vec<Notification> {
        self.notifications_len = 0;
        self.notifications.drain(..).collect()
    }

    /// Takes a message that may come at any time. `false`: it is none of these.
    pub fn take(&mut self, frame: Frame<'_>) -> Result<bool, Lost> {
        match frame.tag {
            backend::NOTICE_RESPONSE_TAG => self.notice(frame)?,
            backend::NOTIFICATION_RESPONSE_TAG => self.notification(frame)?,
            backend::PARAMETER_STATUS_TAG => self.status(frame)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn notice(&self, frame: Frame<'_>) -> Result<(), Lost> {
        if let Message::NoticeResponse(body) = decode(frame)? {
            let notice = ServerError::parse(body.fields())
                .ok_or_else(|| Lost::protocol("a notice that cannot be read"))?;
            log::debug!(target: LOG, "PostgreSQL (process {}): {notice}", self.pid);
        }
        Ok(())
    }

    fn notification(&mut self, frame: Frame<'_>) -> Result<(), Lost> {
        let Message::NotificationResponse(body) = decode(frame)? else { return Ok(()) };
        let (Ok(channel), Ok(payload)) = (body.channel(), body.message()) else {
            return Err(Lost::protocol("a notification that is not UTF-8"));
        };
        let one = Notification { channel: channel.into(), payload: payload.into(), pid: body.process_id() };
        self.notifications_len += one.cost();
        if self.notifications_len > NOTIFICATIONS_LEN_MAX {
            return Err(Lost::new(format!(
                "more than {NOTIFICATIONS_LEN_MAX} bytes of unread notifications"
            )));
        }
        self.notifications.push_back(one);
        Ok(())
    }

    fn status(&mut self, frame: Frame<'_>) -> Result<(), Lost> {
        let Message::ParameterStatus(body) = decode(frame)? else { return Ok(()) };
        let (Ok(name), Ok(value)) = (body.name(), body.value()) else {
            return Err(Lost::protocol("a parameter that is not UTF-8"));
        };
        let is_known = self.parameters.contains_key(name);
        if name.len() + value.len() > PARAMETER_LEN_MAX
            || (!is_known && self.parameters.len() >= PARAMETERS_MAX)
        {
            return Err(Lost::protocol("more parameters than a server has"));
        }
        self.parameters.insert(name.into(), value.into());
        Ok(())
    }
}
