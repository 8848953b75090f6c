//! The primary's side: a layer that listens for secondaries, and wakes their threads when something is published.

use std::io;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::{SockAddr, Socket};

use super::feed::{check_start, feed, greeting};
use super::published::{Announcer, Published, SECONDARIES_MAX};
use super::{DEAD_PEER_TIMEOUT, PRIMARY_LOG, from};
use crate::base::address::Address;
use crate::base::clock::IoDeadline;
use crate::base::log_rate::LogRate;
use crate::base::sync::{Arc, Mutex, rank};
use crate::net::listen::{Endpoint, ListenError, Listener, SocketAccess, listen};
use crate::net::stream::{Sink, Stream};
use crate::replication::feed_error::FeedError;
use crate::replication::frames::Incoming;
use crate::storage::{Commit, History, Load, Publisher, Result, Secondary, Storage, StorageError, forward};

/// Limits the log lines that a flood of connections would cause.
static LINES: LogRate = LogRate::new("lines about secondaries", 300, 300);

/// Time for a greeting.
const GREETING_MAX: Duration = Duration::from_secs(30);
/// When the server stops: time for the secondaries to receive what was published.
const LAST_MAX: Duration = Duration::from_secs(10);
/// Pause after an error of the listener.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// The storage `base`, whose transactions secondaries get.
pub struct Primary {
    base: Arc<dyn Storage>,
    published: Arc<Published>,
    /// Until it is closed.
    listening: Mutex<Vec<Listening>, rank::ZrsThreads>,
}

/// A socket for secondaries, and the thread that accepts them.
struct Listening {
    listener: Arc<Listener>,
    thread: JoinHandle<()>,
}

impl Primary {
    /// Listens at `address`.
    ///
    /// Errors: `Unsupported` if `base` has no list of transactions; `Io` if the address cannot be listened at.
    pub fn open(base: Arc<dyn Storage>, address: &Address) -> Result<Primary> {
        if base.iteration().is_none() {
            let what = format!("{} keeps no transactions that could be replicated", base.name());
            return Err(StorageError::Unsupported(what));
        }
        let listeners = listen(address, SocketAccess::default()).map_err(|error| {
            let error = match error {
                ListenError::InUse => io::ErrorKind::AddrInUse.into(),
                ListenError::Io(error) => error,
            };
            StorageError::io(format!("listening for secondaries at {address}"))(error)
        })?;
        let published = Arc::new(Published::new(base.last_transaction(), base.size()));
        let primary = Primary { base, published, listening: Mutex::new(Vec::new()) };
        for listener in listeners {
            primary.accept_on(Arc::new(listener))?;
        }
        Ok(primary)
    }

    fn accept_on(&self, listener: Arc<Listener>) -> Result<()> {
        let (base, published) = (Arc::clone(&self.base), Arc::clone(&self.published));
        log::info!(target: PRIMARY_LOG, "{}: listening for secondaries on {}", base.name(), listener.endpoint);
        let accepting = Arc::clone(&listener);
        let accept = move || accept(&base, &published, &accepting);
        let thread = thread::Builder::new().name("zrs-accept".into()).spawn(accept);
        let thread = thread.map_err(StorageError::io("starting a thread for secondaries"))?;
        self.listening.lock().push(Listening { listener, thread });
        Ok(())
    }

