//! The signals that operators send to a server, with the meaning that Python's runzeo gives them.
//!
//! They are caught from [`Signals::install`] on and queued until the main thread asks for them. SIGPIPE is ignored by
//! Rust's start-up code already, so writing to a peer that is gone is an error and does not end the process.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2};
use signal_hook::iterator;

/// A signal by its effect.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Signal {
    /// SIGTERM, as service managers stop a server.
    Terminate,
    /// SIGINT, Ctrl-C.
    Interrupt,
    /// SIGHUP: stop with the exit code that makes a supervisor start the server anew.
    Hangup,
    /// SIGUSR2: the log files were moved away.
    ReopenLogs,
}

impl Signal {
    /// The log message of a server that ends because of it, in Python's words: INFO of `ZEO.runzeo`, behind the process
    /// id. `None`: it does not end the server.
    pub fn stop_message(self) -> Option<&'static str> {
        match self {
            Signal::Terminate => Some("terminated by SIGTERM"),
            Signal::Interrupt => Some("terminated by SIGINT"),
            Signal::Hangup => Some("restarted by SIGHUP"),
            Signal::ReopenLogs => None,
        }
    }

    /// The exit code of a server that ends because of it. zdaemon and others restart after 1. `None`: it does not end.
    pub fn exit_code(self) -> Option<u8> {
        match self {
            Signal::Terminate | Signal::Interrupt => Some(0),
            Signal::Hangup => Some(1),
            Signal::ReopenLogs => None,
        }
    }

    fn from_number(number: i32) -> Option<Signal> {
        match number {
            SIGTERM => Some(Signal::Terminate),
            SIGINT => Some(Signal::Interrupt),
            SIGHUP => Some(Signal::Hangup),
            SIGUSR2 => Some(Signal::ReopenLogs),
            _ => None,
        }
    }
}

/// The signals that have come and are not yet handled.
pub struct Signals {
    source: iterator::Signals,
    pending: VecDeque<Signal>,
}

impl Signals {
    pub fn install() -> io::Result<Signals> {
        let source = iterator::Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR2])?;
        // A file that grows beyond its limit shall be an error of that write. A handler that notes it has that effect;
        // ignoring a signal takes `unsafe`.
        signal_hook::flag::register(libc::SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
        Ok(Signals { source, pending: VecDeque::new() })
    }

    /// The next signal, as soon as there is one.
    pub fn wait(&mut self) -> Signal {
        loop {
            if let Some(signal) = self.pending.pop_front() {
                return signal;
            }
            self.pending.extend(self.source.wait().filter_map(Signal::from_number));
        }
    }

    /// The next signal if there is one already; for use between the steps of a long start.
    pub fn poll(&mut self) -> Option<Signal> {
        self.pending.extend(self.source.pending().filter_map(Signal::from_number));
        self.pending.pop_front()
    }
}
