//! What a service manager tells the server in its environment, and no process that the server starts.

use std::process::Command;

/// Variables that are meant for one process.
const OF_ONE_PROCESS: [&str; 6] =
    ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// Keeps the variables from a child.
pub fn keep_from(command: &mut Command) -> &mut Command {
    OF_ONE_PROCESS.iter().fold(command, |command, name| command.env_remove(name))
}
