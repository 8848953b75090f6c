//! What the connector is given: how a connection becomes useful, and what came of it.

use std::fmt;
use std::time::Duration;

use crate::base::address::Address;
use crate::base::sync::Arc;
use crate::client::link::{Link, Receiver};

/// Makes a new link useful: registers, verifies the cache, asks what the storage can do. The connector calls it for one
/// link at a time.
pub trait Prepare: Send + Sync + 'static {
    /// Takes what the server sends on one link.
    type Receiver: Receiver + 'static;
    /// What users of a link need beside it.
    type Ready: Send + Sync + 'static;

    /// The receiver of a link to `address` that is about to start. It gets messages before, during and after
    /// [`Prepare::prepare`].
    fn receiver(&self, address: &Address) -> Self::Receiver;

    /// Prepares a link. Calls of the link end with an error when the connector is closed; other waits must be bounded.
    /// `read_only`: whether a server that takes no transactions will do; after [`PrepareError::ReadOnly`] it is called
    /// again for the same link. The former link may be in use until this has returned.
    fn prepare(
        &self,
        link: &Link,
        receiver: &Arc<Self::Receiver>,
        read_only: bool,
    ) -> Result<Self::Ready, PrepareError>;

    /// This link is about to become the current one, and the former one, if there was one, to be closed.
    fn installed(&self, _connected: &Arc<Connected<Self>>) {}
}

/// Why a link cannot be used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PrepareError {
    /// The server takes no transactions, and was asked for one that does.
    ReadOnly,
    /// The server demands a password, and the protocol of this link has no calls for it: an older one has.
    NeedsPassword,
    /// Something that may be over when the server is tried again.
    Retry {
        /// The reason, for the log and for the errors of calls.
        why: String,
        /// `None`: as after a failed connection.
        after: Option<Duration>,
    },
    /// Trying again is useless until the configuration changes: no such storage, for example.
    Refused(String),
}

impl fmt::Display for PrepareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PrepareError::ReadOnly => f.write_str("the server is read-only"),
            PrepareError::NeedsPassword => f.write_str("the server demands a password"),
            PrepareError::Retry { why, .. } | PrepareError::Refused(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for PrepareError {}

/// A link that was prepared.
pub struct Connected<P: Prepare + ?Sized> {
    /// The connection. It may have ended.
    pub link: Link,
    /// What takes its messages.
    pub receiver: Arc<P::Receiver>,
    /// What its preparation has given.
    pub ready: P::Ready,
    /// Whether only reading was asked for.
    pub read_only: bool,
    /// The configured address of the server.
    pub address: Address,
    /// Counts the connections of one connector, from 1.
    pub number: u64,
}
