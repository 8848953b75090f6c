//! Publishing: the moment at which a transaction becomes visible to reads, in one step with queueing its
//! invalidations (rules R1-R6).
//!
//! Readers share no lock. Publishing T goes, under the lock of the members list:
//!
//! 1. `announced = T`
//! 2. for each connection but the committer's: lock its outbox, queue the invalidation of T, unlock
//! 3. the storage installs T in its index: reads see it; T gives up its locks on oids
//! 4. the same as 2 for the committer, with its reply: what it does next finds T installed and unlocked
//! 5. `published = T`
//!
//! A reader notes `published` (its *seen* state S), reads, locks its own outbox and compares `announced` with S. If
//! they are equal, no later transaction was announced before the lock was taken, so none has been queued to this
//! outbox and none was visible to the read: the reply holds for S exactly, and stands in front of every later
//! invalidation. Otherwise the reader checks, under the lock of the members list where nothing can be published,
//! whether the transactions published since have changed one of the objects that it read; if not, the reply still
//! holds.
//!
//! Clients of ZEO 4 and older take no invalidation between their tpc_finish and its answer: their thread that receives
//! would wait for the one that waits for the answer, for ever. Their votes lock the whole storage, so there is none; if
//! the storage is another server's, and the connection to that was lost after the vote, there may be one. Then the
//! client's connection is ended instead.
//!
//! Invariants: nothing is sent, logged, read from a file or synced while the lock of the members list is held, and no
//! connection is shut down: debug builds check it ([`rank`](crate::base::sync::rank)). Lock order is members, then one
//! connection's transaction or one outbox at a time.

use crate::base::ids::{Oid, Tid};
use crate::base::sync::{Arc, AtomicBool, AtomicU64, Mutex, MutexGuard, Ordering, rank};
use crate::net::stream::{Sink, Stream};
use crate::server::invalidations::Invalidations;
use crate::server::outbox::{Chunk, Outbox, Place};
use crate::wire::protocol::Wire;

/// The state that the connections of one storage share.
#[derive(Debug)]
pub struct Publication<S: Sink = Stream> {
    announced: AtomicU64,
    published: AtomicU64,
    members: Mutex<Members<S>, rank::Members>,
}

/// The registered connections and the last invalidations. While its lock is held nothing is published.
#[derive(Debug)]
pub struct Members<S: Sink = Stream> {
    list: Vec<Member<S>>,
    pub invalidations: Invalidations,
}

/// A registered connection, as publishing sees it.
#[derive(Debug)]
pub struct Member<S: Sink = Stream> {
    pub id: u64,
    pub wire: Wire,
    pub outbox: Arc<Outbox<S>>,
    /// Whether its client has a transaction that was voted for and has not ended.
    pub is_voted: Arc<AtomicBool>,
    /// It gets no invalidations.
    pub is_quiet: bool,
}

impl<S: Sink> Clone for Member<S> {
    fn clone(&self) -> Self {
        let (outbox, is_voted) = (Arc::clone(&self.outbox), Arc::clone(&self.is_voted));
        Member { id: self.id, wire: self.wire, outbox, is_voted, is_quiet: self.is_quiet }
    }
}

/// The published state that a reply is computed from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Seen(Tid);

impl Seen {
    /// The last transaction of that state.
    pub fn last_transaction(self) -> Tid {
        self.0
    }
}

/// A transaction of a group that is published.
#[derive(Debug)]
pub struct PublicationEntry {
    pub tid: Tid,
    pub oids: Arc<[Oid]>,
    /// Id of the committing connection; 0: none.
    pub committer: u64,
    /// Sent to the committer instead of the invalidation.
    pub reply: Vec<u8>,
}

impl<S: Sink> Publication<S> {
    pub fn new(last_transaction: Tid, invalidations: Invalidations) -> Publication<S> {
        Publication {
            announced: AtomicU64::new(last_transaction.0),
            published: AtomicU64::new(last_transaction.0),
            members: Mutex::new(Members { list: Vec::new(), invalidations }),
        }
    }

    /// The published state: later reads see this one or a newer one.
    pub fn seen(&self) -> Seen {
        Seen(Tid(self.published.load(Ordering::SeqCst)))
    }

