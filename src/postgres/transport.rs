//! The socket to the server, with TLS or without. No call waits except [`Transport::wait`].

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustls::ClientConnection;
use socket2::Socket;

use super::wake::Wake;
use crate::base::clock::IoDeadline;

/// A connected socket.
pub struct Transport {
    socket: Socket,
    tls: Option<Box<ClientConnection>>,
}

/// What a wait has found.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Ready {
    pub to_read: bool,
    pub to_write: bool,
    pub is_woken: bool,
}

impl Transport {
    pub fn new(socket: Socket) -> io::Result<Transport> {
        socket.set_nonblocking(true)?;
        Ok(Transport { socket, tls: None })
    }

    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Everything that follows is encrypted. The handshake is [`Transport::handshake`].
    pub fn set_tls(&mut self, tls: ClientConnection) {
        self.tls = Some(Box::new(tls));
    }

    pub fn tls(&self) -> Option<&ClientConnection> {
        self.tls.as_deref()
    }

    /// The TLS handshake.
    pub fn handshake(&mut self, until: Option<IoDeadline>) -> io::Result<()> {
        loop {
            let Some(tls) = &mut self.tls else { return Ok(()) };
            let is_sent = send_encrypted(tls, &self.socket)?;
            if !tls.is_handshaking() && is_sent {
                return Ok(());
            }
            self.wait(!is_sent, None, until)?;
            let Some(tls) = &mut self.tls else { return Ok(()) };
            match tls.read_tls(&mut &self.socket) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if is_not_yet(&error) => continue,
                Err(error) => return Err(error),
            }
            if let Err(error) = tls.process_new_packets() {
                // Sends the alert, if the socket takes it.
                let _ = send_encrypted(tls, &self.socket);
                return Err(io::Error::other(error));
            }
        }
    }

    /// Takes some of the bytes. `None`: the socket takes none now.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        let Some(tls) = &mut self.tls else {
            return match (&self.socket).write(bytes) {
                Ok(count) => Ok(Some(count)),
                Err(error) if is_not_yet(&error) => Ok(None),
                Err(error) => Err(error),
            };
        };
        // The bytes before these come first, so that little is buffered.
        if !send_encrypted(tls, &self.socket)? {
            return Ok(None);
        }
        let count = tls.writer().write(bytes)?;
        send_encrypted(tls, &self.socket)?;
        Ok(Some(count))
    }

    /// Sends what was encrypted. `false`: the socket does not take all of it now.
    pub fn try_flush(&mut self) -> io::Result<bool> {
        match &mut self.tls {
            Some(tls) => send_encrypted(tls, &self.socket),
            None => Ok(true),
        }
    }

    /// Reads some bytes. `None`: there are none now; 0: the server has closed the connection.
    pub fn try_read(&mut self, room: &mut [u8]) -> io::Result<Option<usize>> {
        let Some(tls) = &mut self.tls else {
            return match (&self.socket).read(room) {
                Ok(count) => Ok(Some(count)),
                Err(error) if is_not_yet(&error) => Ok(None),
                Err(error) => Err(error),
            };
        };
        loop {
            match tls.reader().read(room) {
                Ok(count) => return Ok(Some(count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            match tls.read_tls(&mut &self.socket) {
                Ok(0) => return Ok(Some(0)),
                Ok(_) => {}
                Err(error) if is_not_yet(&error) => return Ok(None),
                Err(error) => return Err(error),
            }
            tls.process_new_packets().map_err(io::Error::other)?;
            // The answer to a key update. What the socket does not take goes with the next bytes.
            send_encrypted(tls, &self.socket)?;
        }
    }

    /// Waits until the socket can be read, or written if `and_write`, or until the wake, or until the deadline, which
    /// is an error of kind `TimedOut`.
    pub fn wait(&self, and_write: bool, wake: Option<&Wake>, until: Option<IoDeadline>) -> io::Result<Ready> {
        let interest = if and_write { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        loop {
            let socket = PollFd::from_borrowed_fd(self.socket.as_fd(), interest);
            let time = until.map(|until| timespec(until.left()));
            let (count, ready) = match wake {
                None => {
                    let mut fds = [socket];
                    let count = poll(&mut fds, time.as_ref());
                    (count, [fds[0].revents(), PollFlags::empty()])
                }
                Some(wake) => {
                    let mut fds = [socket, PollFd::from_borrowed_fd(wake.fd(), PollFlags::IN)];
                    let count = poll(&mut fds, time.as_ref());
                    (count, [fds[0].revents(), fds[1].revents()])
                }
            };
            match count {
                Ok(0) if until.is_some_and(IoDeadline::is_over) => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => {
                    let broken = PollFlags::ERR | PollFlags::HUP;
                    return Ok(Ready {
                        to_read: ready[0].intersects(PollFlags::IN | broken),
                        to_write: ready[0].intersects(PollFlags::OUT | broken),
                        is_woken: !ready[1].is_empty(),
                    });
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes leave of the server, if the socket takes it.
    pub fn say_goodbye(&mut self, message: &[u8]) {
        // No error if the server is gone.
        let _ = self.try_write(message);
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            let _ = send_encrypted(tls, &self.socket);
        }
    }
}

/// Sends the encrypted bytes. `false`: the socket does not take all of them now.
fn send_encrypted(tls: &mut ClientConnection, socket: &Socket) -> io::Result<bool> {
    while tls.wants_write() {
        match tls.write_tls(&mut { socket }) {
            Ok(_) => {}
            Err(error) if is_not_yet(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

fn is_not_yet(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn timespec(time: Duration) -> Timespec {
    // Rounded up, so that a wait does not end shortly before its deadline again and again.
    let time = time.saturating_add(Duration::from_micros(1));
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}
