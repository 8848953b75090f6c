//! The thread that reads a link.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::end::{EndCause, LinkError};
use super::handle::{Link, Receiver};
use crate::base::sync::{Arc, Ordering};
use crate::wire::answers::{Answer, FromServer};
use crate::wire::frame::{Frame, FrameReader};
use crate::wire::mac::RunningMac;
use crate::wire::protocol::Wire;

pub(super) struct Reader {
    link: Link,
    frames: FrameReader,
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
        let wire = link.wire();
        Reader { link, frames, mac, receiver, learning: Some(wire) }
    }

    /// Reads until the end; then all calls get their error.
    pub fn run(mut self) {
        // A panic is a bug in what handles an answer. No call may wait for ever because of it.
        let cause = catch_unwind(AssertUnwindSafe(|| self.read()))
            .unwrap_or_else(|_| EndCause::Protocol("a panic in the client".into()));
        self.link.end(cause);
        let (cause, calls) = self.link.0.pending.give_up();
        for on_answer in calls {
            let _bug = catch_unwind(AssertUnwindSafe(|| {
                on_answer(&self.link, Err(LinkError::Ended(cause.clone())));
            }));
        }
        self.receiver.ended(&self.link, &cause);
    }

    /// Until the connection breaks, or the link is closed.
    fn read(&mut self) -> EndCause {
        loop {
            while !self.link.has_ended() {
                match self.frames.next() {
                    Ok(Some(frame)) => {
                        if let Err(cause) =
                            handle(&self.link, frame, &mut self.mac, &mut self.learning, &*self.receiver)
                        {
                            return cause;
                        }
                    }
                    Ok(None) => break,
                    Err(error) => return EndCause::Protocol(error.to_string().into()),
                }
            }
            if self.link.has_ended() {
                return EndCause::Closed;
            }
            let received = self.frames.spare().and_then(|spare| self.link.0.stream.recv(spare));
            match received {
                Ok(0) => return EndCause::ByServer,
                Ok(count) => self.frames.filled(count),
                Err(error) => return EndCause::Network(Arc::new(error)),
            }
            self.link.0.received.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn handle(
    link: &Link,
    frame: Frame<'_>,
    mac: &mut Option<RunningMac>,
    learning: &mut Option<Wire>,
    receiver: &dyn Receiver,
) -> Result<(), EndCause> {
    if let Some(mac) = mac
        && !frame.mac.is_some_and(|code| mac.check_next(frame.payload, code))
    {
        return Err(EndCause::Protocol("a message has a wrong authentication code".into()));
    }
    let message = link.wire().from_server(frame.payload);
    match message.map_err(|what| EndCause::Protocol(what.to_string().into()))? {
        FromServer::KeepAlive => {}
        FromServer::Push(push) => receiver.push(link, push),
        FromServer::Reply { id, answer } => {
            if let Some(wire) = learning.take() {
                link.0.sending.set_wire(wire.of_first_reply(frame.payload));
            }
            reply(link, id, answer);
        }
    }
    Ok(())
}

/// An answer without a call belongs to one whose caller has given up.
fn reply(link: &Link, id: i64, answer: Answer<'_>) {
    if let Some(on_answer) = link.0.pending.take(id) {
        on_answer(link, Ok(answer));
    }
}
