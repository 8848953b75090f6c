//! A new link, from the first call to the moment when it is taken into use: register, verify the cache, ask about the
//! storage.
//!
//! From `register` on transactions may arrive, before its reply too: [`Preparing`] gives them to the timeline, which
//! keeps them until the cache is verified. Each link has its own, so links to several servers can be prepared at once.

use std::mem;
use std::time::Duration;

use super::ask::{AskError, ask};
use super::blobs::IncomingBlobs;
use super::connector::{Prepare, PrepareError};
use super::iterate::iterate_on;
use super::lanes::{Serialnos, Sibling};
use super::link::{EndCause, Link, Receiver};
use super::past::{ASKED_MAX, Past, verify_past};
use super::recent::Change;
use super::server_info::ServerInfo;
use super::timeline::{Found, LinkId};
use super::upstream::{InUse, LOG, Upstream};
use super::verify::{self, ANSWER_MAX, Verdict, Verified, VerifyError, answer, verify};
use crate::base::address::Address;
use crate::base::ids::{Oid, Tid};
use crate::base::sync::{Arc, Mutex, rank};
use crate::storage::{StorageError, TransactionIterator};
use crate::wire::answers::ServerPush;
use crate::wire::availability::Method;
use crate::wire::calls::Call;
use crate::wire::value::Value;

/// Receives what a server sends without a call, and prepares the link.
pub struct Preparing {
    upstream: Arc<Upstream>,
    id: LinkId,
    address: Address,
    serialnos: Serialnos,
    check: Mutex<FullCheck, rank::FullCheck>,
    incoming: Arc<IncomingBlobs>,
}

/// What the server has answered to `verify` so far.
#[derive(Default)]
struct FullCheck {
    stale: Vec<Oid>,
    has_ended: bool,
}

impl From<VerifyError> for PrepareError {
    fn from(error: VerifyError) -> PrepareError {
        let why = error.to_string();
        match error {
            VerifyError::CacheNewer { .. } => {
                crate::critical!(target: LOG, "{why}");
                PrepareError::Retry { why, after: Some(LATER) }
            }
            VerifyError::Link(_) | VerifyError::Refused(_) => PrepareError::Retry { why, after: None },
        }
    }
}

/// The pause after a server was found whose database is older than the cache. As in Python's client.
const LATER: Duration = Duration::from_secs(9);

/// Prepares the links of a client.
pub struct Prepares(pub Arc<Upstream>);

impl Prepare for Prepares {
    type Receiver = Preparing;
    type Ready = ();

    fn receiver(&self, address: &Address) -> Preparing {
        let id = self.0.next_link();
        self.0.timeline.prepare(id);
        let upstream = Arc::clone(&self.0);
        Preparing {
            upstream,
            id,
            address: address.clone(),
            serialnos: Arc::default(),
            check: Mutex::default(),
            incoming: Arc::default(),
        }
    }

    fn prepare(&self, link: &Link, receiver: &Arc<Preparing>, read_only: bool) -> Result<(), PrepareError> {
        let prepared = receiver.prepare(link, read_only);
        if let Err(error) = &prepared {
            self.0.not_connected(&error.to_string());
        }
        prepared
    }
}