    /// The place for a reply that was computed from `seen`, if that is still the newest state.
    pub fn place_if_newest<'a>(&self, seen: Seen, outbox: &'a Outbox<S>) -> Option<Place<'a, S>> {
        let place = outbox.place();
        (self.announced.load(Ordering::SeqCst) == seen.0.0).then_some(place)
    }

    /// The place for the longest run of replies that still hold, and how many those are: `oids` are what
    /// each of them depends on, in order.
    pub fn place_for_untouched<'a>(
        &self,
        seen: Seen,
        outbox: &'a Outbox<S>,
        mut oids: impl Iterator<Item = Oid>,
    ) -> (Place<'a, S>, usize) {
        let members = self.members.lock();
        let changed = members.invalidations.changed_after(seen.0);
        let place = outbox.place();
        drop(members);
        let untouched = match changed {
            Some(changed) => {
                let mut count = 0;
                while let Some(oid) = oids.next()
                    && !changed.contains(&oid)
                {
                    count += 1;
                }
                count
            }
            None => 0,
        };
        (place, untouched)
    }

    /// Stops publishing for as long as the guard lives, which must be short.
    pub fn members(&self) -> (MutexGuard<'_, Members<S>>, Seen) {
        let members = self.members.lock();
        let seen = self.seen();
        (members, seen)
    }

    /// Makes a group of durable transactions visible. `encode` encodes an invalidation for one wire; `install` is the
    /// storage's step, and all that must be done before a committer has its reply. Returns the outboxes that are to
    /// be flushed, those of the committers first.
    pub fn publish(
        &self,
        group: &[PublicationEntry],
        mut encode: impl FnMut(&PublicationEntry, Wire) -> Vec<u8>,
        install: &mut dyn FnMut(),
    ) -> Vec<Arc<Outbox<S>>> {
        let Some(last) = group.last() else {
            install();
            return Vec::new();
        };
        let mut members = self.members.lock();
        self.announced.store(last.tid.0, Ordering::SeqCst);

        let mut encoded: Vec<(Wire, Vec<Chunk>)> = Vec::new();
        let mut queue = |member: &Member<S>, mut is_voted: bool| {
            let known = encoded.iter().position(|(wire, _)| *wire == member.wire);
            let index = known.unwrap_or_else(|| {
                let chunks = group.iter().map(|t| Chunk::Shared(encode(t, member.wire).into())).collect();
                encoded.push((member.wire, chunks));
                encoded.len() - 1
            });
            let mut place = member.outbox.place();
            for (transaction, chunk) in group.iter().zip(&encoded[index].1) {
                if transaction.committer == member.id {
                    place.push_reply(transaction.reply.clone());
                    is_voted = false;
                } else if member.wire.sends_serialnos() && is_voted {
                    // Such a client may hold the lock that it needs for invalidations until it has its answer: it would
                    // wait for ever.
                    place.close("another transaction was committed while its own was voted for");
                } else if !member.is_quiet {
                    place.push(chunk.clone());
                }
            }
        };
        let commits = |member: &&Member<S>| group.iter().any(|t| t.committer == member.id);
        let (committers, others): (Vec<_>, Vec<_>) = members.list.iter().partition(commits);
        others.iter().for_each(|member| queue(member, member.is_voted.load(Ordering::SeqCst)));
        install();
        // Last: any thread that flushes this outbox may send the reply at once, and then the client votes again.
        // For `install` their transactions have ended, for them when they have the reply.
        committers.iter().for_each(|member| queue(member, true));
        let outboxes = committers.iter().chain(&others).map(|member| Arc::clone(&member.outbox)).collect();
        for transaction in group {
            members.invalidations.push(transaction.tid, Arc::clone(&transaction.oids));
        }
        self.published.store(last.tid.0, Ordering::SeqCst);
        outboxes
    }

    /// The storage, which is another server's, has missed transactions: `install` makes the newer state visible.
    /// `oids`: the objects that changed since the state of before, `None` if nobody can say. No connection can be told
    /// what each transaction changed, so all are ended, and their clients verify their caches when they return. Returns
    /// the outboxes that are to be flushed.
    pub fn restart(
        &self,
        last: Tid,
        oids: Option<Arc<[Oid]>>,
        install: &mut dyn FnMut(),
    ) -> Vec<Arc<Outbox<S>>> {
        let mut members = self.members.lock();
        self.announced.store(last.0, Ordering::SeqCst);
        let outboxes: Vec<_> = members.list.drain(..).map(|member| member.outbox).collect();
        // No reply that reflects the newer state may follow.
        outboxes.iter().for_each(|outbox| outbox.place().close("its server missed transactions"));
        install();
        match oids {
            Some(oids) => members.invalidations.push(last, oids),
            None => members.invalidations.restart(last),
        }
        self.published.store(last.0, Ordering::SeqCst);
        outboxes
    }

    /// Ends all connections. Returns the outboxes that are to be flushed.
    pub fn disconnect(&self, why: &'static str) -> Vec<Arc<Outbox<S>>> {
        let mut members = self.members.lock();
        let outboxes: Vec<_> = members.list.drain(..).map(|member| member.outbox).collect();
        outboxes.iter().for_each(|outbox| outbox.place().close(why));
        outboxes
    }

    /// Queues a message for all that has no place in the order of transactions. Returns the outboxes that are to be
    /// flushed.
    pub fn broadcast(&self, mut encode: impl FnMut(Wire) -> Vec<u8>) -> Vec<Arc<Outbox<S>>> {
        let members = self.members.lock();
        let mut encoded: Vec<(Wire, Chunk)> = Vec::new();
        for Member { wire, outbox, .. } in &members.list {
            let known = encoded.iter().position(|(for_wire, _)| for_wire == wire);
            let index = known.unwrap_or_else(|| {
                encoded.push((*wire, Chunk::Shared(encode(*wire).into())));
                encoded.len() - 1
            });
            outbox.place().push(encoded[index].1.clone());
        }
        members.list.iter().map(|member| Arc::clone(&member.outbox)).collect()
    }

    /// Sends no more invalidations to this connection: another one of the same client hears them.
    pub fn quiet(&self, id: u64) {
        let mut members = self.members.lock();
        members.list.iter_mut().filter(|member| member.id == id).for_each(|member| member.is_quiet = true);
    }

    /// Sends nothing more to this connection.
    pub fn leave(&self, id: u64) {
        self.members.lock().list.retain(|member| member.id != id);
    }
}

