//! `zeofs tail`: the newest transactions, the newest first; `follow` goes on with those that come.

use std::io::Write;

use getopts::{Matches, Options};

use super::brief::show_transaction;
use super::follow::follow;
use super::selection::OpenedFile;
use super::text::file_line;
use crate::commands::subcommand::{Subcommand, Trouble, file_argument};
use crate::inspect::tail::newest;

pub(super) const COMMAND: Subcommand = Subcommand { name: "tail", options, help: HELP, run };

const HELP: &str = "\
[options] FILE

The newest transactions, the newest first: when, where in the file, by whom, and
how many records of which classes.

  -n, --count N     so many transactions (default: 10)
  -f, --follow      go on with those that come, the oldest first, each with its
                    objects; in the new file after a pack or a restore, too
      --json        a JSON object for each transaction
      --help        print this

To see the file as it was before a transaction, copy it up to the position that
is printed here:  head -c POSITION Data.fs >Earlier.fs
Exit status: 0 done (-f: interrupted, or nothing reads the output any more);
1 FILE cannot be read; 2 the command line is wrong.
";

fn options(options: &mut Options) {
    options.optopt("n", "count", "", "").optflag("f", "follow", "").optflag("", "json", "");
}

fn run(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    let count = matches.opt_str("count").map_or(Ok(10), |text| {
        text.parse().map_err(|_| Trouble::Usage(format!("-n: '{text}' is not a number of transactions")))
    })?;
    let is_json = matches.opt_present("json");
    if matches.opt_present("follow") {
        return follow(out, file_argument(matches)?, count, is_json);
    }
    let file = OpenedFile::of(matches)?;
    if !is_json {
        writeln!(out, "{}", file_line(&file))?;
    }
    for txn in newest(&file.data, count)? {
        show_transaction(out, &file.data, &txn, is_json, 0)?;
    }
    Ok(0)
}
