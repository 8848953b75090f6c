//! The storages of the configuration file, one inside the other where they are layered.

use std::path::PathBuf;

use super::Location;
use crate::base::ids::Tid;

/// The kinds of storage that can be served.
#[derive(Clone, Debug, PartialEq)]
pub enum StorageConfig {
    File(FileStorageConfig),
    /// `<mappingstorage>`: in memory.
    Mapping {
        name: String,
    },
    /// `<temporarystorage>`: in memory, without history.
    Temporary {
        name: String,
    },
    Demo(DemoStorageConfig),
    Blob(BlobStorageConfig),
    Zlib(ZlibStorageConfig),
    Before(BeforeStorageConfig),
    /// A storage of upstream's own tests.
    #[cfg(feature = "test-storages")]
    Test {
        kind: TestStorage,
        base: Box<StorageConfig>,
    },
}

/// A `<filestorage>` section, or `-f`.
#[derive(Clone, Debug, PartialEq)]
pub struct FileStorageConfig {
    pub path: PathBuf,
    /// Where blobs are kept; `None`: blobs are refused.
    pub blob_dir: Option<PathBuf>,
    /// Start empty, throwing away what is there.
    pub create: bool,
    pub read_only: bool,
    /// In bytes; `None`: as large as the disk allows.
    pub quota: Option<u64>,
    /// Whether packing removes what nothing refers to.
    pub pack_gc: bool,
    /// Whether packing leaves the former file as `.old`.
    pub pack_keep_old: bool,
    /// Whether a pack fails that would remove most of many objects.
    pub pack_refuse_large_removals: bool,
    pub new_file_format: NewFileFormat,
    /// Where it was configured, for messages.
    pub location: Location,
}

/// The magic of a file that does not exist yet. Existing files keep theirs.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum NewFileFormat {
    /// As the first client to commit needs it: FS21 for Python 2, else FS30.
    #[default]
    Auto,
    /// Readable by Python 2.
    Fs21,
    /// Readable by Python 3.
    Fs30,
}

/// A `<demostorage>` section.
#[derive(Clone, Debug, PartialEq)]
pub struct DemoStorageConfig {
    /// `None`: made of the names of base and changes.
    pub name: Option<String>,
    /// `None`: an empty one in memory.
    pub base: Option<Box<StorageConfig>>,
    /// `None`: kept in memory.
    pub changes: Option<Box<StorageConfig>>,
}

/// A `<blobstorage>` section: blobs for a storage that keeps none itself.
#[derive(Clone, Debug, PartialEq)]
pub struct BlobStorageConfig {
    pub blob_dir: PathBuf,
    pub base: Box<StorageConfig>,
    pub location: Location,
}

/// A `<zlibstorage>` or `<serverzlibstorage>` section.
#[derive(Clone, Debug, PartialEq)]
pub struct ZlibStorageConfig {
    /// Whether records are compressed when they are stored; they are decompressed in any case.
    pub compress: bool,
    /// Clients compress and decompress themselves.
    pub by_clients: bool,
    pub base: Box<StorageConfig>,
}

/// A `<before>` section: a storage as it was.
#[derive(Clone, Debug, PartialEq)]
pub struct BeforeStorageConfig {
    pub before: BeforeTime,
    pub base: Box<StorageConfig>,
}

/// The point in time of a [`BeforeStorageConfig`].
#[derive(Clone, Debug, PartialEq)]
pub enum BeforeTime {
    /// When the storage is opened.
    Now,
    /// When the program was started.
    Startup,
    At(Tid),
    /// What this file says; if there is none, it is written with the time of opening.
    FromFile(PathBuf),
}

/// A storage that stands in upstream's test packages.
#[cfg(feature = "test-storages")]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TestStorage {
    Hex,
    ServerHex,
    LoadDelayed,
}
