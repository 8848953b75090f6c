//! `zeofs tail`: the newest transactions, the newest first; `follow` and `follow_server` go on with those that come.

use std::io::Write;

use getopts::{Matches, Options};

use super::brief::show_transaction;
use super::follow::follow;
use super::follow_server::{self, follow_server};
use super::selection::OpenedFile;
use super::served::connection::Client;
use super::served::names::{self, Subject};
use super::text::file_line;
use crate::commands::subcommand::{Subcommand, Trouble};
use crate::inspect::tail::newest;

pub(super) const COMMAND: Subcommand = Subcommand { name: "tail", options, help: HELP, run };

const HELP: &str = "\
[options] FILE

The newest transactions, the newest first: when, where in the file, by whom, and
how many records of which classes.

  -n, --count N     so many transactions (default: 10)
  -f, --follow      go on with those that come, the oldest first, each with its
                    objects; in the new file after a pack or a restore, too
  -C, --configure CONF  FILE is a storage of this configuration
      --json        a JSON object for each transaction
      --help        print this

FILE may be a server, zeo://HOST:PORT?storage=NAME, or with -C the name of a
<zeoclient>. To see a file as it was before a transaction, copy it up to the
position that is printed here:  head -c POSITION Data.fs >Earlier.fs
Exit status: 0 done (-f: interrupted, or nothing reads the output any more);
1 FILE cannot be read; 2 the command line is wrong.
";

fn options(options: &mut Options) {
    names::options(options);
    options.optopt("n", "count", "", "").optflag("f", "follow", "").optflag("", "json", "");
}

fn run(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    let count = matches.opt_str("count").map_or(Ok(10), |text| {
        text.parse().map_err(|_| Trouble::Usage(format!("-n: '{text}' is not a number of transactions")))
    })?;
    let is_json = matches.opt_present("json");
    let is_followed = matches.opt_present("follow");
    match names::source(matches)? {
        Subject::File(name) if is_followed => follow(out, &name, count, is_json),
        Subject::Served { name, options } if is_followed => {
            follow_server(out, &name, &options, count, is_json)
        }
        Subject::File(name) => of_file(out, &name, count, is_json),
        Subject::Served { name, options } => {
            let client = Client::open(&name, &options, true)?;
            follow_server::tail(out, &client.require_served()?, count, is_json)
        }
    }
}

fn of_file(out: &mut dyn Write, name: &str, count: usize, is_json: bool) -> Result<u8, Trouble> {
    let file = OpenedFile::open(name)?;
    if !is_json {
        writeln!(out, "{}", file_line(&file))?;
    }
    for txn in newest(&file.data, count)? {
        show_transaction(out, &file.data, &txn, is_json, 0)?;
    }
    Ok(0)
}
