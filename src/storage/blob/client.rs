//! What a client of another server does with blobs: it keeps copies in a cache, or shares the server's directory; and
//! blobs that it is to commit are sent to the server, or put where the server takes them over.
//!
//! Here are the directory and the files that wait for their transaction. What is sent and received, and which copies
//! are kept, is in `client::blobs` and `cache`.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;

use log::warn;

use super::dir::{BlobDir, BlobFile, DirRole, is_stale};
use super::layout::stripped;
use super::names::TARGET;
use super::staged::{StagedBlob, Temporary};
use crate::base::ids::Tid;
use crate::storage::Result;
use crate::storage::media::{MediaFile, Readers, RealMedia};

impl BlobDir {
    /// Opens a cache, and makes it if it is missing. Other clients, Python's too, may use it at the same time.
    ///
    /// Errors: `Refused` if the directory is not a cache but the blob directory of a storage.
    pub(crate) fn open_cache(path: &Path) -> Result<Arc<BlobDir>> {
        BlobDir::open_as(DirRole::Cache, Arc::new(RealMedia), path, false)
    }

    /// Opens the directory of a server on this machine, or on the same network file system.
    pub(crate) fn open_shared(path: &Path) -> Result<Arc<BlobDir>> {
        BlobDir::open_as(DirRole::Shared, Arc::new(RealMedia), path, false)
    }

    /// Makes a file without a name, for a blob that is not kept. Nothing of it is left when the process is killed.
    pub(crate) fn create_unnamed(&self) -> io::Result<Arc<dyn MediaFile>> {
        self.in_tmp(|tmp| {
            let name = self.temporary(None);
            let file = tmp.create(&name, Readers::Owner)?;
            tmp.remove(&name)?;
            Ok(file)
        })
    }

    /// Removes temporary files of clients that were killed. They are recognized by their age.
    pub(crate) fn remove_old_temporaries(&self) -> io::Result<()> {
        let tmp = self.tmp()?;
        for name in tmp.list()? {
            let is_old = tmp
                .entry(name.as_ref())
                .is_ok_and(|entry| name.to_str().is_some_and(|name| is_stale(name, &entry)));
            if is_old && let Err(error) = tmp.remove(&name) {
                warn!(target: TARGET, "cannot remove {}: {error}", tmp.path().join(&name).display());
            }
        }
        Ok(())
    }
}

impl StagedBlob {
    /// Opens the data, to send it to a server.
    pub(crate) fn read(&self) -> io::Result<BlobFile> {
        let (Some(Temporary { dir, name }), Some(home)) = (&self.file, &self.home) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let dir = match dir {
            Some(dir) => Arc::clone(dir),
            None => home.open(&self.blobs)?,
        };
        let file = dir.read(name.as_ref())?;
        let len = file.len()?;
        Ok(BlobFile { file, len, path: dir.path().join(name), is_unnamed: false })
    }

    /// Moves the file into the directory of its object, where a server that shares the directory takes it over
    /// (`storeBlobShared`). Returns its name there. If the server has not taken it when this is dropped, it is removed.
    ///
    /// `serial`: the revision that the transaction starts from. It is part of the name, as in Python.
    pub(crate) fn share(&mut self, serial: Tid) -> io::Result<String> {
        let (Some(file), Some(home)) = (&mut self.file, &self.home) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let dir = home.open(&self.blobs)?;
        let unique = self.blobs.temporary(None).into_string().map_err(|_| io::ErrorKind::InvalidInput)?;
        let name = format!("{}{unique}-", stripped(serial.0));
        let from = file.dir.as_ref().unwrap_or(&dir);
        from.rename(&file.name, &*dir, name.as_ref())?;
        *file = Temporary { dir: None, name: OsString::from(&name) };
        Ok(name)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::base::ids::Oid;
    use crate::storage::StorageError;

    fn staged(blobs: &Arc<BlobDir>, data: &[u8]) -> StagedBlob {
        let mut upload = blobs.begin().unwrap();
        upload.write(data).unwrap();
        upload.end(Oid(1000)).unwrap()
    }

    fn names(dir: &Path) -> Vec<String> {
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_staged_blob_is_read_and_then_kept_in_the_cache() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = BlobDir::open_cache(dir.path()).unwrap();
        let mut blob = staged(&blobs, b"data");
        let read = blob.read().unwrap();
        let mut data = [0; 8];
        assert_eq!((read.len, read.read_at(&mut data, 0).unwrap()), (4, 4));
        assert!(blobs.find(Oid(1000), Tid(5)).unwrap().is_none());
        blob.place(Tid(5)).unwrap();
        drop(blob);
        assert_eq!(fs::read(dir.path().join("3/1.0000000000000005.blob")).unwrap(), b"data");
        assert_eq!(names(&dir.path().join("tmp")), [""; 0]);
        assert_eq!(blobs.find(Oid(1000), Tid(5)).unwrap().unwrap().len, 4);
    }

    #[test]
    fn a_server_takes_over_what_its_client_has_put_into_the_shared_directory() {
        let dir = tempfile::tempdir().unwrap();
        let server = BlobDir::open(dir.path(), false).unwrap();
        let client = BlobDir::open_shared(dir.path()).unwrap();
        let mut blob = staged(&client, b"data");
        let name = blob.share(Tid(0x123)).unwrap();
        assert!(name.starts_with("0x0123") && name.ends_with(".tmp-"), "{name}");
        let mut taken = server.adopt(Oid(1000), &name).unwrap();
        drop(blob);
        taken.place(Tid(5)).unwrap();
        drop(taken);
        assert_eq!(client.find(Oid(1000), Tid(5)).unwrap().unwrap().len, 4);
        // One that the server does not take.
        let mut blob = staged(&client, b"data");
        blob.share(Tid(0x123)).unwrap();
        drop(blob);
        assert_eq!(names(&client.oid_dir(Oid(1000))), ["0x05.blob"]);
        assert_eq!(names(&dir.path().join("tmp")), [""; 0]);
    }

    #[test]
    fn processes_make_a_cache_at_the_same_time() {
        for _ in 0..50 {
            let dir = tempfile::tempdir().unwrap();
            let cache = dir.path().join("cache");
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| BlobDir::open_cache(&cache).unwrap());
                }
            });
            assert_eq!(fs::read(cache.join(".layout")).unwrap(), b"zeocache");
            assert_eq!(fs::read_dir(&cache).unwrap().count(), 2);
        }
    }

    #[test]
    fn a_cache_and_the_directory_of_a_storage_are_not_mixed_up() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, storage) = (dir.path().join("cache"), dir.path().join("storage"));
        let opened = BlobDir::open_cache(&cache).unwrap();
        BlobDir::open(&storage, false).unwrap();
        let refused = |opened: Result<Arc<BlobDir>>| match opened.map(drop) {
            Err(StorageError::Refused { message, .. }) => message,
            other => panic!("{other:?}"),
        };
        assert!(refused(BlobDir::open_cache(&storage)).contains("marker found for layout `bushy`"));
        assert!(refused(BlobDir::open_shared(&cache)).contains("a client's cache"));
        assert!(refused(BlobDir::open(&cache, false)).contains("a client's cache"));
        let shared = opened.adopt(Oid(1), "x.tmp").unwrap_err().to_string();
        assert!(shared.contains("cannot share"), "{shared}");
        BlobDir::open_cache(&cache).unwrap();
    }
}
