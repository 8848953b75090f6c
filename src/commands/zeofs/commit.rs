//! Transactions of this program itself: committed one by one, each durable before the next, unless the storage syncs
//! later.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::base::ids::Tid;
use crate::storage::{
    Committed, Delivery, NotVoted, Publisher, Staged, Storage, StorageError, Ticket, TidAt,
};

/// A storage that this program alone commits to through this object.
pub(super) struct Committer {
    pub(super) storage: Arc<dyn Storage>,
}

impl Committer {
    pub(super) fn new(storage: Arc<dyn Storage>) -> Committer {
        storage.set_publisher(Arc::new(Outcomes));
        Committer { storage }
    }

    /// Commits a transaction, and returns its tid.
    pub(super) fn commit(&self, staged: Staged) -> Result<Tid, StorageError> {
        let voted =
            self.storage.vote(staged, TidAt::Vote).map_err(|error: NotVoted| StorageError::from(error))?;
        let (ticket, outcome) = channel();
        let outcome: Receiver<Result<Tid, StorageError>> = outcome;
        self.storage.finish(voted, Box::new(ticket));
        let no_answer = || StorageError::Transaction("the storage has not said what became of it".into());
        outcome.recv().unwrap_or_else(|_| Err(no_answer()))
    }
}

/// Tells what has become of a transaction: the ticket is a channel.
struct Outcomes;

type OutcomeSender = Sender<Result<Tid, StorageError>>;

impl Publisher for Outcomes {
    fn publish(&self, group: Vec<Committed>, install: &mut dyn FnMut()) -> Delivery {
        install();
        Box::new(move || {
            for committed in group {
                answer(committed.ticket, Ok(committed.tid));
            }
        })
    }

    fn failed(&self, ticket: Ticket, error: StorageError) {
        answer(ticket, Err(error));
    }
}

fn answer(ticket: Ticket, outcome: Result<Tid, StorageError>) {
    // The ticket of a transaction of another client of the server is not one of ours.
    if let Ok(to) = ticket.downcast::<OutcomeSender>() {
        // Nothing waits if the program has given up.
        _ = to.send(outcome);
    }
}
