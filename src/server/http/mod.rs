//! HTTP for operators: the status page, `/live`, `/startup`, `/ready`, `/metrics` and `/status.json`.
//!
//! | file | content |
//! |---|---|
//! | this one | the listeners, and the threads that answer |
//! | `connection` | bytes, with TLS or without, within time limits |
//! | [`names`] | which names are the server's |
//! | [`head`] | a request is read, within bounds |
//! | [`reply`] | a response is sent, within a time limit |
//! | [`page`] | the status page |
//! | [`site`] | which response belongs to which path |
//!
//! A connection is for one request: a thread of its own reads it, answers, and ends. There are at most [`HANDLERS_MAX`]
//! of them, and each ends within the time limits of reading and sending; a connection that is one too many gets an
//! answer that says so (503) by the thread that accepts, without waiting. So peers that are slow, or many, take neither
//! threads nor descriptors from the clients of ZEO, and nothing that serves those waits for anything here.
//!
//! It listens before the storages are open, so that a probe hears of a long start, and until they are closed.

mod connection;
pub mod head;
pub mod names;
pub mod page;
pub mod reply;
pub mod site;

use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arc_swap::ArcSwap;

use self::connection::HttpConnection;
use self::head::{Head, Method, Unread};
use self::names::OwnNames;
use self::reply::Reply;
use self::site::Site;
use crate::base::clock::{IoDeadline, TimeSource};
use crate::base::level::{ERROR, WARNING};
use crate::base::network::Networks;
use crate::base::sync::{Arc, AtomicUsize, Ordering};
use crate::net::listen::Listener;
use crate::net::tls::layer::HandshakeError;
use crate::server::client_log::{self, log_without_peer};
use crate::server::peer::Peer;
use crate::server::stop_signal::StopSignal;

const TARGET: &str = "ZEO.http";
/// Requests that are answered at the same time.
pub const HANDLERS_MAX: usize = 8;
/// Time limit of a request, from the connection to its last byte.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// Time limit of a response.
const REPLY_TIME: Duration = Duration::from_secs(5);
/// Longest pause after an error that will not go away at once (no descriptors left).
const ERROR_PAUSE: Duration = Duration::from_millis(100);
const ACCEPTOR_STACK: usize = 128 << 10;
const HANDLER_STACK: usize = 512 << 10;

/// The listeners. They end when this is dropped.
pub struct HttpServer {
    listeners: Vec<Arc<Listener>>,
    handlers: Arc<Handlers>,
    stop: Arc<StopSignal>,
    threads: Vec<JoinHandle<()>>,
}

/// What is answered. The default answers all.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// The networks whose connections are answered; `None`: all. A Unix socket has no networks.
    pub allow: Option<Networks>,
    /// The names that requests are for, but for those of probes; `None`: that does not matter.
    pub names: Option<OwnNames>,
}

/// What the threads of the listeners share.
struct Handlers {
    site: Arc<Site>,
    /// A reload replaces them.
    rules: ArcSwap<Rules>,
    /// Number of requests that are being answered.
    busy: AtomicUsize,
}

/// One of the threads that may answer, until this is dropped.
struct Slot(Arc<Handlers>);

impl HttpServer {
    /// Answers on these sockets, from threads of its own.
    pub fn start(listeners: Vec<Listener>, rules: Rules, site: &Arc<Site>) -> io::Result<HttpServer> {
        let rules = ArcSwap::from_pointee(rules);
        let handlers = Arc::new(Handlers { site: Arc::clone(site), rules, busy: AtomicUsize::new(0) });
        let mut server = HttpServer {
            listeners: Vec::new(),
            handlers: Arc::clone(&handlers),
            stop: Arc::default(),
            threads: Vec::new(),
        };
        for listener in listeners.into_iter().map(Arc::new) {
            log::info!(target: TARGET, "listening on {}", listener.endpoint);
            server.listeners.push(Arc::clone(&listener));
            let (stop, handlers) = (Arc::clone(&server.stop), Arc::clone(&handlers));
            let accept = move || accept_loop(&listener, &stop, &handlers);
            let thread = thread::Builder::new().name("zeo-http".into()).stack_size(ACCEPTOR_STACK);
            server.threads.push(thread.spawn(accept)?);
        }
        Ok(server)
    }

    /// Where it listens.
    pub fn listeners(&self) -> &[Arc<Listener>] {
        &self.listeners
    }

    /// Has later connections follow these.
    pub fn set_rules(&self, rules: Rules) {
        self.handlers.rules.store(Arc::new(rules));
    }
}

