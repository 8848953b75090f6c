//! tpc_begin and the stores: buffered here, touching the storage only at vote.

use crate::exceptions;
use crate::server::connection::{OpenTransaction, Transaction};
use crate::server::session::Session;
use crate::server::session::commit::check_id;
use crate::server::stats::count;
use crate::storage::{Staged, TransactionMeta};
use crate::wire::exception::PyException;
use crate::wire::protocol::{Codec, Dialect};
use crate::wire::request::TpcBegin;

use super::Registered;
use crate::server::hosted::LOG;

/// Bytes of a transaction that are kept in memory; what is beyond goes to a temporary file.
const STAGED_MEMORY_MAX: usize = 8 << 20;

impl Session {
    /// `tpc_begin(id, user, description, extension, tid, status)`
    pub(super) fn tpc_begin(&self, on: &Registered, begin: &TpcBegin<'_>) -> Result<(), PyException> {
        if on.read_only {
            return Err(exceptions::read_only_error());
        }
        let mut transaction = self.connection.settled_transaction();
        match transaction.id() {
            Some(open) if open == begin.id.as_ref() => {
                log::info!(
                    target: LOG,
                    "({}) duplicate tpc_begin({})",
                    self.connection.label(), begin.id.escape_ascii()
                );
                return Ok(());
            }
            Some(_) => {
                let message = "Multiple simultaneous tpc_begin requests from one client.";
                return Err(exceptions::transaction_error(message));
            }
            None => {}
        }
        let meta = TransactionMeta {
            user: begin.user.to_vec(),
            description: begin.description.to_vec(),
            extension: begin.extension.clone(),
        };
        let mut staged = Staged::new(meta, begin.tid, begin.status, STAGED_MEMORY_MAX);
        staged.python2 = self.connection.wire().codec == Codec::Pickle(Dialect::Python2);
        *transaction =
            Transaction::Open(OpenTransaction { id: begin.id.as_ref().into(), staged, refused: None });
        count(&on.hosted.stats.active_txns);
        Ok(())
    }

    /// Does one operation of the open transaction `id`, which must not have been voted for.
    pub(super) fn stage(
        &self,
        on: &Registered,
        id: &[u8],
        method: &str,
        operation: impl FnOnce(&mut Staged) -> std::io::Result<()>,
    ) -> Result<(), PyException> {
        if on.read_only {
            return Err(exceptions::read_only_error());
        }
        let mut transaction = self.connection.transaction.lock();
        check_id(&self.connection, &transaction, id, method)?;
        match &mut *transaction {
            Transaction::Open(open) => operation(&mut open.staged).map_err(|error| {
                log::error!(target: LOG, "({}) Can't buffer a transaction: {error}", self.connection.label());
                let doing = "buffering a transaction in the temporary directory";
                exceptions::of_storage_error(&crate::storage::StorageError::io(doing)(error))
            }),
            _ => Err(exceptions::transaction_error("The transaction has been voted for already.")),
        }
    }

    /// A call that wanted no reply was refused. Python's servers before ZEO 5 log it and let the vote pass without the
    /// store; here it fails the vote.
    pub(super) fn refuse_vote(&self, exception: &PyException) {
        if let Transaction::Open(open) = &mut *self.connection.transaction.lock() {
            open.refused.get_or_insert_with(|| exception.clone());
        }
    }
}
