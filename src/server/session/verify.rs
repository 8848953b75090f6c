//! Cache verification: what did a returning client miss?

use std::collections::BTreeSet;
use std::time::Duration;

use crate::base::ids::{Oid, Tid};
use crate::exceptions;
use crate::server::hosted::{Hosted, LOG};
use crate::server::session::load::{frame, reply_exactly};
use crate::server::session::{Registered, Session};
use crate::server::stats::{count, uncount};
use crate::storage::StorageError;
use crate::wire::exception::PyException;
use crate::wire::push::Push;
use crate::wire::request::OwnedMsgId;
use crate::wire::value::Value;

impl Session {
    /// `getInvalidations(tid)`: (last tid, oids changed after `tid`), or `None` if that is not known any more.
    pub(super) fn get_invalidations(&self, on: &Registered, id: &OwnedMsgId, tid: Tid) {
        let hosted = &on.hosted;
        let may_read_log = || {
            let age = Duration::from_secs_f64((Tid::now().to_unix() - tid.to_unix()).max(0.0));
            hosted.options.invalidation_age.is_some_and(|max| age < max)
        };
        let is_queued = hosted.publication.members().0.invalidations.since(tid).is_some();
        if !is_queued && may_read_log() {
            self.invalidations_from_log(on, id, tid);
            return;
        }
        reply_exactly(hosted, &self.connection, |members, _| {
            let queue = &members.invalidations;
            let changes = match queue.since(tid) {
                Some(known) => {
                    let oids = known.iter().flat_map(|i| i.oids.iter().copied()).collect();
                    queue.newest().map(|newest| (newest, oids))
                }
                None => {
                    self.log_not_known(tid, queue.oldest_answered());
                    None
                }
            };
            self.invalidations(id, changes)
        });
    }

    /// The log is read up to some state, without holding anything up; what was published meanwhile is in the queue, so
    /// that the answer holds exactly at its place (R4).
    fn invalidations_from_log(&self, on: &Registered, id: &OwnedMsgId, tid: Tid) {
        let seen = on.hosted.publication.seen();
        let from_log = from_log(&on.hosted, tid).map_err(|error| exceptions::of_storage_error(&error));
        reply_exactly(&on.hosted, &self.connection, |members, newest| {
            let (last, mut oids) = match from_log {
                Ok(Some(found)) => found,
                Ok(None) => (Tid::ZERO, BTreeSet::new()),
                Err(exception) => return frame(&self.connection, id, &Err(exception)),
            };
            let Some(since) = members.invalidations.changed_after(seen.last_transaction()) else {
                return self.invalidations(id, None);
            };
            oids.extend(since);
            let changes = (!oids.is_empty()).then_some((last.max(newest.last_transaction()), oids));
            self.invalidations(id, changes)
        });
    }

    /// The answer in the shape of the client's generation.
    fn invalidations(&self, id: &OwnedMsgId, changes: Option<(Tid, BTreeSet<Oid>)>) -> Vec<u8> {
        let Some((last, oids)) = changes else { return frame(&self.connection, id, &Ok(Value::None)) };
        let oids: Vec<Oid> = oids.into_iter().collect();
        log::info!(
            target: LOG,
            "({}) Return {} invalidations up to tid {}",
            self.connection.label(), oids.len(), last.0
        );
        let mut frame = Vec::new();
        self.connection.wire().invalidations_reply(id.get(), last, &oids, &mut frame);
        frame
    }

    fn log_not_known(&self, tid: Tid, oldest: Option<Tid>) {
        let label = self.connection.label();
        match oldest {
            Some(oldest) => log::info!(target: LOG, "({label}) tid to old for invq {} < {}", tid.0, oldest.0),
            None => log::info!(target: LOG, "({label}) invq empty"),
        }
    }

    /// `zeoVerify(oid, serial)` and `verify(oid, serial)`: tell the client if its copy is outdated.
    pub(super) fn verify(&self, on: &Registered, oid: Oid, serial: Tid) -> Result<(), PyException> {
        match on.hosted.storage.get_tid(oid) {
            Ok(current) if current == serial => {}
            // It may have been un-created, or the application may have left a dangling reference: drop it in any case.
            Ok(_) | Err(StorageError::PosKey(_)) => {
                self.connection.post_push(&Push::InvalidateVerify { oid });
            }
            Err(error) => return Err(exceptions::of_storage_error(&error)),
        }
        Ok(())
    }

    /// The first `zeoVerify` of a client: it is counted as verifying.
    pub(super) fn begin_verifying(&mut self, on: &Registered) {
        if !self.verifying {
            self.verifying = true;
            count(&on.hosted.stats.verifying_clients);
        }
    }

    pub(super) fn end_verifying(&mut self, on: &Registered) {
        if std::mem::take(&mut self.verifying) {
            uncount(&on.hosted.stats.verifying_clients);
        }
    }
}

/// What changed after `tid`, from the log itself: `invalidation-age`.
fn from_log(hosted: &Hosted, tid: Tid) -> Result<Option<(Tid, BTreeSet<Oid>)>, StorageError> {
    let mut oids = BTreeSet::new();
    let mut last = None;
    let mut transactions = hosted.storage.iterate(Some(Tid(tid.0.saturating_add(1))), None)?;
    while let Some(transaction) = transactions.next_transaction()? {
        let mut records = transactions.records()?;
        while let Some(record) = records.next_record()? {
            oids.insert(record.oid);
        }
        last = Some(transaction.tid);
    }
    Ok(last.map(|last| (last, oids)))
}
