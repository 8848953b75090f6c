//! The command line.

use crate::client::Result;
use crate::clients;
use crate::plan::{self, OtherFile, Plan, WORKLOADS};
use crate::postgres;
use crate::replication;
use crate::servers::{LIMIT, LIMIT_FILE, OURS, Server};
use getopts::{Matches, Options};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub enum Command {
    Run(Box<Plan>),
    RunClients(Box<clients::Plan>),
    RunPostgres(Box<postgres::Plan>),
    RunReplication(Box<replication::Plan>),
    Report(Vec<PathBuf>),
    /// A built-in server; only [`crate::servers`] uses this.
    Limit {
        record_len: usize,
        from_file: bool,
        conf: PathBuf,
    },
    /// Opens a cache; only [`crate::clients`] uses this.
    OpenCache {
        path: PathBuf,
        cache_len: u64,
    },
    Help,
}

const USAGE: &str = "\
Compare ZEO storage servers side by side, over the raw protocol, without a client cache; or clients of one server.

usage:
  scripts/bench quick [OPTIONS] [SERVER...]   a first look: 3 rounds of half a second, 100 000 objects
  scripts/bench full [OPTIONS] [SERVER...]    figures to publish: 5 rounds of 1.5 s, starts with a million objects
  scripts/bench client [OPTIONS] [CLIENT...]  clients with their caches, and servers in the middle: 3 rounds
  scripts/bench postgres [OPTIONS] [PYTHON]   a database in PostgreSQL, beside RelStorage's clients: 5 rounds of 2 s
  scripts/bench replication [OPTIONS]         a primary with replicas, on this machine: 5 rounds of 2 s
  scripts/bench report FILE...                the tables again, from result files of earlier runs

SERVER is one of the following; without any: limit ours. The first is the base of the ratios.
  limit           built in: canned replies and no storage, one fdatasync per commit. What the machine allows.
  limit-file      the same, but each load reads a record from a file of 100 MB
  ours            runzeo, built from this source tree
  LABEL=COMMAND   any other; started as COMMAND -C CONF, on a port and a Data.fs of its own
For example:
  scripts/bench quick limit ours zeo6=/srv/zeo6/bin/runzeo zeo4=/srv/zeo4/bin/runzeo

CLIENT is one of the following; without any: raw ours. The server is always ours.
  raw             over the raw protocol, without a cache; no server in the middle
  ours            runzeo::client; a server in the middle is runzeo
  LABEL=PYTHON    ZEO.ClientStorage in that interpreter; a server in the middle is the runzeo beside it
For example:
  scripts/bench client raw ours zeo6=/srv/zeo6/bin/python zeo4=/srv/zeo4/bin/python

PYTHON is an interpreter that has RelStorage; without it: that of the tests' environment. There is one cluster of
PostgreSQL, with fsync, for all columns:
  relstorage      RelStorage's own clients, one process and its connections for each; no server
  ours            clients of one runzeo
  two             clients of two of them, half at each
  file            clients of one runzeo with a Data.fs

Options:
  -w, --workloads LIST    which, separated by commas or blanks; default: all of the plan
  -n, --rounds N          how many rounds
  -s, --seconds S         how long each timed workload is measured
  -N, --objects N         objects in the database
  -z, --size BYTES        their size
  --start-file N,BYTES    objects, and their size, in the file of the start workloads
  --pack-file N,BYTES     the same of the pack workloads, where each is stored twice; full: 400000,800
  --cache BYTES           size of the cache that is opened by the clients' workload `open`; default: 1073741824
  --old-server COMMAND    a server of ZEO 4, for the clients' workload reconnect-verify
  --zeo LABEL=LINE        a line for the <zeo> section of one server: --zeo zeo6='msgpack true'
  --protocol LABEL=P      answer a server's greeting with Z5, M5 or Z4; default: with what it greets with
  -d, --dir DIR           where the databases and the results go; default: target/bench
  -o, --output FILE       the results, as lines of JSON, appended; default: DIR/quick.jsonl, full.jsonl, ...
  -h, --help              this text

Workloads:
";

const NOTES: &str = "
Every workload meets every server in turn, in an order that rotates from round to round. Only ratios within a
round mean much: on a machine that others use too, or with few cores, absolute figures change from hour to
hour. Where two ranges overlap, the order of the medians says nothing. The databases should be on a real disk:
a tmpfs syncs in no time. A figure is never an error; what failed is listed below the tables.
";

