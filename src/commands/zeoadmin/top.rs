//! `zeoadmin top`: what the server does now, again and again.

use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::Duration;

use getopts::{Matches, Options};
use serde_json::Value;

use super::call::{self, Target, no_argument};
use super::clients::{Client, clients_of};
use super::shown::{Columns, field, list, number, size, span, span_of, text, time};
use super::status::{print_warnings, report};
use crate::commands::subcommand::{Subcommand, Trouble};

pub(super) const COMMAND: Subcommand = Subcommand { name: "top", options, help: HELP, run };

const HELP: &str = "\
[options]

What the server does, every two seconds: loads, stores, commits and bytes a
second, of each storage and of the clients that do most; locks; warnings. Ends
with Ctrl-C.

  -i, --interval SECONDS  time between two looks (default: 2)
  -n, --count N           end after N looks
  -r, --rows N            lines of the table of clients (default: 15)
  -s, --socket PATH       the admin socket of the server
  -C, --configure FILE    as the server's configuration says
      --json              the report of each look, one a line
      --help              print this

If the output is no terminal, the looks follow each other.
Exit status: 0 done; 1 the server cannot be reached any more; 2 the command line
is wrong.
";

/// Clears a terminal.
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";
/// Counters of a client whose sum says how much it does.
const WORK: [&str; 3] = ["loads", "stores", "commits"];

fn options(options: &mut Options) {
    call::options(options);
    options.optopt("i", "interval", "", "").optopt("n", "count", "", "").optopt("r", "rows", "", "");
}

fn run(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    no_argument(matches)?;
    let wrong = |option: &str, text: &str| Trouble::Usage(format!("{option}: '{text}' is not a number"));
    let parsed = |name: &str, option: &str| {
        let text = matches.opt_str(name);
        text.map(|text| text.parse().map_err(|_| wrong(option, &text))).transpose()
    };
    let interval = match matches.opt_str("interval") {
        None => 2.0,
        Some(text) => {
            text.parse().ok().filter(|seconds| (0.1..=3600.0).contains(seconds)).ok_or_else(|| {
                Trouble::Usage(format!("-i: '{text}' is not a number of seconds between 0.1 and 3600"))
            })?
        }
    };
    let count: Option<u64> = parsed("count", "-n")?;
    let rows = parsed("rows", "-r")?.unwrap_or(15) as usize;
    let target = Target::of(matches)?;
    let is_json = matches.opt_present("json");
    let clears = io::stdout().is_terminal() && !is_json;
    let mut before = report(&target)?;
    let mut looks = 0;
    while count.is_none_or(|count| looks < count) {
        thread::sleep(Duration::from_secs_f64(interval));
        let now = report(&target)?;
        if is_json {
            writeln!(out, "{now}")?;
        } else {
            // In one piece, so that nothing flickers.
            let mut screen = Vec::new();
            print(&mut screen, &before, &now, rows)?;
            out.write_all(if clears { CLEAR.as_bytes() } else { b"" })?;
            out.write_all(&screen)?;
            out.write_all(if clears { b"" } else { b"\n" })?;
        }
        out.flush()?;
        before = now;
        looks += 1;
    }
    Ok(0)
}

