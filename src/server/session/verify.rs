//! Cache verification: what did a returning client miss?

use std::collections::BTreeSet;
use std::time::Duration;

use crate::base::ids::{Oid, Tid};
use crate::exceptions;
use crate::server::hosted::{Hosted, LOG};
use crate::server::session::load::reply_newest;
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
        let knows_versions = self.connection.wire().knows_versions();
        reply_newest(&on.hosted, &self.connection, id, |_| {
            let Some((last, oids)) = invalidations_since(&on.hosted, &self.connection.label(), tid)? else {
                return Ok(Value::None);
            };
            log::info!(
                target: LOG,
                "({}) Return {} invalidations up to tid {}",
                self.connection.label(), oids.len(), last.0
            );
            let oids = oids.into_iter().map(|oid| {
                let oid = Value::from(oid);
                if knows_versions { Value::Tuple(vec![oid, Value::text("")]) } else { oid }
            });
            Ok(Value::Tuple(vec![last.into(), Value::List(oids.collect())]))
        });
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

/// From the queue of the last transactions or, if `invalidation-age` allows, from the log itself.
fn invalidations_since(
    hosted: &Hosted,
    label: &str,
    tid: Tid,
) -> Result<Option<(Tid, Vec<Oid>)>, PyException> {
    // Copied out so that nothing is held up while the oids are collected.
    let (known, newest, oldest) = {
        let (members, _) = hosted.publication.members();
        let queue = &members.invalidations;
        (queue.since(tid), queue.newest(), queue.oldest_answered())
    };
    if let Some(known) = known {
        let oids: BTreeSet<Oid> = known.iter().flat_map(|i| i.oids.iter().copied()).collect();
        return Ok(newest.map(|newest| (newest, oids.into_iter().collect())));
    }
    let age = Duration::from_secs_f64((Tid::now().to_unix() - tid.to_unix()).max(0.0));
    if hosted.options.invalidation_age.is_some_and(|max| age < max) {
        return from_log(hosted, tid).map_err(|error| exceptions::of_storage_error(&error));
    }
    match oldest {
        Some(oldest) => {
            log::info!(target: LOG, "({label}) tid to old for invq {} < {}", tid.0, oldest.0);
        }
        None => log::info!(target: LOG, "({label}) invq empty"),
    }
    Ok(None)
}

fn from_log(hosted: &Hosted, tid: Tid) -> Result<Option<(Tid, Vec<Oid>)>, StorageError> {
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
    Ok(last.map(|last| (last, oids.into_iter().collect())))
}
