//! Closing: what a storage leaves for the next start.

use super::tail_note::State;
use super::{FileStorage, familiar};
use crate::base::ids::Oid;
use crate::storage::{Result, StorageError};

impl FileStorage {
    /// Leaves a writable storage for the next start: cuts the file to its true length, closes the note, saves the
    /// index. No thread writes any more.
    pub(super) fn leave(&self) -> Result<()> {
        let core = &self.core;
        let path = self.options.path.display();
        let volume = core.volume.get_owned();
        if let Err(why) = core.check_ours(&volume) {
            core.set_exchanged(&volume, &why);
            return Ok(());
        }
        core.will_write();
        // Gives back the space that was reserved behind the end.
        let (file, end) = (volume.log.file(), volume.log.end());
        file.set_len(end).map_err(StorageError::io(format!("closing {path}")))?;
        core.sync_written(&volume)?;
        if let Some(note) = &core.note {
            let about = familiar::about(&*core.media, &volume, core.last_tid(), State::Closed);
            let changed = file.identity().map_or(0, |identity| identity.changed);
            let last_oid = Oid(core.oids.lock().last);
            note.close(about, last_oid, changed).map_err(StorageError::io(format!("writing {path}.tmp")))?;
        }
        core.save_index();
        Ok(())
    }
}
