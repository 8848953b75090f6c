//! The directory of a repository: its lock, its files, and how they are written.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::dat::{DAT_LEN_MAX, Dat};
use super::error::{RepozoError, Result};
use super::name::{DataFile, Stamp};
use super::progress::{Listener, Progress};
use crate::backup::lock::{Exclusion, Locked, RepositoryLock, lock};
use crate::base::fs::with_suffix;
use crate::storage::media::{Access, Media, MediaFile, Reading, write_whole};

/// Python's repozo does not look at files with other names than those of backups.
const LOCK: &str = ".repozo.lock";
/// The suffix of a file of this program that is not complete.
pub const PART: &str = ".part";
/// The temporary file of Python's repozo.
const TMP: &str = "tmp.tmp";

/// An open repository.
pub struct Repository {
    pub media: Arc<dyn Media>,
    pub path: PathBuf,
}

impl Repository {
    pub fn new(media: Arc<dyn Media>, path: &Path) -> Repository {
        Repository { media, path: path.to_owned() }
    }

    /// The path of a file of the repository.
    pub fn join(&self, name: impl ToString) -> PathBuf {
        self.path.join(name.to_string())
    }

    /// Keeps other backups of this program out. Python's repozo does not look at it. Where the file system has no locks
    /// there is a warning, and none is held.
    pub fn lock(&self, listener: &dyn Listener) -> Result<Option<RepositoryLock>> {
        let path = self.join(LOCK);
        match lock(&path, Exclusion::All).map_err(RepozoError::io(format!("locking {}", path.display())))? {
            Locked::Held(lock) => Ok(Some(lock)),
            Locked::Busy { holder } => Err(RepozoError::Locked { repository: self.path.clone(), holder }),
            Locked::Impossible(error) => {
                let what = format!(
                    "{} cannot be locked: {error}. Make sure that one backup runs at a time",
                    path.display()
                );
                listener.report(Progress::Warning { what: &what });
                Ok(None)
            }
        }
    }

    /// All names in the directory, sorted.
    pub fn names(&self) -> Result<Vec<String>> {
        let doing = || RepozoError::io(format!("reading the directory {}", self.path.display()));
        let names = self.media.dir(&self.path).map_err(doing())?.list().map_err(doing())?;
        let mut names: Vec<String> = names.into_iter().filter_map(|name| name.into_string().ok()).collect();
        names.sort();
        Ok(names)
    }

    /// All fulls and deltas, oldest first.
    pub fn data_files(&self) -> Result<Vec<DataFile>> {
        Ok(self.names()?.iter().filter_map(|name| DataFile::parse(name)).collect())
    }

    /// Opens a file for reading.
    pub fn open(&self, file: &DataFile) -> Result<Arc<dyn MediaFile>> {
        let path = self.join(file);
        self.media.open(&path, Access::Read).map_err(RepozoError::io(format!("opening {}", path.display())))
    }

    /// The dat file of the chain that begins at `full`. `None`: there is none. The inner error says what is wrong.
    pub fn dat(&self, full: &Stamp) -> Result<Option<std::result::Result<Dat, String>>> {
        let path = self.join(full.dat());
        if !self.media.exists(&path) {
            return Ok(None);
        }
        let doing = || RepozoError::io(format!("reading {}", path.display()));
        let file = self.media.open(&path, Access::Read).map_err(doing())?;
        let mut bytes = Vec::new();
        Reading::range(file, 0, DAT_LEN_MAX + 1).read_to_end(&mut bytes).map_err(doing())?;
        if bytes.len() as u64 > DAT_LEN_MAX {
            return Ok(Some(Err(format!("it has more than {DAT_LEN_MAX} bytes"))));
        }
        Ok(Some(Dat::parse(&bytes)))
    }

    /// Writes the dat file of the chain that begins at `full`: whole and durable, or not at all.
    pub fn write_dat(&self, full: &Stamp, dat: &Dat) -> Result<()> {
        self.write_whole(&full.dat(), |out| out.write_all(&dat.to_bytes()))
    }

    /// Writes a file: whole and durable, or not at all.
    pub fn write_whole(
        &self,
        name: &str,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<()> {
        let path = self.join(name);
        let doing = RepozoError::io(format!("writing {}", path.display()));
        write_whole(&*self.media, &path, &with_suffix(&path, PART), write).map_err(doing)
    }

    /// Removes files, and makes that durable. Missing ones are passed over.
    pub fn remove(&self, names: &[String]) -> Result<()> {
        for name in names {
            let path = self.join(name);
            match self.media.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(RepozoError::io(format!("removing {}", path.display()))(error));
                }
                _ => {}
            }
        }
        self.sync()
    }

    /// Makes the names in the directory durable.
    pub fn sync(&self) -> Result<()> {
        self.media.sync_dir(&self.path).map_err(RepozoError::io(format!("syncing {}", self.path.display())))
    }

    /// Removes what a killed run of this program has left behind, and what one of Python's left more than `age` ago:
    /// Python's programs have no lock, so one may be running. Returns the names.
    pub fn remove_leftovers(&self, age: std::time::Duration) -> Result<Vec<String>> {
        let names = self.names()?;
        let doing = || RepozoError::io(format!("reading the directory {}", self.path.display()));
        let dir = self.media.dir(&self.path).map_err(doing())?;
        let is_old = |name: &str| dir.entry(Path::new(name)).is_ok_and(|entry| entry.age > age);
        let has_data = |stamp: &str| {
            names.iter().any(|name| DataFile::parse(name).is_some_and(|file| file.stamp.as_str() == stamp))
        };
        let is_leftover = |name: &&String| match name.split_once('.') {
            _ if **name == TMP => is_old(name),
            Some((stamp, rest)) if Stamp::parse(stamp).is_some() => {
                rest.ends_with(PART) || rest == "index" && !has_data(stamp) && is_old(name)
            }
            _ => false,
        };
        let found: Vec<String> = names.iter().filter(is_leftover).cloned().collect();
        if !found.is_empty() {
            self.remove(&found)?;
        }
        Ok(found)
    }
}
