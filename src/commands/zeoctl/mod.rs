//! `zeoctl`: starts, stops and watches the server of a configuration file, as Python's `zeoctl` does, which is zdaemon.
//!
//! - `settings`, `texts`: the command line with `<runner>`, and the help
//! - `actions`: what is done for `start`, `status`, ..., with `control`, which asks a daemon manager
//! - `manager`: the daemon manager, with `plan` (when to restart and to kill), `program` (the child), `socket` and
//!   `conversation` (the side of the control socket that answers), `transcript` and `event_log`
//! - `signals`, `tail`, `user`: signals by name, `logtail`, and the user to run as
//!
//! The protocol of the control socket is zdaemon's, so that each program can talk to the other's manager. Exit codes
//! are in the help.

mod actions;
mod control;
mod conversation;
mod event_log;
mod manager;
mod plan;
mod program;
mod settings;
mod signals;
mod socket;
mod tail;
mod texts;
mod transcript;
mod user;

use std::ffi::OsString;
use std::process::ExitCode;

use self::actions::Actions;
use self::program::MANAGER;
use self::settings::{CommandLine, Settings};
use super::subcommand::{on_stdout, print};

/// The program `zeoctl`. `program` is its name as called; `arguments` do not have it.
pub fn run(program: &str, arguments: &[OsString]) -> ExitCode {
    let usage = format!("For help, use {program} -h");
    let text = match CommandLine::read(arguments) {
        Ok(CommandLine::Run(settings)) if std::env::var_os(MANAGER).is_some() => return manage(*settings),
        Ok(CommandLine::Run(settings)) => {
            let actions = Actions { settings: *settings, program, arguments };
            return on_stdout(|out| {
                actions.run(out).unwrap_or_else(|trouble| trouble.report(out, &usage, 2))
            });
        }
        Ok(CommandLine::Help) => texts::help(program),
        Ok(CommandLine::Version) => format!("zeoctl {}\n", env!("CARGO_PKG_VERSION")),
        Err(message) => {
            eprintln!("Error: {message}\n{usage}");
            return ExitCode::from(2);
        }
    };
    on_stdout(|out| print(out, &text).unwrap_or_else(|trouble| trouble.report(out, &usage, 2)))
}

fn manage(settings: Settings) -> ExitCode {
    match manager::run(settings) {
        Ok(code) => ExitCode::from(code),
        Err(message) => {
            eprintln!("Error: {message}");
            ExitCode::from(2)
        }
    }
}
