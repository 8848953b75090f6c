//! Cache verification: the changes since a returning client's last transaction.

use std::collections::BTreeSet;
use std::time::{Duration, UNIX_EPOCH};

use crate::base::ids::{Oid, Tid};
use crate::base::level::{ERROR, INFO};
use crate::exceptions;
use crate::server::client_log::VERIFICATIONS;
use crate::server::invalidations::Since;
use crate::server::log_changes::{self, Changed};
use crate::server::registered::Registered;
use crate::server::replies::{reply_exactly, reply_frame};
use crate::server::session::Session;
use crate::server::stats::{Verification, count, uncount};
use crate::storage::StorageError;
use crate::wire::exception::PyException;
use crate::wire::push::Push;
use crate::wire::request::OwnedMsgId;
use crate::wire::value::Value;

/// Why `getInvalidations` has no list, and for which transaction.
enum NotKnown {
    /// The oldest that there is an answer for.
    TooOld(Tid, Option<Tid>),
    NoSuchTransaction(Tid),
    Unreadable(Tid, StorageError),
}

impl Session {
    /// `getInvalidations(tid)`: (last tid, oids changed after `tid`), or `None` if that is not known any more, or if
    /// there is no transaction `tid`: a client that has seen another history has states that never were.
    ///
    /// What changed up to some state is gathered, and encoded, without a lock. If more was published since, that is
    /// in the queue and is added under the lock, so that the answer holds exactly at its place (R4).
    pub(super) fn get_invalidations(&self, registered: &Registered, id: &OwnedMsgId, tid: Tid) {
        let hosted = &registered.hosted;
        let (queued, seen) = {
            let (members, seen) = hosted.publication.members();
            (members.invalidations.since(tid), seen)
        };
        let may_read_log = || {
            let now = hosted.clock.system_time().duration_since(UNIX_EPOCH).unwrap_or_default();
            let now = Tid::from_unix(now.as_secs_f64());
            let age = Duration::from_secs_f64((now.to_unix() - tid.to_unix()).max(0.0));
            hosted.options().invalidation_age.is_some_and(|max| age < max)
        };
        let found = match queued {
            Since::Known(queued) => {
                let oids = queued.iter().flat_map(|i| i.oids.iter().copied()).collect();
                // If nothing changed the answer names the newest transaction all the same.
                Ok(Changed { up_to: seen.last_transaction(), last: Some(seen.last_transaction()), oids })
            }
            Since::TooOld if may_read_log() => {
                let is_queued = |tid| {
                    let (members, _) = hosted.publication.members();
                    members.invalidations.reaches_back_to(tid)
                };
                match log_changes::is_transaction(hosted.storage.as_ref(), tid) {
                    Ok(true) => {
                        let storage = hosted.storage.as_ref();
                        hosted.log_changes.since(storage, tid, seen.last_transaction(), is_queued)
                    }
                    Ok(false) => return self.verify_all(registered, id, NotKnown::NoSuchTransaction(tid)),
                    Err(error) => Err(error),
                }
            }
            Since::TooOld => {
                let oldest = hosted.publication.members().0.invalidations.oldest_answered();
                return self.verify_all(registered, id, NotKnown::TooOld(tid, oldest));
            }
            Since::NoSuchTransaction => {
                return self.verify_all(registered, id, NotKnown::NoSuchTransaction(tid));
            }
        };
        let Changed { up_to, last, mut oids } = match found {
            Ok(changed) => changed,
            // Damage in the log must not keep the client from connecting: it can verify its cache in another way.
            Err(error) => return self.verify_all(registered, id, NotKnown::Unreadable(tid, error)),
        };
        hosted.stats.count_verification(Verification::Quick);
        let last = last.map(|last| last.max(seen.last_transaction()));
        let ready = self.invalidations(id, last, &oids);
        if up_to == seen.last_transaction()
            && let Some(place) = hosted.publication.place_if_newest(seen, &self.connection.outbox)
        {
            self.connection.outbox.send_own(place, &ready);
            return self.log_returned(last, oids.len());
        }
        drop(ready);
        // For the log, which is not written while nothing can be published.
        let mut returned = None;
        reply_exactly(hosted, &self.connection, |members, newest| {
            let Some(since) = members.invalidations.changed_after(up_to) else {
                return self.not_known(id, newest.last_transaction());
            };
            oids.extend(since);
            let newest = Some(newest.last_transaction());
            let last = if oids.is_empty() { last.and(newest) } else { last.max(newest) };
            returned = last;
            self.invalidations(id, last, &oids)
        });
        self.log_returned(returned, oids.len());
    }

