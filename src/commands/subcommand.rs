//! Programs with commands of their own, such as `zeocache` and `zeofs`: how a command is described, its arguments, why
//! it ends early, and the exit status.

use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use getopts::{Matches, Options, ParsingStyle};

/// The exit status of a command that was done, and has found something wrong in its file.
pub(super) const FINDINGS: u8 = 4;

/// Why a command ends early.
pub(super) enum Trouble {
    Usage(String),
    /// The message is the reason, with the name of the file.
    Failed(String),
    /// The output cannot be written. A pipe whose reader is gone is no error to report.
    Output(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::Output(error)
    }
}

/// What a command does: reads its arguments, writes its report, and returns the exit status.
pub(super) type Command = fn(&mut dyn Write, &Matches) -> Result<u8, Trouble>;

/// A command, its options and its help.
pub(super) struct Subcommand {
    pub(super) name: &'static str,
    pub(super) options: fn(&mut Options),
    /// After `Usage: PROGRAM NAME `.
    pub(super) help: &'static str,
    pub(super) run: Command,
}

/// A program: its name, its commands, and its help.
pub(super) struct Program<'a> {
    /// For `--version`.
    pub(super) name: &'static str,
    /// As called.
    pub(super) called: &'a str,
    pub(super) commands: &'a [Subcommand],
    pub(super) help: String,
}

impl Program<'_> {
    /// Runs the command that the first argument names, with the standard output. `arguments` do not have the name of
    /// the program.
    pub(super) fn run(&self, arguments: &[OsString]) -> ExitCode {
        on_stdout(|out| self.run_to(out, arguments))
    }

    /// As [`Program::run`], with another output. Returns the exit status.
    pub(super) fn run_to(&self, out: &mut dyn Write, arguments: &[OsString]) -> u8 {
        let name = arguments.first().map(|name| name.to_string_lossy());
        let result = match name.as_deref() {
            None | Some("--help" | "-h" | "help") => print(out, &self.help),
            Some("--version") => print(out, &format!("{} {}\n", self.name, env!("CARGO_PKG_VERSION"))),
            Some(name) => match self.commands.iter().find(|command| command.name == name) {
                Some(command) => self.run_command(out, command, arguments.get(1..).unwrap_or_default()),
                None => Err(Trouble::Usage(format!("'{name}' is not a command"))),
            },
        };
        let command = self.commands.iter().find(|command| Some(command.name) == name.as_deref());
        let help = command.map_or_else(String::new, |command| format!("{} ", command.name));
        result.unwrap_or_else(|trouble| {
            trouble.report(out, &format!("For help, use {} {help}--help", self.called), 2)
        })
    }

    fn run_command(
        &self,
        out: &mut dyn Write,
        command: &Subcommand,
        arguments: &[OsString],
    ) -> Result<u8, Trouble> {
        let mut options = Options::new();
        options.parsing_style(ParsingStyle::FloatingFrees);
        options.optflag("", "help", "");
        (command.options)(&mut options);
        let matches = options.parse(arguments).map_err(|problem| Trouble::Usage(problem.to_string()))?;
        if matches.opt_present("help") {
            return print(out, &format!("Usage: {} {} {}", self.called, command.name, command.help));
        }
        (command.run)(out, &matches)
    }
}

/// Prints a text; the exit status is 0.
pub(super) fn print(out: &mut dyn Write, text: &str) -> Result<u8, Trouble> {
    out.write_all(text.as_bytes())?;
    Ok(0)
}

/// Calls `run` with the standard output. Its result is the exit status of the process.
pub(super) fn on_stdout(run: impl FnOnce(&mut dyn Write) -> u8) -> ExitCode {
    let mut out = BufWriter::new(io::stdout().lock());
    let code = run(&mut out);
    match out.flush() {
        Ok(()) => ExitCode::from(code),
        Err(error) => ExitCode::from(Trouble::Output(error).report(&mut io::sink(), "", 2)),
    }
}

impl Trouble {
    /// Prints the reason to stderr, after what was found so far, and returns the exit status. `usage`: how to get help,
    /// and the status, for a wrong command line.
    pub(super) fn report(self, out: &mut dyn Write, usage: &str, usage_status: u8) -> u8 {
        // An output that cannot be written is reported when the rest of it is.
        _ = out.flush();
        match self {
            Trouble::Usage(message) => {
                eprintln!("Error: {message}\n{usage}");
                return usage_status;
            }
            Trouble::Failed(message) => eprintln!("Error: {message}"),
            Trouble::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Trouble::Output(error) => eprintln!("Error: cannot write the report: {error}"),
        }
        1
    }
}

/// The only free argument.
pub(super) fn file_argument(matches: &Matches) -> Result<&str, Trouble> {
    match matches.free.as_slice() {
        [file] => Ok(file),
        [] => Err(Trouble::Usage("no file is given".into())),
        _ => Err(Trouble::Usage("give one file".into())),
    }
}
