//! Which transaction the database must still have, of those that were published: clients have seen it.
//!
//! That is the newest one. But a pack by RelStorage deletes every transaction of which it has left nothing, the newest
//! one, too. Then the newest of the transactions before it counts.
//!
//! A failover that loses transactions ends the session. So if transactions are missing on the session of before, a pack
//! has deleted them, or the database was cleared. After a pack the newest transaction is one that was published before;
//! in a cleared database there is none, or one of another database.

use std::collections::VecDeque;

use crate::base::ids::Tid;

/// Former transactions that are remembered.
const REMEMBERED: usize = 1000;

/// The transactions that were published last, ascending, and what became of them.
pub struct Present {
    published: VecDeque<Tid>,
}

/// What the newest transaction of the database says, on a session on which all were there.
#[derive(Debug, Eq, PartialEq)]
pub enum Remaining {
    All,
    /// A pack has removed those behind it.
    Packed,
    Lost,
}

impl Present {
    /// `last`: zero if there is no transaction.
    pub fn new(last: Tid) -> Present {
        Present { published: VecDeque::from([last]) }
    }

    /// Transactions are published, ascending.
    pub fn add(&mut self, tids: impl Iterator<Item = Tid>) {
        self.published.extend(tids);
        let surplus = self.published.len().saturating_sub(REMEMBERED);
        self.published.drain(..surplus);
    }

    /// What the database must have; zero if there is nothing.
    pub fn newest(&self) -> Tid {
        self.published.back().copied().unwrap_or(Tid::ZERO)
    }

    /// Compares with the newest transaction that the database has now; zero if it has none.
    pub fn found(&mut self, newest: Tid) -> Remaining {
        if newest >= self.newest() {
            return Remaining::All;
        }
        match self.published.iter().rposition(|tid| *tid == newest) {
            Some(at) if newest > Tid::ZERO => {
                self.published.truncate(at + 1);
                Remaining::Packed
            }
            _ => Remaining::Lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_removes_the_newest_ones_and_a_cleared_database_has_none() {
        let mut present = Present::new(Tid(10));
        present.add([11, 12, 13].map(Tid).into_iter());
        assert_eq!(present.found(Tid(13)), Remaining::All);
        assert_eq!(present.found(Tid(14)), Remaining::All, "it is not published yet");
        assert_eq!(present.found(Tid(11)), Remaining::Packed);
        assert_eq!((present.newest(), present.found(Tid(11))), (Tid(11), Remaining::All));
        present.add([20].map(Tid).into_iter());
        assert_eq!(present.found(Tid(12)), Remaining::Lost, "that was removed before");
        assert_eq!(present.found(Tid(15)), Remaining::Lost, "another database");
        assert_eq!(present.found(Tid::ZERO), Remaining::Lost);
        let mut empty = Present::new(Tid::ZERO);
        assert_eq!(empty.found(Tid::ZERO), Remaining::All);
        empty.add([5].map(Tid).into_iter());
        assert_eq!(empty.found(Tid::ZERO), Remaining::Lost);
    }

    #[test]
    fn not_all_are_remembered() {
        let mut present = Present::new(Tid(1));
        present.add((2..=5000).map(Tid));
        assert_eq!(present.published.len(), REMEMBERED);
        assert_eq!(present.found(Tid(1)), Remaining::Lost);
        assert_eq!(present.found(Tid(4999)), Remaining::Packed);
    }
}
