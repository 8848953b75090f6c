//! The finish of transactions that the server has voted for: the outcome goes to the publisher, in the order in which
//! the main link tells of transactions.
//!
//! If the link ends while a finish is under way, nobody knows the outcome ([`StorageError::OutcomeUnknown`]).

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::ask::{AskError, understood};
use super::awaited::{FinishId, OwnFinish};
use super::commit::{Begun, ServerVoted};
use super::link::{Link, LinkError};
use super::recent::Change;
use super::upstream::{LOG, Upstream};
use crate::base::ids::{Oid, Tid};
use crate::base::sync::Arc;
use crate::exceptions::meaning::to_storage_error;
use crate::storage::{OpKind, Result, Staged, StorageError, Ticket};
use crate::wire::answers::Answer;
use crate::wire::calls::Call;

impl Upstream {
    /// Finishes a transaction. The outcome goes to the publisher, with the ticket, from the thread of a link.
    pub fn finish(self: &Arc<Self>, voted: ServerVoted, ticket: Ticket) {
        let link = voted.begun.link().clone();
        let call = Call::TpcFinish { txn: voted.begun.txn };
        let not_sent = || {
            let why = format!("{}: the connection was lost before a transaction was finished", self.name());
            StorageError::Disconnected(why)
        };
        if link.has_ended() {
            // Nothing was finished on it.
            return self.publisher.failed(ticket, not_sent(), LOG, &self.name());
        }
        let mut finishing = Finishing::of(voted);
        let awaited = if finishing.begun.taken.is_main() {
            None
        } else {
            let (owing, oids) = (link.clone(), Arc::clone(&finishing.oids));
            let give_up = Box::new(move || owing.close());
            match self.timeline.finishing_elsewhere(finishing.begun.taken.main, oids, give_up) {
                Some(id) => Some(id),
                None => return self.publisher.failed(ticket, not_sent(), LOG, &self.name()),
            }
        };
        // Servers of Python may tell of transactions in another order than they answer.
        let main = finishing.begun.taken.main;
        let holds = awaited.is_none() && finishing.begun.is_of_python;
        if holds {
            self.timeline.hold(main);
        }
        // From here on it cannot be aborted.
        finishing.begun.is_open = false;
        let upstream = Arc::clone(self);
        link.start(&call, move |link, answer| {
            let outcome = match (upstream.outcome(link, answer), awaited) {
                (Ok(tid), None) if holds && !link.wire().sends_serialnos() => {
                    return upstream.finished_behind_others(link, tid, finishing, ticket);
                }
                (Ok(tid), None) => upstream.finished(tid, finishing, ticket),
                (Ok(tid), Some(id)) => upstream.finished_elsewhere(id, tid, finishing, ticket),
                (Err(error), awaited) => {
                    awaited.into_iter().for_each(|id| upstream.timeline.not_finished_elsewhere(id));
                    if holds {
                        upstream.timeline.release(main);
                    }
                    drop(finishing);
                    Err((ticket, error))
                }
            };
            if let Err((ticket, error)) = outcome {
                upstream.publisher.failed(ticket, error, LOG, &upstream.name());
            }
        });
    }

    fn unknown(&self, why: &dyn std::fmt::Display) -> StorageError {
        let text = "the connection was lost while a transaction was being finished; nobody knows whether it is committed";
        StorageError::OutcomeUnknown(format!("{}: {text}: {why}", self.name()))
    }

    /// The answer to a finish. `Err`: the transaction is not committed, or nobody knows.
    fn outcome(&self, link: &Link, answer: std::result::Result<Answer<'_>, LinkError>) -> Result<Tid> {
        match answer.map(|answer| answer.tid()) {
            Ok(Ok(tid)) => Ok(tid),
            Ok(Err(error)) => Err(match understood(link, error) {
                AskError::Raised(exception) => to_storage_error(&exception),
                broken => self.unknown(&broken),
            }),
            Err(error) => Err(self.unknown(&error)),
        }
    }

    /// The finish was answered on the main link.
    fn finished(&self, tid: Tid, mut finishing: Finishing, ticket: Ticket) -> FinishResult {
        finishing.keep_blobs(self, tid);
        let change = Change { tid, oids: Arc::clone(&finishing.oids) };
        let stored = finishing.stored().map(|(oid, data)| (oid, Cow::Owned(data)));
        self.timeline
            .finished(finishing.begun.taken.main, change, stored, ticket)
            .map_err(|ticket| (ticket, self.unknown(&"another connection has taken its place")))
    }

    /// The finish was answered by a server since ZEO 5 of Python, which may tell of earlier transactions only now. They
    /// have arrived when it answers another call.
    fn finished_behind_others(self: &Arc<Self>, link: &Link, tid: Tid, finishing: Finishing, ticket: Ticket) {
        let upstream = Arc::clone(self);
        link.start(&Call::LastTransaction, move |_, answer| {
            let outcome = match answer {
                Ok(_) => upstream.finished(tid, finishing, ticket),
                Err(error) => Err((ticket, upstream.unknown(&error))),
            };
            if let Err((ticket, error)) = outcome {
                upstream.publisher.failed(ticket, error, LOG, &upstream.name());
            }
        });
    }

    /// The finish was answered on another link.
    fn finished_elsewhere(
        &self,
        id: FinishId,
        tid: Tid,
        mut finishing: Finishing,
        ticket: Ticket,
    ) -> FinishResult {
        finishing.keep_blobs(self, tid);
        let own = OwnFinish { stored: finishing.stored().collect(), ticket };
        // The link is free before the transaction is published: its client may begin the next one at once.
        drop(finishing);
        self.timeline
            .finished_elsewhere(id, tid, own)
            .map_err(|own| (own.ticket, self.unknown(&"its place in the order is not known")))
    }
}

/// `Err`: the transaction is not committed, or nobody knows.
type FinishResult = std::result::Result<(), (Ticket, StorageError)>;

/// A transaction whose finish is under way.
struct Finishing {
    begun: Begun,
    staged: Staged,
    /// The objects that the server merged. Ascending.
    resolved: Vec<Oid>,
    /// All objects that change. Ascending.
    oids: Arc<[Oid]>,
}

impl Finishing {
    fn of(voted: ServerVoted) -> Finishing {
        let ServerVoted { begun, staged, resolved, undone, .. } = voted;
        let mut oids: BTreeSet<Oid> = undone.iter().map(|undone| undone.oid).collect();
        oids.extend(staged.ops().iter().filter(|op| changes(op.kind)).map(|op| op.oid));
        oids.extend(&resolved);
        Finishing { begun, staged, resolved, oids: oids.into_iter().collect() }
    }

    fn keep_blobs(&mut self, upstream: &Upstream, tid: Tid) {
        if let Some(blobs) = &upstream.blobs {
            self.staged.take_blobs().into_iter().for_each(|(oid, blob)| blobs.committed(oid, tid, blob));
        }
    }

    /// The new revisions whose data is known.
    fn stored(&self) -> impl Iterator<Item = (Oid, Vec<u8>)> {
        self.staged.ops().iter().filter_map(|op| {
            let is_known =
                matches!(op.kind, OpKind::Store { .. }) && self.resolved.binary_search(&op.oid).is_err();
            // What cannot be read back is not cached.
            is_known.then(|| Some((op.oid, self.staged.payload(op).ok()?)))?
        })
    }
}

/// Whether an operation changes its object.
fn changes(kind: OpKind) -> bool {
    match kind {
        OpKind::Store { .. } | OpKind::Delete { .. } | OpKind::Restore { .. } => true,
        OpKind::CheckCurrent { .. } | OpKind::Undo { .. } => false,
    }
}
