//! `runzeo`: options -> configuration -> address -> files -> listening sockets -> storages -> server ->
//! wait for a signal -> orderly stop.
//!
//! Invariant: all files that clients look at (lock, pid file, `Data.fs`, blob directories with their markers) exist
//! before the first client can connect. Clients that share a blob directory check it in their constructor and fail
//! without one. The slow part, reading a large file, comes later; then clients wait in the kernel's queue, without
//! backing off.
//!
//! Exit codes: 0 after SIGTERM, SIGINT and `--test`; 1 after SIGHUP, so that a supervisor restarts the server, and if a
//! storage or the log cannot be opened; 2 if the options, the configuration or the address cannot be used.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::base::address::Address;
use crate::base::clock::TimeSource;
use crate::base::sync::Arc;
use crate::commands::Extensions;
use crate::commands::admin_socket::{AdminSocket, Steered};
use crate::commands::backups::Backups;
use crate::commands::cluster::{self, Member};
use crate::commands::doors::Doors;
use crate::commands::failure::Failure;
use crate::commands::given::Given;
use crate::commands::http::{Http, disk_places};
use crate::commands::listening::{self, Certificates, Common};
use crate::commands::open::{self, Prepared};
use crate::commands::opening::Opening;
use crate::commands::reload::jobs::{Jobs, pack_plans};
use crate::commands::reload::{Reloader, Running};
use crate::commands::scrubs::Scrubs;
use crate::commands::supervised::Supervised;
use crate::config::{AuditConfig, Config, NamedStorage, Reading, UsageError, Written, ZeoConfig};
use crate::conflict::merge_time::Timed;
use crate::conflict::{Chain, Resolver};
use crate::logging::{self, LogHandle};
use crate::net::listen::{self, Bound, ListenError, SocketAccess};
use crate::process::activation::{self, Passed};
use crate::process::memory;
use crate::process::pid_file::PidFile;
use crate::process::signals::{Signal, Signals};
use crate::server::Server;
use crate::server::audit::AuditLog;
use crate::server::client_log::LOG;
use crate::server::hosted::Hosted;
use crate::server::policy::Authentication;
use crate::server::record_memory::RecordMemory;
use crate::server::workers::Pools;
use crate::storage::Storage;

/// Python's logger for messages about the process.
const RUNZEO: &str = "ZEO.runzeo";

/// The program `runzeo`, until a signal ends it. `program` is its name as called; `arguments` do not have it.
pub fn run(program: &str, arguments: &[OsString]) -> ExitCode {
    run_with(&Extensions::default(), program, arguments)
}

