//! The client half of ZEO: one database of a server of any generation, this program's or Python's, with a cache that
//! survives restarts.
//!
//! [`Client`] connects, keeps the cache right, and commits; a [`View`] is a snapshot. Both are synchronous and may be
//! used from any number of threads.
//!
//! ```no_run
//! use runzeo::client::{Client, ClientOptions};
//! use runzeo::ids::Oid;
//! use runzeo::storage::{StorageError, TransactionMeta};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let options = ClientOptions::from_zconfig("<zeoclient>\n server localhost:8100\n client app\n</zeoclient>")?;
//! let client = Client::open(options)?;
//! loop {
//!     let view = client.view();
//!     let root = view.load(Oid::ZERO)?.ok_or("no root")?;
//!     let mut transaction = client.transaction(TransactionMeta::default());
//!     transaction.store(Oid::ZERO, root.serial, &root.data)?;
//!     match client.commit(transaction) {
//!         // Another client was faster: again, from what it has written.
//!         Err(StorageError::Conflict(_) | StorageError::ReadConflict(_)) => continue,
//!         done => break println!("{}", done?.tid),
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Inside
//!
//! `connector` keeps one `link` to the best of several addresses, which `dial` makes; `prepare` registers on it, has
//! `verify` look for what the `cache` has missed and `past` for a restored database; `upstream` has the link in use and
//! the loads under way; `timeline` is where all that arrives meets. `commit` sends transactions, `blobs` keeps blobs.
//! `storage` makes all of it a storage of the server (`<zeoclient>`), `library` and `view` are the public face.
//! `one_link` is for tools that read all transactions, without the cache.

mod ask;
pub(crate) mod awaited;
mod blob_loads;
pub(crate) mod blobs;
pub(crate) mod cache;
mod commit;
mod commit_blobs;
mod commit_finish;
mod commit_undo;
pub(crate) mod connector;
pub(crate) mod dial;
mod flights;
mod iterate;
mod lanes;
pub(crate) mod library;
pub(crate) mod link;
pub(crate) mod one_link;
pub(crate) mod options;
pub(crate) mod pack_plan;
mod packs;
mod past;
mod prepare;
pub(crate) mod recent;
pub mod records;
mod results;
mod revisions;
mod server_info;
mod snapshot;
pub(crate) mod storage;
pub(crate) mod timeline;
mod upstream;
mod verify;
pub(crate) mod view;

pub use self::cache::{CacheStats, SizeEstimate};
pub use self::dial::Credentials;
pub use self::flights::Revision;
pub use self::library::{Changed, Client, Done};
pub use self::options::{ClientOptions, ConfigurationError, OptionsError, TlsOptions};
pub use self::storage::ClientStorage;
pub use self::view::{Changes, View};
pub use crate::base::address::Address;
pub use crate::net::tls::Password;
