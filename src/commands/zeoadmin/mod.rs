//! `zeoadmin`: looks at a running server, and steers it.
//!
//! - `call`: the admin socket of the server, and what is asked for there
//! - `shown`: numbers, sizes, times and tables as people read them
//! - `status`, `top`, `clients`, `transactions`, `locks`, `conflicts`, `slow`: views of the server's report of itself
//! - `kill`, `pack`, `save_index`, `log_level`: what is done to the server
//! - `check`, `reload`: what a restart would do, and what can be done without one
//! - `role`, `promote`: the server in its cluster, and other roles for it
//!
//! Everything that a command prints comes from the server, as JSON; `--json` prints that. Names that clients have
//! chosen were escaped by the server, and are escaped here again: the server may be of another version.

mod call;
mod check;
mod clients;
mod conflicts;
mod kill;
mod locks;
mod log_level;
mod pack;
mod promote;
mod reload;
mod role;
mod save_index;
mod shown;
mod slow;
mod status;
mod top;
mod transactions;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use super::subcommand::{Program, Subcommand};

const COMMANDS: &[Subcommand] = &[
    status::COMMAND,
    top::COMMAND,
    clients::COMMAND,
    transactions::COMMAND,
    locks::COMMAND,
    conflicts::COMMAND,
    slow::COMMAND,
    kill::COMMAND,
    pack::COMMAND,
    save_index::COMMAND,
    log_level::COMMAND,
    check::COMMAND,
    reload::COMMAND,
    role::COMMAND,
    promote::PROMOTE,
    promote::DEMOTE,
    promote::FOLLOW,
];

/// The program `zeoadmin`. `program` is its name as called; `arguments` do not have it.
pub fn run(program: &str, arguments: &[OsString]) -> ExitCode {
    Program { name: "zeoadmin", called: program, commands: COMMANDS, help: help(program) }.run(arguments)
}

/// `zeoadmin reload -C FILE` for another program. Returns the exit status.
pub(super) fn reload(out: &mut dyn Write, called: &str, configuration: &str) -> u8 {
    let arguments = ["reload", "-C", configuration].map(OsString::from);
    Program { name: "zeoadmin", called, commands: COMMANDS, help: String::new() }.run_to(out, &arguments)
}

fn help(program: &str) -> String {
    format!(
        "\
Look at a running server, and steer it, over its admin socket.

Usage: {program} COMMAND [options]

  status        the server in some lines, and what is to be looked at
  top           what it does now, again and again
  clients       the connections of clients
  transactions  what they have begun
  locks         who holds locks, and who waits for whom
  conflicts     what clients have changed at the same time
  slow          the requests that took long, and why
  kill          end the connection of a client
  pack          pack a storage, or cancel its pack
  save-index    save what makes the start after a crash quick
  log-level     what the log has, until the server stops
  check         what a restart would make of the configuration
  reload        read the configuration again, and apply it
  role          whether it is the primary of its cluster, or a replica
  promote       make a replica the primary
  demote        make the primary a replica
  follow        make it a replica of another server

Which server:
  -s, --socket PATH     its admin socket
  -C, --configure FILE  as the server's configuration says: admin-socket
Without them, the socket is $RUNZEO_ADMIN_SOCKET, or else {default}.

  {program} COMMAND --help    the options of a command
  --help, --version           print this, or the version

Only root and the user of the server may do this.
Exit status: 0 done; 1 the server cannot be reached, or has refused; 2 the
command line is wrong. Some commands have more: their --help has them.
",
        default = call::DEFAULT
    )
}
