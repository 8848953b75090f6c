//! `zeoadmin role`: this server in its cluster.

use std::io::{self, Write};

use getopts::Matches;
use serde_json::{Value, json};

use super::call::{self, Target, no_argument, print_json};
use super::shown::{field, list, number, size, span, text, time};
use crate::base::numbers::grouped;
use crate::commands::subcommand::{Subcommand, Trouble};

pub(super) const COMMAND: Subcommand = Subcommand { name: "role", options: call::options, help: HELP, run };

/// The exit status of a replica.
const REPLICA: u8 = 10;

const HELP: &str = "\
[options]

Whether the server is the primary of its cluster (<replication> in its
configuration) or a replica, the server that it follows, and those that follow
it, with what they lack.

  -s, --socket PATH     the admin socket of the server
  -C, --configure FILE  as the server's configuration says
      --json            the answer of the server
      --help            print this

Exit status: 0 it is the primary; 10 it is a replica; 1 it cannot be reached, or
is in no cluster; 2 the command line is wrong.
";

fn run(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    no_argument(matches)?;
    let cluster = Target::of(matches)?.call(&json!({ "command": "role" }), |_| ())?;
    if !print_json(out, matches, &cluster)? {
        print(out, &cluster)?;
    }
    match field(&cluster, &["role"]).as_str() {
        Some("primary") => Ok(0),
        Some("replica") => Ok(REPLICA),
        _ => Err(Trouble::Failed("the server does not say what it is: it is of another version".into())),
    }
}

/// The cluster as the server sees it.
pub(super) fn print(out: &mut dyn Write, cluster: &Value) -> io::Result<()> {
    let text_of = |key: &str| text(field(cluster, &[key]));
    let is_replica = field(cluster, &["role"]) == "replica";
    let follows = match field(cluster, &["primary"]) {
        _ if !is_replica => String::new(),
        Value::Null => ", which has found no primary".into(),
        primary => format!(", which follows {}", text(primary)),
    };
    writeln!(out, "cluster: {} {}{follows}", text_of("role"), text_of("name"))?;
    for (key, what) in [("fenced", "not the primary any more"), ("held", "accepts no writes")] {
        if field(cluster, &[key]).is_string() {
            writeln!(out, "  {what}: {}", text_of(key))?;
        }
    }
    writeln!(
        out,
        "  timeline {} since {}, promotions: {}",
        text_of("timeline"),
        time(field(cluster, &["since"])),
        text_of("promotions")
    )?;
    let needed = number(cluster, &["synchronous_replicas"]);
    if needed > 0.0 {
        let then = match field(cluster, &["on_timeout"]) == "block" {
            true => "without a limit",
            false => "or goes on without them after a time",
        };
        let replicas = if needed == 1.0 { "replica" } else { "replicas" };
        writeln!(out, "  a commit waits for {needed:.0} {replicas}, {then}")?;
    }
    list(cluster, &["storages"]).iter().try_for_each(|storage| print_storage(out, storage))
}

fn print_storage(out: &mut dyn Write, storage: &Value) -> io::Result<()> {
    let text_of = |path: &[&str]| text(field(storage, path));
    writeln!(out, "  storage {}: last transaction {}", text_of(&["storage"]), text_of(&["last"]))?;
    let following = field(storage, &["following"]);
    if following.is_object() {
        let connected = match field(following, &["failure"]) {
            Value::Null => "connected".into(),
            failure => format!("not connected: {}", text(failure)),
        };
        let behind = match field(following, &["behind"]) {
            Value::Null => "how far behind is not known".into(),
            lag => shown(lag),
        };
        writeln!(out, "    {connected}; {behind}")?;
    }
    for replica in list(storage, &["replicas"]) {
        let [name, peer] = ["name", "peer"].map(|key| text(field(replica, &[key])));
        let waits = if field(replica, &["synchronous"]) == &Value::Bool(true) { ", synchronous" } else { "" };
        let since = time(field(replica, &["since"]));
        writeln!(
            out,
            "    replica {name} ({peer}) since {since}: {}{waits}",
            shown(field(replica, &["behind"]))
        )?;
    }
    if field(storage, &["degraded_since"]).is_number() {
        let since = time(field(storage, &["degraded_since"]));
        writeln!(out, "    commits do not wait for replicas since {since}: too few keep up")?;
    }
    Ok(())
}

/// `12.0 KB, 3 transactions, 0.4 s behind`
fn shown(lag: &Value) -> String {
    let [bytes, transactions, seconds] = ["bytes", "transactions", "seconds"].map(|key| number(lag, &[key]));
    if bytes == 0.0 && transactions == 0.0 {
        return "has everything".into();
    }
    format!("{}, {} transactions, {} behind", size(bytes), grouped(transactions as u64), span(seconds))
}
