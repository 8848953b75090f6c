//! Objects in a snapshot, with the changes of one transaction.

use std::collections::BTreeMap;

use super::error::{ObjectsError, of};
use super::format::Format;
use super::mapping::PersistentMapping;
use super::record::ObjectRecord;
use super::value::{Class, PyValue};
use crate::base::ids::{Oid, Tid};
use crate::storage;

type Result<T> = std::result::Result<T, ObjectsError>;

/// Where objects are read: a snapshot of a client, or a storage.
pub trait ObjectSource: Send + Sync {
    /// The record and its tid. `None`: it is not in the snapshot. Later calls must give the same.
    fn load(&self, oid: Oid) -> storage::Result<Option<(Vec<u8>, Tid)>>;

    /// Whether all that was loaded is still the past of the database to which changes would be committed.
    fn check(&self) -> storage::Result<()> {
        Ok(())
    }

    /// A new object id.
    fn new_oid(&self) -> storage::Result<Oid>;
}

/// Objects of a database as one transaction sees them: a snapshot, and its own changes. See
/// [`Client::objects`](crate::client::Client::objects).
pub struct Objects {
    source: Box<dyn ObjectSource>,
    changed: BTreeMap<Oid, Changed>,
    /// Read, and must still be current at commit.
    depended: BTreeMap<Oid, Tid>,
    /// What `changed` had before the step under way; see [`Objects::in_one_step`].
    undo: Option<Vec<(Oid, Option<Changed>)>>,
}

/// An object that the transaction stores.
struct Changed {
    /// Zero: it is new.
    serial: Tid,
    record: ObjectRecord,
}

impl Objects {
    /// Objects of any source.
    pub fn new(source: impl ObjectSource + 'static) -> Objects {
        Objects { source: Box::new(source), changed: BTreeMap::new(), depended: BTreeMap::new(), undo: None }
    }

    /// The object: its last [`store`](Objects::store), or as it is in the snapshot.
    pub fn load(&self, oid: Oid) -> Result<ObjectRecord> {
        if let Some(changed) = self.changed.get(&oid) {
            return Ok(changed.record.clone());
        }
        let (data, _) = self.read(oid)?;
        ObjectRecord::decode(&data).map_err(of(oid))
    }

    /// The root of the database, a mapping.
    pub fn root(&self) -> Result<PersistentMapping> {
        PersistentMapping::of(self.load(Oid::ZERO)?).map_err(of(Oid::ZERO))
    }

    /// Changes an object.
    pub fn store(&mut self, oid: Oid, record: impl Into<ObjectRecord>) -> Result<()> {
        let record = record.into();
        let serial = match self.changed.get(&oid) {
            Some(changed) => changed.serial,
            None => self.read(oid)?.1,
        };
        self.set(oid, Changed { serial, record });
        Ok(())
    }

    /// Adds an object. Something that is stored must refer to it, or it is garbage.
    pub fn add(&mut self, record: impl Into<ObjectRecord>) -> Result<Oid> {
        let oid = self.source.new_oid()?;
        self.set(oid, Changed { serial: Tid::ZERO, record: record.into() });
        Ok(oid)
    }

    /// The root of the database, which is created if there is none.
    pub fn root_or_new(&mut self, format: Format) -> Result<PersistentMapping> {
        let mapping = PersistentMapping::new(format);
        match self.source.load(Oid::ZERO) {
            Err(storage::StorageError::PosKey(_)) | Ok(None) => {}
            Err(error) => return Err(error.into()),
            Ok(Some(_)) => return self.root(),
        }
        let record = mapping.clone().into();
        self.set(Oid::ZERO, Changed { serial: Tid::ZERO, record });
        Ok(mapping)
    }

    /// The transaction depends on this object: it fails with a read conflict if another one changes it before the
    /// commit. For objects that are stored this is so anyway. Servers before ZODB 3.10 cannot check it in the
    /// transaction; the client does it just before the end then.
    pub fn depend_on(&mut self, oid: Oid) -> Result<()> {
        if !self.changed.contains_key(&oid) {
            let (_, serial) = self.read(oid)?;
            self.depended.insert(oid, serial);
        }
        Ok(())
    }

    /// A reference to an object, with its class.
    pub fn reference(&self, oid: Oid) -> Result<PyValue> {
        let class = match self.changed.get(&oid) {
            Some(changed) => changed.record.class.clone(),
            None => self.load(oid)?.class,
        };
        Ok(match class {
            PyValue::Class(class) => PyValue::reference(oid, &class),
            _ => PyValue::reference(oid, &Class::new("persistent", "Persistent")),
        })
    }

    /// Whether the object is changed or new.
    pub fn is_changed(&self, oid: Oid) -> bool {
        self.changed.contains_key(&oid)
    }

    /// Whether what was read is still the past of the database: see [`ObjectSource::check`].
    pub fn check_source(&self) -> storage::Result<()> {
        self.source.check()
    }

    /// The records to store, with the tids that they are based on; zero for new objects.
    pub fn stores(&self) -> Result<Vec<(Oid, Tid, Vec<u8>)>> {
        let encoded = |(oid, changed): (&Oid, &Changed)| {
            let data = changed.record.encode().map_err(of(*oid))?;
            Ok((*oid, changed.serial, data))
        };
        self.changed.iter().map(encoded).collect()
    }

    /// Objects that were only read, and must still have these tids.
    pub fn dependencies(&self) -> impl Iterator<Item = (Oid, Tid)> {
        let is_only_read = |(oid, _): &(&Oid, &Tid)| !self.changed.contains_key(oid);
        self.depended.iter().filter(is_only_read).map(|(oid, serial)| (*oid, *serial))
    }

    /// Runs `act`. If it fails, no object is changed.
    pub(super) fn in_one_step<T>(&mut self, act: impl FnOnce(&mut Objects) -> Result<T>) -> Result<T> {
        self.undo = Some(Vec::new());
        let result = act(self);
        let undo = self.undo.take();
        if result.is_err() {
            for (oid, before) in undo.into_iter().flatten().rev() {
                match before {
                    Some(before) => _ = self.changed.insert(oid, before),
                    None => _ = self.changed.remove(&oid),
                }
            }
        }
        result
    }

    fn set(&mut self, oid: Oid, changed: Changed) {
        let before = self.changed.insert(oid, changed);
        if let Some(undo) = &mut self.undo {
            undo.push((oid, before));
        }
    }

    fn read(&self, oid: Oid) -> Result<(Vec<u8>, Tid)> {
        self.source.load(oid)?.ok_or(ObjectsError::NotInView(oid))
    }
}
