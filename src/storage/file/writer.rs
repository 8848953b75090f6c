//! The end of the log, as the thread that commits (see `group`) knows it.

use super::format::FileFormat;

/// The end of the log, where the next group is written. Locked by the leader only.
pub struct Writer {
    pub end: u64,
    pub format: FileFormat,
    /// The file has no transaction yet: the first one decides about the format.
    pub undecided: bool,
    pub buf: Vec<u8>,
    /// Bytes that were written since the last sync, see `sync_later`.
    pub unsynced: u64,
}
