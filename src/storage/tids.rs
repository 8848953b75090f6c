//! Transaction ids: the time of day, but always later than the last id.

use std::sync::Arc;

use crate::base::clock::{Clock, SystemClock};
use crate::base::ids::Tid;
use crate::base::sync::{Mutex, MutexGuard, rank};
use crate::storage::{Refusal, Result, StorageError, TidAt};

/// Assigns tids, at vote or at finish: the time of day, but always later than the last one.
pub struct Tids {
    clock: Arc<dyn Clock>,
    last: Mutex<Last, rank::Tids>,
}

#[derive(Clone, Copy)]
struct Last {
    /// The tid of the last transaction that was written, or is being written.
    written: Tid,
    /// The last tid that a client got at vote; its transaction may have been aborted since.
    voted: Tid,
}

impl Tids {
    /// `last`: the last transaction of the storage; zero if it has none. The tids are made from the system's time.
    pub fn new(last: Tid) -> Tids {
        Tids::with_clock(last, Arc::new(SystemClock))
    }

    pub(crate) fn with_clock(last: Tid, clock: Arc<dyn Clock>) -> Tids {
        Tids { clock, last: Mutex::new(Last { written: last, voted: last }) }
    }

    /// Makes all further tids later than `tid`.
    pub fn not_before(&self, tid: Tid) {
        let mut last = self.lock();
        last.voted = last.voted.max(tid);
    }

    /// The tid of a transaction that is voted now, if it gets one at vote. `own`: see [`Tids::at_vote`].
    pub fn for_vote(&self, tid_at: TidAt, own: Option<Tid>) -> Result<Option<Tid>> {
        match tid_at {
            TidAt::Finish => Ok(None),
            TidAt::Vote => self.at_vote(own).map(Some),
        }
    }

    /// The tid of a transaction that needs it at vote ([`TidAt::Vote`](super::TidAt::Vote)): `own`
    /// ([`Staged::tid`](super::Staged::tid)), or a new one.
    ///
    /// Errors: `Refused` if `own` is not later than the last transaction.
    pub fn at_vote(&self, own: Option<Tid>) -> Result<Tid> {
        let mut last = self.lock();
        if let Some(own) = own {
            if own <= last.written {
                return Err(StorageError::Refused {
                    what: Refusal::TidOrder,
                    message: format!("transaction id {own} is not later than the last one, {}", last.written),
                });
            }
            return Ok(own);
        }
        last.voted = self.clock.now().later_than(last.voted.max(last.written));
        Ok(last.voted)
    }

    /// The tid of a transaction that is written now. `own`: the one that it got at vote. To be called under the lock
    /// that makes transactions become visible in the order of their tids.
    pub fn at_finish(&self, own: Option<Tid>) -> Tid {
        let mut last = self.lock();
        let tid = own.unwrap_or_else(|| self.clock.now().later_than(last.voted.max(last.written)));
        last.written = tid.max(last.written);
        tid
    }

    /// Transactions were taken back; `last` is the last one again. A copy may bring a tid after it, also one that a
    /// lost transaction had. New tids are later than all that were ever given out.
    pub(crate) fn taken_back(&self, last: Tid) {
        let mut tids = self.lock();
        tids.voted = tids.voted.max(tids.written);
        tids.written = last;
    }

    fn lock(&self) -> MutexGuard<'_, Last> {
        self.last.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::ManualClock;

    #[test]
    fn the_clock_may_go_back() {
        let clock = Arc::new(ManualClock::new(Tid(100)));
        let tids = Tids::with_clock(Tid(5), clock.clone());
        assert_eq!(tids.at_finish(None), Tid(100));
        clock.set(Tid(50));
        assert_eq!(tids.at_finish(None), Tid(101));
        assert_eq!(tids.at_vote(None).unwrap(), Tid(102));
        assert_eq!(tids.at_finish(None), Tid(103));
        // A copy may bring a tid of a transaction that was aborted, but not one that was written.
        assert!(tids.at_vote(Some(Tid(103))).is_err());
        assert_eq!(tids.at_vote(Some(Tid(104))).unwrap(), Tid(104));
        assert_eq!(tids.at_finish(Some(Tid(104))), Tid(104));
    }
}
