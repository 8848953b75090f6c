//! Whether the server of a new link has the past that this client has seen.
//!
//! A backup may have been restored while there was no connection. The cache is verified by its own revisions
//! ([`super::verify`]); what views and other clients behind this one have seen may be more than is cached, and is
//! verified here: all of it is in the server's database if the last transaction is there.

use super::ask::{AskError, ask};
use super::iterate::iterate_on;
use super::link::Link;
use super::server_info::ServerInfo;
use super::verify::{ANSWER_MAX, VerifyError, answer};
use crate::base::ids::{Oid, Tid};
use crate::storage::{StorageError, TransactionIterator};
use crate::wire::calls::Call;

/// Upper bound on the objects that are asked for.
pub(super) const ASKED_MAX: usize = 5;

/// What the server has of what this client has seen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Past {
    /// All of it.
    Same,
    /// Not the last transaction: it is another database, or one that was restored. (Or a pack has removed a transaction
    /// all of whose objects were changed later.)
    Other,
    /// The server cannot say.
    Unproven,
}

/// Asks for the transaction `last`. `changed`: objects that it may have changed.
pub fn verify_past(link: &Link, info: &ServerInfo, last: Tid, changed: &[Oid]) -> Result<Past, VerifyError> {
    for oid in changed.iter().take(ASKED_MAX) {
        let call = Call::LoadBefore { oid: *oid, before: Tid(last.0 + 1) };
        match ask(link, &call, Some(ANSWER_MAX), |answer| Ok(answer.loaded()?.map(|loaded| loaded.serial))) {
            Ok(Some(serial)) if serial == last => return Ok(Past::Same),
            // It is deleted, or packed away.
            Ok(_) | Err(AskError::Raised(_)) => {}
            Err(error) => return answer(Err(error)),
        }
    }
    // A storage without undo does not keep transactions whose objects were changed later.
    if !info.provides("IStorageIteration") || !info.supports_undo {
        return Ok(Past::Unproven);
    }
    let find = || Ok(iterate_on(link, Some(last), Some(last))?.next_transaction()?.is_some());
    match find() {
        Ok(true) => Ok(Past::Same),
        Ok(false) => Ok(Past::Other),
        Err(StorageError::Disconnected(why)) => Err(VerifyError::Refused(why)),
        Err(error) => {
            log::info!(target: super::upstream::LOG, "transaction {last} cannot be looked up: {error}");
            Ok(Past::Unproven)
        }
    }
}
