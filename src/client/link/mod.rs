//! A connection at work: many threads call, one thread at a time reads.
//!
//! - Answers and the messages that the server sends without a call are handled by the thread that reads, one at a time,
//!   in the order in which they arrive. What handles them must not wait: everything else of this link waits behind it.
//! - Which thread reads is in [`turn`]: one that waits for an answer, otherwise a thread of the link.
//! - Every call ends exactly once: with its answer, or with the cause of the link's end.
//! - Messages leave in the order in which they were queued; those of one thread in the order of its calls.
//! - A thread that reads does not send before it has stopped reading, and no sender waits for the one that reads: else
//!   both sides could wait for each other.
//!
//! How a connection comes about is in [`super::dial`].

mod end;
mod handle;
mod keeper;
mod pending;
mod reader;
mod sending;
mod turn;

use std::io;
use std::thread;

use crate::base::sync::Arc;
use crate::client::dial::Dialled;
pub use end::{EndCause, LinkError};
pub use handle::{Link, Receiver};
pub use keeper::{LinkOptions, Silence};
use reader::{RECEIVE_MAX, Reader};
pub use turn::{Reads, Slot, Turn};

/// Puts a connection to work: starts the threads that read it and keep it alive.
pub fn start(dialled: Dialled, receiver: Arc<dyn Receiver>, options: LinkOptions) -> io::Result<Link> {
    let Dialled { stream, frames, wire, macs, ids, peer } = dialled;
    let (sent, received) = macs.map_or((None, None), |macs| (Some(macs.sent), Some(macs.received)));
    stream.set_receive_max(Some(RECEIVE_MAX))?;
    let link = Link::new(stream, wire, sent, ids, peer, options.linger);
    let reader = Reader::new(link.clone(), frames, received, Arc::clone(&receiver));
    link.0.turn.put(Box::new(reader));
    let read = link.clone();
    let thread = thread::Builder::new().name("zeo-link".into());
    thread.spawn(move || reader::run(&read, &*receiver))?;
    let kept = link.clone();
    let keeper = thread::Builder::new().name("zeo-link-keeper".into());
    if let Err(error) = keeper.spawn(move || keeper::run(&kept, &options)) {
        link.close();
        return Err(error);
    }
    Ok(link)
}
