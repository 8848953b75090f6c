//! A connection to the control socket, from the side of the manager: one line in, one text out.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Upper bound on the bytes of a command.
const COMMAND_LEN_MAX: usize = 10_000;
/// Upper bound on the wait for a client that does not read its answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) struct Conversation {
    stream: UnixStream,
    command: Vec<u8>,
}

impl Conversation {
    /// `None`: the connection is broken.
    pub(super) fn new(stream: UnixStream) -> Option<Conversation> {
        stream.set_nonblocking(true).ok()?;
        Some(Conversation { stream, command: Vec::new() })
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Reads what has come, without waiting. `None`: the command is not whole yet. An error is an answer.
    pub(super) fn read(&mut self) -> Option<Result<String, &'static str>> {
        let mut piece = [0; 1000];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return Some(Err("Command not terminated by newline")),
                Ok(len) => self.command.extend_from_slice(piece.get(..len).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Some(Err("Command not terminated by newline")),
            }
            if let Some(line) = self.command.split(|byte| *byte == b'\n').next()
                && line.len() < self.command.len()
            {
                return Some(Ok(String::from_utf8_lossy(line).into_owned()));
            }
            if self.command.len() > COMMAND_LEN_MAX {
                return Some(Err("Command exceeds 10 KB"));
            }
        }
    }

    /// Sends the answer, and ends the connection. A client that is gone misses it.
    pub(super) fn answer(mut self, text: &str) {
        let ready = self
            .stream
            .set_nonblocking(false)
            .and_then(|()| self.stream.set_write_timeout(Some(WRITE_TIMEOUT)));
        let line_end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        let _ = ready.and_then(|()| self.stream.write_all(format!("{text}{line_end}").as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(pieces: &[&[u8]]) -> Option<Result<String, &'static str>> {
        let (mut client, stream) = UnixStream::pair().unwrap();
        let mut conversation = Conversation::new(stream).unwrap();
        let mut command = None;
        for piece in pieces {
            assert!(command.is_none());
            client.write_all(piece).unwrap();
            command = conversation.read();
        }
        if command.is_none() {
            drop(client);
            command = conversation.read();
        }
        command
    }

    #[test]
    fn a_command_is_a_line() {
        assert_eq!(ask(&[b"status\n"]), Some(Ok("status".into())));
        assert_eq!(ask(&[b"ki", b"ll 9\nmore"]), Some(Ok("kill 9".into())));
        assert_eq!(ask(&[b"status"]), Some(Err("Command not terminated by newline")));
        assert_eq!(ask(&[&[b'x'; 20_000]]), Some(Err("Command exceeds 10 KB")));
        assert_eq!(ask(&[b"\xff\n"]), Some(Ok("\u{fffd}".into())));
    }
}
