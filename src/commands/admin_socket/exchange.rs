//! One connection of the admin socket: a request, and its answer.
//!
//! The request is a line with a JSON object: `command`, and the arguments of that. The answer is lines with JSON
//! objects: any number of `{"progress": ...}`, and then one `{"result": ...}` or `{"error": "a sentence"}`.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use serde_json::{Map, Value, json};
use socket2::Socket;

use super::caller::Caller;
use crate::base::clock::IoDeadline;
use crate::base::untrusted::Untrusted;

/// Longest request, in bytes.
const REQUEST_MAX: usize = 64 << 10;
/// Longest wait for the whole request.
const REQUEST_WAIT_MAX: Duration = Duration::from_secs(10);
/// Longest time in which what follows the request is discarded.
const DISCARD_MAX: Duration = Duration::from_secs(1);
/// Longest wait for a caller that does not read its answer.
const WRITE_WAIT_MAX: Duration = Duration::from_secs(10);

/// What a caller wants.
pub(super) struct AdminCall {
    pub(super) caller: Caller,
    arguments: Map<String, Value>,
}

impl AdminCall {
    /// The request as JSON, escaped and cut.
    pub(super) fn shown(&self) -> String {
        Untrusted(&serde_json::to_string(&self.arguments).unwrap_or_default()).to_string()
    }

    /// An argument that is text. `None`: it is not given, or null.
    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, String> {
        match self.arguments.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(format!("'{name}' of the request is not text")),
        }
    }

    /// An argument that is true or false; false if it is not given.
    pub(super) fn flag(&self, name: &str) -> Result<bool, String> {
        match self.arguments.get(name) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(format!("'{name}' of the request is neither true nor false")),
        }
    }

    /// An argument that is a number.
    pub(super) fn number(&self, name: &str) -> Result<Option<f64>, String> {
        match self.arguments.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                value.as_f64().map(Some).ok_or_else(|| format!("'{name}' of the request is no number"))
            }
        }
    }
}

/// A connection.
pub(super) struct Exchange {
    socket: Socket,
}

impl Exchange {
    pub(super) fn new(socket: Socket) -> io::Result<Exchange> {
        socket.set_nonblocking(false)?;
        socket.set_write_timeout(Some(WRITE_WAIT_MAX))?;
        Ok(Exchange { socket })
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Waits for the request.
    pub(super) fn call(&mut self, caller: Caller) -> Result<AdminCall, String> {
        let line = self.line()?;
        match serde_json::from_slice(&line) {
            Ok(Value::Object(arguments)) => Ok(AdminCall { caller, arguments }),
            Ok(_) => Err("the request is not a JSON object".into()),
            Err(error) => Err(format!("the request is not JSON: {error}")),
        }
    }

    fn line(&mut self) -> Result<Vec<u8>, String> {
        let deadline = IoDeadline::after(REQUEST_WAIT_MAX);
        let mut line = Vec::new();
        let mut part = [0; 4096];
        loop {
            if deadline.is_over() {
                return Err(format!("the request did not come within {} s", REQUEST_WAIT_MAX.as_secs()));
            }
            let received = self
                .socket
                .set_read_timeout(Some(deadline.left().max(Duration::from_millis(1))))
                .and_then(|()| self.socket.read(&mut part));
            match received {
                Ok(0) => return Err("the request has no end: it is one line".into()),
                Ok(len) => line.extend_from_slice(part.get(..len).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if is_timeout(&error) => continue,
                Err(error) => return Err(format!("the request cannot be received: {error}")),
            }
            if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
                line.truncate(end);
                return Ok(line);
            }
            if line.len() > REQUEST_MAX {
                return Err(format!("the request is longer than {REQUEST_MAX} bytes"));
            }
        }
    }

    /// Tells the caller how far it is. `false`: the caller has gone.
    pub(super) fn progress(&mut self, progress: Value) -> bool {
        self.send(&json!({ "progress": progress })).is_ok()
    }

    /// Sends the end of the answer. The caller may have gone.
    pub(super) fn finish(mut self, answer: Result<Value, String>) {
        let _ = match answer {
            Ok(result) => self.send(&json!({ "result": result })),
            Err(error) => self.send(&json!({ "error": error })),
        };
        self.discard_rest();
    }

    /// Takes what the caller still sends, within bounds: a socket that is closed before that loses its answer.
    fn discard_rest(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Write);
        let deadline = IoDeadline::after(DISCARD_MAX);
        let mut part = [0; 4096];
        let mut left = REQUEST_MAX;
        while left > 0 && !deadline.is_over() {
            let waits = self.socket.set_read_timeout(Some(deadline.left().max(Duration::from_millis(1))));
            match waits.and_then(|()| self.socket.read(&mut part)) {
                Ok(0) | Err(_) => return,
                Ok(len) => left = left.saturating_sub(len),
            }
        }
    }

    fn send(&mut self, value: &Value) -> io::Result<()> {
        self.socket.write_all(format!("{value}\n").as_bytes())
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
