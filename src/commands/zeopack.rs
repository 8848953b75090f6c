//! `zeopack`: packs storages of running servers, this one's or Python's, and waits for the end.
//!
//! The options are those of Python's script, and `--cancel` and `--dry-run` at servers of this program. Exit codes: 0
//! if all were packed; 1 if one was not, and stderr says why; 2 if the command line is wrong; 4 if a pack would fail.

use std::ffi::OsString;
use std::fmt;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use getopts::{Matches, Options, ParsingStyle};

use crate::base::address::Address;
use crate::base::cancel::Cancel;
use crate::base::clock::Stopwatch;
use crate::client::dial::{DialError, DialOptions, dial};
use crate::client::link::{self, EndCause, Link, LinkError, LinkOptions, Receiver};
use crate::client::pack_plan::plan_of;
use crate::commands::pack_time::PackTime;
use crate::commands::subcommand::FINDINGS;
use crate::commands::zeofs::pack_report::{has_findings, print, print_json};
use crate::wire::answers::{Answer, AnswerError, ServerPush};
use crate::wire::calls::Call;
use crate::wire::protocol::INSTANCE_KEY;
use crate::wire::value::Value;

/// Upper bound on the wait for a server that is being started, as in Python.
const CONNECT_MAX: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_secs(1);
/// Interval of progress updates on a terminal.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// Dangling references that are named.
const DANGLING_SHOWN: usize = 20;

/// One storage to pack.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Target {
    address: Address,
    storage: String,
}

#[derive(Debug)]
struct Task {
    targets: Vec<Target>,
    work: Work,
}

/// What is done with each storage.
#[derive(Clone, Copy, Debug)]
enum Work {
    Pack(PackTime),
    /// End the pack that is running.
    Cancel,
    /// Say what a pack would remove.
    Plan {
        time: PackTime,
        is_json: bool,
    },
}

/// The command line.
enum Wanted {
    Pack(Task),
    Print(String),
}

