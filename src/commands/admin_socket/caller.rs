//! The process that calls at the admin socket, and whether it may.
//!
//! The mode of the socket keeps other users out. The kernel is asked all the same, for the mode may have been changed.

use std::fmt;

use rustix::process::geteuid;
use socket2::Socket;

use crate::net::peer_process::{ProcessId, peer_process};

/// Target of log lines, which name the caller.
pub(super) const LOG: &str = "runzeo.admin";

/// A process whose requests are answered.
#[derive(Clone, Copy, Debug)]
pub(in crate::commands) struct Caller {
    uid: u32,
    /// `None`: of another PID namespace, such as outside of a container.
    pid: Option<i32>,
}

impl Caller {
    /// The process at the other end. An error if it is of another user.
    pub(super) fn of(socket: &Socket) -> Result<Caller, String> {
        let (ProcessId { uid, .. }, pid) =
            peer_process(socket).map_err(|error| format!("the kernel does not say who calls: {error}"))?;
        let caller = Caller { uid, pid };
        let own = geteuid();
        if caller.uid != own.as_raw() && caller.uid != 0 {
            log::warn!(target: LOG, "{caller} may not steer this server, and is refused");
            return Err(format!(
                "only root and user {} may steer this server, not user {}",
                own.as_raw(),
                caller.uid
            ));
        }
        Ok(caller)
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "user {} (process {pid})", self.uid),
            None => write!(f, "user {} (process outside)", self.uid),
        }
    }
}
