//! Connections from other servers: those that ask for the role, and replicas.

use std::io;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::{SockAddr, Socket};

use super::change::give_way;
use super::feed::{FeedOptions, feed};
use super::link::{Outgoing, Receiving};
use super::member::MemberStorage;
use super::message::{Follow, Hello, Message, Standing};
use super::options::Role;
use super::position::{Probe, Search};
use super::this_server::ThisServer;
use crate::base::clock::IoDeadline;
use crate::base::ids::Tid;
use crate::base::log_rate::LogRate;
use crate::base::sync::{Arc, AtomicUsize, Ordering};
use crate::net::listen::{Endpoint, ListenError, Listener, SocketAccess, listen};
use crate::net::stream::{Sink, Stream};
use crate::replication::feed_error::FeedError;
use crate::storage::{Result, StorageError};

use super::pace::{DEAD_PEER_TIMEOUT, HANDSHAKE_MAX, LOG};

/// Limits the log lines that a flood of connections would cause.
static LINES: LogRate = LogRate::new("lines about replicas", 300, 300);

/// Time for the first message. The connection may come from any program.
const HELLO_MAX: Duration = Duration::from_secs(10);
/// Connections at once, whatever they are.
const CONNECTIONS_MAX: usize = 1000;
/// Messages in the search for the last common transaction. Each makes the rest at least 32 times smaller.
const SEARCH_MAX: usize = 40;
/// Pause after an error of the listener.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// A socket for other servers, and the thread that accepts them.
pub struct Listening {
    listener: Arc<Listener>,
    thread: JoinHandle<()>,
}

/// Listens at the address of the configuration, if it has one. Who connects waits until [`Listening::on`].
pub fn listen_for_servers(node: &ThisServer) -> Result<Vec<Listener>> {
    let Some(address) = &node.options.listen else { return Ok(Vec::new()) };
    listen(address, SocketAccess::default()).map_err(|error| {
        let error = match error {
            ListenError::InUse => io::ErrorKind::AddrInUse.into(),
            ListenError::Io(error) => error,
        };
        StorageError::io(format!("listening for other servers at {address}"))(error)
    })
}

impl Listening {
    /// Accepts from now on.
    pub fn on(node: &Arc<ThisServer>, listener: Listener) -> Result<Listening> {
        listener.set_tls(node.incoming_tls.clone());
        let listener = Arc::new(listener);
        log::info!(target: LOG, "listening for other servers of the cluster on {}", listener.endpoint);
        let (node, accepting) = (Arc::clone(node), Arc::clone(&listener));
        let thread = thread::Builder::new()
            .name("replica-accept".into())
            .spawn(move || accept(&node, &accepting))
            .map_err(StorageError::io("starting a thread for replicas"))?;
        Ok(Listening { listener, thread })
    }

