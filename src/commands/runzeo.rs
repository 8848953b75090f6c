//! `runzeo`: options -> configuration -> listening sockets -> storages -> server -> wait for a signal -> orderly stop.
//!
//! Exit codes: 0 after SIGTERM, SIGINT and `--test`; 1 after SIGHUP, so that a supervisor starts it anew, and if a storage
//! or the log cannot be opened; 2 for what is wrong with options, configuration or address.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::process::ExitCode;

use crate::base::sync::Arc;
use crate::commands::{log_setup, open};
use crate::config::{Config, Invocation, UsageError, ZeoConfig, from_command_line};
use crate::logging::{self, LogHandle};
use crate::net::listen::{self, Kind, ListenError, Listener};
use crate::process::pid_file::PidFile;
use crate::process::signals::{Signal, Signals};
use crate::server::Server;
use crate::server::hosted::{Hosted, HostedOptions, LOG};
use crate::server::workers::Workers;
use crate::storage::Storage;
use crate::wire::protocol::Announcement;

/// Logger of what concerns the process, as in Python.
const RUNZEO: &str = "ZEO.runzeo";

/// Why the server does not start.
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// Something outside the configuration is in the way.
    fn outside(message: String) -> Failure {
        Failure { code: 1, message }
    }
}

/// The whole program. `program` is its name as called.
pub fn run(program: &str, arguments: &[OsString]) -> ExitCode {
    let config = match from_command_line(program, arguments, &|name| std::env::var(name).ok()) {
        Ok(Invocation::Serve(config)) => config,
        Ok(Invocation::Check(config)) => {
            print!("{}", config.describe());
            return ExitCode::SUCCESS;
        }
        Ok(Invocation::Print(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprint!("{error}");
            return ExitCode::from(2);
        }
    };
    let setup = log_setup::log_setup(config.eventlog.as_ref());
    let log = match logging::setup(&setup) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("Error: {error}");
            return ExitCode::from(1);
        }
    };
    logging::install_panic_hook();
    match serve(program, &config, &log) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            if config.eventlog.is_some() {
                crate::critical!(target: RUNZEO, "({}) {}", std::process::id(), failure.message);
            }
            let usage = UsageError { program: program.to_string(), message: failure.message };
            match failure.code {
                2 => eprint!("{usage}"),
                _ => eprintln!("Error: {}", usage.message),
            }
            ExitCode::from(failure.code)
        }
    }
}

fn serve(program: &str, config: &Config, log: &LogHandle) -> Result<u8, Failure> {
    let pid = std::process::id();
    let mut signals =
        Signals::install().map_err(|error| Failure::outside(format!("can't handle signals: {error}")))?;
    for warning in &config.warnings {
        log::warn!(target: RUNZEO, "({pid}) {warning}");
    }
    raise_file_limit();

    let announcement = announcement(&config.zeo)?;
    let listeners = listen_on(&config.zeo)?;
    // Unlinks the sockets whatever happens from here on.
    let sockets = UnixSockets::of(&listeners);
    let monitors = match &config.zeo.monitor_address {
        Some(address) => listen::listen(address).map_err(|error| cannot_listen(address, error))?,
        None => Vec::new(),
    };
    // Python's server writes none when it is read-only.
    let pid_file = match config.zeo.read_only {
        false => PidFile::create(config.zeo.pid_filename.as_deref()),
        true => None,
    };
    let storages = open_storages(config)?;
    // Told to stop while a large file was scanned.
    while let Some(signal) = signals.poll() {
        if let Some(code) = heed(signal, log) {
            close_all(storages.iter().map(|hosted| (hosted.name.as_str(), &hosted.storage)));
            return Ok(code);
        }
    }
    log_created(&config.zeo, &storages);
    let server = Server::new(storages, announcement);
    let cannot_start = |error| Failure::outside(format!("can't start a thread: {error}"));
    // One address may have a socket for each IP version.
    if let Some(first) = listeners.first() {
        log::info!(target: "ZEO.zrpc", "({pid}) listening on {}", first.kind);
    }
    for listener in listeners {
        server.accept_on(listener).map_err(cannot_start)?;
    }
    for listener in monitors {
        server.monitor_on(listener).map_err(cannot_start)?;
    }

    let code = if config.exit_immediately { 0 } else { wait(&mut signals, log) };
    log::debug!(target: RUNZEO, "({pid}) {program} stops");
    server.stop();
    close_storages(&server);
    drop(sockets);
    drop(pid_file);
    if config.exit_immediately {
        let mut stdout = std::io::stdout();
        let _ = writeln!(stdout, "testing exit immediately").and_then(|()| stdout.flush());
    }
    Ok(code)
}

/// Until a signal ends the server. Returns the exit code.
fn wait(signals: &mut Signals, log: &LogHandle) -> u8 {
    loop {
        if let Some(code) = heed(signals.wait(), log) {
            return code;
        }
    }
}