pub fn help() -> String {
    let list = |workloads: &[(&str, &str)]| -> String {
        workloads.iter().map(|(name, what)| format!("  {name:<16}  {what}\n")).collect()
    };
    [
        USAGE,
        &list(WORKLOADS),
        "\nWorkloads of clients:\n",
        &list(clients::WORKLOADS),
        "\nWorkloads of databases in PostgreSQL:\n",
        &list(postgres::WORKLOADS),
        "\nWorkloads of replication:\n",
        &list(replication::WORKLOADS),
        NOTES,
    ]
    .concat()
}

/// The options, as explained in [`USAGE`].
fn options() -> Options {
    let mut options = Options::new();
    for (short, long) in
        [("w", "workloads"), ("n", "rounds"), ("s", "seconds"), ("N", "objects"), ("z", "size")]
    {
        options.optopt(short, long, "", "");
    }
    options.optopt("", "start-file", "", "");
    options.optopt("", "cache", "", "");
    options.optopt("", "old-server", "", "");
    options.optopt("", "pack-file", "", "");
    options.optmulti("", "zeo", "", "");
    options.optmulti("", "protocol", "", "");
    options.optopt("d", "dir", "", "");
    options.optopt("o", "output", "", "");
    options.optflag("h", "help", "");
    // cargo bench adds it.
    options.optflag("", "bench", "");
    options
}

/// Parses the command line.
pub fn parse(arguments: &[String]) -> Result<Command> {
    if let [command, record_len, flag, conf] = arguments
        && [LIMIT, LIMIT_FILE].contains(&command.as_str())
        && flag == "-C"
    {
        let (record_len, from_file) = (number(command, record_len)?, command == LIMIT_FILE);
        return Ok(Command::Limit { record_len, from_file, conf: conf.into() });
    }
    if let [command, path, cache_len] = arguments
        && command == clients::OPEN_COMMAND
    {
        return Ok(Command::OpenCache { path: path.into(), cache_len: number(command, cache_len)? });
    }
    let matches = options().parse(arguments).map_err(|e| e.to_string())?;
    if matches.opt_present("help") {
        return Ok(Command::Help);
    }
    let (command, rest) = matches
        .free
        .split_first()
        .ok_or("say quick, full, client, postgres, replication or report; --help explains")?;
    let dir = matches.opt_str("dir").map_or_else(default_dir, PathBuf::from);
    let plan = match command.as_str() {
        "quick" => Plan::quick(dir),
        "full" => Plan::full(dir),
        "client" => return adjust_clients(clients::Plan::usual(dir), &matches, rest),
        "postgres" => return adjust_postgres(postgres::Plan::usual(dir), &matches, rest),
        "replication" => return adjust_replication(replication::Plan::usual(dir), &matches, rest),
        "report" => return Ok(Command::Report(rest.iter().map(PathBuf::from).collect())),
        _ => {
            return Err(format!(
                "unknown command {command:?}: say quick, full, client, postgres, replication or report; --help explains"
            ));
        }
    };
    adjust(plan, &matches, rest).map(Box::new).map(Command::Run)
}

/// What both kinds of plans have.
struct Common<'a> {
    rounds: &'a mut u32,
    measured: &'a mut Duration,
    objects: &'a mut usize,
    object_len: &'a mut usize,
    results: &'a mut PathBuf,
}

fn adjust_common(plan: Common<'_>, matches: &Matches) -> Result<()> {
    if let Some(text) = matches.opt_str("seconds") {
        let seconds: f64 = number("--seconds", &text)?;
        if !(0.05..=3600.0).contains(&seconds) {
            return Err("--seconds: from 0.05 to 3600".into());
        }
        *plan.measured = Duration::from_secs_f64(seconds);
    }
    if let Some(text) = matches.opt_str("rounds") {
        *plan.rounds = number("--rounds", &text)?;
    }
    if let Some(text) = matches.opt_str("objects") {
        *plan.objects = number("--objects", &text)?;
    }
    if let Some(text) = matches.opt_str("size") {
        *plan.object_len = number("--size", &text)?;
    }
    if let Some(path) = matches.opt_str("output") {
        *plan.results = path.into();
    }
    if *plan.rounds == 0 || *plan.objects < 100 {
        return Err("at least one round and 100 objects".into());
    }
    Ok(())
}

