//! `zeoadmin status`: the server in some lines.

use std::io::{self, Write};

use getopts::Matches;
use serde_json::{Value, json};

use super::call::{self, Target, no_argument, print_json};
use super::shown::{field, list, number, size, span, text, time};
use crate::base::numbers::grouped;
use crate::commands::subcommand::{FINDINGS, Subcommand, Trouble};

pub(super) const COMMAND: Subcommand = Subcommand { name: "status", options: call::options, help: HELP, run };

const HELP: &str = "\
[options]

The server in some lines: connections, its cluster, and of each storage its
size, counters, locks, packs, checks and disks; backups; and what an operator
should look at.

  -s, --socket PATH     the admin socket of the server
  -C, --configure FILE  as the server's configuration says
      --json            all that the server knows: /status.json of <http> is the
                        same
      --help            print this

Exit status: 0 all is well; 1 the server cannot be reached; 2 the command line
is wrong; 4 something is to be looked at: lines that begin with WARNING.
";

/// The server's report of itself.
pub(super) fn report(target: &Target) -> Result<Value, Trouble> {
    target.call(&json!({ "command": "status" }), |_| ())
}

/// The storages of a report: the one of this name, or all.
pub(super) fn storages_of<'a>(report: &'a Value, name: Option<&str>) -> Result<Vec<&'a Value>, Trouble> {
    let all = list(report, &["storages"]);
    let is_wanted = |one: &&Value| name.is_none_or(|name| field(one, &["name"]) == name);
    let wanted: Vec<&Value> = all.iter().filter(is_wanted).collect();
    match name.filter(|_| wanted.is_empty()) {
        None => Ok(wanted),
        Some(name) => {
            let names: Vec<String> = all.iter().map(|one| text(field(one, &["name"]))).collect();
            Err(Trouble::Failed(format!("there is no storage '{name}', but {}", names.join(", "))))
        }
    }
}

/// Prints a list that each storage has as JSON, with the storages' names.
pub(super) fn print_lists(out: &mut dyn Write, storages: &[&Value], key: &str) -> Result<u8, Trouble> {
    let of = |one: &&Value| json!({ "storage": field(one, &["name"]), key: field(one, &[key]) });
    writeln!(out, "{}", Value::Array(storages.iter().map(of).collect()))?;
    Ok(0)
}

fn run(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    no_argument(matches)?;
    let report = report(&Target::of(matches)?)?;
    let warnings = list(&report, &["warnings"]);
    if !print_json(out, matches, &report)? {
        print(out, &report)?;
        print_warnings(out, warnings)?;
    }
    Ok(if warnings.is_empty() { 0 } else { FINDINGS })
}

/// Each on a line, and below it what to do.
pub(super) fn print_warnings(out: &mut dyn Write, warnings: &[Value]) -> io::Result<()> {
    for warning in warnings {
        writeln!(out, "WARNING {}", text(field(warning, &["what"])))?;
        writeln!(out, "        {}", text(field(warning, &["advice"])))?;
    }
    Ok(())
}

