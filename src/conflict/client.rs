//! Conflicts that the client merges: `client-conflict-resolution`, with clients of ZEO 5 and later.
//!
//! The server decides this for each transaction (`Merging::ByClient` of a staged transaction, set at `tpc_begin`): the
//! key must be set, and the client's protocol must have the messages for it. The vote of such a transaction resolves
//! nothing. It gathers all conflicts, and the reply to `vote` carries them: for each object the oid, both serials and
//! the state that the client sent. The transaction's locks are released. The client merges with its own classes, stores
//! the results in the same transaction and votes again, up to nine times.
//!
//! The stores that conflicted are still in the transaction at the next vote. A later store of the same object replaces
//! an earlier one, so only the conflict of the last store counts, and stores whose conflict was reported are not
//! written.

use std::collections::{BTreeMap, HashMap};

use super::Conflict;
use crate::base::ids::Oid;

/// Upper bound on the bytes of records in one reply. A conflict that exceeds it is an error of the vote, as for clients
/// that do not merge.
const RECORDS_LEN_MAX: usize = 256 << 20;

/// The conflicts of one vote that the client has to merge: at most one for each object.
#[derive(Debug, Default)]
pub struct ForClient {
    /// By the index of the operation that stores the object.
    conflicts: BTreeMap<usize, Conflict>,
    /// The operation whose conflict is in `conflicts`, by object.
    operations: HashMap<Oid, usize>,
    /// Bytes of the records in `conflicts`.
    records_len: usize,
}

impl ForClient {
    /// Adds the conflict of operation `index`; it replaces an earlier one of the same object. Returned if it does not
    /// fit into the reply.
    pub fn add(&mut self, index: usize, conflict: Conflict) -> Result<(), Conflict> {
        self.forget(conflict.oid);
        self.records_len += conflict.data.len();
        if self.records_len > RECORDS_LEN_MAX {
            return Err(conflict);
        }
        self.operations.insert(conflict.oid, index);
        self.conflicts.insert(index, conflict);
        Ok(())
    }

    /// The object was stored again, so an earlier store of it is not written and its conflict does not count.
    pub fn forget(&mut self, oid: Oid) {
        if let Some(index) = self.operations.remove(&oid) {
            let forgotten = self.conflicts.remove(&index);
            self.records_len -= forgotten.map_or(0, |conflict| conflict.data.len());
        }
    }

    /// The conflicts in the order of the operations.
    pub fn into_conflicts(self) -> Vec<Conflict> {
        self.conflicts.into_values().collect()
    }

    pub fn is_empty(&self) -> bool {
        self.conflicts.is_empty()
    }
}
