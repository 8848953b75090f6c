//! What arrives at a client, under the model checker: every interleaving of replies, invalidations and views.
//!
//! A view must never see a revision that was not current at its start, whether it loads it from the cache, from the
//! server, or keeps it because nothing has changed. Replies arrive in any order relative to invalidations: servers
//! before ZEO 5 send an old reply behind an invalidation, servers from ZEO 5 on a new one before it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use loom::thread;
use runzeo::ids::{Oid, Tid};
use runzeo::internal::base::sync::Arc;
use runzeo::internal::client::awaited::{FinishId, OwnFinish};
use runzeo::internal::client::cache::Cached;
use runzeo::internal::client::recent::Change;
use runzeo::internal::client::timeline::{Filled, Found, Listener, News, Revisions, Timeline};
use runzeo::storage::{Delivery, Ticket};

use crate::Mutex;

const OBJECT: Oid = Oid(7);
const LINK: u64 = 1;

/// A cache of one object: start -> end.
#[derive(Default)]
struct OneObject(Mutex<BTreeMap<u64, Option<u64>>>);

impl Revisions for OneObject {
    fn load_before(&self, _: Oid, before: Tid, _: &mut Vec<u8>) -> Option<Cached> {
        let kept = self.0.lock();
        let (start, end) = kept.range(..before.0).next_back()?;
        let is_hit = end.is_none_or(|end| end >= before.0);
        is_hit.then_some(Cached { start: Tid(*start), end: end.map(Tid), data: 0..0 })
    }

    fn current_start(&self, _: Oid) -> Option<Tid> {
        self.0.lock().iter().find(|(_, end)| end.is_none()).map(|(start, _)| Tid(*start))
    }

    fn store(&self, _: Oid, start: Tid, end: Option<Tid>, _: &[u8]) {
        self.0.lock().entry(start.0).or_insert(end.map(|end| end.0));
    }

    fn invalidate(&self, _: Oid, tid: Option<Tid>) {
        let mut kept = self.0.lock();
        let current = kept.iter().find(|(_, end)| end.is_none()).map(|(start, _)| *start);
        match (current, tid) {
            (Some(start), Some(tid)) if start < tid.0 => drop(kept.insert(start, Some(tid.0))),
            (Some(start), None) => drop(kept.remove(&start)),
            _ => {}
        }
    }

    fn clear(&self) {
        self.0.lock().clear();
    }

    fn set_last_tid(&self, _: Tid) {}
}

struct Model {
    timeline: Timeline<OneObject>,
    /// The tids of the revisions on the server.
    truth: Mutex<Vec<u64>>,
}

impl Model {
    fn new() -> Arc<Model> {
        let timeline = Timeline::new(OneObject::default(), Tid(1));
        timeline.prepare(LINK);
        assert!(timeline.adopt(LINK, Tid(1), Found::Nothing, true).is_empty());
        Arc::new(Model { timeline, truth: Mutex::new(vec![1]) })
    }

    /// The revision just before `before`: its tid and the next one's.
    fn on_server(&self, before: Tid) -> (Tid, Option<Tid>) {
        let truth = self.truth.lock();
        let start = truth.iter().rev().find(|tid| **tid < before.0).expect("revision 1 is before all");
        (Tid(*start), truth.iter().find(|tid| *tid > start).map(|tid| Tid(*tid)))
    }

    fn commit(&self, tid: u64) {
        self.truth.lock().push(tid);
    }

    fn invalidate(&self, tid: u64) {
        let change = Change { tid: Tid(tid), oids: Arc::from([OBJECT]) };
        assert!(self.timeline.invalidated(LINK, change).is_none(), "no ticket comes back");
    }

    /// As a view loads: from the cache, or from the server.
    fn load(&self, start: Tid) -> Tid {
        if let Some(found) = self.timeline.cached(OBJECT, start, &mut Vec::new()) {
            return found.start;
        }
        let place = self.timeline.place();
        let (serial, end) = self.on_server(start);
        // Here other messages may arrive.
        let filled = self.timeline.fill(LINK, place, OBJECT, serial, end, b"");
        assert_ne!(filled, Filled::OtherLink);
        serial
    }

