//! Records of objects as data: what a Python program has pickled, read, changed and written without Python.
//!
//! A record is two pickles, the class and the state. [`ObjectRecord`] has both as values ([`PyValue`]); classes are
//! names, instances their parts, and nothing is imported or executed. What is read can be written again, and means the
//! same to Python: `str`, `bytes` and `unicode` of Python 2 and 3 stay what they were, and values that occur in several
//! places of a record still do.
//!
//! [`Objects`] reads objects in a snapshot and collects changes for one transaction. On it stand the containers that
//! nearly all databases consist of: [`PersistentMapping`] (the root is one), [`PersistentList`], [`Length`], and
//! [`BTree`], which is all families of the BTrees package, their TreeSets, Buckets and Sets.
//!
//! ```no_run
//! use runzeo::client::records::{BTree, Objects, PersistentMapping, PyValue};
//! use runzeo::client::{Client, ClientOptions};
//! use runzeo::storage::TransactionMeta;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let client = Client::open(ClientOptions::from_zconfig("")?)?;
//! let mut objects = client.objects();
//! let root = objects.root()?;
//! let users = root.reference("users").ok_or("no users")?;
//! let users = BTree::open(&objects, users)?;
//! for item in users.range(&objects, PyValue::text("a")..PyValue::text("b"))? {
//!     let (name, user) = item?;
//!     println!("{name:?}: {user:?}");
//! }
//! users.insert(&mut objects, PyValue::text("anna"), PyValue::Int(1))?;
//! client.commit_objects(objects, TransactionMeta::default())?;
//! # Ok(())
//! # }
//! ```
//!
//! # Limits
//!
//! A record may have about a million values, nested up to 200 deep, and four million if those that occur several times
//! are counted each time. A value that contains itself is refused ([`RecordError::Cyclic`]); the class and the
//! references of such a record can be read ([`ObjectRecord::class_of`], [`ObjectRecord::references_of`]).
//!
//! # Inside
//!
//! `value` has the types, `decode` and `encode` translate them, `record` is both pickles, `order` compares keys as
//! Python does, `objects` is the snapshot with its changes, `mapping` and `btree` are the containers. Nothing here
//! knows of connections: an [`ObjectSource`] reads the records.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used))]

mod btree;
mod decode;
mod encode;
mod error;
mod format;
mod mapping;
mod objects;
mod order;
mod record;
mod value;

pub use self::btree::{BTree, Items};
pub(crate) use self::btree::{TreeCheck, TreeFlaw, TreeSums, children_of};
pub use self::error::{ObjectsError, RecordError};
pub use self::format::Format;
pub use self::mapping::{Length, PersistentList, PersistentMapping};
pub use self::objects::{ObjectSource, Objects};
pub use self::record::ObjectRecord;
pub use self::value::{Class, Construction, DateTime, Instance, PyValue, Reference};