fn print(out: &mut dyn Write, report: &Value) -> io::Result<()> {
    let text_of = |path: &[&str]| text(field(report, path));
    let process = format!("runzeo {}, process {}", text_of(&["version"]), text_of(&["pid"]));
    let Some(started) = field(report, &["started"]).as_f64() else {
        return writeln!(out, "{process}: {}", text_of(&["opening"]));
    };
    let up = span(number(report, &["time"]) - started);
    let phase = text_of(&["phase"]);
    writeln!(out, "{process}: {phase} since {} ({up})", time(field(report, &["started"])))?;
    if field(report, &["configuration"]).is_string() {
        writeln!(out, "configuration: {}", text_of(&["configuration"]))?;
    }
    let of_connections = |key: &str| grouped(number(report, &["connections", key]) as u64);
    writeln!(
        out,
        "clients: {}, at most {}; {} that have not registered; {} connections since the start",
        of_connections("registered"),
        of_connections("registered_max"),
        of_connections("unregistered"),
        of_connections("accepted"),
    )?;
    for refused in
        list(report, &["connections", "refused"]).iter().filter(|one| number(one, &["count"]) > 0.0)
    {
        let (count, reason) = (number(refused, &["count"]), text(field(refused, &["reason"])));
        writeln!(out, "  {count:.0} refused because of {reason}")?;
    }
    let waiting = list(report, &["reloads", "waiting"]);
    if !waiting.is_empty() {
        writeln!(
            out,
            "configuration: {} changes wait for a restart (zeoadmin reload lists them)",
            waiting.len()
        )?;
    }
    let cluster = field(report, &["cluster"]);
    if cluster.is_object() {
        super::role::print(out, cluster)?;
    }
    for storage in list(report, &["storages"]) {
        print_storage(out, storage, number(report, &["time"]))?;
    }
    for backup in list(report, &["backups"]) {
        writeln!(out, "backups to {}", text(field(backup, &["repository"])))?;
        print_attempts(out, "made", field(backup, &["making"]))?;
        if field(backup, &["sending"]).is_object() {
            print_attempts(out, "sent", field(backup, &["sending"]))?;
        }
        if field(backup, &["next"]).is_number() {
            writeln!(out, "  next {}", time(field(backup, &["next"])))?;
        }
    }
    Ok(())
}

fn print_storage(out: &mut dyn Write, storage: &Value, now: f64) -> io::Result<()> {
    let text_of = |path: &[&str]| text(field(storage, path));
    let count = |path: &[&str]| grouped(number(storage, path) as u64);
    let of = |key: &str| grouped(number(storage, &["counters", key]) as u64);
    let length = size(number(storage, &["size_bytes"]));
    writeln!(
        out,
        "storage {}: {}, {length}, {} objects, {}",
        text_of(&["name"]),
        text_of(&["state"]),
        count(&["objects"]),
        text_of(&["storage"])
    )?;
    if let Some(last) = field(storage, &["last_transaction_time"]).as_f64() {
        let (last_time, ago) =
            (time(field(storage, &["last_transaction_time"])), span((now - last).max(0.0)));
        writeln!(out, "  last transaction {}, {last_time} ({ago} ago)", text_of(&["last_transaction"]))?;
    }
    print_other_servers(out, storage)?;
    let waiters = list(storage, &["locks", "waiters"]).len();
    let held = match field(storage, &["locks", "oldest_hold_seconds"]).as_f64() {
        Some(seconds) => format!("locks held for {}, {waiters} wait", span(seconds)),
        None => "no locks held".into(),
    };
    let clients = list(storage, &["clients"]).len();
    writeln!(out, "  {clients} clients, {} transactions, {held}", count(&["active_transactions"]))?;
    writeln!(
        out,
        "  {} loads, {} stores, {} commits ({} of them undos), {} aborts",
        of("loads"),
        of("stores"),
        of("commits"),
        of("undos"),
        of("aborts")
    )?;
    writeln!(
        out,
        "  {} conflicts refused, {} merged; {} transactions timed out, {} slow requests",
        of("conflicts"),
        of("conflicts_resolved"),
        of("transaction_timeouts"),
        of("slow_requests")
    )?;
    print_pack(out, field(storage, &["pack"]))?;
    if field(storage, &["scrub"]).is_object() {
        print_scrub(out, field(storage, &["scrub"]))?;
    }
    for disk in list(storage, &["disks"]) {
        let [free, total] = ["free_bytes", "total_bytes"].map(|key| size(number(disk, &[key])));
        let [usage, directory] = ["usage", "directory"].map(|key| text(field(disk, &[key])));
        if field(disk, &["free_bytes"]).is_number() {
            writeln!(out, "  {usage}: {free} of {total} free in {directory}{}", full_in(disk))?;
        }
    }
    Ok(())
}

