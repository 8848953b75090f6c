//! `zeobackup`: backups of databases. The first argument is a command; a program of the name `repozo` (a link to this
//! one) is the command `repozo`.
//!
//! - `create`, `list`, `verify`, `restore`, `prune`, `stream`: repositories of `zeobackup`; `databases` and
//!   `repository` are what their command lines have in common
//! - `repozo`, `repozo_options`, `repozo_messages`: repositories of Python's repozo, with its command line
//!
//! Exit codes of commands are their own; 2: there is no such command.

mod create;
mod databases;
mod list;
mod prune;
mod repository;
mod repozo;
mod repozo_messages;
mod repozo_options;
mod restore;
mod stream;
mod verify;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use super::subcommand::{Program, Subcommand};

/// Besides `repozo`, whose command line is Python's.
const COMMANDS: &[Subcommand] = &[
    create::COMMAND,
    list::COMMAND,
    verify::COMMAND,
    restore::COMMAND,
    prune::COMMAND,
    stream::SEND,
    stream::RECEIVE,
];

/// The program `zeobackup`, or `repozo` if that is how it is called. `program` is its name as called; `arguments` do
/// not have it.
pub fn run(program: &str, arguments: &[OsString]) -> ExitCode {
    if Path::new(program).file_name().is_some_and(|name| name == "repozo") {
        return repozo::run(program, arguments);
    }
    if let Some((_, rest)) = arguments.split_first().filter(|(name, _)| *name == "repozo") {
        return repozo::run(&format!("{program} repozo"), rest);
    }
    Program { name: "zeobackup", called: program, commands: COMMANDS, help: help(program) }.run(arguments)
}

fn help(program: &str) -> String {
    format!(
        "\
Back up databases, and restore them: Data.fs and blobs, at one transaction.

Usage: {program} COMMAND [options]

  create      make a backup of what is new
  list        the backups in a repository
  verify      read backups as a restore would
  restore     databases as they were at a time, or in a backup
  prune       remove backups that are not to be kept
  send        backups as a stream, for a repository on another machine
  receive     store such a stream
  repozo      repositories of Python's repozo, with its options; a link of the
              name repozo to this program is this command

  {program} COMMAND --help     the options of a command
  --help, --version             print this, or the version
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_fits_a_screen() {
        let texts = COMMANDS.iter().map(|command| command.help.to_string());
        for help in texts.chain([help("zeobackup"), repozo_options::help("repozo")]) {
            let fits = help.lines().count() <= 45 && help.lines().all(|line| line.len() <= 80);
            assert!(fits, "{help}");
        }
    }
}