    /// Accepts no more. The connections that were accepted go on.
    pub fn end(self) {
        let Listening { listener, thread } = self;
        listener.end();
        if thread.join().is_err() {
            log::error!(target: LOG, "a thread has panicked");
        }
        if let Endpoint::Unix(path) = &listener.endpoint {
            // An error means that it is gone already.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The accept loop of one listener.
fn accept(node: &Arc<ThisServer>, listener: &Listener) {
    let connections = Arc::new(AtomicUsize::new(0));
    while !listener.has_ended() {
        match listener.accept() {
            Ok((socket, address)) => {
                let peer = peer_of(&address, &listener.endpoint);
                if let Err(error) = begin(node, listener, socket, &peer, &connections)
                    && LINES.admits(None, "")
                {
                    log::error!(target: LOG, "{peer}: this server cannot be answered: {error}");
                }
            }
            Err(_) if listener.has_ended() => return,
            Err(error) => {
                if LINES.admits(None, "") {
                    log::error!(target: LOG, "no server can be accepted on {}: {error}", listener.endpoint);
                }
                node.wait(ERROR_PAUSE);
            }
        }
    }
}

fn peer_of(address: &SockAddr, endpoint: &Endpoint) -> String {
    address.as_socket().map_or_else(|| endpoint.to_string(), |address| address.to_string())
}

/// Starts the thread of a connection.
fn begin(
    node: &Arc<ThisServer>,
    listener: &Listener,
    socket: Socket,
    peer: &str,
    connections: &Arc<AtomicUsize>,
) -> io::Result<()> {
    let is_tcp = matches!(listener.endpoint, Endpoint::Tcp { .. });
    let tls = listener.tls().map(|tls| tls.begin()).transpose().map_err(io::Error::other)?;
    let stream = Arc::new(Stream::new(socket, is_tcp, tls, Some(DEAD_PEER_TIMEOUT))?);
    if connections.fetch_add(1, Ordering::SeqCst) >= CONNECTIONS_MAX {
        connections.fetch_sub(1, Ordering::SeqCst);
        return Err(io::Error::other(format!("there are {CONNECTIONS_MAX} connections already")));
    }
    let (node, peer, counted) = (Arc::clone(node), peer.to_string(), Arc::clone(connections));
    let serve = move || {
        let outcome = serve(&node, &stream, &peer);
        stream.shutdown();
        counted.fetch_sub(1, Ordering::SeqCst);
        match outcome {
            Err(FeedError::Gone(error)) if LINES.admits(None, "") => {
                log::info!(target: LOG, "{peer}: the connection of a server has ended: {error}");
            }
            Err(FeedError::Refused(why)) if LINES.admits(None, "") => {
                log::error!(target: LOG, "{peer}: a server is refused: {why}");
            }
            Err(FeedError::Storage(error)) if LINES.admits(None, "") => {
                log::error!(target: LOG, "{peer}: this replica gets nothing more: {error}");
            }
            _ => {}
        }
    };
    let spawned = thread::Builder::new().name("replica-out".into()).spawn(serve);
    spawned.map(drop).inspect_err(|_| {
        connections.fetch_sub(1, Ordering::SeqCst);
    })
}

/// One connection, from its hello to its end.
fn serve(node: &Arc<ThisServer>, stream: &Arc<Stream>, peer: &str) -> std::result::Result<(), FeedError> {
    let until = IoDeadline::after(HELLO_MAX);
    stream.set_wait_max(Some(HELLO_MAX))?;
    stream.handshake(Some(until)).map_err(|error| FeedError::Gone(io::Error::other(error.to_string())))?;
    let mut receiving = Receiving::new(Arc::clone(stream), false);
    let hello = match receiving.next_short() {
        Ok(Some(Message::Hello(hello))) => hello,
        Ok(Some(_)) => return Err(FeedError::Refused("it has not said hello".into())),
        Ok(None) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(FeedError::Refused(error.to_string()));
        }
        Err(error) => return Err(error.into()),
    };
    stream.set_wait_max(None)?;
    let mut out = Outgoing::new(Arc::clone(stream), false);
    let Some(follow) = hello.follow.clone() else {
        note_peer(node, &hello);
        out.send(&Message::Standing(node.standing()))?;
        return Ok(());
    };
    match accept_replica(node, &hello, &follow) {
        Ok(member) => lead(node, &member, (stream, out, receiving), &hello, &follow, peer),
        Err(NotAccepted::Standing(standing)) => Ok(out.send(&Message::Standing(standing))?),
        Err(NotAccepted::Refused(why)) => {
            out.send(&Message::Refusal(why.clone()))?;
            Err(FeedError::Refused(format!("{} must not follow: {why}", hello.name)))
        }
    }
}

/// A newer timeline of the cluster means that another server was promoted.
fn note_peer(node: &Arc<ThisServer>, hello: &Hello) {
    if node.is_outdated_by(hello.cluster, &hello.timelines) {
        give_way(node, &hello.name, &hello.timelines);
        // Also at a replica: the primary that it follows may hear of the promotion from it only.
        if node.note_newer(&hello.timelines) && node.role() == Role::Replica {
            node.members().iter().for_each(|member| member.stop_following());
        }
    }
}

enum NotAccepted {
    /// This server is not the primary.
    Standing(Standing),
    Refused(String),
}

fn accept_replica(
    node: &Arc<ThisServer>,
    hello: &Hello,
    follow: &Follow,
) -> std::result::Result<Arc<MemberStorage>, NotAccepted> {
    note_peer(node, hello);
    let refused = |why: String| Err(NotAccepted::Refused(why));
    let standing = node.standing();
    if let (Some(other), Some(own)) = (hello.cluster, standing.cluster)
        && other != own
    {
        return refused(
            "it belongs to another cluster. If it is to belong to this one: stop it, move its Data.fs, its blobs and its state \
             file away, and start it"
                .into(),
        );
    }
    let followed = node.member(&follow.storage);
    // A replica that follows no server has nothing new, and might follow the one that asks.
    let is_led = || follow.follows_replicas && followed.as_ref().is_some_and(|member| member.is_following());
    // Until a promotion is complete, clients that a new follower sends away would come too early.
    let is_followed = (standing.role == Role::Primary || is_led()) && !node.is_changing();
    if !is_followed || standing.cluster.is_none() || hello.name == standing.name {
        return match hello.name == standing.name {
            true => {
                refused(format!("it has the name of this server, '{}': give each one its own", hello.name))
            }
            false => Err(NotAccepted::Standing(standing)),
        };
    }
    let Some(member) = followed else {
        return refused(format!("there is no storage '{}' here", follow.storage));
    };
    if member.base.blobs().is_some() && !follow.has_blobs {
        return refused(format!(
            "storage '{}' has blobs here, and none there: configure its blob-dir",
            follow.storage
        ));
    }
    Ok(member)
}

/// Finds out what the replica has, and sends it what it lacks.
fn lead(
    node: &Arc<ThisServer>,
    member: &Arc<MemberStorage>,
    (stream, mut out, mut receiving): (&Arc<Stream>, Outgoing, Receiving),
    hello: &Hello,
    follow: &Follow,
    peer: &str,
) -> std::result::Result<(), FeedError> {
    receiving.set_silence_max(HANDSHAKE_MAX)?;
    let common = find_common(member, &mut out, &mut receiving, follow.last.as_ref())?;
    if common == Tid::ZERO && follow.last.is_some() && hello.cluster.is_none() {
        let why = "it has a database of its own, which has nothing in common with the one here. If it is to be a replica: \
                   stop it, move its Data.fs and its blobs away, and start it"
            .to_string();
        out.send(&Message::Refusal(why.clone()))?;
        return Err(FeedError::Refused(format!("{} must not follow: {why}", hello.name)));
    }
    // Before it begins, so that nothing that is taken back from here on is missed.
    let Some(connection) = member.progress.add_replica(&hello.name, peer, stream, common) else {
        return Err(FeedError::Gone(io::Error::other("there are too many replicas, or the server stops")));
    };
    let is_lost = common > member.replicable()?.last_written();
    if is_lost || node.standing().role == Role::Replica && !follow.follows_replicas {
        return Err(FeedError::Gone(io::Error::other("the role of this server has changed")));
    }
    let ThisServer { options, .. } = &**node;
    let awaited = (options.synchronous_replicas > 0).then_some(options.level);
    out.send(&Message::Start { common, awaited, standing: node.standing() })?;
    let lacks = follow.last.as_ref().is_some_and(|last| last.tid > common);
    log::info!(
        target: LOG,
        "storage '{}': replica {} at {peer} follows behind transaction {common}{}",
        member.name,
        hello.name,
        if lacks { ", and takes back later ones of its own" } else { "" }
    );
    let options = FeedOptions {
        compress: node.options.compress || follow.compress,
        has_blobs: follow.has_blobs,
        max_rate: node.options.max_rate,
    };
    let fed = feed(member, stream, receiving, &connection, common, options);
    drop(connection);
    if LINES.admits(None, "") {
        log::info!(target: LOG, "storage '{}': replica {} at {peer} has gone", member.name, hello.name);
    }
    fed
}

/// The last transaction that both have.
fn find_common(
    member: &MemberStorage,
    out: &mut Outgoing,
    receiving: &mut Receiving,
    last: Option<&Probe>,
) -> std::result::Result<Tid, FeedError> {
    let Some(last) = last else { return Ok(Tid::ZERO) };
    let replicable = member.replicable()?;
    if last.is_in(replicable)? {
        return Ok(last.tid);
    }
    let mut search = Search::new(last.tid);
    for _ in 0..SEARCH_MAX {
        let (low, high) = search.between();
        out.send(&Message::Comparison { low, high })?;
        let probes = match receiving.next_short()? {
            Some(Message::Probes(probes)) => probes,
            Some(_) => return Err(FeedError::Refused("its answer makes no sense".into())),
            None => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        };
        if search.answered(replicable, &probes)?.map_err(FeedError::Refused)? {
            return Ok(search.low);
        }
    }
    Err(FeedError::Refused("the last common transaction was not found".into()))
}