    fn view(&self) {
        let first = self.timeline.begin(None);
        let mut serial = self.load(first.start);
        assert_eq!(serial, self.on_server(first.start).0, "first view, before {}", first.start);
        let second = self.timeline.begin(Some(first.place));
        if second.changed.is_none_or(|oids| oids.contains(&OBJECT)) {
            serial = self.load(second.start);
        }
        assert_eq!(serial, self.on_server(second.start).0, "second view, before {}", second.start);
    }

    /// After everything has arrived, all revisions that the cache has are right.
    fn check_cache(&self) {
        let truth = self.truth.lock();
        for (start, end) in self.timeline.cache().0.lock().iter() {
            let next = truth.iter().find(|tid| *tid > start);
            assert_eq!(end.as_ref(), next, "the end of revision {start}");
            assert!(truth.contains(start));
        }
    }
}

#[test]
fn a_view_beside_invalidations() {
    loom::model(|| {
        let model = Model::new();
        let reader = {
            let model = Arc::clone(&model);
            thread::spawn(move || {
                model.commit(2);
                model.commit(3);
                model.invalidate(2);
                model.invalidate(3);
            })
        };
        model.view();
        reader.join().expect("no panic");
        model.check_cache();
    });
}

#[test]
fn two_views_fill_the_same_cache() {
    loom::model(|| {
        let model = Model::new();
        let other = {
            let model = Arc::clone(&model);
            thread::spawn(move || model.view())
        };
        let reader = {
            let model = Arc::clone(&model);
            thread::spawn(move || {
                model.commit(2);
                model.invalidate(2);
            })
        };
        model.view();
        other.join().expect("no panic");
        reader.join().expect("no panic");
        model.check_cache();
    });
}

/// A load of the newest state brings a revision whose invalidation, and an earlier one, arrive later. The revision that
/// the cache had as current does not end there.
#[test]
fn a_load_of_the_newest_state_beside_invalidations() {
    loom::model(|| {
        let model = Model::new();
        assert_eq!(model.load(Tid(2)), Tid(1));
        let reader = {
            let model = Arc::clone(&model);
            thread::spawn(move || {
                model.commit(2);
                model.commit(3);
                model.invalidate(2);
                model.view();
                model.invalidate(3);
            })
        };
        model.load(Tid::MAX);
        reader.join().expect("no panic");
        model.check_cache();
    });
}

/// The reply to `tpc_finish` arrives while a reply to a load of before is under way.
#[test]
fn an_own_commit_beside_a_load() {
    loom::model(|| {
        let model = Model::new();
        let committer = {
            let model = Arc::clone(&model);
            thread::spawn(move || {
                model.commit(2);
                let change = Change { tid: Tid(2), oids: Arc::from([OBJECT]) };
                let stored = std::iter::once((OBJECT, Cow::Borrowed(&b"new"[..])));
                assert!(model.timeline.finished(LINK, change, stored, Box::new(())).is_ok());
                let begun = model.timeline.begin(None);
                assert!(begun.start > Tid(2), "a view that begins after a commit sees it");
                assert_eq!(model.load(begun.start), Tid(2));
            })
        };
        model.view();
        committer.join().expect("no panic");
        model.check_cache();
    });
}

/// A link is replaced by another one, whose server has one transaction more.
#[test]
fn a_view_while_the_link_changes() {
    loom::model(|| {
        let model = Model::new();
        let connector = {
            let model = Arc::clone(&model);
            thread::spawn(move || {
                model.timeline.prepare(2);
                model.commit(2);
                model.commit(3);
                let early = Change { tid: Tid(3), oids: Arc::from([OBJECT]) };
                assert!(model.timeline.invalidated(2, early).is_none());
                assert!(model.timeline.adopt(2, Tid(2), Found::Objects(vec![OBJECT]), true).is_empty());
                assert!(model.timeline.lose(LINK).is_empty());
            })
        };
        let begun = model.timeline.begin(None);
        let serial = model.timeline.cached(OBJECT, begun.start, &mut Vec::new()).map(|found| found.start);
        let serial = serial.unwrap_or_else(|| {
            let place = model.timeline.place();
            let (serial, end) = model.on_server(begun.start);
            // On the link of before; it may not count any more.
            model.timeline.fill(LINK, place, OBJECT, serial, end, b"");
            serial
        });
        assert_eq!(serial, model.on_server(begun.start).0);
        let again = model.timeline.begin(Some(begun.place));
        if again.changed.is_some_and(|oids| oids.is_empty()) {
            assert_eq!(serial, model.on_server(again.start).0, "kept from before {}", begun.start);
        }
        connector.join().expect("no panic");
        assert_eq!(model.timeline.last_tid(), Tid(3));
        model.check_cache();
    });
}

