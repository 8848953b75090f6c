//! A connection that has registered: the storage that it has chosen, and the connection.

use crate::base::sync::Arc;
use crate::server::connection::Connection;
use crate::server::hosted::Hosted;
use crate::server::rights::Rights;
use crate::server::stats::{count, count_many};

/// The context of every call of a registered client. Jobs in other threads have a clone.
#[derive(Clone)]
pub struct Registered {
    pub hosted: Arc<Hosted>,
    pub connection: Arc<Connection>,
    /// By the client's wish, the server's or the storage's.
    pub read_only: bool,
}

impl Registered {
    /// What the client may do at this moment, by its listener and the rules.
    pub fn rights(&self) -> Rights {
        self.connection.rights.get()
    }

    /// A record of this length was stored.
    pub fn count_store(&self, len: usize) {
        count(&self.connection.stores);
        count(&self.hosted.stats.stores);
        count_many(&self.hosted.stats.stored_bytes, len as u64);
    }

    /// A transaction was committed.
    pub fn count_commit(&self, undoes: bool) {
        count(&self.connection.commits);
        count(&self.hosted.stats.commits);
        if undoes {
            count(&self.hosted.stats.undos);
        }
    }

    /// Aborts the open transaction, whatever its state; one that is being finished is finished.
    pub fn abort(&self) {
        if self.connection.transaction.abort() {
            count(&self.hosted.stats.aborts);
        }
    }
}
