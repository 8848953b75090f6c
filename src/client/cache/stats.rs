//! What a cache has done, in numbers.

use super::estimate::SizeEstimate;

/// What a cache has done since it was opened, and what is in it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct CacheStats {
    /// Loads. Each is one hit or one miss.
    pub loads: u64,
    /// Loads that the cache has answered.
    pub hits: u64,
    /// Revisions that were stored, without those that were there already.
    pub stores: u64,
    /// Bytes of the data of these.
    pub stored_bytes: u64,
    /// Revisions that made room for others.
    pub evictions: u64,
    /// Revisions that are in the cache, with former ones.
    pub revisions: u64,
    /// Bytes that they take in the file.
    pub used: u64,
    /// Size of the file in bytes.
    pub size: u64,
    /// What caches of half and twice the size would have answered, since it was opened or was given this size.
    pub estimates: [SizeEstimate; 2],
}

impl CacheStats {
    /// Loads that went to the server.
    pub fn misses(&self) -> u64 {
        self.loads.saturating_sub(self.hits)
    }

    /// The share of the loads that the cache has answered, 0 to 1. `None`: there was no load.
    pub fn hit_rate(&self) -> Option<f64> {
        (self.loads > 0).then(|| self.hits as f64 / self.loads as f64)
    }
}