fn adjust_clients(mut plan: clients::Plan, matches: &Matches, names: &[String]) -> Result<Command> {
    let clients::Plan { rounds, measured, objects, object_len, results, .. } = &mut plan;
    adjust_common(Common { rounds, measured, objects, object_len, results }, matches)?;
    if let Some(list) = matches.opt_str("workloads") {
        plan.workloads = clients::parse_list(&list)?;
    }
    if let Some(text) = matches.opt_str("cache") {
        plan.cache_len = number("--cache", &text)?;
    }
    plan.old_server = matches.opt_str("old-server");
    let usual = [clients::RAW.to_string(), clients::OURS.to_string()];
    for name in if names.is_empty() { &usual } else { names } {
        let contestant = clients::Contestant::parse(name)?;
        if plan.contestants.iter().any(|other| other.label == contestant.label) {
            return Err(format!("two clients are called {:?}", contestant.label));
        }
        plan.contestants.push(contestant);
    }
    Ok(Command::RunClients(Box::new(plan)))
}

fn adjust_postgres(mut plan: postgres::Plan, matches: &Matches, pythons: &[String]) -> Result<Command> {
    let postgres::Plan { rounds, measured, objects, object_len, results, .. } = &mut plan;
    adjust_common(Common { rounds, measured, objects, object_len, results }, matches)?;
    if let Some(list) = matches.opt_str("workloads") {
        plan.workloads = postgres::parse_list(&list)?;
    }
    match pythons {
        [] => {}
        [python] => plan.python = python.into(),
        _ => return Err("one interpreter that has RelStorage".into()),
    }
    Ok(Command::RunPostgres(Box::new(plan)))
}

fn adjust_replication(mut plan: replication::Plan, matches: &Matches, rest: &[String]) -> Result<Command> {
    let replication::Plan { rounds, measured, objects, object_len, results, .. } = &mut plan;
    adjust_common(Common { rounds, measured, objects, object_len, results }, matches)?;
    if let Some(list) = matches.opt_str("workloads") {
        plan.workloads = replication::parse_list(&list)?;
    }
    match rest {
        [] => Ok(Command::RunReplication(Box::new(plan))),
        _ => Err("replication has no other arguments: both servers are this program's".into()),
    }
}

fn adjust(mut plan: Plan, matches: &Matches, servers: &[String]) -> Result<Plan> {
    let Plan { rounds, measured, objects, object_len, results, .. } = &mut plan;
    adjust_common(Common { rounds, measured, objects, object_len, results }, matches)?;
    if let Some(list) = matches.opt_str("workloads") {
        plan.workloads = plan::parse_list(&list)?;
    }
    if let Some(text) = matches.opt_str("start-file") {
        plan.start_file = Some(other_file("--start-file", &text)?);
    }
    if let Some(text) = matches.opt_str("pack-file") {
        plan.pack_file = Some(other_file("--pack-file", &text)?);
    }
    let names = if servers.is_empty() { &[LIMIT.to_string(), OURS.to_string()] } else { servers };
    for name in names {
        let server = Server::parse(name, plan.object_len)?;
        if plan.servers.iter().any(|other| other.label == server.label) {
            return Err(format!("two servers are called {:?}", server.label));
        }
        plan.servers.push(server);
    }
    for (option, setting) in
        ["zeo", "protocol"].iter().flat_map(|o| matches.opt_strs(o).into_iter().map(move |s| (o, s)))
    {
        let (label, value) = setting.split_once('=').ok_or_else(|| format!("--{option}: say LABEL=..."))?;
        let named = plan.servers.iter_mut().find(|server| server.label == label);
        let server = named.ok_or_else(|| format!("--{option}: no server is called {label:?}"))?;
        match *option {
            "zeo" => server.zeo_lines.push(value.into()),
            _ => server.protocol = Some(value.into()),
        }
    }
    Ok(plan)
}

fn other_file(option: &str, text: &str) -> Result<OtherFile> {
    let (objects, object_len) = text.split_once(',').ok_or_else(|| format!("{option}: say OBJECTS,BYTES"))?;
    Ok(OtherFile { objects: number(option, objects)?, object_len: number(option, object_len)? })
}

fn number<T: std::str::FromStr>(option: &str, text: &str) -> Result<T> {
    text.parse().map_err(|_| format!("{option}: {text:?} is not a number that makes sense here"))
}

fn default_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join("bench")
}
