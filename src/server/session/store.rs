//! tpc_begin and the stores: buffered here, touching the storage only at vote.

use crate::base::level::{ERROR, INFO};
use crate::base::untrusted::UntrustedBytes;
use crate::exceptions;
use crate::server::client_log;
use crate::server::hosted::Hosted;
use crate::server::registered::Registered;
use crate::server::session::Session;
use crate::server::transaction::state::{OpenTransaction, Transaction, TransactionId};
use crate::server::transaction::wrong_id::check_id;
use crate::storage::{Merging, Staged, TransactionMeta};
use crate::wire::exception::PyException;
use crate::wire::frame::FrameError;
use crate::wire::protocol::{Dialect, Encoding};
use crate::wire::request::TpcBegin;

/// Bytes of id, user, description and extension of a transaction, which are kept in memory. Storages have narrower
/// limits, which they enforce at vote.
const META_LEN_MAX: usize = 1 << 20;

impl Session {
    /// `tpc_begin(id, user, description, extension, tid, status)`
    pub(super) fn tpc_begin(
        &mut self,
        registered: &Registered,
        begin: &TpcBegin<'_>,
    ) -> Result<(), PyException> {
        if registered.read_only {
            return Err(exceptions::read_only_error());
        }
        let mut transaction = self.connection.transaction.settled();
        match transaction.id() {
            Some(open) if open == begin.id.as_ref() => {
                drop(transaction);
                let message = format_args!("duplicate tpc_begin({})", UntrustedBytes(&begin.id));
                self.connection.peer.log(&client_log::WRONG_STATE, INFO, message);
                return Ok(());
            }
            Some(_) => {
                let message = "Multiple simultaneous tpc_begin requests from one client.";
                return Err(exceptions::transaction_error(message));
            }
            None => {}
        }
        let meta_len = [&*begin.id, &*begin.user, &*begin.description, &*begin.extension].map(<[u8]>::len);
        if meta_len.iter().sum::<usize>() > META_LEN_MAX {
            let message = "user, description and extension of the transaction are too long";
            return Err(exceptions::transaction_error(message));
        }
        self.connection.progresses();
        let meta = TransactionMeta {
            user: begin.user.to_vec(),
            description: begin.description.to_vec(),
            extension: begin.extension.clone(),
        };
        let Hosted { stats, clock, .. } = &*registered.hosted;
        let id = TransactionId::new(&begin.id, &meta, &stats.active_txns, clock);
        self.limits = self.server.limits();
        let memory_max = self.limits.transaction_memory;
        let mut staged = Staged::new(meta, begin.tid, begin.status, memory_max);
        staged.count_file(self.server.descriptors().files.clone());
        staged.set_python2(self.connection.wire().encoding == Encoding::Pickle(Dialect::Python2));
        let clients_resolve = registered.hosted.options().client_conflict_resolution;
        if clients_resolve && self.connection.wire().can_resolve_conflicts() {
            staged.set_merging(Merging::ByClient);
        }
        *transaction = Transaction::Open(OpenTransaction::new(id, staged));
        Ok(())
    }

    /// Does one operation of the open transaction `id`, which must not have been voted for.
    pub(super) fn stage(
        &self,
        registered: &Registered,
        id: &[u8],
        method: &str,
        operation: impl FnOnce(&mut Staged) -> std::io::Result<()>,
    ) -> Result<(), PyException> {
        if registered.read_only {
            return Err(exceptions::read_only_error());
        }
        let mut transaction = self.connection.transaction.lock();
        if let Err(wrong) = check_id(&transaction, id) {
            drop(transaction);
            return Err(wrong.log(&self.connection.peer, method));
        }
        match &mut *transaction {
            // Vote says why. Nothing more of it has to be kept.
            Transaction::Open(OpenTransaction { refused: Some(_), .. }) => Ok(()),
            Transaction::Open(open) => {
                self.connection.progresses();
                let done = operation(&mut open.staged);
                let too_large = if done.is_ok() { self.keep_small(open) } else { None };
                drop(transaction);
                self.log_too_large(too_large);
                // It is logged as a call that has failed.
                done.map_err(|error| {
                    let doing = "buffering a transaction in the temporary directory";
                    exceptions::of_storage_error(&crate::storage::StorageError::io(doing)(error))
                })
            }
            _ => Err(exceptions::transaction_error("The transaction has been voted for already.")),
        }
    }

    /// A transaction that has become too large is dropped at once; vote will say why. The calls themselves want no
    /// reply. Returns the message to be logged after the transaction is unlocked.
    #[must_use]
    pub(super) fn keep_small(&self, open: &mut OpenTransaction) -> Option<String> {
        let limits = &self.limits;
        let size = open.staged.payload_len() + open.blob_len;
        let count = open.staged.ops().len() as u64;
        let message = match (limits.transaction_size, limits.transaction_objects) {
            (Some(max), _) if size > max => {
                format!(
                    "the transaction is larger than the server permits: max-transaction-size is {max} bytes"
                )
            }
            (_, Some(max)) if count > max => {
                format!("the transaction is larger than the server permits: max-transaction-objects is {max}")
            }
            _ => return None,
        };
        open.staged.clear();
        open.refused = Some(exceptions::storage_error(&message));
        Some(message)
    }

    /// Logs the message of [`Session::keep_small`].
    pub(super) fn log_too_large(&self, message: Option<String>) {
        if let Some(message) = message {
            self.connection.peer.log(&client_log::TRANSACTIONS, ERROR, format_args!("{message}"));
        }
    }

    /// A message longer than `max-message-size`: within a transaction it is a record, and the vote will fail. False:
    /// the connection has to end. That is so where messages are signed, too: the code of the next message depends on
    /// the one that is skipped.
    pub(super) fn refuse_long_message(&self, error: &FrameError) -> bool {
        let mut transaction = self.connection.transaction.lock();
        let Transaction::Open(open) = &mut *transaction else { return false };
        if error.has_mac || self.registered.is_none() {
            return false;
        }
        if open.refused.is_some() {
            return true;
        }
        let FrameError { len, len_max, .. } = error;
        let message = format!(
            "a record is larger than the server permits: its message has {len} bytes, max-message-size is {len_max}"
        );
        open.staged.clear();
        open.refused = Some(exceptions::storage_error(&message));
        drop(transaction);
        self.log_too_large(Some(message));
        true
    }

    /// A call that wanted no reply was refused. Python's servers before ZEO 5 log it and let the vote pass without the
    /// store; here it fails the vote.
    pub(super) fn refuse_vote(&self, exception: &PyException) {
        if let Transaction::Open(open) = &mut *self.connection.transaction.lock() {
            open.refused.get_or_insert_with(|| exception.clone());
        }
    }
}
