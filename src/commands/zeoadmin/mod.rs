//! `zeoadmin`: looks at a running server, and steers it.
//!
//! - `call`: the admin socket of the server, and what is asked for there
//! - `kill`, `pack`, `save_index`, `log_level`: one command each
//!
//! Everything that a command prints comes from the server, as JSON; `--json` prints that. Names that clients have
//! chosen were escaped by the server, and are escaped again by `untrusted`, for the server may be another version.

mod call;
mod kill;
mod log_level;
mod pack;
mod save_index;

use std::ffi::OsString;
use std::process::ExitCode;

use super::subcommand::{Program, Subcommand};

const COMMANDS: &[Subcommand] = &[kill::COMMAND, pack::COMMAND, save_index::COMMAND, log_level::COMMAND];

/// The program `zeoadmin`. `program` is its name as called; `arguments` do not have it.
pub fn run(program: &str, arguments: &[OsString]) -> ExitCode {
    Program { name: "zeoadmin", called: program, commands: COMMANDS, help: help(program) }.run(arguments)
}

fn help(program: &str) -> String {
    format!(
        "\
Look at a running server, and steer it, over its admin socket.

Usage: {program} COMMAND [options]

  kill        end the connection of a client
  pack        pack a storage, or cancel its pack
  save-index  save what makes the start after a crash quick
  log-level   what the log has, until the server stops

Which server:
  -s, --socket PATH     its admin socket
  -C, --configure FILE  as the server's configuration says: admin-socket
Without them, the socket is $RUNZEO_ADMIN_SOCKET, or else {default}.

  {program} COMMAND --help    the options of a command
  --help, --version           print this, or the version

Only root and the user of the server may do this.
Exit status: 0 done; 1 the server cannot be reached, or has refused; 2 the
command line is wrong.
",
        default = call::DEFAULT
    )
}
