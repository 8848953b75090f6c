//! tpc_finish: hands a transaction that was voted for to the storage, with a ticket.
//!
//! The storage brings the ticket back to its [`publisher`](super::publisher) when the transaction is durable, or has
//! failed.

use crate::base::ids::Tid;
use crate::base::level::CRITICAL;
use crate::server::audit::commit::CommitFacts;
use crate::server::client_log;
use crate::server::oid_locks::OidLocks;
use crate::server::registered::Registered;
use crate::server::slow::{CallTimes, SlowRequest, Step};
use crate::server::transaction::state::{OpenTransaction, StorageVote, Transaction};
use crate::server::transaction::vote::commit_facts;
use crate::server::transaction::vote_reply::note_failed;
use crate::server::transaction::wrong_id::check_id;
use crate::storage::{GroupTimes, TidAt};
use crate::wire::exception::PyException;
use crate::wire::request::OwnedMsgId;

/// Why a finish does not happen.
pub enum FinishRefused {
    /// It is not for the open transaction: Python's server returns `None`.
    Ignored,
    Error(PyException),
}

/// The client that gets the answer to a finish, and the locks that are held until then.
pub struct FinishTicket {
    pub registered: Registered,
    pub reply_to: OwnedMsgId,
    /// It undoes other transactions.
    pub undoes: bool,
    pub call: CallTimes,
    /// For the audit log.
    pub facts: Option<Box<CommitFacts>>,
    locks: Option<OidLocks>,
    is_answered: bool,
}

impl FinishTicket {
    /// The outcome is known. The locks are still held; see [`FinishTicket::take_locks`].
    pub fn set_answered(&mut self) {
        self.is_answered = true;
    }

    /// Counts the call. Returns what is to be noted if it was slow. Its transaction is durable, and has not ended yet.
    pub fn end_call(&mut self, tid: Tid, times: GroupTimes) -> Option<SlowRequest> {
        let Registered { hosted, connection, .. } = &self.registered;
        let parts = [(Step::Write, times.write), (Step::Sync, times.sync)];
        self.call.mark_parts(Step::Queue, &parts, hosted.clock.now());
        let mut slow = self.registered.end_call(&self.call)?;
        slow.tid = Some(tid);
        if let Transaction::Finishing { id } = &*connection.transaction.lock() {
            return Some(slow.of_transaction(id));
        }
        Some(slow)
    }

    pub fn take_locks(&mut self) -> Option<OidLocks> {
        self.locks.take()
    }
}

/// If a storage drops a ticket without an answer, a bug has occurred within a commit, and the storage is read-only from
/// now on; or the transaction was taken back before it was published, and other servers may have it. The outcome of the
/// transaction is unknown, so the connection is closed instead of reporting success or failure.
impl Drop for FinishTicket {
    fn drop(&mut self) {
        if self.is_answered {
            return;
        }
        let connection = &self.registered.connection;
        let message = format_args!("a transaction was lost while it was being finished");
        connection.peer.log(&client_log::TRANSACTIONS, CRITICAL, message);
        connection.outbox.close("its transaction was lost while it was being finished");
        drop(self.locks.take());
        connection.transaction.end();
    }
}

/// `tpc_finish(id)`: the answer comes when the transaction is durable and published.
pub fn finish(registered: &Registered, id: &[u8], reply_to: OwnedMsgId) -> Result<(), FinishRefused> {
    let call = registered.begin_call("tpc_finish");
    let Registered { hosted, connection, .. } = registered;
    let mut transaction = connection.transaction.lock();
    if let Err(wrong) = check_id(&transaction, id) {
        drop(transaction);
        wrong.log(&connection.peer, "tpc_finish");
        return Err(FinishRefused::Ignored);
    }
    let (mut vote, locks) = match transaction.take() {
        Transaction::Voted { id, vote, locks } => {
            *transaction = Transaction::Finishing { id };
            drop(transaction);
            (vote, locks)
        }
        // An undo that was answered has been checked: such clients may leave out the vote.
        Transaction::Open(OpenTransaction { id, staged, locks: locks @ Some(_), refused: None, .. }) => {
            let began = id.since;
            *transaction = Transaction::Finishing { id };
            drop(transaction);
            let facts = commit_facts(hosted, began, &staged);
            match hosted.storage.vote(staged, TidAt::Vote) {
                Ok(voted) => (StorageVote::new(&hosted.storage, voted, facts), locks),
                Err(not_voted) => {
                    let exception = note_failed(registered, &not_voted.into());
                    drop(locks);
                    connection.transaction.end();
                    return Err(FinishRefused::Error(exception));
                }
            }
        }
        other => {
            *transaction = other;
            let message = "finished called wo lock";
            return Err(FinishRefused::Error(PyException::builtin("AssertionError", message)));
        }
    };
    let registered = registered.clone();
    let undoes = vote.undoes();
    let facts = vote.take_facts();
    vote.finish(Box::new(FinishTicket {
        registered,
        reply_to,
        undoes,
        call,
        facts,
        locks,
        is_answered: false,
    }));
    Ok(())
}
