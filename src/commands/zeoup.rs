//! `zeoup`: whether a ZEO server, this one's or Python's, answers and takes transactions. For monitoring.
//!
//! Options, messages and exit codes are those of Python's `zeoup.py`, which works with few of its own versions: 0, and
//! the time that it took; 1, and why not. With `--nagios`: one line, and 0, 2 or 3.

use std::ffi::OsString;
use std::fmt;
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use getopts::Options;

use crate::base::address::Address;
use crate::base::cancel::Cancel;
use crate::base::clock::Stopwatch;
use crate::base::ids::Oid;
use crate::client::dial::{DialError, DialOptions, WITH_PASSWORDS, dial};
use crate::client::link::{self, EndCause, Link, LinkError, LinkOptions, Receiver};
use crate::client::records::{Class, ObjectRecord, ObjectsError, PersistentMapping, PyValue, RecordError};
use crate::client::{Client, ClientOptions};
use crate::net::tls::ClientTls;
use crate::storage::{StorageError, TransactionMeta};
use crate::wire::answers::{AnswerError, ServerPush};
use crate::wire::calls::Call;

/// Upper bound on the whole check. Python's script has none.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What to check.
#[derive(Debug)]
struct UpCheck {
    options: ClientOptions,
    writes: bool,
    nagios: bool,
    timeout: Duration,
}

/// The command line.
enum UpCommand {
    Check(Box<UpCheck>),
    Print(String),
}

/// What a check did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Did {
    Read,
    Wrote,
    /// Another program changed the counter at the same time: the server takes transactions.
    Conflicted,
    /// The database has no objects yet, and nothing was to be written.
    FoundNothing,
    /// The database has no objects yet.
    CommittedNothing,
}

impl fmt::Display for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Did::Read => "the root was loaded",
            Did::Wrote => "a transaction was committed",
            Did::Conflicted => "a transaction met a conflict",
            Did::FoundNothing => "the database has no root yet",
            Did::CommittedNothing => "an empty transaction was committed to an empty database",
        })
    }
}

/// Why the server is not up: the class of Python's exception, and a message.
#[derive(Debug)]
struct Failure(String);