/// The program `zeopack`. `program` is its name as called; `arguments` do not have it.
pub fn run(program: &str, arguments: &[OsString]) -> ExitCode {
    let task = match read_command_line(program, arguments) {
        Ok(Wanted::Pack(task)) => task,
        Ok(Wanted::Print(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("Error: {message}\nFor help, use {program} --help");
            return ExitCode::from(2);
        }
    };
    let (mut has_failed, mut has_findings) = (false, false);
    for target in &task.targets {
        let (doing, done) = match task.work {
            Work::Pack(time) => ("packing", pack(target, time.seconds()).map(|()| false)),
            Work::Cancel => ("cancelling the pack of", cancel(target).map(|()| false)),
            Work::Plan { time, is_json } => ("planning the pack of", plan(target, time.seconds(), is_json)),
        };
        match done {
            Ok(found) => has_findings |= found,
            Err(message) => {
                eprintln!("Error {doing} storage {} in {}: {message}", target.storage, target.address);
                has_failed = true;
            }
        }
    }
    match (has_failed, has_findings) {
        (true, _) => ExitCode::from(1),
        (false, true) => ExitCode::from(FINDINGS),
        (false, false) => ExitCode::SUCCESS,
    }
}

fn help(program: &str) -> String {
    format!(
        "\
Pack storages of running ZEO servers: forget old revisions and garbage.

Usage: {program} [options] [HOST:PORT[:STORAGE] ...]

What to pack (STORAGE is 1 if not given):
  HOST:PORT[:STORAGE]          a server's address; [::1]:PORT for IPv6
  -u, --unix PATH[:STORAGE]    a server's Unix socket; may be repeated

Up to when (default: now):
  -d, --days N                 keep what was current N days ago and since
  -t, --time HH[:MM[:SS]]      at this time of the day, local

Instead of packing:
  --cancel                     end the pack that is running in a server of
                               runzeo, also one by schedule: all stays as it was
  --dry-run                    what a pack would remove, of a server of runzeo
  --json                       the same for programs

Older ways to say what to pack:
  -h HOST  -p PORT  -U PATH  -S STORAGE

  --help, --version            print this, or the version

The server goes on serving while it packs. {program} waits for it, and tells a
terminal how far it is. A server that does not answer is waited for one minute.
Exit status: 0 all were packed, or no pack is running any more; 1 one was not,
or could not be cancelled; 2 the command line is wrong; 4 --dry-run: a pack would
fail or be refused.
"
    )
}

fn read_command_line(program: &str, arguments: &[OsString]) -> Result<Wanted, String> {
    let mut options = Options::new();
    options.parsing_style(ParsingStyle::FloatingFrees);
    options.optopt("d", "days", "", "").optopt("t", "time", "", "").optmulti("u", "unix", "", "");
    options.optopt("h", "", "", "").optopt("p", "", "", "").optopt("U", "", "", "").optopt("S", "", "", "");
    options.optflag("", "help", "").optflag("", "version", "").optflag("", "cancel", "");
    options.optflag("", "dry-run", "").optflag("", "json", "");
    let matches = options.parse(arguments).map_err(|problem| problem.to_string())?;
    if matches.opt_present("help") || arguments.is_empty() {
        return Ok(Wanted::Print(help(program)));
    }
    if matches.opt_present("version") {
        return Ok(Wanted::Print(format!("zeopack {}\n", env!("CARGO_PKG_VERSION"))));
    }
    let targets = targets(&matches)?;
    let time = PackTime::of(matches.opt_str("days").as_deref(), matches.opt_str("time").as_deref())?;
    let (is_plan, is_json) = (matches.opt_present("dry-run"), matches.opt_present("json"));
    if is_json && !is_plan {
        return Err("--json is for --dry-run".into());
    }
    let work = match matches.opt_present("cancel") {
        true if is_plan => return Err("--cancel does not go with --dry-run".into()),
        true if matches.opts_present(&["d".into(), "t".into()]) => {
            return Err("--cancel does not go with -d or -t, which are for a pack".into());
        }
        true => Work::Cancel,
        false if is_plan => Work::Plan { time, is_json },
        false => Work::Pack(time),
    };
    Ok(Wanted::Pack(Task { targets, work }))
}

fn targets(matches: &Matches) -> Result<Vec<Target>, String> {
    let named = matches.opt_str("S").unwrap_or_else(|| "1".into());
    let mut targets = Vec::new();
    let host = matches.opt_str("h");
    match matches.opt_str("p") {
        Some(port) => {
            // Python uses the name of the machine, which may have another address than the server.
            let host = host.unwrap_or_else(|| "localhost".into());
            let address = Address::Tcp { host: Some(host), port: Some(port_of(&port)?) };
            targets.push(Target { address, storage: named.clone() });
        }
        None if host.is_some() => return Err("-h HOST needs -p PORT".into()),
        None => {}
    }
    if let Some(path) = matches.opt_str("U") {
        targets.push(Target { address: Address::Unix(path.into()), storage: named });
    }
    for server in &matches.free {
        targets.push(tcp_target(server)?);
    }
    for server in matches.opt_strs("unix") {
        let (path, storage) = server.split_once(':').unwrap_or((&server, "1"));
        if path.is_empty() || storage.contains(':') {
            return Err(format!("-u: '{server}' is not PATH[:STORAGE]"));
        }
        targets.push(Target { address: Address::Unix(path.into()), storage: storage.into() });
    }
    if targets.is_empty() {
        return Err("no server to pack: give HOST:PORT or -u PATH".into());
    }
    Ok(targets)
}

/// `HOST:PORT[:STORAGE]`
fn tcp_target(server: &str) -> Result<Target, String> {
    let wrong = || format!("'{server}' is not HOST:PORT[:STORAGE]");
    let (host, rest) = match server.strip_prefix('[') {
        Some(rest) => rest.split_once("]:").ok_or_else(wrong)?,
        None => server.split_once(':').ok_or_else(wrong)?,
    };
    let (port, storage) = rest.split_once(':').unwrap_or((rest, "1"));
    if storage.contains(':') {
        return Err(wrong());
    }
    let port = port_of(port).map_err(|_| wrong())?;
    Ok(Target {
        address: Address::Tcp { host: Some(host.into()), port: Some(port) },
        storage: storage.into(),
    })
}

fn port_of(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|&port| port > 0).ok_or_else(|| format!("'{text}' is not a port"))
}

/// Why a storage was not packed.
enum PackError {
    Lost(LinkError),
    Refused(AnswerError),
}

impl fmt::Display for PackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PackError::Lost(error) => write!(f, "the connection is lost: {error}"),
            PackError::Refused(error) => error.fmt(f),
        }
    }
}

/// What the server sends without a call does not matter here.
struct IgnorePushes;

