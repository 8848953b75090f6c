//! Brings the files of committed revisions into a blob directory: for restores, while no server runs.
//!
//! A file is complete and durable before it has its name. Others stay as they are, so a run that is stopped has added
//! files, and nothing else.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::dir::BlobDir;
use crate::base::fs::give_owner_of;
use crate::base::ids::{Oid, Tid};
use crate::storage::media::{MediaDir, MediaFile};

/// Makes a file with this name in the directory, and returns it.
type Make<'a> = dyn FnMut(&dyn MediaDir, &OsStr) -> io::Result<Arc<dyn MediaFile>> + 'a;

impl BlobDir {
    /// Gives the file that `make` makes the name of a revision, in place of one that is there. `make` may be called
    /// again, for another directory: a part of the blob directory may be on another disk.
    pub(crate) fn put(&self, oid: Oid, tid: Tid, make: &mut Make<'_>) -> io::Result<()> {
        let (home, is_new) = self.make_home(oid)?;
        let (aside, name) = (self.temporary(None), self.layout().file_name(oid, tid));
        let tmp = self.tmp()?;
        let put = |dir: &dyn MediaDir, make: &mut Make<'_>| {
            let file = make(dir, &aside)?;
            file.protect(home.readers()?)?;
            file.sync()?;
            dir.rename(&aside, &*home, name.as_ref())
        };
        let mut result = put(&*tmp, make);
        if let Err(error) = &result
            && error.kind() == io::ErrorKind::CrossesDevices
        {
            let _ = tmp.remove(&aside);
            result = put(&*home, make);
        }
        if let Err(error) = result {
            // Makes room. The error of before is the one to report.
            for dir in [&tmp, &home] {
                let _ = dir.remove(&aside);
            }
            return Err(error);
        }
        home.sync()?;
        if is_new {
            self.sync_above(oid)?;
        }
        self.give_to_owner(&home.path().join(&name))
    }

    /// Gives a file and the directories above it to the owner of the blob directory: the server may run as another user
    /// than this program.
    fn give_to_owner(&self, file: &Path) -> io::Result<()> {
        let above = file.ancestors().take_while(|path| *path != self.base());
        give_owner_of(self.base(), &above.collect::<Vec<_>>())
    }
}
