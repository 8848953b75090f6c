//! `zeoadmin slow`: the requests that took long, and what their time went into.

use std::io::Write;

use getopts::Matches;
use serde_json::Value;

use super::call::{self, Target, one_argument};
use super::shown::{Columns, field, list, text, time};
use super::status::{print_lists, report, storages_of};
use crate::commands::subcommand::{Subcommand, Trouble};

pub(super) const COMMAND: Subcommand = Subcommand { name: "slow", options: call::options, help: HELP, run };

const HELP: &str = "\
[options] [STORAGE]

The last requests that took longer than slow-request-time of the configuration
(1s), a hundred of each storage, the newest first: what the time went into,
whose locks a transaction had to wait for first and on which object, and the
user and the description of the transaction.

  -s, --socket PATH     the admin socket of the server
  -C, --configure FILE  as the server's configuration says
      --json            an object for each storage, in a list
      --help            print this

Steps: queue (for a thread, or for the commits before it), locks, read, check,
merge (of conflicts), write, sync, send.
Exit status: 0 done; 1 the server cannot be reached; 2 the command line is
wrong.
";

fn run(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    let storage = one_argument(matches)?;
    let report = report(&Target::of(matches)?)?;
    let storages = storages_of(&report, storage)?;
    if matches.opt_present("json") {
        return print_lists(out, &storages, "slow_requests");
    }
    let mut table = Columns::new(&[
        "TIME",
        "STORAGE",
        "METHOD",
        ">SECONDS",
        "STEPS",
        ">CLIENT",
        "LABEL",
        "BEHIND",
        "OBJECT",
        "USER",
        "DESCRIPTION",
    ]);
    for one in storages {
        for request in list(one, &["slow_requests"]) {
            let of = |key: &str| text(field(request, &[key]));
            let behind = field(request, &["behind"]);
            let (holder, oid) = if behind.is_null() {
                ("-".into(), field(request, &["oid"]))
            } else {
                let label = text(field(behind, &["label"]));
                (format!("{} {label}", text(field(behind, &["client"]))), field(behind, &["oid"]))
            };
            table.row([
                time(field(request, &["time"])),
                text(field(one, &["name"])),
                of("method"),
                seconds(field(request, &["seconds"])),
                steps(request),
                of("client"),
                of("label"),
                holder,
                text(oid),
                of("user"),
                of("description"),
            ]);
        }
    }
    table.print_or(out, "no request took longer than slow-request-time")?;
    Ok(0)
}

fn steps(request: &Value) -> String {
    let step =
        |step: &Value| format!("{} {}", text(field(step, &["step"])), seconds(field(step, &["seconds"])));
    list(request, &["steps"]).iter().map(step).collect::<Vec<_>>().join(", ")
}

fn seconds(number: &Value) -> String {
    number.as_f64().map_or_else(|| "-".into(), |number| format!("{number:.3}"))
}
