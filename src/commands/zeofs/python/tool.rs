//! How a tool of ZODB is run: its arguments are Python's, and each error ends it with status 1.

use std::ffi::OsString;
use std::io::Write;

use crate::commands::subcommand::{Trouble, print};

/// A tool of ZODB.
pub(in crate::commands::zeofs) struct Tool {
    pub(in crate::commands::zeofs) name: &'static str,
    /// Behind the name of the program.
    pub(super) usage: &'static str,
    /// Prints what the tool prints. The arguments do not have the name of the program.
    pub(super) main: fn(&mut dyn Write, &[String]) -> Result<u8, Trouble>,
}

impl Tool {
    /// Runs the tool, and returns the exit status. `called`: for messages.
    pub(in crate::commands::zeofs) fn run(
        &self,
        out: &mut dyn Write,
        called: &str,
        arguments: &[OsString],
    ) -> u8 {
        let arguments: Vec<String> =
            arguments.iter().map(|argument| argument.to_string_lossy().into_owned()).collect();
        let usage = format!("Usage: {called} {}", self.usage);
        let result = match arguments.as_slice() {
            [only] if only == "--help" => print(out, &format!("{usage}\n")),
            _ => (self.main)(out, &arguments),
        };
        // As in Python, a wrong command line is an error like others.
        result.unwrap_or_else(|trouble| trouble.report(out, &usage, 1))
    }
}
