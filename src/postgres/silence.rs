//! A connection on which nothing comes any more. A network that fails is noticed by the system; what is between client
//! and server, such as a balancer, may keep both connections and lose what goes through. Then each end waits for the
//! other one, for ever, and the locks of the session are held as long. How long an answer takes says nothing: a
//! statement may take minutes. So the server is asked, on another connection, whether it is at work.

use std::io;
use std::time::Duration;

use super::error::{Lost, broken};
use super::transport::{Ready, Transport};
use crate::base::clock::IoDeadline;

/// The answer may have been under way when the server was asked: this much later it has come, or is lost.
const UNDER_WAY: Duration = Duration::from_secs(1);

/// What the server says about one of its processes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProcessState {
    AtWork,
    /// It waits for its client, or it is gone.
    Idle,
    /// The server cannot be asked.
    Unreachable,
}

/// What is done about silence.
pub struct SilenceCheck {
    /// How long nothing comes before the server is asked, and how often it is asked then.
    pub after: Duration,
    /// Asks about a process.
    pub ask: Box<dyn Fn(i32) -> ProcessState + Send>,
}

/// As [`Transport::wait`] without a wake. Fails also if the server waits for its client, as this client does for it.
pub(super) fn wait(
    transport: &Transport,
    check: Option<&SilenceCheck>,
    process: i32,
    and_write: bool,
    until: Option<IoDeadline>,
) -> Result<Ready, Lost> {
    let Some(check) = check else {
        return transport.wait(and_write, None, until).map_err(|error| broken(&error));
    };
    let mut was_idle = false;
    loop {
        let part = if was_idle { UNDER_WAY } else { check.after };
        let part = until.map_or(part, |until| until.left().min(part));
        match transport.wait(and_write, None, Some(IoDeadline::after(part))) {
            Ok(ready) => return Ok(ready),
            Err(error) if error.kind() != io::ErrorKind::TimedOut => return Err(broken(&error)),
            Err(error) if until.is_some_and(IoDeadline::is_over) => return Err(broken(&error)),
            Err(_) => {}
        }
        was_idle = match (check.ask)(process) {
            ProcessState::AtWork => false,
            ProcessState::Idle if !was_idle => true,
            ProcessState::Idle => {
                return Err(Lost::new(
                    "the server waits for what was sent long ago, and its answer has not come",
                ));
            }
            ProcessState::Unreachable => {
                return Err(Lost::new("nothing comes from the server, and it cannot be reached"));
            }
        };
    }
}