impl Preparing {
    /// Registers, verifies the cache, and takes the link into use. `read_only`: registers for reading only.
    fn prepare(&self, link: &Link, read_only: bool) -> Result<(), PrepareError> {
        let upstream = &self.upstream;
        let (wire, options) = (link.wire(), &upstream.options);
        let last = self.register(link, read_only)?;
        let verified = verify(
            link,
            last,
            upstream.timeline.cache(),
            verify::Options {
                drop_rather: options.drop_cache_rather_verify,
                has_readers: upstream.has_readers(),
            },
            &|cached| self.check_all(link, cached),
        )?;
        self.log(link, verified.verdict);
        let info = answer(ask(link, &Call::GetInfo, Some(ANSWER_MAX), |answer| answer.value()))?;
        if !wire.knows_authentication() {
            self.send_label(link);
        }
        let info = ServerInfo::from_value(&info);
        let past = self.past(link, &info, &verified)?;
        let mut found = verified.found;
        if options.serves_clients
            && info.provides("IStorageIteration")
            && let Found::Objects(oids) = &found
            && let Some(since) = upstream.timeline.cache().last_tid()
            && let Some(changes) = list_missed(link, since, verified.last, oids)
        {
            // Objects that no transaction names: a pack has removed their records.
            oids.iter().for_each(|oid| upstream.timeline.forget_unless(*oid, &changes));
            found = Found::Transactions(changes);
        }
        if past == Past::Other {
            found = Found::Unknown;
        }
        if matches!(&found, Found::Objects(oids) if oids.is_empty()) {
            found = Found::Nothing;
        }
        if upstream.is_closed() {
            return Err(PrepareError::Refused("the client is closed".into()));
        }
        if verified.is_unproven {
            upstream.timeline.forget_all();
        }
        let lost = upstream.timeline.adopt(self.id, verified.last, found, past == Past::Same);
        upstream.outcomes_unknown(lost);
        let in_use = InUse {
            id: self.id,
            link: link.clone(),
            is_read_only: read_only,
            serialnos: Arc::clone(&self.serialnos),
            incoming: Arc::clone(&self.incoming),
            // Not where a password made an older protocol necessary.
            sibling: if wire.knows_authentication() { None } else { self.sibling(&info, read_only) },
        };
        upstream.take_into_use(in_use, info);
        Ok(())
    }

    /// Whether the server has what views and other clients behind this one have seen.
    fn past(&self, link: &Link, info: &ServerInfo, verified: &Verified) -> Result<Past, VerifyError> {
        if verified.verdict == Verdict::OtherDatabase {
            return Ok(Past::Other);
        }
        let (last, changed) = self.upstream.timeline.last_changed(ASKED_MAX);
        if last == verified.last || last == Tid::ZERO || !self.upstream.has_readers() {
            return Ok(Past::Same);
        }
        let past = verify_past(link, info, last, &changed)?;
        if past == Past::Other {
            let (name, peer) = (self.upstream.name(), link.peer());
            let text = "the database does not have the last transaction that this client has seen, so it is another \
                        one, or was restored";
            crate::critical!(target: LOG, "{name} {peer}: dropping stale cache: {text}");
        }
        Ok(past)
    }

    /// Registers. Returns the server's last transaction.
    fn register(&self, link: &Link, read_only: bool) -> Result<Tid, PrepareError> {
        let (wire, options) = (link.wire(), &self.upstream.options);
        let call = Call::Register { storage: &options.storage, read_only };
        let registered = match ask(link, &call, Some(ANSWER_MAX), |answer| answer.optional_tid()) {
            Err(AskError::Raised(exception)) if *exception.name == *"ReadOnlyError" => {
                return Err(PrepareError::ReadOnly);
            }
            Err(AskError::Raised(exception))
                if *exception.name == *"AuthError"
                    && !wire.knows_authentication()
                    && options.credentials.is_some() =>
            {
                return Err(PrepareError::NeedsPassword);
            }
            Err(AskError::Link(error)) => return Err(VerifyError::Link(error).into()),
            other => {
                other.map_err(|error| PrepareError::Retry { why: error.to_string(), after: Some(LATER) })?
            }
        };
        if wire.knows_authentication() {
            self.send_label(link);
        }
        if let Some(last) = registered {
            return Ok(last);
        }
        let last = ask(link, &Call::LastTransaction, Some(ANSWER_MAX), |answer| answer.optional_tid());
        Ok(answer(last)?.unwrap_or_default())
    }

    /// Where more links lead, if the server takes transactions on several.
    fn sibling(&self, info: &ServerInfo, read_only: bool) -> Option<Arc<Sibling>> {
        let instance = info.instance.clone()?;
        let upstream = Arc::downgrade(&self.upstream);
        let on_info = Box::new(move |info: &Value| {
            if let Some(upstream) = upstream.upgrade() {
                upstream.update_info(|known| known.update(info));
            }
        });
        Some(Arc::new(Sibling { address: self.address.clone(), instance, read_only, on_info }))
    }

