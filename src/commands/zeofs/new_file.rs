//! A file that a command makes: it has its name only when it is complete.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::{NamedTempFile, PersistError};

use crate::base::fs::{dir_of, sync_dir, with_suffix};
use crate::commands::holder::holder;
use crate::commands::subcommand::Trouble;
use crate::storage::media::MediaFile;

/// A file without its name yet. It is gone if it is dropped before [`NewFile::finish`].
pub(super) struct NewFile {
    file: NamedTempFile,
    path: PathBuf,
    is_forced: bool,
}

impl NewFile {
    /// Begins the file `path`, with the permissions of the file `like`. `is_forced`: it may replace another one, but
    /// not `like`.
    pub(super) fn create(path: &str, like: &str, is_forced: bool) -> Result<NewFile, Trouble> {
        let failed = |error: io::Error| Trouble::Failed(format!("cannot make {path}: {error}"));
        let path = Path::new(path);
        let canonical = |path: &Path| std::fs::canonicalize(path).ok();
        if path.exists() {
            if canonical(path) == canonical(Path::new(like)) {
                return Err(Trouble::Failed(format!(
                    "{} is the damaged file itself: give another name",
                    like
                )));
            }
            if let Some(process) = holder(path) {
                return Err(Trouble::Failed(format!(
                    "{} is in use by process {process}: stop the server, or give another name",
                    path.display()
                )));
            }
            if !is_forced {
                return Err(Trouble::Failed(format!("{} exists; -f replaces it", path.display())));
            }
        }
        let file = tempfile::Builder::new().prefix(".zeofs-").tempfile_in(dir_of(path)).map_err(failed)?;
        let permissions = std::fs::metadata(like).map_err(failed)?.permissions();
        file.as_file().set_permissions(permissions).map_err(failed)?;
        Ok(NewFile { file, path: path.into(), is_forced })
    }

    /// The file, for writing.
    pub(super) fn media(&self) -> Result<Arc<dyn MediaFile>, Trouble> {
        let file: File = self
            .file
            .as_file()
            .try_clone()
            .map_err(|error| Trouble::Failed(format!("cannot write {}: {error}", self.path.display())))?;
        Ok(Arc::new(file))
    }

    /// Gives the file its name, durably. An index of a file that was replaced is removed.
    pub(super) fn finish(self) -> Result<(), Trouble> {
        let NewFile { file, path, is_forced } = self;
        let failed = |error: io::Error| Trouble::Failed(format!("cannot make {}: {error}", path.display()));
        let taken = |error: PersistError| failed(error.error);
        if is_forced {
            match std::fs::remove_file(with_suffix(&path, ".index")) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                _ => file.persist(&path).map_err(taken)?,
            };
        } else {
            file.persist_noclobber(&path).map_err(taken)?;
        }
        sync_dir(dir_of(&path)).map_err(failed)
    }
}
