//! The memory that the index of a client's cache takes. A program of its own because its allocator counts.

use std::path::Path;

use runzeo::ids::{Oid, Tid};
use runzeo::internal::client::cache::{Cache, CacheOptions};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

const BYTES_MAX: f64 = 32.0;
/// Bytes of new blocks that are gathered before they are written.
const SPAN_LEN_MAX: f64 = (256 << 10) as f64;

struct Work {
    cache: Cache,
    region: Region<'static, std::alloc::System>,
    random: u64,
}

impl Work {
    fn open(path: &Path, size: u64) -> Work {
        let region = Region::new(ALLOCATOR);
        let cache = Cache::open(CacheOptions::new(Some(path), size)).unwrap();
        Work { cache, region, random: 1 }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.random >> 33) % limit
    }

    /// Bytes for each revision, without what a cache has while it is empty, and the memory for new blocks.
    fn check(&self, what: &str) {
        // The changes since the last sync wait for it in memory.
        self.cache.sync();
        let change = self.region.change();
        let allocated = change.bytes_allocated as f64 - change.bytes_deallocated as f64;
        let count = self.cache.count() as f64;
        let bytes = (allocated - 40_000.0 - SPAN_LEN_MAX) / count;
        println!("{what}: {count} revisions, {bytes:.1} bytes each");
        assert!(bytes <= BYTES_MAX, "{what}: {count} revisions take {bytes:.1} bytes each");
    }
}

#[test]
fn a_revision_takes_32_bytes_at_most() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("client.zec");
    let count = 50_000;
    let size = 3_000_000;
    let mut work = Work::open(&path, size);
    // In order, as a new site stores them.
    for oid in 0..count {
        work.cache.store(Oid(oid), Tid(1), None, b"0123456789");
        if oid % 10_000 == 9_999 {
            work.check("ascending");
        }
    }
    // At random, with evictions and former revisions of all ages.
    for tid in 2..200_000 {
        let oid = work.below(count) * work.below(7);
        work.cache.invalidate(Oid(oid), Some(Tid(tid)));
        work.cache.store(Oid(oid), Tid(tid), None, b"0123456789");
        if tid % 40_000 == 0 {
            work.check("random");
        }
    }
    // One object that changes all the time.
    for tid in 200_000..280_000 {
        work.cache.invalidate(Oid(5), Some(Tid(tid)));
        work.cache.store(Oid(5), Tid(tid), None, b"0123456789");
    }
    work.check("former revisions of one object");
    work.cache.close();
    drop(work);
    let work = Work::open(&path, size);
    work.check("opened with the saved index");
    drop(work);
    std::fs::remove_file(path.with_extension("zec.sums")).unwrap();
    Work::open(&path, size).check("opened by a walk");
}
