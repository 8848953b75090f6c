//! `zeofs`: what is in a `Data.fs`, at rest or in use, and whether it is whole.
//!
//! Exit status: 0 done; 1 the file cannot be read, or the output not written; 2 the command line is wrong; 4 done, and
//! the file is not as it should be.
//!
//! - `selection`, `text`, `brief`, `pack_report`: the options and the words that the commands have in common; `commit`:
//!   transactions
//! - `served`: storages of servers in the place of a file
//! - `dump`, `tail` with `follow` and `follow_server`, `check`, `stats`, `refs`, `trees`, `oid`, `diff`, `pack_plan`,
//!   `gc`, `recover`, `copy`, `layout`: one command each
//! - `python`: under the name of one of ZODB's own tools (`fsdump`, ...) the program prints what that tool prints

mod brief;
mod check;
mod commit;
mod copy;
mod diff;
mod dump;
mod follow;
mod follow_server;
mod gc;
mod layout;
mod new_file;
mod oid;
mod pack_plan;
pub(super) mod pack_report;
mod python;
mod recover;
mod refs;
mod selection;
mod served;
mod stats;
mod tail;
mod text;
mod trees;

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use super::subcommand::{Program, Subcommand, on_stdout};

const COMMANDS: &[Subcommand] = &[
    dump::COMMAND,
    tail::COMMAND,
    check::COMMAND,
    stats::COMMAND,
    refs::COMMAND,
    trees::COMMAND,
    oid::COMMAND,
    diff::COMMAND,
    pack_plan::COMMAND,
    gc::COMMAND,
    recover::COMMAND,
    copy::COMMAND,
    layout::COMMAND,
];

/// The program `zeofs`. `program` is the name by which it was called, perhaps the name of a tool of ZODB; `arguments`
/// do not have it.
pub fn run(program: &str, arguments: &[OsString]) -> ExitCode {
    on_stdout(|out| run_to(out, program, arguments))
}

/// As [`run`], with another output. Returns the exit status.
pub(crate) fn run_to(out: &mut dyn Write, program: &str, arguments: &[OsString]) -> u8 {
    let called = Path::new(program).file_name().map(|name| name.to_string_lossy());
    if let Some(tool) = called.as_deref().and_then(python::tool) {
        return tool.run(out, program, arguments);
    }
    if let Some((name, rest)) = arguments.split_first()
        && let Some(tool) = python::tool(&name.to_string_lossy())
    {
        return tool.run(out, &format!("{program} {}", tool.name), rest);
    }
    Program { name: "zeofs", called: program, commands: COMMANDS, help: help(program) }.run_to(out, arguments)
}

fn help(program: &str) -> String {
    let tools: Vec<&str> = python::TOOLS.iter().map(|tool| tool.name).collect();
    format!(
        "\
What is in a Data.fs, and whether it is whole. The file may be in use: it is
only read, without a lock, and what is committed later is seen by tail -f alone.
In its place dump, tail, stats, refs, trees, oid, diff, gc and copy take a
server: zeo://HOST:PORT?storage=NAME

Usage: {program} COMMAND [options] FILE

  dump        transactions and their records
  tail        the newest transactions, and those that come
  test        whether the file is whole, and all in it agrees
  stats       what it consists of, and what makes it grow
  refs        references to objects that are not there
  trees       whether its BTrees are whole
  oid         one object: revisions, references, a way from the root
  diff        what one file has and another one has not
  pack-plan   what a pack would remove
  gc          objects of several databases that nothing refers to
  recover     a copy of what can be read of a damaged file
  copy        all transactions of one storage in another one
  layout      of a blob directory: which it is, and another one

  {program} COMMAND --help    the options of a command
  --help, --version           print this, or the version

Under the name of a tool of ZODB, or with it as COMMAND, the program prints what
that tool prints:
{}.
Exit status: 0 done; 1 FILE cannot be read; 2 the command line is wrong;
4 something is wrong with FILE.
",
        tools.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_fits_a_screen() {
        let texts = COMMANDS.iter().map(|command| command.help.to_string()).chain([help("zeofs")]);
        for text in texts {
            assert!(text.lines().all(|line| line.len() <= 80) && text.lines().count() <= 40, "{text}");
        }
    }
}
