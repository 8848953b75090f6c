//! The thread that follows a primary: connects again and again, and stores what it receives.
//!
//! One thread receives, another one stores: what arrives during a sync is the next batch, which is synced once.

use std::io;
use std::net::Shutdown;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use super::following::Following;
use super::receive::{ReceiveError, TransactionStream};
use super::{DEAD_PEER_TIMEOUT, SECONDARY_LOG, WITH_BLOBS, WITHOUT_BLOBS, from};
use crate::base::clock::{IoDeadline, Stopwatch};
use crate::base::ids::Tid;
use crate::base::sync::Arc;
use crate::net::connect::{ConnectError, Reached, connect};
use crate::net::stream::{Sink, Stream};
use crate::replication::frames::{Incoming, send_frame};
use crate::storage::{Bulk, Staged, Storage, StorageError};

/// Time for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(30);
/// Pause before the next attempt, at first; twice as long after each that brings nothing.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// A primary that does not want a secondary closes the connection at once, and says nothing. After this time it has
/// accepted it.
const REFUSAL_MAX: Duration = Duration::from_millis(500);
/// After a connection that has lasted so long the next attempt is a first one.
const LASTING: Duration = Duration::from_secs(10);
/// Transactions that wait to be stored. Each takes up to 256 KiB of memory.
const AHEAD: usize = 256;

/// Why a connection has ended.
#[derive(Debug)]
enum Ended {
    /// None was made.
    NotReached(ConnectError),
    /// The primary has ended it. `transactions`: how many it has sent.
    ByPrimary {
        transactions: u64,
    },
    Failed(ReceiveError),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Ended {
        Ended::Failed(error.into())
    }
}

/// Follows until `following` is stopped.
pub fn follow(base: &Arc<dyn Storage>, following: &Arc<Following>) {
    let mut pause = RETRY_MIN;
    while !following.is_stopped() {
        let watch = Stopwatch::start();
        let before = base.last_transaction();
        let ended = attempt(base, following);
        if following.is_stopped() {
            return;
        }
        let was_good = base.last_transaction() > before || watch.passed() > LASTING;
        let why = explain(&ended, base.last_transaction());
        let is_new = following.lose(&why);
        if was_good || is_new {
            log::warn!(target: SECONDARY_LOG, "{}: {why}", following.primary);
        }
        pause = if was_good { RETRY_MIN } else { (pause * 2).min(RETRY_MAX) };
        following.wait(pause);
    }
}

/// For the log and the status.
fn explain(ended: &Ended, last: Tid) -> String {
    match ended {
        Ended::NotReached(error) => format!("the primary cannot be reached: {error}"),
        Ended::ByPrimary { transactions: 0 } => format!(
            "the primary has closed the connection and has sent nothing; its log says why. Does it have the last \
             transaction of this secondary, {last}?"
        ),
        Ended::ByPrimary { .. } => "the primary has closed the connection".into(),
        Ended::Failed(ReceiveError::Lost(error)) => format!("the connection to the primary is lost: {error}"),
        Ended::Failed(ReceiveError::Wrong(what)) => {
            format!("what the primary sends cannot be understood: {what}")
        }
        Ended::Failed(ReceiveError::Storage(error)) => {
            format!("what the primary sends cannot be stored: {error}")
        }
    }
}

/// One connection.
fn attempt(base: &Arc<dyn Storage>, following: &Arc<Following>) -> Ended {
    let until = IoDeadline::after(CONNECT_MAX);
    let reached = match connect(&following.primary, until, &following.cancel) {
        Ok(reached) => reached,
        Err(error) => return Ended::NotReached(error),
    };
    receive(base, following, reached).unwrap_or_else(|ended| ended)
}

fn receive(base: &Arc<dyn Storage>, following: &Arc<Following>, reached: Reached) -> Result<Ended, Ended> {
    let Reached { socket, is_tcp, peer } = reached;
    let other = socket.try_clone()?;
    // An error means that the primary is gone already.
    let _ending = following.cancel.on_cancel(move || drop(other.shutdown(Shutdown::Both)));
    let stream = Arc::new(Stream::new(socket, is_tcp, None, Some(DEAD_PEER_TIMEOUT))?);
    stream.set_receive_max(Some(REFUSAL_MAX))?;
    let start = base.last_transaction();
    let blobs = base.blobs().and_then(|blobs| blobs.dir()).cloned();
    send_frame(&stream, if blobs.is_some() { WITH_BLOBS } else { WITHOUT_BLOBS })?;
    send_frame(&stream, &start.to_bytes())?;
    log::info!(target: SECONDARY_LOG, "{peer}: following the primary {}", from(start));
    let (idle_stream, mut is_accepted) = (Arc::clone(&stream), false);
    let mut idle = || {
        if is_accepted {
            return send_frame(&idle_stream, b"");
        }
        is_accepted = true;
        following.reach();
        idle_stream.set_receive_max(following.keep_alive_delay)
    };
    let mut receiver = TransactionStream::new(Incoming::new(Arc::clone(&stream)), start, blobs, &mut idle);
    thread::scope(|scope| {
        let (to, transactions) = sync_channel(AHEAD);
        let unstored = Arc::clone(&stream);
        let store = move || {
            let stored = store(&**base, following, &transactions);
            if stored.is_err() {
                // The primary may send nothing more for a long time.
                unstored.shutdown();
            }
            stored
        };
        let storing = thread::Builder::new().name("zrs-store".into()).spawn_scoped(scope, store)?;
        let received = receive_all(&mut receiver, following, &to);
        drop(to);
        let stored =
            storing.join().unwrap_or_else(|_| Err(StorageError::Closed("a thread has panicked".into())));
        match (received, stored) {
            (_, Err(error)) => Ok(Ended::Failed(error.into())),
            (Ok(transactions), Ok(())) => Ok(Ended::ByPrimary { transactions }),
            (Err(error), Ok(())) => Ok(Ended::Failed(error)),
        }
    })
}

/// Receives until the connection ends, or nothing can be stored any more. Returns the number of transactions.
fn receive_all(
    receiver: &mut TransactionStream<'_>,
    following: &Following,
    to: &SyncSender<Staged>,
) -> Result<u64, ReceiveError> {
    let mut count = 0;
    while let Some(staged) = receiver.next()? {
        count += 1;
        following.received();
        if to.send(staged).is_err() {
            break;
        }
    }
    Ok(count)
}

/// Stores what comes, as many at once as are there.
fn store(
    base: &dyn Storage,
    following: &Following,
    transactions: &Receiver<Staged>,
) -> Result<(), StorageError> {
    let bulk: &dyn Bulk = base.bulk().ok_or_else(|| StorageError::Unsupported("no copies".into()))?;
    while let Ok(first) = transactions.recv() {
        let mut count = 0;
        let mut writer = bulk.begin()?;
        for staged in std::iter::once(first).chain(transactions.try_iter().take(AHEAD)) {
            writer.add(staged)?;
            count += 1;
        }
        writer.complete()?;
        following.stored(count);
    }
    Ok(())
}
