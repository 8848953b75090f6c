//! The admin socket: what `zeoadmin` asks a running server, and what it has it do.
//!
//! - `exchange`: a request and its answer, lines of JSON
//! - `caller`: the process that calls; only root and the user of the server are answered
//! - `steered`: what is looked at and changed
//! - `clients`, `packs`, `indexes`, `log_level`, `configuration`, `cluster`: the commands
//!
//! The socket answers from before the storages are opened until the server stops, each connection in a thread of its
//! own. A caller delays no client: what it asks for goes through the same doors as the requests of clients.

mod caller;
mod clients;
mod cluster;
mod configuration;
mod exchange;
mod indexes;
mod log_level;
mod packs;
mod steered;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

pub(super) use self::caller::Caller;
use self::caller::LOG;
use self::exchange::{AdminCall, Exchange};
pub(super) use self::steered::Steered;
use crate::base::address::Address;
use crate::base::clock::TimeSource;
use crate::base::sync::Arc;
use crate::base::untrusted::Untrusted;
use crate::commands::cluster::Member;
use crate::net::listen::{self, ListenError, Listener, SocketAccess};
use crate::server::Server;
use crate::server::audit::Event;
use crate::server::stop_signal::StopSignal;

/// The mode of the socket.
const MODE: u32 = 0o600;
/// Connections that are answered at the same time.
const CONNECTIONS_MAX: usize = 16;
/// Pause after an error that will not go away at once (no descriptors left).
const ERROR_PAUSE: Duration = Duration::from_millis(100);
const STACK: usize = 512 << 10;

/// A command: what it does with the arguments of a request. An error is a sentence for the caller.
type Command = fn(&Steered, &AdminCall, &mut Exchange) -> Result<Value, String>;

/// What a request may ask for.
const COMMANDS: &[(&str, Command)] = &[
    ("status", clients::status),
    ("kill", clients::kill),
    ("pack", packs::pack),
    ("cancel-pack", packs::cancel),
    ("save-index", indexes::save),
    ("log-level", log_level::set),
    ("check", configuration::check),
    ("reload", configuration::reload),
    ("role", cluster::role),
    ("promote", cluster::promote),
    ("demote", cluster::demote),
    ("follow", cluster::follow),
];

/// Does what a request asks for.
fn answer(steered: &Steered, call: &AdminCall, exchange: &mut Exchange) -> Result<Value, String> {
    let name = call.text("command")?.ok_or("the request has no command")?;
    let command = COMMANDS.iter().find(|(known, _)| *known == name);
    let version = env!("CARGO_PKG_VERSION");
    let (_, command) = command.ok_or_else(|| format!("runzeo {version} has no command '{name}'"))?;
    let result = command(steered, call, exchange);
    // Packs have lines of their own.
    if !matches!(name, "status" | "check" | "role" | "pack")
        && let Ok(server) = steered.server()
    {
        server.audit().note(Event::Admin, None, None, |facts| {
            facts.insert("by".into(), call.caller.to_string().into());
            facts.insert("request".into(), call.shown().into());
            // A reload that has failed says so in its result.
            let of_result = |result: &Value| result.get("error").and_then(Value::as_str).map(String::from);
            let error = result.as_ref().map_or_else(|error| Some(error.clone()), of_result);
            let error = error.map(|error| Untrusted(&error).to_string());
            facts.insert("error".into(), error.into());
        });
    }
    result
}

/// The listening socket, which is closed and removed when this is dropped.
pub(super) struct AdminSocket {
    listener: Arc<Listener>,
    path: PathBuf,
    steered: Arc<Steered>,
    stop: Arc<StopSignal>,
}

impl AdminSocket {
    /// Listens at `path`, and answers from now on.
    pub(super) fn start(path: &Path, steered: Steered) -> Result<AdminSocket, ListenError> {
        let access = SocketAccess { mode: Some(MODE), group: None };
        let mut listeners = listen::listen(&Address::Unix(path.into()), access)?;
        let listener = listeners.pop().ok_or_else(|| io::Error::other("there is no socket"))?;
        let socket = AdminSocket {
            listener: Arc::new(listener),
            path: path.into(),
            steered: Arc::new(steered),
            stop: Arc::default(),
        };
        let (listener, steered) = (Arc::clone(&socket.listener), Arc::clone(&socket.steered));
        let stop = Arc::clone(&socket.stop);
        thread::Builder::new()
            .name("zeo-admin".into())
            .stack_size(STACK)
            .spawn(move || accept(&listener, &steered, &stop))?;
        log::info!(target: LOG, "zeoadmin is answered at {}", path.display());
        Ok(socket)
    }

    /// All storages are open.
    pub(super) fn serves(&self, server: &Arc<Server>, member: Option<&Member>) {
        self.steered.set_server(server, member);
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        self.stop.stop();
        self.listener.end();
        // Another process may have removed it.
        let _ = fs::remove_file(&self.path);
    }
}

/// Answers each connection in a thread of its own, until the server stops.
fn accept(listener: &Listener, steered: &Arc<Steered>, stop: &StopSignal) {
    let clock = TimeSource::default();
    let connections = Arc::default();
    while !stop.is_stopped() {
        let socket = match listener.accept() {
            Ok((socket, _)) => socket,
            Err(error) => {
                log::debug!(target: LOG, "a connection cannot be accepted: {error}");
                stop.wait(&clock, ERROR_PAUSE);
                continue;
            }
        };
        let exchange = match Exchange::new(socket) {
            Ok(exchange) => exchange,
            Err(error) => {
                log::debug!(target: LOG, "a connection is gone already: {error}");
                continue;
            }
        };
        let seat = Seat::one_more(&connections);
        let steered = Arc::clone(steered);
        let spawned = thread::Builder::new().name("zeo-admin-call".into()).stack_size(STACK);
        if let Err(error) = spawned.spawn(move || serve(&seat, &steered, exchange)) {
            log::error!(target: LOG, "can't start a thread for zeoadmin: {error}");
        }
    }
}

/// One of the connections that are answered at the same time, counted until this is dropped.
struct Seat {
    connections: Arc<AtomicUsize>,
    /// How many there are.
    number: usize,
}

impl Seat {
    fn one_more(connections: &Arc<AtomicUsize>) -> Seat {
        let number = connections.fetch_add(1, Ordering::Relaxed) + 1;
        Seat { connections: Arc::clone(connections), number }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

fn serve(seat: &Seat, steered: &Steered, mut exchange: Exchange) {
    let answered = match Caller::of(exchange.socket()) {
        Err(refused) => Err(refused),
        Ok(_) if seat.number > CONNECTIONS_MAX => {
            Err(format!("the server answers {CONNECTIONS_MAX} calls of zeoadmin already: try again"))
        }
        Ok(caller) => exchange.call(caller).and_then(|call| answer(steered, &call, &mut exchange)),
    };
    exchange.finish(answered);
}
