//! Checks that no file belongs to two storages that write.
//!
//! The second storage would find the file locked by its own process. So the configuration is refused, even if the path
//! is spelled in two ways. Read-only storages may share a file with one that writes.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::{FileStorageConfig, NamedStorage, StorageConfig};

/// Checks that each file has at most one storage that writes to it.
pub fn check(storages: &[NamedStorage]) -> Result<(), String> {
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
    Ok(())
}

/// The files of a storage and of its inner storages.
fn files(storage: &StorageConfig) -> Vec<&FileStorageConfig> {
    match storage {
        StorageConfig::File(file) => vec![file],
        StorageConfig::Mapping { .. } | StorageConfig::Temporary { .. } => Vec::new(),
        StorageConfig::Demo(demo) => {
            [&demo.base, &demo.changes].into_iter().flatten().flat_map(|part| files(part)).collect()
        }
        StorageConfig::Blob(blob) => files(&blob.base),
        StorageConfig::Zlib(zlib) => files(&zlib.base),
        StorageConfig::Before(before) => files(&before.base),
        #[cfg(feature = "test-storages")]
        StorageConfig::Test { base, .. } => files(base),
    }
}

/// One path for all paths that lead to the same file, which need not exist yet.
fn identity(path: &Path) -> PathBuf {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let in_directory = || Some(fs::canonicalize(directory).ok()?.join(path.file_name()?));
    fs::canonicalize(path).ok().or_else(in_directory).unwrap_or_else(|| path.to_owned())
}
