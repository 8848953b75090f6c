//! Keeps a link alive, and notices when the server does not.
//!
//! A message that needs no answer is sent when the client was silent; a call that needs one when the server was. Both
//! are counted in passing: the paths of calls and answers read no clock.

use std::io;
use std::time::{Duration, Instant};

use super::end::EndCause;
use super::handle::Link;
use crate::base::clock::TimeSource;
use crate::base::sync::{Arc, Ordering};
use crate::wire::availability::Method;
use crate::wire::calls::Call;

/// Checks in an interval.
const CHECKS: u32 = 8;
const CHECK_MIN: Duration = Duration::from_millis(5);

/// How a link stays alive.
#[derive(Clone, Debug)]
pub struct LinkOptions {
    /// A message that needs no answer is sent when nothing else was sent for this long: firewalls forget connections
    /// that are silent.
    pub keep_alive: Duration,
    /// `None`: a server that is silent is not noticed, except by TCP.
    pub silence: Option<Silence>,
    /// How long the thread of the link waits after an answer for the next call, whose thread then reads itself. What
    /// the server sends without a call is read this much later.
    pub linger: Duration,
    /// The time for both.
    pub time: TimeSource,
}

/// When a silent server counts as dead.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Silence {
    /// The server is asked for a sign of life when nothing has arrived for this long.
    pub ask_after: Duration,
    /// The link ends when nothing has arrived for this long after the question.
    pub answer_max: Duration,
}

impl Default for LinkOptions {
    fn default() -> LinkOptions {
        let silence = Silence { ask_after: Duration::from_secs(30), answer_max: Duration::from_secs(120) };
        LinkOptions {
            keep_alive: Duration::from_secs(30),
            silence: Some(silence),
            linger: Duration::from_millis(1),
            time: TimeSource::SYSTEM,
        }
    }
}

/// When a direction was in use last.
struct Seen {
    count: u64,
    at: Instant,
}

impl Seen {
    fn look(&mut self, count: u64, now: Instant) {
        if self.count != count {
            *self = Seen { count, at: now };
        }
    }
}

/// The body of the thread. Returns when the link has ended.
pub(super) fn run(link: &Link, options: &LinkOptions) {
    let time = &options.time;
    let shortest = options.silence.map_or(options.keep_alive, |silence| {
        silence.ask_after.min(silence.answer_max).min(options.keep_alive)
    });
    let pause = (shortest / CHECKS).max(CHECK_MIN);
    let mut sent = Seen { count: 0, at: time.now() };
    let mut received = Seen { count: 0, at: time.now() };
    // When the server was asked for a sign of life that has not come yet.
    let mut asked: Option<Instant> = None;
    loop {
        let now = time.now();
        sent.look(link.0.sending.count(), now);
        received.look(link.0.received.load(Ordering::Relaxed), now);
        if received.at == now {
            asked = None;
        }
        let passed = |since: Instant| now.saturating_duration_since(since);
        if let Some(silence) = options.silence {
            match asked {
                Some(at) if passed(at) >= silence.answer_max => {
                    link.end(EndCause::Silent(passed(received.at)));
                }
                None if passed(received.at) >= silence.ask_after => {
                    asked = Some(now);
                    report(link, link.start_now(&sign_of_life(link)));
                }
                _ => {}
            }
        }
        if passed(sent.at) >= options.keep_alive {
            report(link, link.0.sending.send_now(&link.0.stream, |wire, out| wire.put_keep_alive(out)));
        }
        if link.0.notice.wait_until(time, now + pause) {
            return;
        }
    }
}

/// A call that every server of the generation answers at once.
fn sign_of_life(link: &Link) -> Call<'static> {
    if link.wire().knows(Method::Ping) { Call::Ping } else { Call::LastTransaction }
}

fn report(link: &Link, result: io::Result<()>) {
    if let Err(error) = result {
        link.end(EndCause::Network(Arc::new(error)));
    }
}
