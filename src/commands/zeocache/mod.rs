//! `zeocache`: what a client's cache does and what is in it.
//!
//! Exit codes: 0 done; 1 the file is damaged, cannot be read or has nothing to report; 2 the command line is wrong.

mod cache_file;
mod holder;
mod input;
mod model;
mod simulate;
mod simulation;
mod stats;
mod stats_report;
mod subcommand;
mod text;

use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use getopts::{Options, ParsingStyle};

use subcommand::{Subcommand, Trouble};

const SUBCOMMANDS: &[Subcommand] = &[stats::COMMAND, simulate::COMMAND, cache_file::DUMP, cache_file::CHECK];

/// The program `zeocache`. `program` is its name as called; `arguments` do not have it.
pub fn run(program: &str, arguments: &[OsString]) -> ExitCode {
    let name = arguments.first().map(|name| name.to_string_lossy());
    let wrong = |message: &str, help: &str| {
        eprintln!("Error: {message}\nFor help, use {program} {help}--help");
        ExitCode::from(2)
    };
    let subcommand = match name.as_deref() {
        None | Some("--help" | "-h" | "help") => {
            print!("{}", help(program));
            return ExitCode::SUCCESS;
        }
        Some("--version") => {
            println!("zeocache {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Some(name) => match SUBCOMMANDS.iter().find(|command| command.name == name) {
            Some(command) => command,
            None => return wrong(&format!("'{name}' is not a command"), ""),
        },
    };
    let own_help = format!("{} ", subcommand.name);
    let mut options = Options::new();
    options.parsing_style(ParsingStyle::FloatingFrees);
    options.optflag("", "help", "");
    (subcommand.options)(&mut options);
    let matches = match options.parse(arguments.get(1..).unwrap_or_default()) {
        Ok(matches) => matches,
        Err(problem) => return wrong(&problem.to_string(), &own_help),
    };
    if matches.opt_present("help") {
        print!("Usage: {program} {}{}", own_help, subcommand.help);
        return ExitCode::SUCCESS;
    }
    let mut out = BufWriter::new(io::stdout().lock());
    let result = (subcommand.run)(&mut out, &matches).and_then(|code| {
        out.flush()?;
        Ok(code)
    });
    match result {
        Ok(code) => ExitCode::from(code),
        Err(Trouble::Usage(message)) => wrong(&message, &own_help),
        Err(Trouble::Failed(message)) => {
            // What was found so far, before the reason why there is no more.
            _ = out.flush();
            eprintln!("Error: {message}");
            ExitCode::from(1)
        }
        Err(Trouble::Output(error)) => {
            if error.kind() != io::ErrorKind::BrokenPipe {
                eprintln!("Error: cannot write the report: {error}");
            }
            ExitCode::from(1)
        }
    }
}

fn help(program: &str) -> String {
    format!(
        "\
What the cache of a ZEO client does: from its trace, or from its file.

Usage: {program} COMMAND [options] FILE

From a trace, which a client writes next to its cache file, as FILE.trace, if
the environment has ZEO_CACHE_TRACE=1:
  stats       loads, hits, invalidations and stores in each interval
  simulate    the hit rates that caches of other sizes would have had

From a cache file, which may be in use:
  dump        its blocks, and how much is what
  check       whether clients would use it

  {program} COMMAND --help    the options of a command
  --help, --version            print this, or the version

stats and simulate print what ZEO's scripts cache_stats and cache_simul print.
Exit status: 0 done; 1 the file is damaged, cannot be read or has nothing to
report; 2 the command line is wrong.
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_fits_a_screen() {
        let texts = SUBCOMMANDS.iter().map(|command| command.help.to_string()).chain([help("zeocache")]);
        for text in texts {
            assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        }
    }
}