fn print(out: &mut dyn Write, before: &Value, now: &Value, rows: usize) -> Result<(), Trouble> {
    let passed = (number(now, &["time"]) - number(before, &["time"])).max(1e-3);
    let of_server = |key: &str| text(field(now, &[key]));
    let clients = clients_of(now, None)?;
    let open = clients.iter().filter(|client| field(&client.facts, &["transaction"]).is_object()).count();
    writeln!(
        out,
        "runzeo {}, process {}, {} {}: {} clients, {open} transactions",
        of_server("version"),
        of_server("pid"),
        of_server("phase"),
        time(field(now, &["time"])),
        clients.len(),
    )?;
    print_warnings(out, list(now, &["warnings"]))?;
    writeln!(out)?;
    let titles = [
        "STORAGE",
        ">LOADS/s",
        ">STORES/s",
        ">COMMITS/s",
        ">CONFLICTS/s",
        ">RECEIVED/s",
        ">SENT/s",
        ">HOLD",
        ">WAIT",
        ">SIZE",
    ];
    let mut table = Columns::new(&titles);
    for storage in list(now, &["storages"]) {
        let is_same = |one: &&Value| field(one, &["name"]) == field(storage, &["name"]);
        let old = list(before, &["storages"]).iter().find(is_same).unwrap_or(&Value::Null);
        let rate = |key: &str| rate(old, storage, &["counters", key], passed);
        table.row([
            text(field(storage, &["name"])),
            a_second(rate("loads")),
            a_second(rate("stores")),
            a_second(rate("commits")),
            a_second(rate("conflicts") + rate("conflicts_resolved")),
            size(rate("received_bytes")),
            size(rate("sent_bytes")),
            span_of(field(storage, &["locks", "oldest_hold_seconds"])),
            list(storage, &["locks", "waiters"]).len().to_string(),
            size(number(storage, &["size_bytes"])),
        ]);
    }
    table.print(out, usize::MAX)?;
    writeln!(out)?;
    print_clients(out, &clients_of(before, None)?, clients, passed, rows)
}

/// Those that do most come first, and then those that have had a transaction for longest.
fn print_clients(
    out: &mut dyn Write,
    before: &[Client],
    clients: Vec<Client>,
    passed: f64,
    rows: usize,
) -> Result<(), Trouble> {
    let old = |client: &Client| {
        let is_same = |other: &&Client| field(&other.facts, &["id"]) == field(&client.facts, &["id"]);
        before.iter().find(is_same).map_or(Value::Null, |client| client.facts.clone())
    };
    let with_old = |client| {
        let old = old(&client);
        (client, old)
    };
    let mut clients: Vec<(Client, Value)> = clients.into_iter().map(with_old).collect();
    let work = |(client, old): &(Client, Value)| -> f64 {
        WORK.iter().map(|key| rate(old, &client.facts, &[key], passed)).sum()
    };
    let age = |(client, _): &(Client, Value)| number(&client.facts, &["transaction", "seconds"]);
    clients.sort_by(|one, other| {
        let by_work = work(other).total_cmp(&work(one));
        by_work.then_with(|| age(other).total_cmp(&age(one)))
    });
    let titles = [
        ">CLIENT",
        "STORAGE",
        "LABEL",
        ">LOADS/s",
        ">STORES/s",
        ">COMMITS/s",
        ">RECEIVED/s",
        ">SENT/s",
        ">QUEUED",
        "TRANSACTION",
    ];
    let mut table = Columns::new(&titles);
    for (Client { storage, facts }, old) in &clients {
        let rate = |key: &str| rate(old, facts, &[key], passed);
        let transaction = match field(facts, &["transaction"]) {
            Value::Null => "-".into(),
            other => {
                let seconds = field(other, &["seconds"]).as_f64().map(span).unwrap_or_default();
                format!("{} {seconds}", text(field(other, &["state"])))
            }
        };
        table.row([
            text(field(facts, &["id"])),
            text(storage),
            text(field(facts, &["label"])),
            a_second(rate("loads")),
            a_second(rate("stores")),
            a_second(rate("commits")),
            size(rate("received_bytes")),
            size(rate("sent_bytes")),
            size(number(facts, &["outbox_bytes"])),
            transaction,
        ]);
    }
    table.print(out, rows)?;
    Ok(())
}

/// How much a counter grew in a second. One of a server or a client that was not there before began at 0.
fn rate(before: &Value, now: &Value, path: &[&str], passed: f64) -> f64 {
    ((number(now, path) - number(before, path)) / passed).max(0.0)
}

fn a_second(rate: f64) -> String {
    if rate == 0.0 || rate >= 10.0 { format!("{rate:.0}") } else { format!("{rate:.1}") }
}
