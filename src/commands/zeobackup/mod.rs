//! `zeobackup`: backups of a `Data.fs`. The first argument is a command; a program of the name `repozo` (a link to this
//! one) is the command `repozo`.
//!
//! Exit codes of commands are their own; 2: there is no such command.

mod repozo;
mod repozo_messages;
mod repozo_options;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use super::subcommand::{Program, Subcommand};

/// Besides `repozo`, whose command line is Python's.
const COMMANDS: &[Subcommand] = &[];

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
Back up a Data.fs, and restore it.

Usage: {program} COMMAND [options]

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
        for help in [help("zeobackup"), repozo_options::help("repozo")] {
            let fits = help.lines().count() <= 45 && help.lines().all(|line| line.len() <= 80);
            assert!(fits, "{help}");
        }
    }
}