impl Drop for HttpServer {
    /// Requests that are being answered are not waited for.
    fn drop(&mut self) {
        self.stop.stop();
        self.listeners.iter().for_each(|listener| listener.end());
        for thread in self.threads.drain(..) {
            // A panic was logged by the hook.
            let _ = thread.join();
        }
    }
}

fn accept_loop(listener: &Listener, stop: &StopSignal, handlers: &Arc<Handlers>) {
    let mut is_logged = false;
    while !stop.is_stopped() {
        let (socket, address) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(_) if stop.is_stopped() => return,
            Err(error) => {
                if !std::mem::replace(&mut is_logged, true) {
                    let what = format_args!("Can't accept a connection on {}: {error}", listener.endpoint);
                    log_without_peer(&client_log::NOT_SERVED, ERROR, what);
                }
                stop.wait(&TimeSource::SYSTEM, ERROR_PAUSE);
                continue;
            }
        };
        is_logged = false;
        if let Some(address) = address.as_socket().filter(|address| !handlers.allows(*address)) {
            let message = format_args!("refused: 'allow' of <http> does not have this address");
            Peer::new(0, address.to_string()).log(&client_log::NOT_ALLOWED, WARNING, message);
            continue;
        }
        let Some(slot) = handlers.take_slot() else {
            // With TLS there would have to be a handshake first.
            if listener.tls().is_none() {
                reply::refuse_busy(&socket);
            }
            continue;
        };
        let tls = match listener.tls().map(|tls| tls.begin()).transpose() {
            Ok(tls) => tls,
            Err(error) => {
                let what = format_args!("TLS can't begin on {}: {error}", listener.endpoint);
                log_without_peer(&client_log::NOT_SERVED, ERROR, what);
                continue;
            }
        };
        let peer = address.as_socket().map_or_else(|| listener.endpoint.to_string(), |peer| peer.to_string());
        let connection = HttpConnection::new(socket, tls);
        let handle = move || serve(&connection, peer, &slot.0);
        // Without a thread the connection is closed; the peer tries again.
        let spawned =
            thread::Builder::new().name("zeo-http-reply".into()).stack_size(HANDLER_STACK).spawn(handle);
        if let Err(error) = spawned {
            let what = format_args!("Can't start a thread for a request: {error}");
            log_without_peer(&client_log::NO_THREAD, ERROR, what);
            stop.wait(&TimeSource::SYSTEM, ERROR_PAUSE);
        }
    }
}

impl Handlers {
    fn allows(&self, address: SocketAddr) -> bool {
        self.rules.load().allow.as_ref().is_none_or(|networks| networks.contains(address.ip()))
    }

    /// The response to a request of this peer.
    fn answer(&self, head: &Head, peer: String) -> Reply {
        let rules = self.rules.load();
        let wrong = match (&rules.names, &head.host) {
            (Some(names), Some(host)) if !site::is_probe(&head.path) => {
                Some(host).filter(|host| !names.answer(host))
            }
            _ => None,
        };
        let Some(host) = wrong else { return self.site.answer(head) };
        let what = format_args!(
            "refused: a request of HTTP for {host}, which is no name of this server ('host' of <http>)"
        );
        Peer::new(0, peer).log(&client_log::OTHER_NAMES, WARNING, what);
        Reply::wrong_name()
    }

    fn take_slot(self: &Arc<Self>) -> Option<Slot> {
        let take = |busy| (busy < HANDLERS_MAX).then_some(busy + 1);
        let taken = self.busy.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken.is_ok().then(|| Slot(Arc::clone(self)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Reads a request and answers it.
fn serve(connection: &HttpConnection, peer: String, handlers: &Handlers) {
    let until = IoDeadline::after(REQUEST_TIME);
    match connection.handshake(until) {
        // A probe of the port is no error.
        Ok(()) => {}
        Err(HandshakeError::Silent) => return,
        Err(error) => {
            let what = format_args!("no TLS for <http>: {error}; the connection is closed");
            Peer::new(0, peer).log(&client_log::UNREGISTERED, WARNING, what);
            return;
        }
    }
    let (reply, has_body) = match head::read(connection, until) {
        // The panic hook has logged it.
        Ok(head) => {
            let answer = catch_unwind(AssertUnwindSafe(|| handlers.answer(&head, peer)));
            (answer.unwrap_or_else(|_| Reply::internal_error()), head.method != Method::Head)
        }
        Err(Unread::Gone) => return,
        Err(Unread::Refused(reply)) => (reply, true),
    };
    reply.send(connection, has_body, IoDeadline::after(REPLY_TIME));
}
