//! Checks that no file, no cache and no blob directory belongs to two storages that write.
//!
//! The second storage would find the file locked by its own process; a blob directory has no lock, and a pack of one
//! storage removes blobs of the other. So the configuration is refused, even if the path is spelled in two ways.
//! Read-only storages may share files and directories with one that writes.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::{ClientStorageConfig, FileStorageConfig, Location, NamedStorage, StorageConfig};

/// Checks that each file has at most one storage that writes to it, and each blob directory at most one that stores
/// into it. Returns warnings about directories that a pack might damage.
pub fn check(storages: &[NamedStorage]) -> Result<Vec<String>, String> {
    let mut writers: HashMap<PathBuf, (&str, &FileStorageConfig)> = HashMap::new();
    for NamedStorage { name, storage } in storages {
        for file in files(storage).into_iter().filter(|file| !file.options.read_only) {
            if let Some((other_name, other)) = writers.insert(identity(&file.options.path), (name, file)) {
                return Err(format!(
                    "{}: storage '{name}' has the file of storage '{other_name}' ({}): {}; each needs a file of its own",
                    file.location,
                    other.location,
                    file.options.path.display()
                ));
            }
        }
    }
    check_caches(storages)?;
    check_blob_dirs(storages)
}

/// Checks that each cache file belongs to one client.
fn check_caches(storages: &[NamedStorage]) -> Result<(), String> {
    let mut users: HashMap<PathBuf, (&str, &ClientStorageConfig)> = HashMap::new();
    for NamedStorage { name, storage } in storages {
        for client in storage.clients() {
            let Some(path) = &client.options.cache_path else { continue };
            if let Some((other_name, other)) = users.insert(identity(path), (name, client)) {
                return Err(format!(
                    "{}: storage '{name}' has the cache file of storage '{other_name}' ({}): {}; each needs a file of its own",
                    client.location,
                    other.location,
                    path.display()
                ));
            }
        }
    }
    Ok(())
}

/// The files of a storage and of its inner storages.
pub fn files(storage: &StorageConfig) -> Vec<&FileStorageConfig> {
    match storage {
        StorageConfig::File(file) => vec![file],
        StorageConfig::Mapping { .. }
        | StorageConfig::Temporary { .. }
        | StorageConfig::Client(_)
        | StorageConfig::Postgres(_) => Vec::new(),
        StorageConfig::Demo(demo) => {
            [&demo.base, &demo.changes].into_iter().flatten().flat_map(|part| files(part)).collect()
        }
        StorageConfig::Blob(blob) => files(&blob.base),
        StorageConfig::Zlib(zlib) => files(&zlib.base),
        StorageConfig::Before(before) => files(&before.base),
        StorageConfig::Zrs(zrs) => files(&zrs.base),
        StorageConfig::Own(own) => own.base.iter().flat_map(|base| files(base)).collect(),
    }
}

/// A storage's use of a blob directory.
struct BlobDirUse<'a> {
    storage: &'a str,
    path: &'a Path,
    location: &'a Location,
    role: BlobDirRole,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum BlobDirRole {
    /// Transactions are stored in it.
    Stores,
    /// None are: the base of a `<demostorage>`, or what is below `<before>`.
    Reads,
    /// A client of a server or of a database keeps there what it has loaded.
    Caches,
}

fn check_blob_dirs(storages: &[NamedStorage]) -> Result<Vec<String>, String> {
    let mut uses = Vec::new();
    for NamedStorage { name, storage } in storages {
        blob_dirs(storage, None, true, &mut |path, location, role| {
            uses.push(BlobDirUse { storage: name, path, location, role });
        });
    }
    let mut warnings = Vec::new();
    let mut first: HashMap<PathBuf, &BlobDirUse<'_>> = HashMap::new();
    for used in &uses {
        let Some(other) = first.insert(identity(used.path), used) else { continue };
        let shared = format!(
            "{}: storage '{}' has the blob-dir of storage '{}' ({}): {}",
            used.location,
            used.storage,
            other.storage,
            other.location,
            used.path.display()
        );
        let roles = [used.role, other.role];
        if !roles.contains(&BlobDirRole::Reads) {
            let why = if roles.contains(&BlobDirRole::Caches) {
                "blobs of both may have the same name"
            } else {
                "a pack of one removes blobs of the other"
            };
            return Err(format!("{shared}; each needs a directory of its own, for {why}"));
        }
        if roles != [BlobDirRole::Reads; 2] {
            warnings.push(format!("{shared}; a pack of one may remove blobs of the other"));
        }
        if other.role != BlobDirRole::Reads {
            first.insert(identity(used.path), other);
        }
    }
    Ok(warnings)
}

/// Calls `each` with the blob directories that a storage and its inner storages open to write. `around`: the blob
/// directory of a `<blobstorage>` that contains the storage.
fn blob_dirs<'a>(
    storage: &'a StorageConfig,
    around: Option<(&'a Path, &'a Location)>,
    stores: bool,
    each: &mut impl FnMut(&'a Path, &'a Location, BlobDirRole),
) {
    let role = if stores { BlobDirRole::Stores } else { BlobDirRole::Reads };
    match storage {
        StorageConfig::File(file) if !file.options.read_only => {
            let own = file.options.blob_dir.as_deref().map(|path| (path, &file.location));
            if let Some((path, location)) = own.or(around) {
                each(path, location, role);
            }
        }
        StorageConfig::File(_) => {}
        StorageConfig::Postgres(database) => {
            let options = &database.options;
            match options.blob_dir.as_deref() {
                Some(path) if !options.shared_blob_dir => each(path, &database.location, BlobDirRole::Caches),
                Some(path) if !options.read_only => each(path, &database.location, role),
                Some(_) | None => {}
            }
        }
        StorageConfig::Mapping { .. } | StorageConfig::Temporary { .. } => {
            around.into_iter().for_each(|(path, location)| each(path, location, role));
        }
        StorageConfig::Demo(demo) => {
            if let Some(base) = &demo.base {
                blob_dirs(base, None, false, each);
            }
            match &demo.changes {
                Some(changes) => blob_dirs(changes, around, stores, each),
                None => around.into_iter().for_each(|(path, location)| each(path, location, role)),
            }
        }
        StorageConfig::Blob(blob) => {
            blob_dirs(&blob.base, Some((&blob.blob_dir, &blob.location)), stores, each);
        }
        StorageConfig::Zlib(zlib) => blob_dirs(&zlib.base, around, stores, each),
        StorageConfig::Before(before) => blob_dirs(&before.base, None, false, each),
        StorageConfig::Zrs(zrs) => blob_dirs(&zrs.base, around, stores, each),
        StorageConfig::Client(client) => {
            let options = &client.options;
            match options.blob_dir.as_deref() {
                Some(path) if !options.shared_blob_dir => each(path, &client.location, BlobDirRole::Caches),
                Some(path) if !options.read_only => each(path, &client.location, role),
                Some(_) | None => {}
            }
        }
        StorageConfig::Own(own) => own.base.iter().for_each(|base| blob_dirs(base, None, stores, each)),
    }
}

/// One path for all paths that lead to the same file or directory, which need not exist yet.
pub(super) fn identity(path: &Path) -> PathBuf {
    if let Ok(real) = fs::canonicalize(path) {
        return real;
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if parent.as_os_str().is_empty() => identity(Path::new(".")).join(name),
        (Some(parent), Some(name)) => identity(parent).join(name),
        // It ends in `..`, and what that is taken from does not exist.
        (Some(parent), None) => identity(parent).parent().map_or_else(|| path.to_owned(), Path::to_owned),
        (None, _) => path.to_owned(),
    }
}
