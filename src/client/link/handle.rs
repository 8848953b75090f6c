//! What callers have of a link: calling, sending, closing.

use std::fmt;
use std::io;
use std::time::Duration;

use super::end::{EndCause, EndNotice, LinkError};
use super::pending::Pending;
use super::sending::{Sending, Weight};
use super::turn::{Reads, Slot, Turn};
use crate::base::clock::IoDeadline;
use crate::base::sync::{Action, Arc, AtomicBool, AtomicU64, Ordering, assert_permitted};
use crate::net::stream::{Sink, Stream};
use crate::wire::answers::{Answer, ServerPush};
use crate::wire::calls::{Call, CallIds};
use crate::wire::mac::RunningMac;
use crate::wire::protocol::Wire;

/// Calls of [`Link::start_all`] in one message to the network.
const SENT_TOGETHER: usize = 64;

/// What becomes of an answer.
type OnAnswer = Box<dyn FnOnce(&Link, Result<Answer<'_>, LinkError>) + Send>;

/// A call without an answer.
pub(super) struct PendingCall {
    pub on_answer: OnAnswer,
    /// A thread waits for the answer.
    pub is_awaited: bool,
}

/// What takes the messages that the server sends without a call. Its methods are called by the reader, in the order of
/// arrival, among the closures of calls, and must not wait.
pub trait Receiver: Send + Sync {
    /// The server sent this.
    fn push(&self, link: &Link, push: ServerPush<'_>);
    /// The link has ended, and each call has its error. Called once, last.
    fn ended(&self, link: &Link, cause: &EndCause);
}

/// A connection at work. Clones are the same link. It lives until [`Link::close`], or until the connection breaks;
/// dropping a `Link` does not end it.
#[derive(Clone)]
pub struct Link(pub(super) Arc<Shared>);

/// What the threads of a link share.
pub(super) struct Shared {
    pub stream: Stream,
    pub sending: Sending,
    pub pending: Pending<PendingCall>,
    pub turn: Turn<Box<dyn Reads>>,
    pub notice: EndNotice,
    /// Number of times that bytes were received.
    pub received: AtomicU64,
    pub has_ended: AtomicBool,
    pub peer: String,
    /// As agreed at the handshake; the sending side knows the dialect.
    pub wire: Wire,
}

impl Link {
    pub(super) fn new(
        stream: Stream,
        wire: Wire,
        mac: Option<RunningMac>,
        ids: CallIds,
        peer: String,
        linger: Duration,
    ) -> Link {
        Link(Arc::new(Shared {
            stream,
            sending: Sending::new(wire, mac),
            pending: Pending::new(ids),
            turn: Turn::new(linger),
            notice: EndNotice::default(),
            received: AtomicU64::new(0),
            has_ended: AtomicBool::new(false),
            peer,
            wire,
        }))
    }

    /// Whether both are the same connection.
    pub fn is(&self, other: &Link) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The protocol of the connection. Until the first answer its dialect is the one that every server reads.
    pub fn wire(&self) -> Wire {
        self.0.wire
    }

    /// The address of the server, for the log.
    pub fn peer(&self) -> &str {
        &self.0.peer
    }

    /// Calls. `on_answer` runs in the thread that reads, in the order in which answers arrive, with the answer or the
    /// cause of the link's end; in this thread, if the link has ended already. It must not wait, and not call.
    ///
    /// Waits while too many messages are to be sent.
    pub fn start(
        &self,
        call: &Call<'_>,
        on_answer: impl FnOnce(&Link, Result<Answer<'_>, LinkError>) + Send + 'static,
    ) {
        if self.begin(call, PendingCall { on_answer: Box::new(on_answer), is_awaited: false }).is_some() {
            self.0.turn.call_thread();
        }
    }

    /// As [`Link::start`], for calls with short arguments, which are sent together.
    pub fn start_all<'c, F>(&self, calls: impl IntoIterator<Item = (Call<'c>, F)>)
    where
        F: FnOnce(&Link, Result<Answer<'_>, LinkError>) + Send + 'static,
    {
        let mut calls = calls.into_iter().peekable();
        while calls.peek().is_some() {
            let together = calls.by_ref().take(SENT_TOGETHER).filter_map(|(call, on_answer)| {
                let pending = PendingCall { on_answer: Box::new(on_answer), is_awaited: false };
                Some((self.add(pending)?, call))
            });
            let together: Vec<(i64, Call<'_>)> = together.collect();
            if together.is_empty() {
                continue;
            }
            self.put(Weight::Light, |wire, out| {
                together.iter().for_each(|(id, call)| wire.put_call(*id, call, out));
            });
            self.0.turn.call_thread();
        }
    }

    /// As [`Link::start`], for the thread that keeps the link alive: never waits.
    pub(super) fn start_now(&self, call: &Call<'_>) -> io::Result<()> {
        self.0.turn.calling(false);
        let pending = PendingCall { on_answer: Box::new(|_, _| ()), is_awaited: false };
        match self.0.pending.add(pending) {
            Ok(id) => {
                self.0.sending.send_now(&self.0.stream, |wire, out| wire.put_call(id, call, out))?;
                self.0.turn.call_thread();
            }
            Err(_) => self.0.turn.answered(false),
        }
        Ok(())
    }

    /// The id of the call; `None`: the link has ended.
    fn begin(&self, call: &Call<'_>, pending: PendingCall) -> Option<i64> {
        let id = self.add(pending)?;
        self.put(Weight::of(call), |wire, out| wire.put_call(id, call, out));
        Some(id)
    }

    /// The id of a call that will be sent at once; `None`: the link has ended.
    fn add(&self, pending: PendingCall) -> Option<i64> {
        self.0.turn.calling(pending.is_awaited);
        match self.0.pending.add(pending) {
            Ok(id) => Some(id),
            Err((pending, cause)) => {
                self.0.turn.answered(pending.is_awaited);
                (pending.on_answer)(self, Err(LinkError::Ended(cause)));
                None
            }
        }
    }

    /// Calls and waits for the answer, which `read` takes from the message. `read` runs in the thread that reads, which
    /// may be another one, and must not wait. This thread may have to read for others; so it must hold no lock that
    /// they need.
    ///
    /// `time_max`: `None` waits as long as the link lives. Not to be called by what handles answers and pushes.
    pub fn call<T: Send + 'static>(
        &self,
        call: &Call<'_>,
        time_max: Option<Duration>,
        read: impl FnOnce(Answer<'_>) -> T + Send + 'static,
    ) -> Result<T, LinkError> {
        assert_permitted(Action::Network, "calling a server");
        let slot = Arc::new(Slot::default());
        let filled = Arc::clone(&slot);
        let on_answer = Box::new(move |link: &Link, answer: Result<Answer<'_>, LinkError>| {
            link.0.turn.fill(&filled, answer.map(read));
        });
        let id = self.begin(call, PendingCall { on_answer, is_awaited: true });
        if let Some(result) = self.0.turn.wait_for(&slot, time_max.map(IoDeadline::after)) {
            return result;
        }
        let is_given_up = id.is_some_and(|id| self.0.pending.take(id).is_some());
        if is_given_up {
            self.0.turn.answered(true);
            return Err(LinkError::TimedOut);
        }
        // The answer has arrived in this moment.
        self.0.turn.wait_for(&slot, None).unwrap_or(Err(LinkError::TimedOut))
    }

    /// Sends a call that the server does not answer. An error of the network ends the link.
    pub fn send(&self, call: &Call<'_>) {
        debug_assert!(call.method(self.wire()).is_some_and(|method| self.wire().is_one_way(method)));
        self.put(Weight::of(call), |wire, out| wire.put_call(0, call, out));
    }

    fn put(&self, weight: Weight, encode: impl FnOnce(&Wire, &mut Vec<u8>)) {
        if let Err(error) = self.0.sending.send(&self.0.stream, weight, encode) {
            self.end(EndCause::Network(Arc::new(error)));
        }
    }

    /// Whether calls have no answer yet.
    pub fn is_busy(&self) -> bool {
        self.0.turn.is_busy()
    }

    /// Whether the link has ended, or is about to.
    pub fn has_ended(&self) -> bool {
        self.0.has_ended.load(Ordering::SeqCst)
    }

    /// Ends the link: each call that has no answer yet gets the error, from the reader. Does not wait for that. May be
    /// called at any time, also by what the reader runs.
    pub fn close(&self) {
        self.end(EndCause::Closed);
    }

    /// Ends the link because the server has broken the protocol.
    pub fn fail(&self, what: &str) {
        self.end(EndCause::Protocol(what.into()));
    }

    /// The first cause counts.
    pub(super) fn end(&self, cause: EndCause) {
        if self.0.pending.end(cause) {
            self.0.has_ended.store(true, Ordering::SeqCst);
            self.0.sending.end();
            self.0.notice.give();
            self.0.stream.shutdown();
            self.0.turn.end();
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Link").field(&self.0.peer).finish()
    }
}
