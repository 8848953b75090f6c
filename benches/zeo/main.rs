//! A load generator for ZEO storage servers, which compares several of them. `scripts/bench --help`.
//!
//! The command line ([`options`]) gives a [`plan`]; [`rounds`] runs it: it starts [`servers`], perhaps with the
//! built-in [`limit`], and runs [`workloads`] against them, whose clients ([`client`], [`wire`]) speak the raw
//! protocol. Each workload gives an [`outcome`]; [`report`] makes tables of them. [`clients`] compares clients of one
//! server in the same way, [`postgres`] servers of a database in PostgreSQL, and [`replication`] servers of a cluster.

mod client;
mod clients;
mod latencies;
mod limit;
mod meter;
mod options;
mod outcome;
mod plan;
mod postgres;
mod random;
mod records;
mod replication;
mod report;
mod results;
mod rounds;
mod servers;
mod sys;
mod wire;
mod workloads;

use client::Result;
use options::Command;
use outcome::Outcome;
use plan::Plan;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    sys::end_on_closed_pipe();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let command = match options::parse(&arguments) {
        Ok(command) => command,
        Err(e) => {
            eprintln!("bench: {e}");
            return ExitCode::from(2);
        }
    };
    let done = match command {
        Command::Help => {
            print!("{}", options::help());
            Ok(())
        }
        Command::Limit { record_len, from_file, conf } => limit::serve(record_len, from_file, &conf),
        Command::OpenCache { path, cache_len } => clients::open_cache(&path, cache_len),
        Command::RunClients(plan) => run_clients(&plan),
        Command::RunPostgres(plan) => run_postgres(&plan),
        Command::RunReplication(plan) => run_replication(&plan),
        Command::Report(paths) => report_files(&paths),
        Command::Run(plan) => run(&plan),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("bench: {e}");
            ExitCode::FAILURE
        }
    }
}

/// A directory for the databases of a run.
fn scratch_in(dir: &Path) -> Result<tempfile::TempDir> {
    sys::raise_open_files();
    std::fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let scratch = tempfile::Builder::new().prefix("run-").tempdir_in(dir);
    let scratch = scratch.map_err(|e| format!("{}: {e}", dir.display()))?;
    clean_up_when_interrupted(scratch.path().to_path_buf())?;
    Ok(scratch)
}

fn run_clients(plan: &clients::Plan) -> Result<()> {
    let scratch = scratch_in(&plan.dir)?;
    let outcomes = clients::run(plan, scratch.path())?;
    println!("{}", machine());
    println!("{}", report::tables_of_clients(&outcomes));
    eprintln!("The figures are in {}.", plan.results.display());
    check(&outcomes)
}

fn run_postgres(plan: &postgres::Plan) -> Result<()> {
    let scratch = scratch_in(&plan.dir)?;
    let outcomes = postgres::run(plan, scratch.path())?;
    if outcomes.is_empty() {
        // There is no PostgreSQL, which is said already.
        return Ok(());
    }
    println!("{}", machine());
    println!("{}", report::tables_of_databases(&outcomes));
    eprintln!("The figures are in {}.", plan.results.display());
    check(&outcomes)
}

fn run_replication(plan: &replication::Plan) -> Result<()> {
    let scratch = scratch_in(&plan.dir)?;
    let outcomes = replication::run(plan, scratch.path())?;
    println!("{}", machine());
    println!("{}", report::tables_of_replication(&outcomes));
    eprintln!("The figures are in {}.", plan.results.display());
    check(&outcomes)
}

fn check(outcomes: &[Outcome]) -> Result<()> {
    match outcomes.iter().filter(|outcome| outcome.failure.is_some()).count() {
        0 => Ok(()),
        count => Err(format!("{count} measurements failed")),
    }
}

fn run(plan: &Plan) -> Result<()> {
    let scratch = scratch_in(&plan.dir)?;
    let outcomes = rounds::run(plan, scratch.path())?;
    println!("{}", machine());
    let servers: Vec<&str> = plan.servers.iter().map(|server| server.label.as_str()).collect();
    println!("{}", report::tables(&outcomes, &servers));
    eprintln!("The figures are in {}.", plan.results.display());
    Ok(())
}

/// Removes the databases, which may be gigabytes. The servers end with this process.
fn clean_up_when_interrupted(scratch: PathBuf) -> Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let signals = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM]);
    let mut signals = signals.map_err(|e| format!("signals: {e}"))?;
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            // A failure cannot be reported any more.
            let _ = std::fs::remove_dir_all(&scratch);
            std::process::exit(130);
        }
    });
    Ok(())
}

fn report_files(paths: &[PathBuf]) -> Result<()> {
    let mut outcomes: Vec<Outcome> = vec![];
    for path in paths {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        outcomes.extend(text.lines().filter_map(Outcome::from_json));
    }
    if outcomes.iter().any(|outcome| outcome.label == postgres::TWO) {
        println!("{}", report::tables_of_databases(&outcomes));
        return Ok(());
    }
    if outcomes.iter().any(|outcome| outcome.label == replication::ASYNCHRONOUS) {
        println!("{}", report::tables_of_replication(&outcomes));
        return Ok(());
    }
    if outcomes.iter().any(|outcome| outcome.label == clients::RAW) {
        println!("{}", report::tables_of_clients(&outcomes));
        return Ok(());
    }
    // Some workloads exclude the limit, so another server may come first in the file.
    println!("{}", report::tables(&outcomes, &[servers::LIMIT]));
    Ok(())
}

/// The machine of the measurements.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{} cores, {model}, Linux {}\n", sys::core_count(), kernel.trim())
}
