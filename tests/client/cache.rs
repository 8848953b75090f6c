//! The cache through its own face: one client at a time, errors of the disk, sizes, contents.

use std::path::Path;

use runzeo::ids::{Oid, Tid};
use runzeo::internal::client::cache::{Cache, CacheError, CacheOptions};

fn open(path: &Path, size: u64) -> Cache {
    Cache::open(CacheOptions::new(Some(path), size)).unwrap()
}

/// What was current just before `before`: data, start and end.
fn load(cache: &Cache, oid: u64, before: Tid) -> Option<(Vec<u8>, u64, u64)> {
    let mut out = b"scratch".to_vec();
    let found = cache.load_before(Oid(oid), before, &mut out);
    assert!(out.starts_with(b"scratch") && (found.is_some() || out.len() == 7));
    found.map(|found| (out[found.data].to_vec(), found.start.0, found.end.map_or(0, |end| end.0)))
}

#[test]
fn one_client_has_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("client.zec");
    let cache = open(&path, 10_000);
    let again = Cache::open(CacheOptions::new(Some(&path), 10_000)).unwrap_err();
    assert!(matches!(again, CacheError::InUse { .. }));
    assert!(again.to_string().contains(&format!("process {} has it", std::process::id())), "{again}");
    cache.close();
    open(&path, 10_000);
}

#[test]
fn revisions_and_their_times() {
    for path in [None, Some(tempfile::tempdir().unwrap().keep().join("client.zec"))] {
        let cache = Cache::open(CacheOptions::new(path.as_deref(), 10_000)).unwrap();
        assert_eq!(cache.last_tid(), None);
        cache.store(Oid(1), Tid(10), None, b"ten");
        cache.invalidate(Oid(1), Some(Tid(10)));
        assert_eq!(load(&cache, 1, Tid::MAX), Some((b"ten".to_vec(), 10, 0)), "written by this transaction");
        cache.invalidate(Oid(1), Some(Tid(20)));
        assert_eq!(load(&cache, 1, Tid::MAX), None);
        cache.store(Oid(1), Tid(20), None, b"twenty");
        cache.set_last_tid(Tid(20)).unwrap();
        assert_eq!(load(&cache, 1, Tid(10)), None);
        assert_eq!(load(&cache, 1, Tid(11)), Some((b"ten".to_vec(), 10, 20)));
        assert_eq!(load(&cache, 1, Tid(20)), Some((b"ten".to_vec(), 10, 20)));
        assert_eq!(load(&cache, 1, Tid(21)), Some((b"twenty".to_vec(), 20, 0)));
        assert_eq!(cache.contents(), [(Oid(1), Tid(10), Some(Tid(20))), (Oid(1), Tid(20), None)]);
        assert_eq!(cache.current_contents(), [(Oid(1), Tid(20))]);
        assert!(matches!(cache.set_last_tid(Tid(19)), Err(CacheError::Backwards { .. })));
        cache.invalidate(Oid(1), None);
        assert_eq!(cache.current_start(Oid(1)), None);
        cache.clear();
        assert_eq!((cache.count(), cache.last_tid()), (0, Some(Tid(20))));
        cache.set_last_tid(Tid(19)).unwrap();
        let stats = cache.stats();
        assert_eq!((stats.loads, stats.hits, stats.misses(), stats.stores, stats.used), (6, 4, 2, 2, 0));
        if let Some(path) = path {
            cache.close();
            assert_eq!(open(&path, 10_000).last_tid(), Some(Tid(19)));
            std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
        }
    }
}

/// What contradicts is not kept: there is never more than one current revision, and none that was replaced.
#[test]
fn stores_that_contradict() {
    let cache = Cache::open(CacheOptions::new(None, 10_000)).unwrap();
    cache.store(Oid(1), Tid(10), None, b"ten");
    cache.store(Oid(1), Tid(20), None, b"twenty");
    assert_eq!(cache.contents(), [(Oid(1), Tid(20), None)], "the end of the older one is unknown");
    cache.store(Oid(1), Tid(15), None, b"fifteen");
    cache.store(Oid(1), Tid(5), Some(Tid(25)), b"five");
    assert_eq!(cache.contents(), [(Oid(1), Tid(20), None)]);
    cache.store(Oid(1), Tid(20), Some(Tid(30)), b"twenty");
    assert_eq!(cache.contents(), [(Oid(1), Tid(20), Some(Tid(30)))]);
    cache.store(Oid(1), Tid(25), None, b"twenty-five");
    assert_eq!(cache.current_start(Oid(1)), None);
    cache.store(Oid(1), Tid(30), None, b"thirty");
    cache.store(Oid(1), Tid(40), Some(Tid(50)), b"forty");
    assert_eq!(cache.contents(), [(Oid(1), Tid(20), Some(Tid(30))), (Oid(1), Tid(40), Some(Tid(50)))]);
    // Python's index cannot hold these.
    cache.store(Oid(1 << 63), Tid(10), Some(Tid(20)), b"");
    cache.store(Oid(1 << 63), Tid(10), None, b"");
    assert_eq!(cache.current_start(Oid(1 << 63)), Some(Tid(10)));
    cache.invalidate(Oid(1 << 63), Some(Tid(20)));
    assert_eq!(cache.count(), 2);
}

/// Loads, stores and invalidations of several threads: each load is right or a miss.
#[test]
fn threads() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(&dir.path().join("client.zec"), 40_000);
    let data = |oid: u64, tid: u64| vec![(oid + tid) as u8; (oid * 31 + tid * 7) as usize % 900];
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (cache, done) = (&cache, &done);
            scope.spawn(move || {
                let (mut random, mut out, mut hits) = (thread + 1_u64, Vec::new(), 0_u64);
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let oid = (random >> 33) % 60;
                    out.clear();
                    let before = if random & 1 << 40 == 0 { Tid::MAX } else { Tid((random >> 20) % 2000) };
                    let Some(found) = cache.load_before(Oid(oid), before, &mut out) else { continue };
                    assert_eq!(out[found.data], data(oid, found.start.0));
                    assert!(found.start < before && found.end.is_none_or(|end| end >= before));
                    hits += 1;
                }
                assert!(hits > 0);
            });
        }
        for tid in 1..2000 {
            for oid in [tid % 60, tid * tid % 60] {
                cache.invalidate(Oid(oid), Some(Tid(tid)));
                cache.store(Oid(oid), Tid(tid), None, &data(oid, tid));
            }
            cache.set_last_tid(Tid(tid)).unwrap();
            match tid % 400 {
                0 => cache.sync(),
                100 => cache.resize(30_000),
                200 => cache.resize(40_000),
                300 => cache.clear(),
                _ => {}
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    cache.close();
    assert_eq!(load(&cache, 1, Tid::MAX), None, "closed");
}
