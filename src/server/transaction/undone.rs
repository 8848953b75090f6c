//! Looks up the objects that an undo will change: those of the undone transaction, which may be far back in the log.
//!
//! A worker does this before locks are requested, so that a long search delays no other transaction. Everything else
//! that an undo reads is in the past and cannot change.

use std::collections::{HashMap, HashSet};

use crate::base::ids::{Oid, Tid};
use crate::server::hosted::Hosted;
use crate::server::job_panic::contained_vote;
use crate::server::registered::Registered;
use crate::server::slow::Step;
use crate::server::transaction::state::OpenTransaction;
use crate::storage::staged::OpKind;
use crate::storage::{Refusal, StorageError};
use crate::wire::request::OwnedMsgId;

/// The next step, with the result. The transaction is `Voting`.
pub type UndoneStep = fn(&Registered, OpenTransaction, OwnedMsgId, Result<Vec<Oid>, StorageError>);

/// Finds the objects that the undos of a transaction will change, in another thread, and continues with `then` there.
/// The transaction is `Voting`.
pub fn look_up(registered: &Registered, mut open: OpenTransaction, reply_to: OwnedMsgId, then: UndoneStep) {
    let registered = registered.clone();
    registered.hosted.workers.undos.clone().run(move || {
        contained_vote(&registered.connection, || {
            let undone = undone_oids(&registered.hosted, &open);
            if let Some(call) = &mut open.call {
                call.mark(Step::Read, registered.hosted.clock.now());
            }
            then(&registered, open, reply_to, undone);
        });
    });
}

/// The objects that the undos of a transaction will change. Each transaction is looked up once, however often it is
/// undone; the storage writes a record for each time, so all of them count for `max-transaction-objects`.
fn undone_oids(hosted: &Hosted, open: &OpenTransaction) -> Result<Vec<Oid>, StorageError> {
    let mut oids = HashSet::new();
    let mut counts: HashMap<Tid, usize> = HashMap::new();
    let mut total = open.staged.ops().len() as u64;
    for op in open.staged.ops() {
        let OpKind::Undo { tid } = op.kind else { continue };
        let count = match counts.get(&tid) {
            Some(count) => *count,
            None => {
                let found = hosted.storage.require_undo()?.undo_oids(tid)?;
                counts.insert(tid, found.len());
                let count = found.len();
                oids.extend(found);
                count
            }
        };
        total = total.saturating_add(count as u64);
        if let Some(max) = hosted.options().transaction_objects.filter(|max| total > *max) {
            return Err(StorageError::Refused {
                what: Refusal::TransactionTooLarge,
                message: format!(
                    "the transaction is larger than the server permits: with what its undos change, max-transaction-objects is {max}"
                ),
            });
        }
    }
    Ok(oids.into_iter().collect())
}
