//! The order of what several links and the client's own finishes bring.

use super::*;

/// A cache that keeps nothing.
struct NoCache;

impl Revisions for NoCache {
    fn load_before(&self, _: Oid, _: Tid, _: &mut Vec<u8>) -> Option<Cached> {
        None
    }

    fn current_start(&self, _: Oid) -> Option<Tid> {
        None
    }

    fn store(&self, _: Oid, _: Tid, _: Option<Tid>, _: &[u8]) {}
    fn invalidate(&self, _: Oid, _: Option<Tid>) {}
    fn clear(&self) {}
    fn set_last_tid(&self, _: Tid) {}
}

#[derive(Default)]
struct Heard(Mutex<Vec<u64>, rank::Flight>);

impl Listener for Heard {
    fn hear(&self, news: News<'_>, _: &mut dyn FnMut()) -> Option<Delivery> {
        if let News::Transaction { change, .. } = news {
            self.0.lock().push(change.tid.0);
        }
        None
    }
}

/// A client of a server that only reads went over to the writable one. What the first had told while the cache was
/// verified with the second one was published again, and the last tid went back.
#[test]
fn the_former_link_brings_transactions_while_the_cache_is_verified_with_the_next_one() {
    let change = |tid| Change { tid: Tid(tid), oids: Arc::from([Oid(1)]) };
    for found in [Found::Nothing, Found::Transactions(vec![change(2), change(3)])] {
        let timeline = Timeline::new(NoCache, Tid(1));
        let heard = Arc::new(Heard::default());
        timeline.set_listener(Arc::<Heard>::clone(&heard));
        timeline.prepare(1);
        assert!(timeline.adopt(1, Tid(1), Found::Nothing, true).is_empty());
        timeline.prepare(2);
        let last = if matches!(found, Found::Nothing) { 1 } else { 3 };
        // Both servers tell of the same.
        for tid in 2..5 {
            assert!(timeline.invalidated(1, change(tid)).is_none());
            if tid > last {
                assert!(timeline.invalidated(2, change(tid)).is_none());
            }
        }
        assert!(timeline.adopt(2, Tid(last), found, true).is_empty());
        assert_eq!(timeline.last_tid(), Tid(4));
        // Behind the answer to a call, as servers of Python may send it.
        assert!(timeline.invalidated(2, change(4)).is_none());
        assert!(timeline.invalidated(2, change(5)).is_none());
        assert_eq!(*heard.0.lock(), [2, 3, 4, 5]);
    }
}

/// A server of Python answered the finish of transaction 3 before it told of 2, and told of 4 before the answer: a
/// middle's clients were told in this order, and views of 3 saw the state before 2.
#[test]
fn what_is_told_about_a_finish_comes_in_its_order() {
    let change = |tid| Change { tid: Tid(tid), oids: Arc::from([Oid(1)]) };
    let timeline = Timeline::new(NoCache, Tid(1));
    let heard = Arc::new(Heard::default());
    timeline.set_listener(Arc::<Heard>::clone(&heard));
    timeline.prepare(1);
    assert!(timeline.adopt(1, Tid(1), Found::Nothing, true).is_empty());
    timeline.hold(1);
    assert!(timeline.invalidated(1, change(4)).is_none());
    assert!(timeline.invalidated(1, change(2)).is_none());
    assert_eq!((timeline.last_tid(), heard.0.lock().len()), (Tid(1), 0));
    assert!(timeline.finished(1, change(3), std::iter::empty(), Box::new(())).is_ok());
    timeline.caught_up(1, Tid(4));
    assert_eq!(*heard.0.lock(), [2, 3, 4]);

    timeline.hold(1);
    assert!(timeline.invalidated(1, change(5)).is_none());
    timeline.release(1);
    assert_eq!(timeline.last_tid(), Tid(5), "the finish has failed");

    timeline.hold(1);
    assert!(timeline.lose(1).is_empty());
    timeline.caught_up(1, Tid(6));
    assert_eq!(timeline.last_tid(), Tid(5), "nothing is held, and nothing counts");
}