/// Do what a signal asks for. The exit code, if it ends the server.
fn heed(signal: Signal, log: &LogHandle) -> Option<u8> {
    if let Some(farewell) = signal.farewell() {
        log::info!(target: RUNZEO, "({}) {farewell}", std::process::id());
    }
    if signal == Signal::ReopenLogs {
        log.reopen();
    }
    signal.exit_code()
}

/// What clients are told first: the newest protocol, or what `ZEO_SERVER_PROTOCOL` says.
fn announcement(zeo: &ZeoConfig) -> Result<Announcement, Failure> {
    let Some(name) = &zeo.announced_protocol else { return Ok(Announcement::new(zeo.msgpack)) };
    Announcement::from_env(name, zeo.msgpack).ok_or_else(|| Failure {
        code: 2,
        message: format!("ZEO_SERVER_PROTOCOL: no such protocol: '{name}'"),
    })
}

fn listen_on(zeo: &ZeoConfig) -> Result<Vec<Listener>, Failure> {
    // Two servers may share a port without an error from the kernel (one on `::`, one on 127.0.0.1), so ask first.
    if listen::is_in_use(&zeo.address) {
        return Err(cannot_listen(&zeo.address, ListenError::InUse));
    }
    listen::listen(&zeo.address).map_err(|error| cannot_listen(&zeo.address, error))
}

fn cannot_listen(address: &crate::base::address::Address, error: ListenError) -> Failure {
    match error {
        ListenError::InUse => {
            Failure { code: 2, message: format!("address {} already in use", address.python_repr()) }
        }
        ListenError::Io(error) => Failure::outside(format!("can't listen on {address}: {error}")),
    }
}

fn open_storages(config: &Config) -> Result<Vec<Arc<Hosted>>, Failure> {
    let pid = std::process::id();
    let workers = Workers::default();
    let options = HostedOptions {
        read_only: config.zeo.read_only,
        invalidation_queue_size: config.zeo.invalidation_queue_size,
        invalidation_age: config.zeo.invalidation_age,
        transaction_timeout: config.zeo.transaction_timeout,
    };
    let mut opened: Vec<(&str, Arc<dyn Storage>)> = Vec::new();
    for named in &config.storages {
        let name = &named.name;
        log::info!(target: RUNZEO, "({pid}) opening storage '{name}' using {}", open::kind(&named.storage));
        match open::open(&named.storage) {
            Ok(storage) => opened.push((name, storage)),
            Err(error) => {
                close_all(opened.iter().map(|(name, storage)| (*name, storage)));
                return Err(Failure::outside(format!("storage '{name}': {error}")));
            }
        }
    }
    let mut hosted = Vec::new();
    for (name, storage) in &opened {
        match Hosted::new(name.to_string(), Arc::clone(storage), options.clone(), workers.clone()) {
            Ok(one) => hosted.push(one),
            Err(error) => {
                close_all(opened.iter().map(|(name, storage)| (*name, storage)));
                return Err(Failure::outside(format!("storage '{name}': {error}")));
            }
        }
    }
    Ok(hosted)
}

fn log_created(zeo: &ZeoConfig, storages: &[Arc<Hosted>]) {
    let mode = |read_only: bool| if read_only { "RO" } else { "RW" };
    let list: Vec<String> = storages
        .iter()
        .map(|hosted| {
            format!("{}:{}:{}", hosted.name, mode(hosted.storage.is_read_only()), hosted.storage.name())
        })
        .collect();
    let server = mode(zeo.read_only);
    log::info!(target: LOG, "StorageServer created {server} with storages: {}", list.join(", "));
}

fn close_storages(server: &Server) {
    let storages: Vec<_> = server.storages().collect();
    close_all(storages.iter().map(|hosted| (hosted.name.as_str(), &hosted.storage)));
}

fn close_all<'a>(storages: impl Iterator<Item = (&'a str, &'a Arc<dyn Storage>)>) {
    for (name, storage) in storages {
        log::info!(target: LOG, "closing storage '{name}'");
        if let Err(error) = storage.close() {
            log::error!(target: LOG, "closing storage '{name}': {error}");
        }
    }
}

/// One descriptor per client: take as many as we may.
fn raise_file_limit() {
    match rustix::process::getrlimit(rustix::process::Resource::Nofile) {
        limit if limit.current < limit.maximum => {
            let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
            if let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised) {
                log::debug!(target: RUNZEO, "the limit of open files stays: {error}");
            }
        }
        _ => {}
    }
}

/// Paths to unlink at the end.
struct UnixSockets(Vec<std::path::PathBuf>);

impl UnixSockets {
    fn of(listeners: &[Listener]) -> UnixSockets {
        let path = |listener: &Listener| match &listener.kind {
            Kind::Unix(path) => Some(path.clone()),
            Kind::Tcp { .. } => None,
        };
        UnixSockets(listeners.iter().filter_map(path).collect())
    }
}

impl Drop for UnixSockets {
    fn drop(&mut self) {
        for path in &self.0 {
            // Somebody else may have removed it.
            let _ = fs::remove_file(path);
        }
    }
}