impl Receiver for IgnorePushes {
    fn push(&self, _: &Link, _: ServerPush<'_>) {}
    fn ended(&self, _: &Link, _: &EndCause) {}
}

fn pack(target: &Target, time: f64) -> Result<(), String> {
    with_link(target, |link| {
        let call = Call::Pack { time, wait: true };
        wait_for(link, target, &call, |answer| answer.done()).map_err(|error| error.to_string())
    })
}

/// Prints what a pack would remove. Returns whether it would fail or be refused.
fn plan(target: &Target, time: f64, is_json: bool) -> Result<bool, String> {
    with_link(target, |link| {
        let info = ask(link, &Call::GetInfo, |answer| answer.value()).map_err(|error| error.to_string())?;
        if item(&info, INSTANCE_KEY).is_none() {
            return Err("Python's servers cannot tell what a pack would remove".into());
        }
        let answer = wait_for(link, target, &Call::PlanPack { time }, |answer| answer.value());
        let answer = answer.map_err(|error| error.to_string())?;
        let plan = plan_of(&answer).ok_or("the server's answer is no plan of a pack")?;
        let plans = [plan];
        let mut out = std::io::stdout().lock();
        let printed = match is_json {
            true => print_json(&mut out, &plans, DANGLING_SHOWN),
            false => writeln!(out, "{} {}", target.address, target.storage)
                .and_then(|()| print(&mut out, &plans, true, DANGLING_SHOWN)),
        };
        printed.map_err(|error| format!("cannot write the report: {error}"))?;
        Ok(has_findings(&plans))
    })
}

/// Calls `run` with a link that is registered.
fn with_link<T>(target: &Target, run: impl FnOnce(&Link) -> Result<T, String>) -> Result<T, String> {
    let link = connect(target)?;
    let register = Call::Register { storage: &target.storage, read_only: true };
    let registered = ask(&link, &register, |answer| answer.done());
    let done = registered.map_err(|error| error.to_string()).and_then(|()| run(&link));
    link.close();
    done
}

/// Waits for the answer to a call.
fn ask<T: Send + 'static>(
    link: &Link,
    call: &Call<'_>,
    read: impl FnOnce(Answer<'_>) -> Result<T, AnswerError> + Send + 'static,
) -> Result<T, PackError> {
    match link.call(call, None, read) {
        Ok(done) => done.map_err(PackError::Refused),
        Err(error) => Err(PackError::Lost(error)),
    }
}

/// Ends the pack that is running, and waits for its end.
fn cancel(target: &Target) -> Result<(), String> {
    with_link(target, |link| {
        let value =
            |call: &Call<'_>| ask(link, call, |answer| answer.value()).map_err(|error| error.to_string());
        if item(&value(&Call::GetInfo)?, INSTANCE_KEY).is_none() {
            return Err("Python's servers cannot cancel a pack".into());
        }
        let name = format!("{} {}", target.address, target.storage);
        match value(&Call::CancelPack { own_plan: false })? {
            Value::None => println!("{name}: no pack is running"),
            Value::Bool(true) => println!("{name}: the pack is cancelled"),
            _ => return Err("the pack has ended by itself: it could not be cancelled any more".into()),
        }
        Ok(())
    })
}

/// A link that waits for as long as a pack takes.
fn connect(target: &Target) -> Result<Link, String> {
    let begun = Stopwatch::start();
    loop {
        match dial(&target.address, &DialOptions::default(), &Cancel::default()) {
            Ok(dialled) => {
                let options = LinkOptions { silence: None, ..LinkOptions::default() };
                let link = link::start(dialled, Arc::new(IgnorePushes), options);
                return link.map_err(|error| format!("couldn't start a thread: {error}"));
            }
            Err(error @ (DialError::Protocol(_) | DialError::Authentication(_))) => {
                return Err(error.to_string());
            }
            Err(error) if begun.passed() + RETRY > CONNECT_MAX => {
                return Err(format!("couldn't connect: {error}"));
            }
            Err(_) => std::thread::sleep(RETRY),
        }
    }
}

/// What arrives during a pack.
enum Arrival<T> {
    Packed(Result<T, PackError>),
    /// `None`: the server could not tell its status.
    Status(Option<Value>),
}

/// Waits for the answer to a call that takes as long as a pack, and shows its progress on a terminal.
fn wait_for<T: Send + 'static>(
    link: &Link,
    target: &Target,
    call: &Call<'_>,
    read: fn(&Answer<'_>) -> Result<T, AnswerError>,
) -> Result<T, PackError> {
    let begun = Stopwatch::start();
    let mut terminal =
        Terminal { name: format!("{} {}", target.address, target.storage), begun, active: false };
    let (sender, arrivals) = mpsc::channel();
    let packed = sender.clone();
    link.start(call, move |_, answer| {
        let result = match answer {
            Ok(answer) => read(&answer).map_err(PackError::Refused),
            Err(error) => Err(PackError::Lost(error)),
        };
        // The other end waits for this.
        let _ = packed.send(Arrival::Packed(result));
    });
    // Older servers would close the connection.
    let knows_status = !link.wire().pickles_exceptions();
    let shows_progress = std::io::stderr().is_terminal();
    let mut is_asked = false;
    loop {
        let wait_max = if shows_progress { PROGRESS_INTERVAL } else { Duration::MAX };
        match arrivals.recv_timeout(wait_max) {
            Ok(Arrival::Packed(result)) => {
                if shows_progress {
                    terminal.end(result.is_ok() && matches!(call, Call::Pack { .. }));
                }
                return result;
            }
            Ok(Arrival::Status(status)) => {
                is_asked = false;
                if let Some(status) = status {
                    terminal.show(done_of(&status));
                    std::thread::sleep(PROGRESS_INTERVAL / 4);
                }
            }
            Err(_) if knows_status && !is_asked => {
                is_asked = true;
                let status = sender.clone();
                link.start(&Call::ServerStatus, move |_, answer| {
                    let value = answer.ok().and_then(|answer| answer.value().ok());
                    // Nobody waits any more if the pack has ended.
                    let _ = status.send(Arrival::Status(value));
                });
            }
            Err(_) => terminal.show(None),
        }
    }
}

/// The value of a key of a dict.
fn item<'v>(dict: &'v Value, name: &str) -> Option<&'v Value> {
    let Value::Dict(items) = dict else { return None };
    items.iter().find(|(key, _)| key.string() == Some(name.as_bytes())).map(|(_, value)| value)
}