impl Failure {
    fn new(class: &str, message: impl fmt::Display) -> Failure {
        Failure(format!("{class}: {message}"))
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Failure {
        let class = match &error {
            StorageError::Disconnected(_) => "ClientDisconnected",
            StorageError::ReadOnly => "ReadOnlyError",
            StorageError::PosKey(_) => "POSKeyError",
            StorageError::Server { class, message } => return Failure::new(class, message),
            _ => "StorageError",
        };
        Failure::new(class, &error)
    }
}

impl From<ObjectsError> for Failure {
    fn from(error: ObjectsError) -> Failure {
        match error {
            ObjectsError::Storage(error) => error.into(),
            other => Failure::new("ValueError", other),
        }
    }
}

impl From<RecordError> for Failure {
    fn from(error: RecordError) -> Failure {
        Failure::new("ValueError", error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The program `zeoup`. `program` is its name as called; `arguments` do not have it.
pub fn run(program: &str, arguments: &[OsString]) -> ExitCode {
    let is_nagios = arguments.iter().any(|argument| argument == "--nagios");
    let task = match read_command_line(program, arguments) {
        Ok(UpCommand::Check(task)) => task,
        Ok(UpCommand::Print(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(message) if is_nagios => {
            println!("ZEO UNKNOWN - {message}");
            return ExitCode::from(3);
        }
        Err(message) => {
            eprintln!("Error: {message}\nFor help, use {program} --help");
            return ExitCode::from(1);
        }
    };
    let begun = Stopwatch::start();
    let result = in_time(&task);
    let seconds = begun.passed().as_secs_f64();
    if task.nagios {
        return report_to_nagios(&task, result, seconds);
    }
    match result {
        Ok(_) => {
            println!("Elapsed time: {seconds:.2}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{failure}");
            ExitCode::from(1)
        }
    }
}

/// One line, as plug-ins of Nagios, Icinga and others print it.
fn report_to_nagios(task: &UpCheck, result: Result<Did, Failure>, seconds: f64) -> ExitCode {
    let addresses: Vec<String> = task.options.addresses.iter().map(ToString::to_string).collect();
    let what = format!("{} storage {}", addresses.join(" "), task.options.storage);
    let one_line = |text: String| text.replace(['\n', '|'], " ");
    match result {
        Ok(did) => {
            println!("{}|time={seconds:.3}s", one_line(format!("ZEO OK - {what}: {did} in {seconds:.2} s")));
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{}|time={seconds:.3}s", one_line(format!("ZEO CRITICAL - {what}: {failure}")));
            ExitCode::from(2)
        }
    }
}

fn help(program: &str) -> String {
    format!(
        "\
Find out whether a ZEO server answers and takes transactions.

Usage: {program} -p PORT [-h HOST] [options]
       {program} -U PATH [options]
       {program} --config FILE [options]

Which server:
  -p PORT          its port
  -h HOST          its host (default: localhost)
  -U PATH          its Unix socket
  -S STORAGE       the name of the storage (default: 1)
  --config FILE    a file with a <zeoclient> section, for what needs TLS or a password

What is checked:
  --nowrite        load the root only; without it, the counter root['monitor']['zeoup']
                   is incremented, and a conflict counts as success, too
  --timeout SECONDS  upper bound on the whole check (default: 30)

  --nagios         print one line, and exit with 0 (OK), 2 (CRITICAL) or 3 (UNKNOWN)
  --help, --version  print this, or the version
  -1               no meaning, as in Python

Exit status: 0 and 'Elapsed time: SECONDS' if the server is up; 1 and the reason if not.
"
    )
}

fn read_command_line(program: &str, arguments: &[OsString]) -> Result<UpCommand, String> {
    let mut options = Options::new();
    options.optopt("p", "", "", "").optopt("h", "", "", "").optopt("U", "", "", "").optopt("S", "", "", "");
    options.optflag("1", "", "").optflag("", "nowrite", "").optflag("", "nagios", "");
    options.optopt("", "timeout", "", "").optopt("", "config", "", "");
    options.optflag("", "help", "").optflag("", "version", "");
    let matches = options.parse(arguments).map_err(|problem| problem.to_string())?;
    if matches.opt_present("help") {
        return Ok(UpCommand::Print(help(program)));
    }
    if matches.opt_present("version") {
        return Ok(UpCommand::Print(format!("zeoup {}\n", env!("CARGO_PKG_VERSION"))));
    }
    if let Some(argument) = matches.free.first() {
        return Err(format!("'{argument}' is not an option"));
    }
    let writes = !matches.opt_present("nowrite");
    let timeout = match matches.opt_str("timeout") {
        None => TIMEOUT,
        Some(text) => match text.parse().ok().map(Duration::try_from_secs_f64) {
            Some(Ok(timeout)) if !timeout.is_zero() => timeout,
            _ => return Err(format!("--timeout: '{text}' is not a number of seconds")),
        },
    };
    let mut client = match (matches.opt_str("config"), matches.opt_str("U"), matches.opt_str("p")) {
        (Some(path), None, None) => {
            let text = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
            ClientOptions::from_zconfig(&text).map_err(|error| format!("{path}: {error}"))?
        }
        (None, Some(path), _) => ClientOptions::new(vec![Address::Unix(path.into())]),
        (None, None, Some(port)) => {
            let number = port.parse().ok().filter(|&port| port > 0);
            let port = number.ok_or_else(|| format!("-p: '{port}' is not a port"))?;
            // Python uses the name of the machine, which may have another address than the server.
            let host = matches.opt_str("h").unwrap_or_else(|| "localhost".into());
            ClientOptions::new(vec![Address::Tcp { host: Some(host), port: Some(port) }])
        }
        (Some(_), ..) => return Err("--config has the address: leave -p and -U out".into()),
        (None, None, None) => return Err("give -p PORT, -U PATH or --config FILE".into()),
    };
    if let Some(storage) = matches.opt_str("S") {
        client.storage = storage;
    }
    client.check().map_err(|error| error.to_string())?;
    // What the application's client keeps is not touched.
    (client.cache_path, client.blob_dir) = (None, None);
    client.read_only = !writes;
    client.read_only_fallback = false;
    (client.wait, client.wait_timeout) = (true, timeout);
    Ok(UpCommand::Check(Box::new(UpCheck {
        options: client,
        writes,
        nagios: matches.opt_present("nagios"),
        timeout,
    })))
}

/// The check in a thread of its own, whatever the server does with it. The process ends with the answer.
fn in_time(task: &UpCheck) -> Result<Did, Failure> {
    let (sender, results) = mpsc::channel();
    let (options, writes, timeout) = (task.options.clone(), task.writes, task.timeout);
    let started = thread::Builder::new().name("zeoup".into()).spawn(move || {
        // Nobody waits any more if it took too long.
        let _ = sender.send(check(options, writes, timeout));
    });
    started.map_err(|error| Failure::new("RuntimeError", error))?;
    results.recv_timeout(timeout).unwrap_or_else(|_| {
        Err(Failure::new("ClientDisconnected", format!("no answer within {} s", timeout.as_secs_f64())))
    })
}

fn check(options: ClientOptions, writes: bool, timeout: Duration) -> Result<Did, Failure> {
    probe(&options, timeout)?;
    let client = Client::open(options)?;
    let mut objects = client.objects();
    let mut root = match objects.root() {
        Ok(root) => root,
        // Who creates the root decides whether it is for Python 2 or 3.
        Err(ObjectsError::Storage(StorageError::PosKey(_))) if writes => {
            client.commit(client.transaction(TransactionMeta::default()))?;
            return Ok(Did::CommittedNothing);
        }
        // The server has answered.
        Err(ObjectsError::Storage(StorageError::PosKey(_))) => return Ok(Did::FoundNothing),
        Err(error) => return Err(error.into()),
    };
    if !writes {
        return Ok(Did::Read);
    }
    let format = root.record().format;
    let mut monitor = match root.reference("monitor") {
        Some(oid) => (oid, PersistentMapping::of(objects.load(oid)?)?),
        None => {
            let monitor = PersistentMapping::new(format);
            let oid = objects.add(monitor.clone())?;
            root.insert("monitor", objects.reference(oid)?);
            objects.store(Oid::ZERO, root)?;
            (oid, monitor)
        }
    };
    match monitor.1.reference("zeoup") {
        Some(oid) => {
            let mut counter = objects.load(oid)?;
            let value = counter.attribute("value").and_then(PyValue::as_integer);
            let value = value.and_then(|value| i64::try_from(value).ok()).unwrap_or_default();
            counter.set_attribute("value", PyValue::Int(value.saturating_add(1)))?;
            objects.store(oid, counter)?;
        }
        None => {
            let state = PyValue::Dict(vec![(format.native("value"), PyValue::Int(1))]);
            let counter = ObjectRecord::new(Class::new("ZODB.tests.MinPO", "MinPO"), state, format);
            let oid = objects.add(counter)?;
            monitor.1.insert("zeoup", objects.reference(oid)?);
            objects.store(monitor.0, monitor.1)?;
        }
    }
    match client.commit_objects(objects, TransactionMeta::default()) {
        Ok(_) => Ok(Did::Wrote),
        Err(error) if error.is_conflict() => Ok(Did::Conflicted),
        Err(error) => Err(error.into()),
    }
}

/// What the server sends without a call does not matter here.
struct Unheard;

impl Receiver for Unheard {
    fn push(&self, _: &Link, _: ServerPush<'_>) {}
    fn ended(&self, _: &Link, _: &EndCause) {}
}

/// Connects and registers once: the client itself would try again until the time is over, and would not say what the
/// server has answered.
fn probe(options: &ClientOptions, timeout: Duration) -> Result<(), Failure> {
    let tls = options.tls.as_ref().map(|tls| ClientTls::load(&tls.files, tls.host.clone()));
    let tls = tls.transpose().map_err(|error| Failure::new("ValueError", format!("<ssl>: {error}")))?;
    let dialling = DialOptions {
        credentials: options.credentials.clone(),
        tls: tls.map(Arc::new),
        time_max: timeout,
        ..DialOptions::default()
    };
    let mut failure = Failure::new("ClientDisconnected", "there is no address");
    for address in &options.addresses {
        let dial = |generation| {
            dial(address, &DialOptions { generation, ..dialling.clone() }, &Cancel::default())
                .map(|dialled| register(dialled, options))
        };
        let registered = match dial(None) {
            // It may take the password in an older protocol.
            Ok(Err(failure)) if options.credentials.is_some() && failure.0.contains("AuthError") => {
                dial(Some(WITH_PASSWORDS))
            }
            registered => registered,
        };
        match registered {
            Ok(registered) => return registered,
            Err(error) => {
                let class = match &error {
                    DialError::Authentication(_) => "AuthError",
                    DialError::Tls(_) => "SSLError",
                    _ => "ClientDisconnected",
                };
                failure = Failure::new(class, format!("{address}: {error}"));
            }
        }
    }
    Err(failure)
}

fn register(dialled: crate::client::dial::Dialled, options: &ClientOptions) -> Result<(), Failure> {
    let link = link::start(dialled, Arc::new(Unheard), LinkOptions::default());
    let link = link.map_err(|error| Failure::new("RuntimeError", error))?;
    let call = Call::Register { storage: &options.storage, read_only: options.read_only };
    let answer: Result<Result<(), AnswerError>, LinkError> = link.call(&call, None, |answer| answer.done());
    link.close();
    match answer {
        Ok(Ok(())) => Ok(()),
        Ok(Err(AnswerError::Raised(exception))) => Err(Failure(exception.to_string())),
        Ok(Err(error)) => Err(Failure::new("ProtocolError", error)),
        Err(error) => Err(Failure::new("ClientDisconnected", error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(arguments: &str) -> Result<UpCheck, String> {
        let arguments: Vec<OsString> = arguments.split_whitespace().map(OsString::from).collect();
        match read_command_line("zeoup", &arguments)? {
            UpCommand::Check(task) => Ok(*task),
            UpCommand::Print(text) => Err(text),
        }
    }

    #[test]
    fn command_lines() {
        let plain = task("-p 8100").unwrap();
        assert_eq!(
            plain.options.addresses,
            [Address::Tcp { host: Some("localhost".into()), port: Some(8100) }]
        );
        assert!(plain.writes && !plain.nagios && plain.timeout == TIMEOUT && plain.options.storage == "1");
        let all = task("-h db -p 99 -S main -1 --nowrite --nagios --timeout 2.5").unwrap();
        assert!(!all.writes && all.nagios && all.options.read_only && all.options.storage == "main");
        assert_eq!(all.timeout, Duration::from_millis(2500));
        assert_eq!(task("-U /tmp/s").unwrap().options.addresses, [Address::Unix("/tmp/s".into())]);
        for wrong in [
            "",
            "-h db",
            "-p x",
            "-p 0",
            "-p 1 more",
            "-p 1 --timeout 0",
            "-p 1 --timeout x",
            "--config /none",
            "-x",
        ] {
            assert!(task(wrong).is_err(), "{wrong}");
        }
        assert!(task("--help").unwrap_err().contains("Usage: zeoup"));
        assert_eq!(task("--version").unwrap_err(), format!("zeoup {}\n", env!("CARGO_PKG_VERSION")));
    }
}
