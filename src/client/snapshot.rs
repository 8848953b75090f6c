//! Objects of a client: a view with the changes of one transaction, and their commit.

use super::library::{Client, Done};
use super::records::{ObjectSource, Objects, ObjectsError};
use super::view::View;
use crate::base::ids::{Oid, Tid};
use crate::storage::{Result, Storage, StorageError, TransactionMeta};

/// Reads objects in a view.
struct Snapshot {
    client: Client,
    view: View,
}

impl ObjectSource for Snapshot {
    fn load(&self, oid: Oid) -> Result<Option<(Vec<u8>, Tid)>> {
        let revision = self.view.load(oid)?;
        Ok(revision.map(|revision| (revision.data.to_vec(), revision.serial)))
    }

    fn check(&self) -> Result<()> {
        self.view.check_era()
    }

    fn new_oid(&self) -> Result<Oid> {
        let oids = self.client.new_oids(1)?;
        oids.first().copied().ok_or_else(|| StorageError::Unsupported("no object ids".into()))
    }
}

impl Client {
    /// The objects of the database as it is now, for one transaction.
    pub fn objects(&self) -> Objects {
        self.objects_in(self.view())
    }

    /// The objects as they are in a view.
    pub fn objects_in(&self, view: View) -> Objects {
        Objects::new(Snapshot { client: self.clone(), view })
    }

    /// Commits the changes of objects.
    ///
    /// Errors: as [`Client::commit`]; a record that cannot be written.
    pub fn commit_objects(
        &self,
        objects: Objects,
        meta: TransactionMeta,
    ) -> std::result::Result<Done, ObjectsError> {
        objects.check_source()?;
        let mut transaction = self.transaction(meta);
        let buffering = || StorageError::io("buffering a transaction in the temporary directory");
        for (oid, serial, data) in objects.stores()? {
            transaction.store(oid, serial, &data).map_err(buffering())?;
        }
        for (oid, serial) in objects.dependencies() {
            transaction.check_current(oid, serial);
        }
        Ok(self.commit(transaction)?)
    }
}
