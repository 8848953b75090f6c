//! A cluster of servers that have the same storages: one is the *primary*, which stores what clients commit, the others
//! are *replicas*, which follow it and serve the same read-only. Any of them can be promoted.

pub mod options;
pub mod report;

use std::time::{Duration, SystemTime};

use self::options::{ClusterOptions, OnTimeout, Role};
use self::report::ClusterReport;
use crate::base::address::Address;
use crate::base::sync::Arc;
use crate::storage::{Storage, StorageError};

/// This server in its cluster.
pub struct Cluster {
    options: ClusterOptions,
}

/// How a promotion is asked for.
#[derive(Clone, Debug)]
pub struct Promotion {
    /// How long it waits until everything that was received is published.
    pub wait: Duration,
    /// Also if the primary is still there, or this replica may lack transactions.
    pub force: bool,
}

impl Cluster {
    /// Reads the state, and listens.
    ///
    /// Errors: a state file that cannot be read or written, an address that cannot be listened at, certificates.
    pub fn start(options: ClusterOptions) -> Result<Arc<Cluster>, StorageError> {
        Ok(Arc::new(Cluster { options }))
    }

    /// The storage `name` of the server, as a member of the cluster. Called for each before [`Cluster::begin`].
    pub fn replicate(
        self: &Arc<Self>,
        _name: &str,
        base: Arc<dyn Storage>,
    ) -> Result<Arc<dyn Storage>, StorageError> {
        Ok(base)
    }

    /// All storages are open, and clients can connect: the server follows, or is followed.
    pub fn begin(self: &Arc<Self>) {}

    /// What is shown.
    pub fn report(&self) -> ClusterReport {
        ClusterReport {
            name: self.options.name.clone(),
            role: Role::Primary,
            held: None,
            promotions: 0,
            timeline: String::new(),
            since: SystemTime::UNIX_EPOCH,
            primary: None,
            fenced: None,
            synchronous_replicas: 0,
            on_timeout: OnTimeout::Degrade,
            storages: Vec::new(),
        }
    }

    /// Makes this replica the primary. Returns what was done, or why it was not; both are sentences for people.
    pub fn promote(&self, _promotion: &Promotion) -> Result<String, String> {
        Err("this server is the primary".into())
    }

    /// Makes this primary a replica, which follows whichever of its peers is the primary then.
    pub fn demote(&self) -> Result<String, String> {
        Err("this server is a replica".into())
    }

    /// Makes this server a replica of the one at `address`, whatever it has been.
    pub fn follow(&self, _address: Address) -> Result<String, String> {
        Err("this server is the primary".into())
    }

    /// The server stops: replicas get what is published.
    pub fn end(&self) {}
}
