//! What replication needs of the file: see [`Replicable`].

use std::sync::Arc;

use log::error;

use super::familiar::OID_STRIDE;
use super::log::TARGET;
use super::{FileStorage, rewind};
use crate::base::ids::{Oid, Tid};
use crate::storage::{Cut, GroupGate, Replicable, Result, StorageError, TransactionIterator};

impl Replicable for FileStorage {
    fn set_gate(&self, gate: Arc<dyn GroupGate>) {
        if !self.core.gate.set(gate) {
            error!(target: TARGET, "{}: a second gate is ignored", self.core.path.display());
        }
    }

    fn last_written(&self) -> Tid {
        match self.core.gate.unpublished() {
            Some(group) => group.last,
            None => self.core.volume.get().end_tid(),
        }
    }

    fn iterate_written(&self, start: Option<Tid>) -> Result<Box<dyn TransactionIterator>> {
        self.iterate_all(start)
    }

    fn rewind(&self, to: Tid) -> Result<Option<Cut>> {
        rewind::rewind(self, to)
    }

    fn skip_oids(&self) -> Result<Oid> {
        self.check_writable()?;
        let mut oids = self.core.oids.lock();
        let shown = self.core.volume.get().index.max_oid().map_or(0, |oid| oid.0);
        let last = oids.last.max(oids.mark).max(shown).saturating_add(OID_STRIDE).min(Oid::MAX.0);
        // The mark first: without it a crash would give the ids out after all.
        if let Some(note) = &self.core.note {
            note.set_oid_mark(Oid(last)).map_err(StorageError::io("writing the mark of object ids"))?;
        }
        (oids.last, oids.mark) = (last, last);
        Ok(Oid(last))
    }
}