    /// The answer in the shape of the client's generation. `None`: there is no transaction after the client's.
    fn invalidations(&self, id: &OwnedMsgId, last: Option<Tid>, oids: &BTreeSet<Oid>) -> Vec<u8> {
        let Some(last) = last else { return reply_frame(&self.connection, id, &Ok(Value::None)) };
        let oids: Vec<Oid> = oids.iter().copied().collect();
        let mut frame = Vec::new();
        self.connection.wire().invalidations_reply(id.get(), last, &oids, &mut frame);
        frame
    }

    /// `last`: `None` if the answer was.
    fn log_returned(&self, last: Option<Tid>, count: usize) {
        if let Some(last) = last {
            let message = format_args!("Return {count} invalidations up to tid {}", last.0);
            self.connection.peer.log(&VERIFICATIONS, INFO, message);
        }
    }

    /// Answers that what changed is not known: the client verifies its whole cache, or drops it.
    fn verify_all(&self, registered: &Registered, id: &OwnedMsgId, why: NotKnown) {
        let how = match why {
            NotKnown::NoSuchTransaction(_) => Verification::Unknown,
            NotKnown::TooOld(..) | NotKnown::Unreadable(..) => Verification::TooOld,
        };
        registered.hosted.stats.count_verification(how);
        let log = |level, message: std::fmt::Arguments<'_>| {
            self.connection.peer.log(&VERIFICATIONS, level, message)
        };
        match why {
            NotKnown::TooOld(tid, Some(oldest)) => {
                log(INFO, format_args!("tid to old for invq {} < {}", tid.0, oldest.0));
            }
            NotKnown::TooOld(_, None) => log(INFO, format_args!("invq empty")),
            NotKnown::NoSuchTransaction(tid) => log(
                INFO,
                format_args!(
                    "The client's last transaction {tid} is not in storage '{}' (another file was restored, or it was \
                     packed away): the client cannot use its cache",
                    registered.hosted.name
                ),
            ),
            NotKnown::Unreadable(tid, error) => log(
                ERROR,
                format_args!(
                    "What changed after transaction {tid} cannot be read: {error}. The client verifies its whole cache"
                ),
            ),
        }
        reply_exactly(&registered.hosted, &self.connection, |_, newest| {
            self.not_known(id, newest.last_transaction())
        });
    }

    /// The reply that has no list, in a state whose last transaction is `last`.
    ///
    /// Clients of ZODB 3.9 and 3.10 verify each object then, and go on naming the last transaction that they had
    /// before. Where that one exists, as at the next server of a cluster, nothing that it had changed would be
    /// invalidated. So they are sent an invalidation of no object, which names the state in which they are.
    fn not_known(&self, id: &OwnedMsgId, last: Tid) -> Vec<u8> {
        let mut frame = reply_frame(&self.connection, id, &Ok(Value::None));
        if self.connection.wire().leaves_last_tid() {
            self.connection.wire().push(&Push::Invalidate { tid: last, oids: &[] }, &mut frame);
        }
        frame
    }

    /// `zeoVerify(oid, serial)` and `verify(oid, serial)`: tell the client if its copy is outdated.
    pub(super) fn verify(&self, registered: &Registered, oid: Oid, serial: Tid) -> Result<(), PyException> {
        match registered.hosted.storage.get_tid(oid) {
            Ok(current) if current == serial => {}
            // It may have been un-created, or the application may have left a dangling reference: drop it in any case.
            Ok(_) | Err(StorageError::PosKey(_)) => {
                // A client with a large cache asks faster than it reads: its session waits for it, as with any reply.
                let mut frame = Vec::new();
                self.connection.wire().push(&Push::InvalidateVerify { oid }, &mut frame);
                let outbox = &self.connection.outbox;
                outbox.send_own(outbox.place(), &frame);
            }
            Err(error) => return Err(exceptions::of_storage_error(&error)),
        }
        Ok(())
    }

    /// The first `zeoVerify` of a client: it is counted as verifying.
    pub(super) fn begin_verifying(&mut self, registered: &Registered) {
        if !self.verifying {
            self.verifying = true;
            count(&registered.hosted.stats.verifying_clients);
        }
    }

    pub(super) fn end_verifying(&mut self, registered: &Registered) {
        if std::mem::take(&mut self.verifying) {
            uncount(&registered.hosted.stats.verifying_clients);
        }
    }
}
