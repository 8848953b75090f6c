//! A load generator for ZEO storage servers, which compares several of them. `scripts/bench --help`.
//!
//! The command line ([`options`]) gives a [`plan`]; [`rounds`] runs it: it starts [`servers`], perhaps with the
//! built-in [`limit`], and runs [`workloads`] against them, whose clients ([`client`], [`wire`]) speak the raw
//! protocol. Each workload gives an [`outcome`]; [`report`] makes tables of them.

mod client;
mod latencies;
mod limit;
mod meter;
mod options;
mod outcome;
mod plan;
mod random;
mod records;
mod report;
mod rounds;
mod servers;
mod sys;
mod wire;
mod workloads;

use client::Result;
use options::Command;
use outcome::Outcome;
use plan::Plan;
use std::path::PathBuf;
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

fn run(plan: &Plan) -> Result<()> {
    sys::raise_open_files();
    std::fs::create_dir_all(&plan.dir).map_err(|e| format!("{}: {e}", plan.dir.display()))?;
    let scratch = tempfile::Builder::new().prefix("run-").tempdir_in(&plan.dir);
    let scratch = scratch.map_err(|e| format!("{}: {e}", plan.dir.display()))?;
    clean_up_when_interrupted(scratch.path().to_path_buf())?;
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
