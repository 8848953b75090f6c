//! The signals that operators send to a server, with their meaning in Python's runzeo.
//!
//! They are caught from [`Signals::install`] on and queued until the main thread takes them. Rust's start-up code
//! ignores SIGPIPE, so writing to a closed connection is an error and does not end the process.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2};
use signal_hook::iterator;

/// A signal, named after its effect.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Signal {
    /// SIGTERM: sent by service managers to stop a server.
    Terminate,
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGHUP: stop with an exit code that makes a supervisor restart the server.
    Hangup,
    /// SIGUSR2: the log files were moved away.
    ReopenLogs,
}

impl Signal {
    /// The log message when the signal ends the server, in Python's words: INFO of `ZEO.runzeo`, after the process id.
    /// `None`: the signal does not end the server.
    pub fn stop_message(self) -> Option<&'static str> {
        match self {
            Signal::Terminate => Some("terminated by SIGTERM"),
            Signal::Interrupt => Some("terminated by SIGINT"),
            Signal::Hangup => Some("restarted by SIGHUP"),
            Signal::ReopenLogs => None,
        }
    }

    /// The exit code when the signal ends the server. zdaemon and others restart after 1. `None`: it does not end the
    /// server.
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

/// A flag that SIGTERM and SIGINT set, for a program that ends at the next occasion, with 0. A second one ends the
/// process at once, also with 0.
pub fn stop_flag() -> io::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register_conditional_shutdown(signal, 0, Arc::clone(&flag))?;
        signal_hook::flag::register(signal, Arc::clone(&flag))?;
    }
    Ok(flag)
}

/// Received signals that are not handled yet.
pub struct Signals {
    source: iterator::Signals,
    pending: VecDeque<Signal>,
    end_is_asked: Arc<AtomicBool>,
}

impl Signals {
    /// Installs the handlers of this process, once.
    pub fn install() -> io::Result<Signals> {
        let source = iterator::Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR2])?;
        // A write beyond the file size limit must be an error, not end the process. A handler has that effect; ignoring
        // the signal would need `unsafe`.
        signal_hook::flag::register(libc::SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
        let end_is_asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&end_is_asked))?;
        }
        Ok(Signals { source, pending: VecDeque::new(), end_is_asked })
    }

    /// Set as soon as a signal that ends the server has come, though it may not be handled yet.
    pub fn end_is_asked(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.end_is_asked)
    }

    /// Waits for the next signal.
    pub fn wait(&mut self) -> Signal {
        loop {
            if let Some(signal) = self.pending.pop_front() {
                return signal;
            }
            self.pending.extend(self.source.wait().filter_map(Signal::from_number));
        }
    }

    /// The next signal if one is queued; for use between the steps of a long start.
    pub fn poll(&mut self) -> Option<Signal> {
        self.pending.extend(self.source.pending().filter_map(Signal::from_number));
        self.pending.pop_front()
    }
}
