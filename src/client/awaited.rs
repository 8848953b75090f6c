//! Transactions of this client that are finished on other links than the one that tells of transactions (the *main
//! link*), and where they belong in the order that it tells.
//!
//! The server answers such a finish on one link, and tells of the transaction on the other one. It is published when
//! the main link tells of it, as one of this client. So:
//!
//! - If the finish is answered first, the outcome waits here for the main link ([`Awaited::answered`]).
//! - If the main link tells first, its reader waits for the answer ([`Awaited::claim`]), and with it all that arrives
//!   on the main link behind the transaction. It waits only if the transaction changed exactly the objects of a finish
//!   without an answer: all others are of other clients. The server has sent the answer by then, so this takes as long
//!   as the network needs, and [`HOLD_MAX`] at most.
//! - If the main link is lost, nobody can say where the transaction belongs, and its outcome counts as unknown.
//!
//! The server tells of transactions in the order of their tids, and completely: others are not asked for this.
//!
//! No lock is held while a reader waits, and what it waits for comes from the reader of another link, which never
//! waits.

use std::time::Duration;

use crate::base::clock::IoDeadline;
use crate::base::ids::{Oid, Tid};
use crate::base::sync::{Arc, Condvar, Mutex, rank};
use crate::storage::Ticket;

/// The number of a link to a server, never used twice.
pub type LinkId = u64;

/// How long the main link waits for an answer that another link owes. Then that link is ended.
const HOLD_MAX: Duration = Duration::from_secs(20);

/// A transaction of this client whose finish was answered.
pub struct OwnFinish {
    /// The new revisions whose data is known.
    pub stored: Vec<(Oid, Vec<u8>)>,
    /// As it was given to the finish.
    pub ticket: Ticket,
}

/// The number of a finish.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FinishId(u64);

/// Ends the link that owes an answer.
pub type GiveUp = Box<dyn Fn() + Send + Sync>;

/// The finishes that have no place in the order yet.
#[derive(Default)]
pub struct Awaited {
    state: Mutex<AwaitedState, rank::AwaitedFinishes>,
    /// A finish was answered, or is not awaited any more.
    changed: Condvar,
}

#[derive(Default)]
struct AwaitedState {
    /// The main link.
    main: Option<LinkId>,
    /// All transactions up to this one have their place.
    placed: Tid,
    next: u64,
    finishes: Vec<Finish>,
}

struct Finish {
    id: FinishId,
    /// Ascending.
    oids: Arc<[Oid]>,
    outcome: FinishState,
}

enum FinishState {
    Unanswered(Arc<GiveUp>),
    Answered(Tid, OwnFinish),
}

impl Awaited {
    /// `main` tells of transactions from now on, of all after `last`. Returns the tickets of transactions whose outcome
    /// is unknown.
    pub fn follow(&self, main: LinkId, last: Tid) -> Vec<Ticket> {
        let mut state = self.state.lock();
        let lost = state.forget();
        (state.main, state.placed) = (Some(main), last);
        drop(state);
        self.changed.notify_all();
        lost
    }

    /// The link has ended. Returns the tickets of transactions whose outcome is unknown.
    pub fn lose(&self, main: LinkId) -> Vec<Ticket> {
        let mut state = self.state.lock();
        if state.main != Some(main) {
            return Vec::new();
        }
        let lost = state.forget();
        state.main = None;
        drop(state);
        self.changed.notify_all();
        lost
    }

    /// A transaction that changes `oids`, ascending, is about to be finished on another link than `main`. `None`:
    /// `main` tells of transactions no more, so it must not be finished.
    pub fn begin(&self, main: LinkId, oids: Arc<[Oid]>, give_up: GiveUp) -> Option<FinishId> {
        let mut state = self.state.lock();
        if state.main != Some(main) {
            return None;
        }
        state.next += 1;
        let id = FinishId(state.next);
        state.finishes.push(Finish { id, oids, outcome: FinishState::Unanswered(Arc::new(give_up)) });
        Some(id)
    }

    /// The finish was answered: it is transaction `tid`. `Err`: its outcome counts as unknown.
    pub fn answered(&self, id: FinishId, tid: Tid, own: OwnFinish) -> Result<(), OwnFinish> {
        let mut state = self.state.lock();
        let is_late = tid <= state.placed;
        let found = state.finishes.iter().position(|finish| finish.id == id);
        let Some(at) = found else { return Err(own) };
        let result = if is_late {
            state.finishes.swap_remove(at);
            Err(own)
        } else {
            if let Some(finish) = state.finishes.get_mut(at) {
                finish.outcome = FinishState::Answered(tid, own);
            }
            Ok(())
        };
        drop(state);
        self.changed.notify_all();
        result
    }