/// The same with storages and authentication protocols that a program adds.
///
/// Parses `arguments` and reads the configuration, and prints errors in them to stderr; or serves until SIGTERM, SIGINT
/// or SIGHUP. Installs signal handlers, a panic hook and the process's log, so it can be called once in a process. The
/// exit codes are those of the module's documentation. `program` is the name in messages; `arguments` do not have it.
///
/// ```
/// use runzeo::commands::{Extensions, runzeo::run_with};
///
/// let extensions = Extensions::default();
/// // extensions.storages.register(..);
/// // extensions.protocols.register(..);
/// // In a program these are `std::env::args_os().skip(1).collect::<Vec<_>>()`.
/// let arguments = ["--version".into()];
/// run_with(&extensions, "my_server", &arguments);
/// ```
pub fn run_with(extensions: &Extensions, program: &str, arguments: &[OsString]) -> ExitCode {
    let given =
        Given { extensions: extensions.clone(), program: program.into(), arguments: arguments.to_vec() };
    let (config, written) = match given.read() {
        Ok(Reading::Config { config, written, is_check: false }) => (config, written),
        Ok(Reading::Config { config, .. }) => {
            print!("{}", config.describe());
            return ExitCode::SUCCESS;
        }
        Ok(Reading::Print(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprint!("{error}");
            return ExitCode::from(2);
        }
    };
    // Before any file is opened.
    let passed = match activation::take(&|name| std::env::var(name).ok()) {
        Ok(passed) => passed,
        Err(message) => {
            eprintln!("Error: {message}");
            return ExitCode::from(1);
        }
    };
    let log = match logging::setup(&config.log) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("Error: {error}");
            return ExitCode::from(1);
        }
    };
    logging::install_panic_hook();
    let clock = TimeSource::default();
    let opening = Arc::new(Opening::new(&config.storages));
    let signals = Signals::install();
    let served = signals
        .map_err(|error| Failure::outside(format!("can't handle signals: {error}")))
        .and_then(|signals| {
            let manager = Supervised::start(Arc::clone(&opening), signals.end_is_asked(), clock)
                .map_err(|error| Failure::outside(format!("can't start a thread: {error}")))?;
            let start = Start {
                given: Arc::new(given),
                config: &config,
                written: &written,
                log: &log,
                opening: &opening,
                manager: &manager,
            };
            let served = serve(&start, signals, passed);
            served.inspect_err(|failure| manager.fails(&failure.message))
        });
    match served {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            if config.log.configured {
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

/// Reads the password file.
fn authentication(given: &Given, zeo: &ZeoConfig) -> Result<Option<Arc<Authentication>>, Failure> {
    let demanded = listening::authentication(&given.extensions.protocols, zeo)?;
    if let Some(Authentication { name, .. }) = demanded.as_deref() {
        log::info!(target: LOG, "StorageServer: using auth protocol: {name}");
    }
    Ok(demanded)
}

/// What a server is started with.
struct Start<'a> {
    given: Arc<Given>,
    config: &'a Config,
    /// How the configuration is written.
    written: &'a Written,
    log: &'a LogHandle,
    opening: &'a Arc<Opening>,
    manager: &'a Supervised,
}

fn serve(start: &Start<'_>, mut signals: Signals, passed: Vec<Passed>) -> Result<u8, Failure> {
    let Start { ref given, config, written, log, opening, manager } = *start;
    memory::keep_little();
    let pid = std::process::id();
    config.warnings.iter().for_each(|warning| log::warn!(target: RUNZEO, "({pid}) {warning}"));
    let descriptors = raise_file_limit();

    let authentication = authentication(given, &config.zeo)?;
    let certificates = Arc::new(Certificates::load(&config.zeo.listeners, config.http.as_ref())?);
    let bound = listening::bind(&config.zeo.listeners, passed)?;
    let bound_monitor = bind_monitor(&config.zeo)?;
    let audit = config.audit.as_ref().map(|audit| open_audit(audit, log)).transpose()?;
    let http = start_http(config, &certificates, opening)?;
    // Removes its socket at each return.
    let reloader = Reloader::new(given, log, config, Arc::clone(&certificates), manager);
    let admin = start_admin(given, config, opening, log, &reloader)?;
    // Python's read-only server writes none.
    let pid_file = Some(&config.zeo).filter(|zeo| !zeo.hosted.read_only);
    let pid_file = pid_file.and_then(|zeo| PidFile::create(zeo.pid_filename.as_deref()));
    let prepared = prepare_storages(config)?;
    // Their files are unlinked at each return.
    let listeners = bound.listen(&config.zeo.listeners, &certificates)?;
    let monitors = match bound_monitor {
        Some((address, bound)) => bound.listen().map_err(|error| cannot_listen(address, error))?,
        None => Vec::new(),
    };
    let member = Member::start(config)?;
    let storages = open_storages(config, prepared, opening, member.as_ref())?;
    let resolver = start_resolver(config, &storages)?;
    // A signal to stop may have come while a large file was scanned.
    while let Some(signal) = signals.poll() {
        if let Some(code) = handle(signal, log, &reloader) {
            manager.stops();
            resolver.stop();
            member.iter().for_each(Member::end);
            close_all(storages.iter().map(|hosted| (hosted.name.as_str(), &hosted.storage)));
            return Ok(code);
        }
    }
    log_created(&config.zeo, &storages);
    let (limits, clock) = (config.zeo.limits.clone(), TimeSource::default());
    let server =
        Server::new(storages, config.zeo.greeting, limits, descriptors, clock).map_err(cannot_start)?;
    let common = Common::new(config, authentication, server.clock().now(), None);
    audit.into_iter().for_each(|audit| server.set_audit(audit));
    let doors = Doors::open(&server, listeners, |listener| common.policy(listener)).map_err(cannot_start)?;
    monitors.into_iter().try_for_each(|listener| server.monitor_on(listener)).map_err(cannot_start)?;
    server.pack_by_schedule(pack_plans(config, &server)).map_err(cannot_start)?;
    let backups = Backups::start(config, &server, &TimeSource::default()).map_err(cannot_start)?;
    let scrubs = Scrubs::start(config, &server, &TimeSource::default()).map_err(cannot_start)?;

    watch(&server, config, http.is_some() || admin.is_some()).map_err(cannot_start)?;
    let jobs = Jobs { backups, scrubs };
    reloader.begin(Running::new(&server, config, written, doors, http.clone(), common, jobs));
    member.iter().try_for_each(|member| member.begin(&server))?;
    http.iter().for_each(|http| http.serves(&server));
    admin.iter().for_each(|admin| admin.serves(&server, member.as_ref()));
    manager.serves(&server);

    let code = if config.exit_immediately { 0 } else { wait(&mut signals, log, &reloader) };
    manager.stops();
    http.iter().for_each(|http| http.stops());
    log::debug!(target: RUNZEO, "({pid}) {} stops", given.program);
    drop(admin);
    // A reload that goes on is waited for.
    let mut running = reloader.end();
    // Early, so that no vote waits for a helper.
    resolver.stop();
    running.iter_mut().for_each(Running::stop_jobs);
    member.iter().for_each(Member::stops);
    server.stop();
    member.iter().for_each(Member::end);
    close_storages(&server);
    drop((http, running, pid_file));
    if config.exit_immediately {
        say_that_it_exits();
    }
    Ok(code)
}

/// What `--test` prints.
fn say_that_it_exits() {
    let mut stdout = std::io::stdout();
    let _ = writeln!(stdout, "testing exit immediately").and_then(|()| stdout.flush());
}

fn open_audit(config: &AuditConfig, log: &LogHandle) -> Result<AuditLog, Failure> {
    let file = logging::open_audit(log, &config.file)
        .map_err(|error| Failure::outside(format!("<audit>: {error}")))?;
    Ok(AuditLog::new(file, config.events.clone(), TimeSource::default()))
}

/// Notes what monitoring shows, if anything can show it.
fn watch(server: &Arc<Server>, config: &Config, is_shown: bool) -> io::Result<()> {
    if !is_shown {
        return Ok(());
    }
    server.watch_disks(disk_places(config))?;
    server.record_history();
    config.file.iter().for_each(|file| server.set_configuration(absolute(file)));
    Ok(())
}

/// The path of the configuration file from the root, for people who do not know where the server was started.
fn absolute(file: &str) -> String {
    match file.starts_with("file:") {
        true => file.into(),
        false => std::path::absolute(file).map_or_else(|_| file.into(), |path| path.display().to_string()),
    }
}

/// Waits until a signal ends the server. Returns the exit code.
fn wait(signals: &mut Signals, log: &LogHandle, reloader: &Reloader) -> u8 {
    loop {
        if let Some(code) = handle(signals.wait(), log, reloader) {
            return code;
        }
    }
}

/// Handles a signal. Returns the exit code if it ends the server.
fn handle(signal: Signal, log: &LogHandle, reloader: &Reloader) -> Option<u8> {
    if let Some(message) = signal.stop_message() {
        log::info!(target: RUNZEO, "({}) {message}", std::process::id());
    }
    if signal == Signal::ReopenLogs {
        log.reopen();
        reloader.certificates().reload();
    }
    signal.exit_code()
}

/// Binds `monitor-address`.
fn bind_monitor(zeo: &ZeoConfig) -> Result<Option<(&Address, Bound)>, Failure> {
    let Some(address) = &zeo.monitor_address else { return Ok(None) };
    let bound =
        listen::bind(address, SocketAccess::default()).map_err(|error| cannot_listen(address, error))?;
    Ok(Some((address, bound)))
}

/// Listens at `admin-socket`, if it is given.
fn start_admin(
    given: &Arc<Given>,
    config: &Config,
    opening: &Arc<Opening>,
    log: &LogHandle,
    reloader: &Arc<Reloader>,
) -> Result<Option<AdminSocket>, Failure> {
    let Some(path) = &config.zeo.admin_socket else { return Ok(None) };
    let socket = AdminSocket::start(path, Steered::new(given, opening, log, reloader));
    socket.map(Some).map_err(|error| cannot_listen(&Address::Unix(path.clone()), error))
}

/// Serves `<http>`, if there is one.
fn start_http(
    config: &Config,
    certificates: &Certificates,
    opening: &Arc<Opening>,
) -> Result<Option<Arc<Http>>, Failure> {
    let Some(http) = &config.http else { return Ok(None) };
    let access = SocketAccess { mode: http.socket_mode, group: None };
    let listeners =
        listen::listen(&http.address, access).map_err(|error| cannot_listen(&http.address, error))?;
    Ok(Some(Arc::new(Http::start(http, listeners, certificates, opening).map_err(cannot_start)?)))
}

fn cannot_start(error: io::Error) -> Failure {
    Failure::outside(format!("can't start a thread: {error}"))
}

fn cannot_listen(address: &Address, error: ListenError) -> Failure {
    match error {
        ListenError::InUse => {
            Failure { code: 2, message: format!("address {} already in use", address.python_repr()) }
        }
        ListenError::Io(error) => Failure::outside(format!("can't listen on {address}: {error}")),
    }
}

/// Creates and locks the files and directories that a client can see. Dropping a prepared storage releases its locks.
fn prepare_storages(config: &Config) -> Result<Vec<(&str, Prepared)>, Failure> {
    let pid = std::process::id();
    let prepare = |named: &NamedStorage| {
        let name = &named.name;
        log::info!(target: RUNZEO, "({pid}) opening storage '{name}' using {}", open::kind(&named.storage));
        let record_len_max = config.zeo.limits.message_size;
        open::prepare(&named.storage, record_len_max)
            .map_err(|error| Failure::outside(format!("storage '{name}': {error}")))
    };
    config.storages.iter().map(|named| Ok((named.name.as_str(), prepare(named)?))).collect()
}

fn open_storages(
    config: &Config,
    prepared: Vec<(&str, Prepared)>,
    opening: &Opening,
    member: Option<&Member>,
) -> Result<Vec<Arc<Hosted>>, Failure> {
    // Memory for two of the largest records at a time, or more smaller ones.
    let clock = TimeSource::default();
    let record_memory = RecordMemory::new(config.zeo.limits.message_size.saturating_mul(2), clock.clone());
    let workers = Pools::start(record_memory, &clock)
        .map_err(|error| Failure::outside(format!("can't start a thread: {error}")))?;
    let mut opened: Vec<(&str, Arc<dyn Storage>)> = Vec::new();
    for (name, prepared) in prepared {
        match prepared(&|file| cluster::replicated(member, name, file)) {
            Ok(storage) => {
                opened.push((name, storage));
                opening.has_opened_one();
            }
            Err(error) => {
                close_all(opened.iter().map(|(name, storage)| (*name, storage)));
                return Err(Failure::outside(format!("storage '{name}': {error}")));
            }
        }
    }
    let mut hosted = Vec::new();
    for (name, storage) in &opened {
        let (options, workers) = (config.zeo.hosted.clone(), workers.clone());
        match Hosted::new(name.to_string(), Arc::clone(storage), options, workers, clock.clone()) {
            Ok(one) => hosted.push(one),
            Err(error) => {
                close_all(opened.iter().map(|(name, storage)| (*name, storage)));
                return Err(Failure::outside(format!("storage '{name}': {error}")));
            }
        }
    }
    Ok(hosted)
}

/// The conflict resolution of all storages. Helper processes are started only if a storage can be written, or may be
/// later: a replica can be promoted.
fn start_resolver(config: &Config, storages: &[Arc<Hosted>]) -> Result<Arc<Chain>, Failure> {
    let writes = config.replication.is_some() || storages.iter().any(|one| !one.is_read_only());
    let settings = config.zeo.conflict_resolver.clone().filter(|_| writes);
    let chain = Chain::new(settings)
        .map_err(|error| Failure::outside(format!("can't start the thread of conflict-resolver: {error}")))?;
    let chain = Arc::new(chain);
    for hosted in storages {
        hosted.storage.set_resolver(Arc::new(Timed(Arc::clone(&chain) as Arc<dyn Resolver>)));
    }
    Ok(chain)
}

fn log_created(zeo: &ZeoConfig, storages: &[Arc<Hosted>]) {
    let mode = |read_only: bool| if read_only { "RO" } else { "RW" };
    let list: Vec<String> = storages
        .iter()
        .map(|hosted| {
            format!("{}:{}:{}", hosted.name, mode(hosted.storage.is_read_only()), hosted.storage.name())
        })
        .collect();
    let server = mode(zeo.hosted.read_only);
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

/// Raises the limit of open files, of which each client needs one, to the hard limit. Returns the number.
fn raise_file_limit() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let mut current = limit.current;
    if limit.current < limit.maximum {
        let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
        match rustix::process::setrlimit(rustix::process::Resource::Nofile, raised) {
            Ok(()) => current = limit.maximum,
            Err(error) => log::debug!(target: RUNZEO, "the limit of open files cannot be raised: {error}"),
        }
    }
    current.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX)
}