    /// Ends the listeners, and then the secondaries as soon as they have what is published.
    fn end(&self) {
        let listening = std::mem::take(&mut *self.listening.lock());
        listening.iter().for_each(|Listening { listener, .. }| listener.end());
        self.published.close(LAST_MAX);
        for Listening { listener, thread } in listening {
            if thread.join().is_err() {
                log::error!(target: PRIMARY_LOG, "a thread has panicked");
            }
            if let Endpoint::Unix(path) = &listener.endpoint {
                // An error means that it is gone already.
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

impl Drop for Primary {
    fn drop(&mut self) {
        self.end();
    }
}

/// The accept loop of one listener.
fn accept(base: &Arc<dyn Storage>, published: &Arc<Published>, listener: &Listener) {
    while !listener.has_ended() {
        match listener.accept() {
            Ok((socket, address)) => {
                let peer = peer_of(&address, &listener.endpoint);
                let begun = begin(base, published, listener, socket, peer.clone());
                if let Err(error) = begun
                    && LINES.admits(None, "")
                {
                    log::error!(target: PRIMARY_LOG, "{peer}: this secondary cannot be served: {error}");
                }
            }
            Err(_) if listener.has_ended() => return,
            Err(error) => {
                if LINES.admits(None, "") {
                    log::error!(target: PRIMARY_LOG, "no secondary can be accepted on {}: {error}", listener.endpoint);
                }
                published.pause(ERROR_PAUSE);
            }
        }
    }
}

fn peer_of(address: &SockAddr, endpoint: &Endpoint) -> String {
    address.as_socket().map_or_else(|| endpoint.to_string(), |address| address.to_string())
}

/// Starts the thread of a connection.
fn begin(
    base: &Arc<dyn Storage>,
    published: &Arc<Published>,
    listener: &Listener,
    socket: Socket,
    peer: String,
) -> io::Result<()> {
    let is_tcp = matches!(listener.endpoint, Endpoint::Tcp { .. });
    let stream = Arc::new(Stream::new(socket, is_tcp, None, Some(DEAD_PEER_TIMEOUT))?);
    let Some(connection) = published.add(&stream, &peer) else {
        let what = format!("there are {SECONDARIES_MAX} already, or the server stops");
        return Err(io::Error::other(what));
    };
    let (base, ended) = (Arc::clone(base), Arc::clone(published));
    let serve = move || {
        let outcome = serve(&*base, &ended, &stream, connection, &peer);
        stream.shutdown();
        ended.remove(connection);
        match outcome {
            _ if !LINES.admits(None, "") => {}
            Ok(()) => log::info!(target: PRIMARY_LOG, "{peer}: disconnected"),
            Err(FeedError::Gone(error)) => log::info!(target: PRIMARY_LOG, "{peer}: disconnected: {error}"),
            Err(FeedError::Refused(why)) => {
                log::error!(target: PRIMARY_LOG, "{peer}: this secondary is refused: {why}")
            }
            Err(FeedError::Storage(error)) => {
                log::error!(target: PRIMARY_LOG, "{peer}: this secondary gets nothing more: {error}");
            }
        }
    };
    let spawned = thread::Builder::new().name(format!("zrs-{connection}")).spawn(serve);
    spawned.map(drop).inspect_err(|_| published.remove(connection))
}

/// One connection, from its greeting to its end.
fn serve(
    base: &dyn Storage,
    published: &Arc<Published>,
    stream: &Arc<Stream>,
    connection: u64,
    peer: &str,
) -> std::result::Result<(), FeedError> {
    let until = IoDeadline::after(GREETING_MAX);
    stream.set_receive_max(Some(GREETING_MAX))?;
    let mut incoming = Incoming::small(Arc::clone(stream));
    let greeting = greeting(&mut incoming, base, until)?;
    stream.set_receive_max(None)?;
    check_start(base, greeting.start)?;
    published.sent(connection, greeting.start);
    log::info!(target: PRIMARY_LOG, "{peer}: a secondary follows {}", from(greeting.start));
    // Its frames are read beside, or the end of the connection would not be noticed before something is to be sent.
    let (read, ended) = (Arc::clone(stream), Arc::clone(published));
    let reader = thread::Builder::new().name(format!("zrs-{connection}-in")).spawn(move || {
        let outcome = listen_to(&mut incoming);
        // Also what is being sent, which nobody may take.
        read.shutdown();
        ended.remove(connection);
        outcome
    })?;
    let fed = feed(base, stream, greeting, published, connection);
    stream.shutdown();
    let ended = reader.join().unwrap_or(Ok(()));
    match (fed, ended) {
        // What the secondary has done wrong is why nothing could be sent.
        (Ok(()) | Err(FeedError::Gone(_)), Err(refused @ FeedError::Refused(_))) => Err(refused),
        (fed, _) => fed,
    }
}

/// Reads what a secondary sends behind its greeting: empty frames, which keep its connection alive.
fn listen_to(incoming: &mut Incoming) -> std::result::Result<(), FeedError> {
    let mut frame = Vec::new();
    while incoming.next(0, &mut frame, &mut || Ok(())).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => {
            FeedError::Refused(format!("it has sent more than its greeting: {error}"))
        }
        _ => FeedError::Gone(error),
    })? {}
    Ok(())
}

impl Storage for Primary {
    forward!(
        base: name, is_read_only, object_count, size, interfaces, last_transaction, new_oids, iteration, undo, packing,
        blobs, extension_methods, cache_counts, sync_counts, replication, remote, failure, pulse, save_index, catch_up,
        bulk, sync_later
    );

    fn secondaries(&self) -> Option<Vec<Secondary>> {
        Some(self.published.secondaries())
    }

    fn close(&self) -> Result<()> {
        self.end();
        self.base.close()
    }
}

impl Load for Primary {
    forward!(base: load_before, load_before_now, load_serial, expect_read, get_tid);
}

impl History for Primary {
    forward!(base: revisions, record_iternext, last_invalidations);
}

impl Commit for Primary {
    forward!(base: tids_after, vote, finish, abort, set_resolver);

    fn set_publisher(&self, publisher: Arc<dyn Publisher>) {
        let published = Arc::clone(&self.published);
        self.base.set_publisher(Arc::new(Announcer { server: publisher, published }));
    }
}