impl<S: Sink> Members<S> {
    /// From here on the connection gets every invalidation (R4: the caller queues the state that it got with this guard
    /// before it drops it).
    pub fn join(&mut self, member: Member<S>) {
        self.list.push(member);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, IoSlice};

    use super::*;
    use crate::storage::LastInvalidations;
    use crate::wire::protocol::{Dialect, Encoding, Generation};

    /// A sink that records the sent bytes.
    #[derive(Default)]
    struct Recorder(std::sync::Mutex<Vec<u8>>);

    impl Recorder {
        fn sent(&self) -> String {
            String::from_utf8_lossy(&self.0.lock().expect("a lock")).into_owned()
        }
    }

    impl Sink for Recorder {
        fn try_send(&self, chunks: &[IoSlice<'_>]) -> io::Result<usize> {
            self.send(chunks)
        }

        fn send(&self, chunks: &[IoSlice<'_>]) -> io::Result<usize> {
            self.0.lock().expect("a lock").extend(chunks.iter().flat_map(|chunk| chunk.iter()));
            Ok(chunks.iter().map(|chunk| chunk.len()).sum())
        }

        fn shutdown(&self) {}
    }

    /// Eight clients that committed objects of their own met conflicts, and votes that were never answered: the reply
    /// was queued before the storage had installed the transaction and its locks were released, and the thread that
    /// delivered the group before sent it along. The client's next vote found the state of before. So at the time of
    /// the install nothing may be queued for the committer yet, while the others have their invalidation (R2).
    #[test]
    fn a_committer_cannot_have_its_reply_before_its_transaction_is_installed() {
        let wire = Wire { generation: Generation::Z5, encoding: Encoding::Pickle(Dialect::Python3) };
        let publication = Publication::new(
            Tid(1),
            Invalidations::new(100, LastInvalidations::new(Vec::new(), Tid(1)), Tid(1)),
        );
        let [committer, other] = [1, 2].map(|id| {
            let outbox = Arc::new(Outbox::new(Recorder::default(), 16 << 20));
            publication.members().0.join(Member {
                id,
                wire,
                outbox: Arc::clone(&outbox),
                is_voted: Arc::default(),
                is_quiet: false,
            });
            outbox
        });
        let announcement = PublicationEntry {
            tid: Tid(2),
            oids: Arc::from([Oid(7)]),
            committer: 1,
            reply: b"reply".to_vec(),
        };
        let mut at_install = None;
        let install = &mut || {
            // As another thread may that has something else to send.
            committer.flush();
            other.flush();
            at_install = Some((committer.sink().sent(), other.sink().sent()));
        };
        let flushed = publication.publish(&[announcement], |_, _| b"invalidation".to_vec(), install);
        assert_eq!(at_install, Some((String::new(), "invalidation".into())));
        flushed.iter().for_each(|outbox| outbox.flush());
        assert_eq!(committer.sink().sent(), "reply");
        assert!(Arc::ptr_eq(&flushed[0], &committer) && flushed.len() == 2);
    }

    /// Clients of ZEO 4 that committed through two servers over one database stood still for ever: another transaction
    /// was published together with theirs, the invalidation came before the answer to tpc_finish, and the client waits
    /// for this answer with the lock that it needs for the invalidation. Such a connection is ended.
    #[test]
    fn a_client_of_zeo_4_gets_no_invalidation_before_the_answer_to_its_finish() {
        for (generation, is_ended) in [(Generation::Z4, true), (Generation::Z5, false)] {
            let wire = Wire { generation, encoding: Encoding::Pickle(Dialect::Python2) };
            let publication = Publication::new(
                Tid(1),
                Invalidations::new(100, LastInvalidations::new(Vec::new(), Tid(1)), Tid(1)),
            );
            let outbox = Arc::new(Outbox::new(Recorder::default(), 16 << 20));
            let is_voted = Arc::new(AtomicBool::new(true));
            publication.members().0.join(Member {
                id: 1,
                wire,
                outbox: Arc::clone(&outbox),
                is_voted: Arc::clone(&is_voted),
                is_quiet: false,
            });
            let entry = |tid, committer, reply: &[u8]| PublicationEntry {
                tid: Tid(tid),
                oids: Arc::from([Oid(7)]),
                committer,
                reply: reply.to_vec(),
            };
            let group = [entry(2, 0, b""), entry(3, 1, b"reply "), entry(4, 0, b"")];
            let install = &mut || is_voted.store(false, Ordering::SeqCst);
            let encode = |entry: &PublicationEntry, _| format!("{} ", entry.tid.0).into_bytes();
            // What comes behind the answer does no harm.
            publication.publish(&group[1..], encode, install).iter().for_each(|outbox| outbox.flush());
            assert_eq!((outbox.sink().sent(), outbox.is_closed()), ("reply 4 ".into(), false));
            publication.publish(&group, encode, install).iter().for_each(|outbox| outbox.flush());
            assert_eq!(outbox.is_closed(), is_ended);
            assert_eq!(outbox.sink().sent(), if is_ended { "reply 4 " } else { "reply 4 2 reply 4 " });
        }
    }

    /// The storage of another server has missed transactions: a client that went on would have replies from after the
    /// gap, without the invalidations of the gap.
    #[test]
    fn after_a_gap_nothing_more_is_sent_to_those_who_were_connected() {
        let wire = Wire { generation: Generation::Z5, encoding: Encoding::Pickle(Dialect::Python3) };
        let publication = Publication::new(
            Tid(1),
            Invalidations::new(100, LastInvalidations::new(Vec::new(), Tid(1)), Tid(1)),
        );
        let outbox = Arc::new(Outbox::new(Recorder::default(), 16 << 20));
        publication.members().0.join(Member {
            id: 1,
            wire,
            outbox: Arc::clone(&outbox),
            is_voted: Arc::default(),
            is_quiet: false,
        });
        let mut last_at_install = None;
        let install = &mut || last_at_install = Some(outbox.is_closed());
        let outboxes = publication.restart(Tid(5), Some(Arc::from([Oid(7)])), install);
        assert_eq!((outboxes.len(), last_at_install), (1, Some(true)), "before the newer state is visible");
        outbox.place().push_reply(b"reply".to_vec());
        outboxes.iter().for_each(|outbox| outbox.flush());
        assert_eq!(outbox.sink().sent(), "");
        let (members, seen) = publication.members();
        assert!(members.list.is_empty() && seen.last_transaction() == Tid(5));
        // One that has seen the last transaction from before learns what has changed.
        assert_eq!(members.invalidations.changed_after(Tid(1)), Some([Oid(7)].into()));
    }
}
