//! Connections to other servers of the cluster.

use std::io;
use std::net::Shutdown;
use std::time::Duration;

use super::link::{Outgoing, Receiving};
use super::message::{Hello, Message, Standing};
use super::this_server::ThisServer;
use crate::base::address::Address;
use crate::base::cancel::{Cancel, OnCancel};
use crate::base::clock::IoDeadline;
use crate::base::sync::Arc;
use crate::net::connect::{Reached, connect};
use crate::net::stream::{Sink, Stream};

use super::pace::{DEAD_PEER_TIMEOUT, HANDSHAKE_MAX};

/// Time for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// A connection to another server, which has been greeted.
pub struct Dialled<'a> {
    pub stream: Arc<Stream>,
    pub out: Outgoing,
    pub receiving: Receiving,
    /// For the log.
    pub peer: String,
    /// Ends the connection when the attempt is cancelled.
    pub ending: OnCancel<'a>,
}

/// Connects and says hello. The error is for the log.
pub fn dial<'a>(
    node: &ThisServer,
    address: &Address,
    hello: Hello,
    cancel: &'a Cancel,
    wait_max: Duration,
) -> Result<Dialled<'a>, String> {
    let until = IoDeadline::after(wait_max.min(CONNECT_MAX));
    let reached = connect(address, until, cancel).map_err(|error| error.to_string())?;
    begin(node, address, reached, hello, cancel, wait_max).map_err(|error| error.to_string())
}

fn begin<'a>(
    node: &ThisServer,
    address: &Address,
    reached: Reached,
    hello: Hello,
    cancel: &'a Cancel,
    wait_max: Duration,
) -> io::Result<Dialled<'a>> {
    let Reached { socket, is_tcp, peer } = reached;
    let other = socket.try_clone()?;
    // An error means that the other side is gone already.
    let ending = cancel.on_cancel(move || drop(other.shutdown(Shutdown::Both)));
    let host = match address {
        Address::Tcp { host, .. } => host.as_deref(),
        Address::Unix(_) => None,
    };
    let tls = node.outgoing_tls.as_ref().map(|tls| tls.begin(host)).transpose();
    let tls = tls.map_err(|error| io::Error::other(error.to_string()))?;
    let stream = Arc::new(Stream::new(socket, is_tcp, tls, Some(DEAD_PEER_TIMEOUT))?);
    stream
        .handshake(Some(IoDeadline::after(wait_max)))
        .map_err(|error| io::Error::other(error.to_string()))?;
    let receiving = Receiving::new(Arc::clone(&stream), hello.follow.is_some());
    receiving.set_silence_max(wait_max)?;
    let mut out = Outgoing::new(Arc::clone(&stream), false);
    out.send(&Message::Hello(hello))?;
    Ok(Dialled { stream, out, receiving, peer, ending })
}

/// Asks a server for its role and its timelines.
pub fn ask(
    node: &ThisServer,
    address: &Address,
    cancel: &Cancel,
    wait_max: Duration,
) -> Result<Standing, String> {
    let mut dialled = dial(node, address, node.hello(), cancel, wait_max.min(HANDSHAKE_MAX))?;
    let answer = match dialled.receiving.next_short() {
        Ok(Some(Message::Standing(standing))) => Ok(standing),
        Ok(Some(Message::Refusal(why))) => Err(why),
        Ok(Some(_)) => Err("its answer makes no sense".into()),
        Ok(None) => Err("it has closed the connection".into()),
        Err(error) => Err(error.to_string()),
    };
    dialled.stream.shutdown();
    answer
}
