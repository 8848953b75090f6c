//! The publish step under the model checker: every interleaving of readers and committers.
//!
//! Run by `scripts/model`, which builds with `--cfg loom`; without that flag there is nothing here.
//!
//! A client's messages must show (R2): a reply from the state before T before the invalidation of T, a reply that
//! reflects T after it; and (R1, R3) invalidations in the order of the tids, each once.

use std::io::{self, IoSlice};

use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;
use runzeo::ids::{Oid, Tid};
use runzeo::internal::base::sync::Arc;
use runzeo::internal::net::stream::Sink;
use runzeo::internal::server::invalidations::Invalidations;
use runzeo::internal::server::outbox::Outbox;
use runzeo::internal::server::publish::{Member, Publication, PublicationEntry};
use runzeo::internal::wire::protocol::{Dialect, Encoding, Generation, Wire};
use runzeo::storage::LastInvalidations;

use crate::Mutex;

const OBJECT: Oid = Oid(7);
const OTHER: Oid = Oid(8);
const WIRE: Wire = Wire { generation: Generation::Z5, encoding: Encoding::Pickle(Dialect::Python3) };

const INVALIDATION: u8 = b'i';
const REPLY: u8 = b'r';
const FINISHED: u8 = b'f';

/// The messages that a client would read.
#[derive(Default)]
struct Tape(Mutex<Vec<u8>>);

impl Sink for Tape {
    fn try_send(&self, chunks: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut tape = self.0.lock();
        chunks.iter().for_each(|chunk| tape.extend_from_slice(chunk));
        Ok(chunks.iter().map(|chunk| chunk.len()).sum())
    }

    fn send(&self, chunks: &[IoSlice<'_>]) -> io::Result<usize> {
        self.try_send(chunks)
    }

    fn shutdown(&self) {}
}

/// A storage of one object, and its clients.
struct Model {
    publication: Publication<Tape>,
    /// The serial of [`OBJECT`] for reads.
    index: AtomicU64,
}

impl Model {
    fn new() -> Arc<Model> {
        let invalidations =
            Invalidations::new(100, LastInvalidations::new(vec![(Tid(1), vec![OBJECT])], Tid(1)), Tid(1));
        Arc::new(Model { publication: Publication::new(Tid(1), invalidations), index: AtomicU64::new(1) })
    }

    /// A registered client.
    fn client(&self, id: u64) -> Arc<Outbox<Tape>> {
        let outbox = Arc::new(Outbox::new(Tape::default(), 16 << 20));
        self.publication.members().0.join(Member {
            id,
            wire: WIRE,
            outbox: Arc::clone(&outbox),
            is_voted: Arc::default(),
            is_quiet: false,
        });
        outbox
    }

    fn commit(&self, tid: u8, committer: u64) {
        let announcement = PublicationEntry {
            tid: Tid(tid.into()),
            oids: Arc::from([OBJECT]),
            committer,
            reply: vec![FINISHED, tid],
        };
        let encode = |announcement: &PublicationEntry, _| vec![INVALIDATION, announcement.tid.0 as u8];
        let install = &mut || self.index.store(tid.into(), Ordering::Release);
        let outboxes = self.publication.publish(&[announcement], encode, install);
        outboxes.iter().for_each(|outbox| outbox.flush());
    }

    /// As a session answers a load. `depends_on`: the object that the validation checks.
    fn load(&self, outbox: &Arc<Outbox<Tape>>, depends_on: Oid) {
        loop {
            let seen = self.publication.seen();
            let reply = [REPLY, self.index.load(Ordering::Acquire) as u8];
            if let Some(place) = self.publication.place_if_newest(seen, outbox) {
                return outbox.send_own(place, &reply);
            }
            let (place, valid) =
                self.publication.place_for_untouched(seen, outbox, std::iter::once(depends_on));
            if valid == 1 {
                return outbox.send_own(place, &reply);
            }
        }
    }
}

fn check(outbox: &Outbox<Tape>) {
    let tape = outbox.sink().0.lock().clone();
    let mut shown = 1;
    for message in tape.chunks(2) {
        match message {
            [INVALIDATION | FINISHED, tid] => {
                assert!(*tid > shown, "transactions out of order: {tape:?}");
                shown = *tid;
            }
            [REPLY, tid] => assert_eq!(*tid, shown, "a reply on the wrong side of a transaction: {tape:?}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_load_beside_a_commit() {
    loom::model(|| {
        let model = Model::new();
        let reader = model.client(1);
        let writer = model.client(2);
        let committing = {
            let model = Arc::clone(&model);
            thread::spawn(move || model.commit(2, 2))
        };
        model.load(&reader, OBJECT);
        committing.join().unwrap();
        check(&reader);
        check(&writer);
        assert_eq!(writer.sink().0.lock().as_slice(), [FINISHED, 2]);
    });
}

#[test]
fn a_load_by_another_thread_of_the_committer() {
    loom::model(|| {
        let model = Model::new();
        let client = model.client(1);
        let committing = {
            let model = Arc::clone(&model);
            thread::spawn(move || model.commit(2, 1))
        };
        model.load(&client, OBJECT);
        committing.join().unwrap();
        check(&client);
    });
}

#[test]
fn a_client_registers_beside_a_commit() {
    loom::model(|| {
        let model = Model::new();
        let committing = {
            let model = Arc::clone(&model);
            thread::spawn(move || model.commit(2, 9))
        };
        let outbox = Arc::new(Outbox::new(Tape::default(), 16 << 20));
        let registered = {
            let (mut members, seen) = model.publication.members();
            members.join(Member {
                id: 1,
                wire: WIRE,
                outbox: Arc::clone(&outbox),
                is_voted: Arc::default(),
                is_quiet: false,
            });
            seen.last_transaction()
        };
        committing.join().unwrap();
        let invalidated = !outbox.sink().0.lock().is_empty();
        assert_eq!(invalidated, registered == Tid(1), "a transaction was missed or told twice");
    });
}

/// The checker finds a wrong validation: a reply that is checked for another object may come after the invalidation.
#[test]
#[should_panic(expected = "wrong side")]
fn a_wrong_validation_is_found() {
    loom::model(|| {
        let model = Model::new();
        let reader = model.client(1);
        let committing = {
            let model = Arc::clone(&model);
            thread::spawn(move || model.commit(2, 2))
        };
        model.load(&reader, OTHER);
        committing.join().unwrap();
        check(&reader);
    });
}
