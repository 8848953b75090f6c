//! What a program adds to the commands of this server.

use crate::auth::Protocols;
use crate::storage::StorageKinds;

/// What a program of its own adds to `runzeo`. [`Extensions::default`] adds nothing.
///
/// ```
/// use runzeo::commands::Extensions;
///
/// let mut extensions = Extensions::default();
/// // extensions.storages.register(runzeo::storage::StorageKind { .. });
/// // extensions.protocols.register(runzeo::auth::Kind { .. });
/// assert!(extensions.protocols.get("digest").is_ok());
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Extensions {
    /// Authentication protocols, with those that every server has; see [`auth`](crate::auth).
    pub protocols: Protocols,
    /// Kinds of storage, beside those that every server has; see [`storage`](crate::storage).
    pub storages: StorageKinds,
}

impl Default for Extensions {
    fn default() -> Extensions {
        Extensions { protocols: Protocols::builtin(), storages: StorageKinds::default() }
    }
}
