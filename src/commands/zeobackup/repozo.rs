//! Python's repozo: backups, restores and verifications in a repository of its format.
//!
//! Exit codes as in Python: 0 done, also if there was nothing to do; 1 otherwise, and stderr says why, after the help
//! if the command line is wrong.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use log::LevelFilter;

use super::super::subcommand::{on_stdout, print};
use super::repozo_messages::Messages;
use super::repozo_options::{RepozoMode, RepozoOptions, help, read_command_line};
use crate::backup::repozo::backup::backup;
use crate::backup::repozo::error::RepozoError;
use crate::backup::repozo::repository::Repository;
use crate::backup::repozo::restore::restore;
use crate::backup::repozo::verify::verify;
use crate::base::clock::TimeSource;
use crate::storage::media::RealMedia;

/// The program `repozo`. `program` is its name as called; `arguments` do not have it.
pub fn run(program: &str, arguments: &[OsString]) -> ExitCode {
    let options = match read_command_line(arguments) {
        Ok(Some(options)) => options,
        Ok(None) => {
            return on_stdout(|out| print(out, &help(program)).unwrap_or(1));
        }
        Err(message) => {
            eprintln!("{}\n{message}", help(program));
            return ExitCode::from(1);
        }
    };
    // What an open of Data.fs has to say, as Python's logging prints it: the bare line on stderr.
    let log = fern::Dispatch::new().level(LevelFilter::Warn).chain(io::stderr()).apply();
    if let Err(error) = log {
        eprintln!("{program}: warnings about Data.fs are not shown: {error}");
    }
    match perform(program, &options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(1)
        }
    }
}

fn perform(program: &str, options: &RepozoOptions) -> Result<(), RepozoError> {
    let RepozoOptions { mode, repository, verbose, ignored } = options;
    let name = Path::new(program).file_name().map_or(program.into(), |name| name.to_string_lossy());
    let messages = Messages::new(&name, *verbose);
    let mode_name = match mode {
        RepozoMode::Backup(_) => "backup",
        RepozoMode::Recover(_) => "recover",
        RepozoMode::Verify { .. } => "verify",
    };
    if *verbose {
        ignored.iter().for_each(|long| eprintln!("--{long} option is ignored in {mode_name} mode"));
    }
    let repository = Repository::new(Arc::new(RealMedia), repository);
    let time = TimeSource::SYSTEM;
    match mode {
        RepozoMode::Backup(options) => {
            let _lock = repository.lock(&messages)?;
            backup(&repository, options, &time, &messages)
        }
        RepozoMode::Recover(options) => restore(&repository, options, &time, &mut io::stdout(), &messages),
        RepozoMode::Verify { quick } => verify(&repository, *quick, &time, &messages),
    }
}
