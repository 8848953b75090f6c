//! `zeocache`: what a client's cache does and what is in it.
//!
//! Exit codes: 0 done; 1 the file is damaged, cannot be read or has nothing to report; 2 the command line is wrong.

mod cache_file;
mod input;
mod interval;
mod model;
mod simulate;
mod simulation;
mod stats;
mod stats_report;
mod text;

use std::ffi::OsString;
use std::process::ExitCode;

use super::subcommand::{Program, Subcommand};

const SUBCOMMANDS: &[Subcommand] = &[stats::COMMAND, simulate::COMMAND, cache_file::DUMP, cache_file::CHECK];

/// The program `zeocache`. `program` is its name as called; `arguments` do not have it.
pub fn run(program: &str, arguments: &[OsString]) -> ExitCode {
    Program { name: "zeocache", called: program, commands: SUBCOMMANDS, help: help(program) }.run(arguments)
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