/// What the leaves hear: each transaction, and whether it came with its ticket.
#[derive(Default)]
struct Heard(Mutex<Vec<(u64, bool)>>);

impl Listener for Heard {
    fn hear(&self, news: News<'_>, _install: &mut dyn FnMut()) -> Option<Delivery> {
        if let News::Transaction { change, ticket } = news {
            self.0.lock().push((change.tid.0, ticket.is_some()));
        }
        None
    }
}

fn listening(model: &Model) -> Arc<Heard> {
    let heard = Arc::new(Heard::default());
    model.timeline.set_listener(Arc::clone(&heard) as Arc<dyn Listener>);
    heard
}

fn finishing(model: &Model) -> FinishId {
    model.timeline.finishing_elsewhere(LINK, Arc::from([OBJECT]), Box::new(|| ())).expect("the link counts")
}

/// The ticket that comes back, if the outcome counts as unknown.
fn answered(model: &Model, id: FinishId, tid: u64) -> Option<Ticket> {
    let own = OwnFinish { stored: vec![(OBJECT, b"new".to_vec())], ticket: Box::new(()) };
    model.timeline.finished_elsewhere(id, Tid(tid), own).err().map(|own| own.ticket)
}

/// Another link finishes transaction 3, between two of other clients that change the same object. It is answered
/// before, between or after the main link's messages; a view runs beside them.
#[test]
fn a_finish_on_another_link() {
    loom::model(|| {
        let model = Model::new();
        let heard = listening(&model);
        let id = finishing(&model);
        let lane = {
            let model = Arc::clone(&model);
            thread::spawn(move || assert!(answered(&model, id, 3).is_none(), "its place is known"))
        };
        let reader = {
            let model = Arc::clone(&model);
            thread::spawn(move || {
                for tid in 2..=4 {
                    model.commit(tid);
                    model.invalidate(tid);
                }
            })
        };
        let begun = model.timeline.begin(None);
        assert_eq!(model.load(begun.start), model.on_server(begun.start).0);
        lane.join().expect("no panic");
        reader.join().expect("no panic");
        assert_eq!(*heard.0.lock(), [(2, false), (3, true), (4, false)]);
        model.check_cache();
    });
}

/// The finish on another link fails: the transaction that the main link tells is of another client.
#[test]
fn a_finish_on_another_link_that_fails() {
    loom::model(|| {
        let model = Model::new();
        let heard = listening(&model);
        let id = finishing(&model);
        let lane = {
            let model = Arc::clone(&model);
            thread::spawn(move || model.timeline.not_finished_elsewhere(id))
        };
        model.commit(2);
        model.invalidate(2);
        lane.join().expect("no panic");
        assert_eq!(*heard.0.lock(), [(2, false)]);
        model.check_cache();
    });
}

/// The main link is lost, by another thread, before or after it has told of the transaction. The ticket is used once:
/// it is published, or its outcome is unknown.
#[test]
fn the_main_link_is_lost_beside_a_finish_on_another_link() {
    loom::model(|| {
        let model = Model::new();
        let heard = listening(&model);
        let unknown = Arc::new(Mutex::new(0));
        let id = finishing(&model);
        let lane = {
            let (model, unknown) = (Arc::clone(&model), Arc::clone(&unknown));
            thread::spawn(move || *unknown.lock() += answered(&model, id, 2).iter().count())
        };
        let reader = {
            let (model, unknown) = (Arc::clone(&model), Arc::clone(&unknown));
            thread::spawn(move || {
                model.commit(2);
                let change = Change { tid: Tid(2), oids: Arc::from([OBJECT]) };
                let lost = model.timeline.invalidated(LINK, change);
                *unknown.lock() += lost.iter().count();
            })
        };
        let lost = model.timeline.lose(LINK);
        *unknown.lock() += lost.len();
        lane.join().expect("no panic");
        reader.join().expect("no panic");
        let published = heard.0.lock().iter().filter(|(_, with_ticket)| *with_ticket).count();
        assert_eq!(*unknown.lock() + published, 1, "published {published}");
    });
}