    fn send_label(&self, link: &Link) {
        if let Some(label) = &self.upstream.options.label
            && link.wire().knows(Method::SetClientLabel)
        {
            link.send(&Call::SetClientLabel { label });
        }
    }

    /// Has the server check each cached object. `None`: it has not said that it is done.
    fn check_all(&self, link: &Link, cached: &[(Oid, Tid)]) -> Result<Option<Vec<Oid>>, VerifyError> {
        log::info!(target: LOG, "{} verifying {} cached objects", self.upstream.name(), cached.len());
        *self.check.lock() = FullCheck::default();
        for (oid, serial) in cached {
            link.send(&Call::Verify { oid: *oid, serial: *serial });
        }
        link.send(&Call::EndZeoVerify);
        // Answered after all that was sent before, however long that takes.
        let done = ask(link, &Call::LastTransaction, None, |answer| answer.done());
        answer(done)?;
        let FullCheck { stale, has_ended } = mem::take(&mut *self.check.lock());
        Ok(has_ended.then_some(stale))
    }

    fn log(&self, link: &Link, verdict: Verdict) {
        let name = self.upstream.name();
        match verdict {
            Verdict::TooOld | Verdict::OtherDatabase => {
                crate::critical!(target: LOG, "{name} {}: dropping stale cache: {verdict}", link.peer());
            }
            _ => log::info!(target: LOG, "{name} {}: {verdict}", link.peer()),
        }
    }
}

/// The transactions after `since` up to `last`, each with its objects. `oids`: what the server has named as changed.
/// `None`: they are too many, because a server sends the records of a transaction with it; or it cannot list them.
fn list_missed(link: &Link, since: Tid, last: Tid, oids: &[Oid]) -> Option<Vec<Change>> {
    if oids.len() > LISTED_MAX {
        return None;
    }
    let list = || {
        let mut transactions = iterate_on(link, Some(Tid(since.0 + 1)), Some(last))?;
        let (mut changes, mut records_len) = (Vec::new(), 0);
        while let Some(transaction) = transactions.next_transaction()? {
            let mut records = transactions.records()?;
            let mut changed = Vec::new();
            while let Some(record) = records.next_record()? {
                changed.push(record.oid);
                records_len += 1;
                if records_len > 2 * LISTED_MAX {
                    return Ok(None);
                }
            }
            changes.push(Change { tid: transaction.tid, oids: changed.into() });
        }
        Ok::<_, StorageError>(Some(changes))
    };
    match list() {
        Ok(changes) => changes.filter(|changes| changes.last().is_none_or(|change| change.tid == last)),
        Err(error) => {
            log::info!(target: LOG, "the missed transactions cannot be listed: {error}");
            None
        }
    }
}

/// Objects of missed transactions above which they are not listed one by one.
const LISTED_MAX: usize = 2000;

impl Receiver for Preparing {
    fn push(&self, _link: &Link, push: ServerPush<'_>) {
        match push {
            ServerPush::Invalidate { tid, oids } => {
                let change = Change { tid, oids: oids.into() };
                let lost = self.upstream.timeline.invalidated(self.id, change);
                self.upstream.outcomes_unknown(lost);
            }
            ServerPush::InvalidateVerify { oid } => self.check.lock().stale.push(oid),
            ServerPush::EndVerify => self.check.lock().has_ended = true,
            ServerPush::Serialnos(serialnos) => self.serialnos.lock().extend(serialnos),
            ServerPush::Info(info) => self.upstream.update_info(|known| known.update(&info)),
            ServerPush::BlobStart { oid, serial } => self.incoming.started(oid, serial),
            ServerPush::BlobChunk { oid, serial, chunk } => self.incoming.chunk(oid, serial, chunk),
            ServerPush::BlobStop { oid, serial } => self.incoming.stopped(oid, serial),
        }
    }

    fn ended(&self, _link: &Link, cause: &EndCause) {
        self.upstream.lost(self.id, &cause.to_string());
    }
}