/// Servers that the storage has its data from, or that have theirs from here.
fn print_other_servers(out: &mut dyn Write, storage: &Value) -> io::Result<()> {
    if text(field(storage, &["replication", "role"])) == "standby" {
        let is_connected = field(storage, &["replication", "connected"]).as_bool() == Some(true);
        let connected = if is_connected { "connected" } else { "not connected to its primary" };
        let behind = match field(storage, &["replication", "behind_seconds"]).as_f64() {
            Some(seconds) => format!("{} behind", span(seconds)),
            None => "for an unknown time".into(),
        };
        writeln!(out, "  read from a standby, {connected}, {behind}")?;
    }
    for secondary in list(storage, &["secondaries"]) {
        let behind = |key| field(secondary, &["behind", key]);
        let transactions = behind("transactions").as_u64().unwrap_or_default();
        let seconds = span(behind("seconds").as_f64().unwrap_or_default());
        let lacks = if transactions == 0 {
            "which was sent everything".into()
        } else {
            format!("{seconds} behind ({transactions} transactions)")
        };
        let (peer, since) = (text(field(secondary, &["peer"])), time(field(secondary, &["since"])));
        writeln!(out, "  secondary at {peer} since {since}, {lacks}")?;
    }
    if let Some(interruptions) =
        field(storage, &["remote", "interruptions"]).as_u64().filter(|number| *number > 0)
    {
        let since = field(storage, &["remote", "since"]);
        let state = match field(storage, &["remote", "error"]).as_str() {
            None => "connected again",
            Some(error) => error,
        };
        let times = if interruptions == 1 { "once".into() } else { format!("{interruptions} times") };
        writeln!(out, "  the connection to its server was lost {times}; since {}: {state}", time(since))?;
    }
    Ok(())
}

/// `, full in 12 days if it goes on like this`
fn full_in(disk: &Value) -> String {
    let seconds = field(disk, &["full_in_seconds"]).as_f64();
    seconds.map_or_else(String::new, |seconds| format!(", full in {} if it goes on like this", span(seconds)))
}

fn print_pack(out: &mut dyn Write, pack: &Value) -> io::Result<()> {
    let mut parts = Vec::new();
    if field(pack, &["running"]).is_object() {
        let [done, total] = ["done_bytes", "total_bytes"].map(|key| number(pack, &["running", key]));
        parts.push(format!("{:.0} % done", 100.0 * done / total.max(1.0)));
    }
    if field(pack, &["last"]).is_object() {
        let [before, after] = ["size_before", "size_after"].map(|key| size(number(pack, &["last", key])));
        let outcome = match field(pack, &["last", "error"]) {
            Value::Null => format!("from {before} to {after}"),
            error => format!("failed: {}", text(error)),
        };
        let took = span(number(pack, &["last", "seconds"]));
        parts.push(format!("last {}, took {took}, {outcome}", time(field(pack, &["last", "began"]))));
    }
    if field(pack, &["next"]).is_number() {
        parts.push(format!("next {}", time(field(pack, &["next"]))));
    }
    if parts.is_empty() { Ok(()) } else { writeln!(out, "  pack: {}", parts.join("; ")) }
}

fn print_scrub(out: &mut dyn Write, scrub: &Value) -> io::Result<()> {
    let last = match field(scrub, &["last"]) {
        Value::Null => "none since the start".into(),
        last => format!("last {}, took {}", time(field(last, &["began"])), span(number(last, &["seconds"]))),
    };
    let now = if field(scrub, &["is_running"]) == &Value::Bool(true) { "running; " } else { "" };
    let [damaged, missing] = ["damaged", "missing_blobs"].map(|key| grouped(number(scrub, &[key]) as u64));
    let next = time(field(scrub, &["next"]));
    writeln!(out, "  check: {now}{last}, {damaged} damaged places, {missing} blobs missing; next {next}")
}

fn print_attempts(out: &mut dyn Write, what: &str, attempts: &Value) -> io::Result<()> {
    let running = if field(attempts, &["running_since"]).is_number() { " (running)" } else { "" };
    let [good, bad] = ["successes", "failures"].map(|key| grouped(number(attempts, &[key]) as u64));
    let last = time(field(attempts, &["last_success"]));
    writeln!(out, "  {what}{running}: {good}, failed {bad}; last success {last}")
}
