//! `zeoadmin transactions`: what clients have begun.

use std::io::Write;

use getopts::Matches;

use super::call::{self, Target, one_argument};
use super::clients::{Client, clients_of, print_list};
use super::shown::{Columns, field, number, size, span_of, text};
use super::status::report;
use crate::commands::subcommand::{Subcommand, Trouble};

pub(super) const COMMAND: Subcommand =
    Subcommand { name: "transactions", options: call::options, help: HELP, run };

const HELP: &str = "\
[options] [STORAGE]

The transactions that have not ended, the oldest first: whose they are, how far
they are, since when, how much was stored so far, user and description.

open: the client stores into it; waiting: for locks of others; voting: the
storage checks it; voted: it holds its locks until the client finishes it;
finishing: it is written; failed: the client has to abort it; busy: a thread
works on it at this moment.

  -s, --socket PATH     the admin socket of the server
  -C, --configure FILE  as the server's configuration says
      --json            a list of clients with transactions
      --help            print this

Exit status: 0 done; 1 the server cannot be reached; 2 the command line is
wrong.
";

fn run(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    let storage = one_argument(matches)?;
    let report = report(&Target::of(matches)?)?;
    let mut clients = clients_of(&report, storage)?;
    clients.retain(|client| field(&client.facts, &["transaction"]).is_object());
    // Those that a thread works on have no time.
    let begun =
        |client: &Client| field(&client.facts, &["transaction", "since"]).as_f64().unwrap_or(f64::MAX);
    clients.sort_by(|one, other| begun(one).total_cmp(&begun(other)));
    if matches.opt_present("json") {
        print_list(out, clients)?;
        return Ok(0);
    }
    let titles =
        [">CLIENT", "STORAGE", "LABEL", "STATE", ">SINCE", ">STORES", ">BYTES", "USER", "DESCRIPTION"];
    let mut table = Columns::new(&titles);
    for Client { storage, facts } in &clients {
        let of = |key: &str| field(facts, &["transaction", key]);
        let bytes = if of("bytes").is_null() { "-".into() } else { size(number(of("bytes"), &[])) };
        table.row([
            text(field(facts, &["id"])),
            text(storage),
            text(field(facts, &["label"])),
            text(of("state")),
            span_of(of("seconds")),
            text(of("stores")),
            bytes,
            text(of("user")),
            text(of("description")),
        ]);
    }
    table.print_or(out, "no transactions are open")?;
    Ok(0)
}
