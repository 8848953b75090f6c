//! Reads a link: receives, and hands each message to whom it is for.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::end::{EndCause, LinkError};
use super::handle::{Link, Receiver};
use super::turn::Reads;
use crate::base::clock::IoDeadline;
use crate::base::sync::{Arc, Ordering};
use crate::wire::answers::FromServer;
use crate::wire::frame::{Frame, FrameReader};
use crate::wire::mac::RunningMac;
use crate::wire::protocol::Wire;

/// Longest wait for bytes. A thread with an earlier deadline sets another one for the last wait before it.
pub(super) const RECEIVE_MAX: Duration = Duration::from_secs(1);

/// The receiving side of a link.
pub(super) struct Reader {
    link: Link,
    frames: FrameReader,
    dispatch: Dispatch,
}

struct Dispatch {
    mac: Option<RunningMac>,
    receiver: Arc<dyn Receiver>,
    /// Until the first reply, which has the dialect of the server.
    learning: Option<Wire>,
}

impl Reader {
    pub fn new(
        link: Link,
        frames: FrameReader,
        mac: Option<RunningMac>,
        receiver: Arc<dyn Receiver>,
    ) -> Reader {
        let learning = Some(link.wire());
        Reader { link, frames, dispatch: Dispatch { mac, receiver, learning } }
    }

    /// All messages that have arrived completely. `None`: there was none. True: one was for a thread that waits.
    fn handle_all(&mut self) -> Result<Option<bool>, EndCause> {
        let mut found = None;
        while !self.link.has_ended() {
            match self.frames.next() {
                Ok(Some(frame)) => {
                    let is_awaited = self.dispatch.handle(&self.link, frame)?;
                    found = Some(found.unwrap_or(false) || is_awaited);
                }
                Ok(None) => return Ok(found),
                Err(error) => return Err(EndCause::Protocol(error.to_string().into())),
            }
        }
        Err(EndCause::Closed)
    }

    /// Waits for bytes, at most until `until` or for [`RECEIVE_MAX`].
    fn receive(&mut self, until: Option<IoDeadline>) -> Result<(), EndCause> {
        let network = |error| EndCause::Network(Arc::new(error));
        let stream = &self.link.0.stream;
        let left = until.map(IoDeadline::left).filter(|left| *left < RECEIVE_MAX);
        if left.is_some() {
            stream.set_receive_max(left).map_err(network)?;
        }
        let received = self.frames.spare().and_then(|spare| stream.recv(spare));
        if left.is_some() {
            stream.set_receive_max(Some(RECEIVE_MAX)).map_err(network)?;
        }
        match received {
            Ok(0) => return Err(EndCause::ByServer),
            Ok(count) => self.frames.filled(count),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(network(error)),
        }
        self.link.0.received.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl Reads for Reader {
    /// The first cause of an end is kept: a later read returns at once.
    fn read(&mut self, until: Option<IoDeadline>) -> Result<bool, EndCause> {
        // A panic is a bug in what handles an answer. No call may wait for ever because of it.
        let read = catch_unwind(AssertUnwindSafe(|| {
            if let Some(is_awaited) = self.handle_all()? {
                return Ok(is_awaited);
            }
            self.receive(until)?;
            self.handle_all().map(|found| found.unwrap_or(false))
        }));
        let read = read.unwrap_or_else(|_| Err(EndCause::Protocol("a panic in the client".into())));
        read.inspect_err(|cause| self.link.end(cause.clone()))
    }
}

impl Dispatch {
    /// Whether the message was for a thread that waits.
    fn handle(&mut self, link: &Link, frame: Frame<'_>) -> Result<bool, EndCause> {
        if let Some(mac) = &mut self.mac
            && !frame.mac.is_some_and(|code| mac.check_next(frame.payload, code))
        {
            return Err(EndCause::Protocol("a message has a wrong authentication code".into()));
        }
        let message = link.wire().from_server(frame.payload);
        match message.map_err(|what| EndCause::Protocol(what.to_string().into()))? {
            FromServer::KeepAlive => {}
            FromServer::Push(push) => self.receiver.push(link, push),
            FromServer::Reply { id, answer } => {
                if let Some(wire) = self.learning.take() {
                    link.0.sending.set_wire(wire.of_first_reply(frame.payload));
                }
                // An answer without a call belongs to one whose caller has given up.
                if let Some(call) = link.0.pending.take(id) {
                    link.0.turn.answered(call.is_awaited);
                    (call.on_answer)(link, Ok(answer));
                    return Ok(call.is_awaited);
                }
            }
        }
        Ok(false)
    }
}

/// The body of the link's thread. At the end all calls get their error.
pub(super) fn run(link: &Link, receiver: &dyn Receiver) {
    let (_reader, cause) = link.0.turn.serve();
    link.end(cause);
    let (cause, calls) = link.0.pending.give_up();
    for call in calls {
        let _bug = catch_unwind(AssertUnwindSafe(|| {
            (call.on_answer)(link, Err(LinkError::Ended(cause.clone())));
        }));
    }
    receiver.ended(link, &cause);
}
