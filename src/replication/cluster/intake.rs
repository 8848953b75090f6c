//! A replica receives what its primary sends, and stores it: the work of two threads that take [`Turns`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use super::member::MemberStorage;
use super::receive::{Arrived, ReceiveError, Received, TransactionStream};
use super::this_server::ThisServer;
use super::turns::Turns;
use crate::base::ids::Tid;
use crate::base::sync::Arc;
use crate::net::stream::{Sink, Stream};
use crate::storage::{Bulk, Result, StorageError};

/// Groups of transactions that wait to be stored, each of up to 16 MiB.
const AHEAD: usize = 16;
/// Published transactions, as when a replica catches up, are stored in pieces of this number. Each transaction takes up
/// to 256 KiB of memory.
const PIECE: usize = 16;

/// How a connection has ended.
pub type StreamEnd = std::result::Result<(), ReceiveError>;

/// What comes from a connection.
///
/// What is stored together waits together until the primary has published it. A primary publishes a group when enough
/// replicas have all of it. So transactions that are not published yet are kept until their group is whole.
struct GroupStream {
    arriving: TransactionStream,
    /// The last transaction that has arrived, and the last one that the primary has published.
    last: Tid,
    allowed: Tid,
    group: Vec<Arrived>,
}

/// Where it goes: behind `last`.
struct GroupStore {
    last: Tid,
}

struct Intake<'a> {
    node: &'a ThisServer,
    member: &'a MemberStorage,
    stream: Arc<Stream>,
    turns: Turns<GroupStream, GroupStore, Vec<Arrived>>,
}

/// Receives and stores what comes behind `common`, until the connection ends, or nothing can be stored any more.
pub fn take_in(
    node: &ThisServer,
    member: &MemberStorage,
    arriving: TransactionStream,
    stream: &Arc<Stream>,
    common: Tid,
) -> Result<StreamEnd> {
    let last = member.base.last_transaction();
    let receiver = GroupStream { arriving, last, allowed: Tid::ZERO, group: Vec::new() };
    let turns = Turns::new(receiver, GroupStore { last: common }, AHEAD);
    let intake = Intake { node, member, stream: Arc::clone(stream), turns };
    let [one, other] = thread::scope(|scope| -> Result<_> {
        let other = thread::Builder::new().name("replica-turn".into()).spawn_scoped(scope, || intake.work());
        let other = other.map_err(StorageError::io("starting a thread of a replica"))?;
        let one = intake.work();
        Ok([one, other.join().unwrap_or_else(|_| Err(panicked()))])
    })?;
    // One of them has met the end.
    Ok(one?.or(other?).unwrap_or(Ok(())))
}

fn panicked() -> StorageError {
    StorageError::Closed("a thread has panicked".into())
}

impl Intake<'_> {
    /// What each of the threads does. Returns how the connection has ended, if this one has met its end.
    fn work(&self) -> Result<Option<StreamEnd>> {
        // The panic hook has logged it.
        let worked = catch_unwind(AssertUnwindSafe(|| self.take_turns())).unwrap_or_else(|_| Err(panicked()));
        if worked.is_err() {
            // The other one may receive, and the primary may send nothing more for a long time; or it may wait until
            // the primary has published what it stores.
            self.stream.shutdown();
            self.member.progress.unattend();
            self.turns.end();
        }
        worked
    }

    fn take_turns(&self) -> Result<Option<StreamEnd>> {
        let mut end = None;
        while let Some(mut receiver) = self.turns.wait_for_receiver() {
            let storer = match self.receive(&mut receiver) {
                Ok(Some(storer)) => {
                    self.turns.put_receiver_down(receiver);
                    Some(storer)
                }
                over => {
                    end = Some(over.map(|_| ()));
                    self.end_receiving(receiver.group)
                }
            };
            let mut stored = storer.and_then(|storer| self.turns.next_group(storer));
            while let Some((mut storer, group)) = stored {
                self.store(&mut storer, group)?;
                stored = self.turns.next_group(storer);
            }
        }
        Ok(end)
    }

    /// Receives until there is something to store, and the other thread does not store. `None`: the primary has ended
    /// the connection.
    fn receive(&self, receiver: &mut GroupStream) -> std::result::Result<Option<GroupStore>, ReceiveError> {
        while let Some(group) = self.receive_group(receiver)? {
            if let Some(storer) = self.turns.add(group) {
                return Ok(Some(storer));
            }
        }
        Ok(None)
    }

    /// The connection is over: `rest` is stored, too, although it is not a whole group, because the primary may count
    /// on what was received.
    fn end_receiving(&self, rest: Vec<Arrived>) -> Option<GroupStore> {
        // What was received is published: the primary may have answered its clients.
        self.member.progress.unattend();
        // Also an acknowledgement of the thread that stores, which the primary may not take.
        self.stream.shutdown();
        let storer = self.turns.add(rest);
        self.turns.end();
        storer
    }

    /// The next group, or piece of what is published. `None`: the primary has ended the connection.
    fn receive_group(
        &self,
        receiver: &mut GroupStream,
    ) -> std::result::Result<Option<Vec<Arrived>>, ReceiveError> {
        let (node, member) = (self.node, self.member);
        let GroupStream { arriving, last, allowed, group } = receiver;
        while let Some(received) = arriving.next_received()? {
            let is_whole = match received {
                Received::News(news) => {
                    member.progress.receive(*last, news.published);
                    member.hear(news);
                    *allowed = news.published;
                    *last <= *allowed || *last >= news.written
                }
                Received::Pack { time } => {
                    node.pack(&member.name, time);
                    false
                }
                Received::Transaction(arrived) => {
                    *last = arrived.tid();
                    group.push(*arrived);
                    *last <= *allowed && group.len() >= PIECE
                }
            };
            if is_whole && !group.is_empty() {
                return Ok(Some(std::mem::take(group)));
            }
        }
        Ok(None)
    }

    /// Stores a group; if it is published together with what is published behind it.
    fn store(&self, storer: &mut GroupStore, mut group: Vec<Arrived>) -> Result<()> {
        let is_published = |group: &Vec<Arrived>| {
            group.last().is_none_or(|last| self.member.progress.is_allowed(last.tid()))
        };
        let bulk: &dyn Bulk =
            self.member.base.bulk().ok_or_else(|| StorageError::Unsupported("no copies".into()))?;
        let mut writer = bulk.begin()?;
        let mut room = AHEAD;
        loop {
            room -= 1;
            let may_have_more = room > 0 && is_published(&group);
            for arrived in group {
                let tid = arrived.tid();
                if arrived.after != std::mem::replace(&mut storer.last, tid) {
                    let what = format!("transaction {tid} does not follow the last one that was stored");
                    return Err(StorageError::Transaction(what));
                }
                writer.add(arrived.staged)?;
            }
            match self.turns.next_group_if(|next| may_have_more && is_published(next)) {
                Some(more) => group = more,
                None => return writer.complete(),
            }
        }
    }
}
