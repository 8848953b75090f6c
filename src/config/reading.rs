//! Reading the configuration of a command line, at the start and again later.

use std::ffi::OsString;

use super::Config;
use super::assemble::{self, Environment};
use super::changes::{self, Change, Overridden};
use super::options::{self, CommandLine, UsageError};
use super::schema::storages;
use super::zconfig::Section;
use super::zconfig::matcher::AddedTypes;
use crate::storage::StorageKinds;

/// What the command line requests.
#[derive(Clone, Debug)]
pub enum Invocation {
    /// Serve until a signal ends the server.
    Serve(Box<Config>),
    /// Print [`Config::describe`], exit with status 0.
    Check(Box<Config>),
    /// Print this text, exit with status 0.
    Print(String),
}

/// Parses the arguments, without the program's name. Opens nothing but configuration files. `own`: the kinds of storage
/// that the program adds.
pub fn from_command_line(
    own: &StorageKinds,
    program: &str,
    arguments: &[OsString],
    environment: Environment<'_>,
) -> Result<Invocation, UsageError> {
    Ok(match Reading::from_command_line(own, program, arguments, environment)? {
        Reading::Config { config, is_check: true, .. } => Invocation::Check(config),
        Reading::Config { config, is_check: false, .. } => Invocation::Serve(config),
        Reading::Print(text) => Invocation::Print(text),
    })
}

/// What was read for a command line.
#[derive(Clone, Debug)]
pub enum Reading {
    /// The configuration, and how it was written.
    Config {
        config: Box<Config>,
        written: Written,
        /// It is to be printed only.
        is_check: bool,
    },
    /// Nothing: this text is the answer.
    Print(String),
}

/// A configuration as it was written, for comparisons.
#[derive(Clone, Debug)]
pub struct Written {
    /// The file, with everything that was put into it.
    root: Section,
    added: AddedTypes,
    overridden: Vec<Overridden>,
}

impl Written {
    /// What differs from this one in a later reading, for the same command line.
    pub fn changes(&self, later: &Written) -> Vec<Change> {
        changes::compare(&self.root, &later.root, &self.added, &self.overridden)
    }
}

impl Reading {
    /// [`from_command_line`], also with how it was written.
    pub fn from_command_line(
        own: &StorageKinds,
        program: &str,
        arguments: &[OsString],
        environment: Environment<'_>,
    ) -> Result<Reading, UsageError> {
        let options = match options::parse(program, arguments)? {
            CommandLine::Help => return Ok(Reading::Print(options::help(program))),
            CommandLine::Version => {
                return Ok(Reading::Print(format!("runzeo {}\n", env!("CARGO_PKG_VERSION"))));
            }
            CommandLine::Run(options) => *options,
        };
        let failed = |message| UsageError { program: program.into(), message };
        let (is_check, overridden) = (options.check, changes::overridden(&options));
        let (root, config) = assemble::read(own, options, environment).map_err(failed)?;
        let written = Written { root, added: storages::added_types(own), overridden };
        let config = Box::new(config);
        Ok(Reading::Config { config, written, is_check })
    }
}