    /// The finish has failed, or its link has ended.
    pub fn failed(&self, id: FinishId) {
        self.state.lock().finishes.retain(|finish| finish.id != id);
        self.changed.notify_all();
    }

    /// The main link tells of transaction `tid`, which changed `oids`. Returns the finish of it, if it is one of this
    /// client; waits as long as that is not known.
    pub fn claim(&self, main: LinkId, tid: Tid, oids: &[Oid]) -> Option<OwnFinish> {
        let mut state = self.state.lock();
        if state.main != Some(main) {
            return None;
        }
        if !state.finishes.is_empty() {
            let mut sorted = oids.to_vec();
            sorted.sort_unstable();
            sorted.dedup();
            let until = IoDeadline::after(HOLD_MAX);
            loop {
                if let Some(own) = state.take(tid) {
                    state.placed = state.placed.max(tid);
                    return Some(own);
                }
                let owing = state.unanswered(&sorted);
                if owing.is_empty() || state.main != Some(main) {
                    break;
                }
                if until.is_over() {
                    drop(state);
                    owing.iter().for_each(|give_up| give_up());
                    state = self.state.lock();
                    break;
                }
                state = self.changed.wait_timeout(state, until.left());
            }
        }
        if state.main == Some(main) {
            state.placed = state.placed.max(tid);
        }
        None
    }
}

impl AwaitedState {
    /// The answered finish of a transaction.
    fn take(&mut self, tid: Tid) -> Option<OwnFinish> {
        let is_it =
            |finish: &Finish| matches!(finish.outcome, FinishState::Answered(answered, _) if answered == tid);
        let at = self.finishes.iter().position(is_it)?;
        match self.finishes.swap_remove(at).outcome {
            FinishState::Answered(_, own) => Some(own),
            FinishState::Unanswered(_) => None,
        }
    }

    /// How to give up the finishes without an answer that change these objects.
    fn unanswered(&self, oids: &[Oid]) -> Vec<Arc<GiveUp>> {
        let of = self.finishes.iter().filter(|finish| *finish.oids == *oids);
        of.filter_map(|finish| match &finish.outcome {
            FinishState::Unanswered(give_up) => Some(Arc::clone(give_up)),
            FinishState::Answered(..) => None,
        })
        .collect()
    }

    fn forget(&mut self) -> Vec<Ticket> {
        let all = self.finishes.drain(..);
        all.filter_map(|finish| match finish.outcome {
            FinishState::Answered(_, own) => Some(own.ticket),
            FinishState::Unanswered(_) => None,
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIN: LinkId = 7;

    fn tid(number: u64) -> Tid {
        Tid::from_bytes(number.to_be_bytes())
    }

    fn changed() -> [Oid; 1] {
        [Oid::from_bytes([1; 8])]
    }

    fn begin(awaited: &Awaited) -> FinishId {
        awaited.begin(MAIN, changed().into(), Box::new(|| ())).expect("the main link")
    }

    fn own() -> OwnFinish {
        OwnFinish { stored: Vec::new(), ticket: Box::new("ticket") }
    }

    /// The main link is behind the place where the transaction would belong: it has told of a later one, or began
    /// there. It will not tell of the transaction any more, so the finish must not wait for that.
    #[test]
    fn an_answer_that_comes_too_late_has_no_place() {
        let awaited = Awaited::default();
        assert!(awaited.follow(MAIN, tid(10)).is_empty());
        for late in [9, 10] {
            let id = begin(&awaited);
            assert!(awaited.answered(id, tid(late), own()).is_err(), "{late}");
            assert!(awaited.answered(id, tid(12), own()).is_err(), "{late}: it is forgotten");
        }

        let id = begin(&awaited);
        assert!(awaited.claim(MAIN, tid(20), &[Oid::from_bytes([2; 8])]).is_none(), "another client's");
        assert!(awaited.answered(id, tid(15), own()).is_err());
        // Had it been kept, this would return it, or the reader would wait for the finish.
        assert!(awaited.claim(MAIN, tid(21), &changed()).is_none());
        assert!(awaited.lose(MAIN).is_empty());
    }

    #[test]
    fn an_answer_in_time_waits_for_the_main_link() {
        let awaited = Awaited::default();
        assert!(awaited.follow(MAIN, tid(10)).is_empty());
        let [first, second] = [begin(&awaited), begin(&awaited)];
        assert!(awaited.answered(first, tid(11), own()).is_ok());
        assert!(awaited.claim(MAIN, tid(11), &changed()).is_some());
        assert!(awaited.answered(second, tid(12), own()).is_ok());
        assert_eq!(awaited.lose(MAIN).len(), 1, "the outcome of the second is unknown");
    }
}
