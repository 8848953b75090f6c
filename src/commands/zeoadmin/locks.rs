//! `zeoadmin locks`: who holds locks, and who waits for whom.

use std::io::Write;

use getopts::Matches;
use serde_json::{Value, json};

use super::call::{self, Target, one_argument};
use super::clients::{Client, clients_of};
use super::shown::{Columns, field, list, span_of, text};
use super::status::{report, storages_of};
use crate::commands::subcommand::{Subcommand, Trouble};

pub(super) const COMMAND: Subcommand = Subcommand { name: "locks", options: call::options, help: HELP, run };

const HELP: &str = "\
[options] [STORAGE]

The transactions that hold locks, and behind them those that wait, in the order
of their requests: since when, how many objects (or the whole storage, as
clients before ZEO 5, copies and undos need it), for which clients they wait,
and what they are.

  -s, --socket PATH     the admin socket of the server
  -C, --configure FILE  as the server's configuration says
      --json            an object for each storage, in a list
      --help            print this

zeoadmin kill CLIENT ends a connection, and thereby its locks.
Exit status: 0 done; 1 the server cannot be reached; 2 the command line is
wrong.
";

fn run(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    let storage = one_argument(matches)?;
    let report = report(&Target::of(matches)?)?;
    let clients = clients_of(&report, storage)?;
    let storages = storages_of(&report, storage)?;
    if matches.opt_present("json") {
        let locks = storages.iter().map(|one| {
            let of = |key: &str| field(one, &["locks", key]);
            json!({ "storage": field(one, &["name"]), "holders": of("holders"), "waiters": of("waiters") })
        });
        writeln!(out, "{}", Value::Array(locks.collect()))?;
        return Ok(0);
    }
    let titles =
        ["STORAGE", "STATE", ">CLIENT", "LABEL", ">SINCE", ">OBJECTS", "WAITS FOR", "USER", "DESCRIPTION"];
    let mut table = Columns::new(&titles);
    for one in storages {
        for (state, key) in [("holds", "holders"), ("waits", "waiters")] {
            for entry in list(one, &["locks", key]) {
                table.row(row(&clients, one, state, entry));
            }
        }
    }
    table.print_or(out, "no locks are held")?;
    Ok(0)
}

fn row(clients: &[Client], storage: &Value, state: &str, entry: &Value) -> [String; 9] {
    let client = clients.iter().find(|client| field(&client.facts, &["id"]) == field(entry, &["client"]));
    let transaction = client.map_or(&Value::Null, |client| field(&client.facts, &["transaction"]));
    let is_whole = field(entry, &["whole_storage"]) == &Value::Bool(true);
    let waits_for: Vec<String> = list(entry, &["waits_for"]).iter().map(text).collect();
    [
        text(field(storage, &["name"])),
        state.into(),
        text(field(entry, &["client"])),
        text(field(entry, &["label"])),
        span_of(field(entry, &["seconds"])),
        if is_whole { "all".into() } else { text(field(entry, &["objects"])) },
        if waits_for.is_empty() { "-".into() } else { waits_for.join(", ") },
        text(field(transaction, &["user"])),
        text(field(transaction, &["description"])),
    ]
}