/// The progress of the pack, or of the dry run, if the server reports it: `{'pack': {'done': ..., 'total': ...}}`.
fn done_of(status: &Value) -> Option<f64> {
    let pack = item(status, "pack").or_else(|| item(status, "pack-plan"))?;
    match (item(pack, "done")?, item(pack, "total")?) {
        (Value::Int(done), Value::Int(total)) if *total > 0 => Some(*done as f64 / *total as f64),
        _ => None,
    }
}

/// The progress line on a terminal, rewritten in place.
struct Terminal {
    name: String,
    begun: Stopwatch,
    active: bool,
}

impl Terminal {
    fn show(&mut self, done: Option<f64>) {
        let seconds = self.begun.passed().as_secs();
        let line = match done {
            Some(done) => format!("{}: {:.0} % done, {seconds} s", self.name, done.clamp(0.0, 1.0) * 100.0),
            None => format!("{}: {seconds} s", self.name),
        };
        // Without a terminal to write to there is no progress to show.
        let _ = write!(std::io::stderr(), "\r{line}\x1b[K");
        self.active = true;
    }

    fn end(&mut self, good: bool) {
        let mut stderr = std::io::stderr();
        if self.active {
            let _ = write!(stderr, "\r\x1b[K");
        }
        if good {
            let _ = writeln!(stderr, "{}: packed in {:.1} s", self.name, self.begun.passed().as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(arguments: &str) -> Result<Task, String> {
        let arguments: Vec<OsString> = arguments.split_whitespace().map(OsString::from).collect();
        match read_command_line("zeopack", &arguments)? {
            Wanted::Pack(task) => Ok(task),
            Wanted::Print(text) => Err(text),
        }
    }

    #[test]
    fn servers_in_all_forms() {
        let check = |arguments: &str, expected: &[&str]| {
            let targets = task(arguments).unwrap().targets;
            let found: Vec<String> = targets.iter().map(|t| format!("{} {}", t.address, t.storage)).collect();
            assert_eq!(found, expected, "{arguments}");
        };
        check("localhost:8100", &["localhost:8100 1"]);
        check("a:1:main -d 3 [::1]:2:x", &["a:1 main", "[::1]:2 x"]);
        check("-u /tmp/s -u ./t:main a:1", &["a:1 1", "/tmp/s 1", "./t main"]);
        check("-h host -p 99 -S main", &["host:99 main"]);
        check("-p 99", &["localhost:99 1"]);
        check("-U sock -S main", &["sock main"]);
        for wrong in ["a", "a:b", "a:1:b:c", "a:0", "-h host", "-d 1", "-u :x", "-u a:b:c", "-p x", "-x a:1"]
        {
            assert!(task(wrong).is_err(), "{wrong}");
        }
        assert!(task("--help").unwrap_err().contains("Usage: zeopack"));
        assert!(task("").unwrap_err().contains("Usage: zeopack"));
    }

    #[test]
    fn times() {
        let time = |arguments: &str| match task(arguments).unwrap().work {
            Work::Pack(time) => time.seconds(),
            Work::Plan { time, .. } => time.seconds(),
            Work::Cancel => panic!("{arguments}"),
        };
        let (days, hours) = (time("a:1 -d 2"), time("a:1 -t 3 --days=4"));
        assert!(hours < days, "{hours} {days}");
        assert!(matches!(task("a:1 --cancel").unwrap().work, Work::Cancel));
        assert!(matches!(task("a:1 --dry-run --json").unwrap().work, Work::Plan { is_json: true, .. }));
        assert!((time("a:1 -d 2 --dry-run") - days).abs() < 60.0);
        for wrong in [
            "-t 24",
            "-d x",
            "--cancel -d 1",
            "--cancel --time 3",
            "--cancel --dry-run",
            "--json",
            "--cancel --json",
        ] {
            assert!(task(&format!("a:1 {wrong}")).is_err(), "{wrong}");
        }
    }
}
