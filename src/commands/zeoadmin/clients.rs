//! `zeoadmin clients`: the connections of clients.

use std::io::Write;

use getopts::{Matches, Options};
use serde_json::Value;

use super::call::{self, Target, one_argument};
use super::shown::{Columns, field, list, number, size, span, span_of, text};
use super::status::{report, storages_of};
use crate::base::numbers::grouped;
use crate::commands::subcommand::{Subcommand, Trouble};

pub(super) const COMMAND: Subcommand = Subcommand { name: "clients", options, help: HELP, run };

const HELP: &str = "\
[options] [STORAGE]

The connections of clients, of a storage or of all: their numbers, addresses and
labels, users or certificates, protocols, since when they are there, what they
have loaded, stored and committed, what is queued for them, and their
transactions. Those that have not registered with a storage come last.

  -s, --socket PATH     the admin socket of the server
  -C, --configure FILE  as the server's configuration says
      --json            a list of objects
      --help            print this

Exit status: 0 done; 1 the server cannot be reached; 2 the command line is
wrong.
";

fn options(options: &mut Options) {
    call::options(options);
}

/// A client, and the name of its storage; null: it has not registered.
pub(super) struct Client {
    pub(super) storage: Value,
    pub(super) facts: Value,
}

/// The clients of one storage, or of all and those without one.
pub(super) fn clients_of(report: &Value, storage: Option<&str>) -> Result<Vec<Client>, Trouble> {
    let mut clients = Vec::new();
    for one in storages_of(report, storage)? {
        let with_storage =
            |facts: &Value| Client { storage: field(one, &["name"]).clone(), facts: facts.clone() };
        clients.extend(list(one, &["clients"]).iter().map(with_storage));
    }
    if storage.is_none() {
        let without = |facts: &Value| Client { storage: Value::Null, facts: facts.clone() };
        clients.extend(list(report, &["unregistered"]).iter().map(without));
    }
    Ok(clients)
}

/// Prints clients as a list of JSON.
pub(super) fn print_list(out: &mut dyn Write, clients: Vec<Client>) -> std::io::Result<()> {
    let with_storage = |Client { storage, mut facts }: Client| {
        if let Value::Object(fields) = &mut facts {
            fields.insert("storage".into(), storage);
        }
        facts
    };
    writeln!(out, "{}", Value::Array(clients.into_iter().map(with_storage).collect()))
}

fn run(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    let storage = one_argument(matches)?;
    let report = report(&Target::of(matches)?)?;
    let clients = clients_of(&report, storage)?;
    if matches.opt_present("json") {
        print_list(out, clients)?;
        return Ok(0);
    }
    let now = number(&report, &["time"]);
    let titles = [
        ">NUMBER",
        "STORAGE",
        "CLIENT",
        "PROTOCOL",
        ">SINCE",
        ">LOADS",
        ">STORES",
        ">COMMITS",
        ">RECEIVED",
        ">SENT",
        ">QUEUED",
        "TRANSACTION",
    ];
    let mut table = Columns::new(&titles);
    for Client { storage, facts } in &clients {
        let count = |key: &str| grouped(number(facts, &[key]) as u64);
        let bytes = |key: &str| size(number(facts, &[key]));
        let identity = field(facts, &["identity"]).as_str().map(|shown| format!(", {}", text(&shown.into())));
        let identity = identity.unwrap_or_default();
        let writes = if field(facts, &["can_write"]) == &Value::Bool(false) { ", reads" } else { "" };
        table.row([
            text(field(facts, &["id"])),
            text(storage),
            text(field(facts, &["label"])) + &identity,
            text(field(facts, &["protocol"])) + writes,
            span((now - number(facts, &["since"])).max(0.0)),
            count("loads"),
            count("stores"),
            count("commits"),
            bytes("received_bytes"),
            bytes("sent_bytes"),
            bytes("outbox_bytes"),
            transaction(field(facts, &["transaction"])),
        ]);
    }
    table.print_or(out, "no clients are connected")?;
    Ok(0)
}

/// `voted 12 s`
fn transaction(transaction: &Value) -> String {
    match transaction {
        Value::Null => "-".into(),
        other => format!("{} {}", text(field(other, &["state"])), span_of(field(other, &["seconds"]))),
    }
}
