//! Damaged files: cut off anywhere, with bytes that are wrong, and what errors of ZEO's own client leave. What is found
//! in them afterwards is right, or the file is moved away.

use std::path::Path;

use runzeo::ids::{Oid, Tid};
use runzeo::internal::client::cache::{Cache, CacheOptions};
use serde_json::json;

use crate::python_cache::PythonCache;
use crate::support::dice::Dice;

type Contents = Vec<(Oid, Tid, Option<Tid>)>;

fn data(oid: u64, start: u64) -> Vec<u8> {
    vec![(oid * 7 + start) as u8; (oid * 13 + start) as usize % 90]
}

/// Makes a file of 2000 bytes, full, with current and former revisions.
fn make(path: &Path) -> Contents {
    let cache = Cache::open(CacheOptions::new(Some(path), 2000)).unwrap();
    for tid in 1..60 {
        let oid = tid % 11;
        cache.invalidate(Oid(oid), Some(Tid(tid)));
        cache.store(Oid(oid), Tid(tid), None, &data(oid, tid));
        cache.set_last_tid(Tid(tid)).unwrap();
    }
    cache.close();
    let contents = cache_contents(path, 2000);
    assert!(contents.len() > 15);
    contents
}

/// Opens the file, loads all of it, and stores until all of it is replaced.
fn cache_contents(path: &Path, size: u64) -> Contents {
    let cache = Cache::open(CacheOptions::new(Some(path), size)).unwrap();
    let contents = cache.contents();
    for (oid, start, end) in &contents {
        let mut out = Vec::new();
        cache.load_before(*oid, end.unwrap_or(Tid(start.0 + 1)), &mut out);
    }
    contents
}

/// Replaces all of the file's contents.
fn use_up(path: &Path, size: u64) {
    let cache = Cache::open(CacheOptions::new(Some(path), size)).unwrap();
    for oid in 1000..1060 {
        cache.store(Oid(oid), Tid(1), None, &[0; 40]);
    }
    assert!(cache.current_start(Oid(1059)).is_some());
    cache.close();
}

#[test]
fn a_file_that_is_cut_off_is_used_up_to_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("client.zec");
    let whole = make(&path);
    let bytes = std::fs::read(&path).unwrap();
    for with_sums in [true, false] {
        let mut most = 0;
        for len in 0..bytes.len() {
            std::fs::write(&path, &bytes[..len]).unwrap();
            if !with_sums {
                let _ = std::fs::remove_file(path.with_extension("zec.sums"));
            }
            let left = cache_contents(&path, 2000);
            assert!(left.iter().all(|revision| whole.contains(revision)), "{len}");
            let is_bad = path.with_extension("zec.bad").exists();
            assert_eq!(is_bad, len < 12, "{len}");
            let _ = std::fs::remove_file(path.with_extension("zec.bad"));
            assert!(left.len() >= most, "{len}: {} and before {most}", left.len());
            most = left.len();
            if len % 50 == 0 {
                use_up(&path, 2000);
            }
        }
        assert!(most + 1 >= whole.len());
    }
}

#[test]
fn wrong_bytes_make_no_wrong_revisions() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("client.zec");
    let whole = make(&path);
    let bytes = std::fs::read(&path).unwrap();
    let (mut dice, mut dropped) = (Dice::new(1, 1), 0);
    for round in 0..3000 {
        let mut damaged = bytes.clone();
        for _ in 0..=dice.below(3) {
            let at = dice.below(damaged.len() as u64) as usize;
            damaged[at] = if dice.one_in(2) { dice.of(b"af1234\0\xff") } else { dice.below(256) as u8 };
        }
        std::fs::write(&path, &damaged).unwrap();
        // Nothing panics, and the file can be used.
        let left = cache_contents(&path, 2000);
        dropped += u64::from(left.is_empty() && !whole.is_empty());
        if round % 20 == 0 {
            use_up(&path, if round % 40 == 0 { 2000 } else { 2500 });
        }
    }
    assert!(dropped > 100, "{dropped} files were dropped");
}

#[test]
fn arbitrary_bytes_are_moved_away() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("client.zec");
    let mut dice = Dice::new(2, 2);
    for round in 0..300 {
        let len = dice.below(3000) as usize;
        let mut bytes: Vec<u8> = (0..len).map(|_| dice.of(b"af1234\0\0\0\0\0\xff")).collect();
        if round % 2 == 0 && len >= 12 {
            bytes[..4].copy_from_slice(b"ZEC3");
        }
        std::fs::write(&path, &bytes).unwrap();
        // Sums of other bytes, too.
        if round % 3 == 0 {
            let noise: Vec<u8> = (0..9000).map(|_| dice.below(256) as u8).collect();
            std::fs::write(path.with_extension("zec.sums"), noise).unwrap();
        }
        use_up(&path, 2000);
    }
}

const NEWEST: &str = "zeo6-py311";

/// ZEO's client forgets a revision that is invalidated with its own tid, but leaves it in the file as current. The next
/// load makes a second one. The server's next change ends one of them; the other one is stale.
#[test]
fn two_current_revisions_are_not_believed() {
    for (calls, what) in [
        (vec![json!(["invalidate", 1, 10]), json!(["store", 1, 10, 0, "aa"])], "two"),
        (
            vec![
                json!(["invalidate", 1, 10]),
                json!(["store", 1, 10, 0, "aa"]),
                json!(["invalidate", 1, 20]),
                json!(["set_last_tid", 20]),
            ],
            "one, and one that was ended",
        ),
        (
            vec![
                json!(["invalidate", 1, 10]),
                json!(["invalidate", 1, 20]),
                json!(["store", 1, 20, 0, "bb"]),
                json!(["set_last_tid", 20]),
            ],
            "of different transactions",
        ),
    ] {
        let Some(mut python) = PythonCache::start(NEWEST) else { return };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("client.zec");
        python.call(json!(["open", path, 5000]));
        python.call(json!(["store", 1, 10, 0, "aa"]));
        python.call(json!(["store", 2, 10, 0, "cc"]));
        for call in calls {
            python.call(call);
        }
        python.call(json!(["close"]));
        let left = cache_contents(&path, 5000);
        assert!(left.is_empty(), "{what}: {left:?}");
        assert!(path.with_extension("zec.bad").exists(), "{what}");
    }
}

/// ZEO's client gives the free block of a file that grows a wrong length.
#[test]
fn a_file_that_python_has_made_larger() {
    let Some(mut python) = PythonCache::start(NEWEST) else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("client.zec");
    python.call(json!(["open", path, 3000]));
    python.call(json!(["store", 1, 10, 0, "aa"]));
    python.call(json!(["close"]));
    python.call(json!(["open", path, 9000]));
    python.call(json!(["store", 2, 10, 0, "bb"]));
    python.call(json!(["close"]));
    for size in [9000, 12_000, 4000] {
        assert_eq!(cache_contents(&path, size), [(Oid(1), Tid(10), None), (Oid(2), Tid(10), None)]);
        use_up(&path, size);
        cache_contents(&path, size);
        assert!(!path.with_extension("zec.bad").exists());
        std::fs::remove_file(&path).unwrap();
        python.call(json!(["open", path, 3000]));
        python.call(json!(["store", 1, 10, 0, "aa"]));
        python.call(json!(["close"]));
        python.call(json!(["open", path, 9000]));
        python.call(json!(["store", 2, 10, 0, "bb"]));
        python.call(json!(["close"]));
    }
}

/// Former revisions that Python's index cannot hold make a file bad for it. Here they are freed.
#[test]
fn former_revisions_with_great_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("client.zec");
    let cache = Cache::open(CacheOptions::new(Some(&path), 2000)).unwrap();
    cache.store(Oid(1 << 63), Tid(10), None, b"great");
    cache.store(Oid(1), Tid(10), None, b"small");
    cache.close();
    drop(cache);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[12 + 21..12 + 29].copy_from_slice(&20u64.to_be_bytes());
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(cache_contents(&path, 2000), [(Oid(1), Tid(10), None)]);
    if let Some(mut python) = PythonCache::start(NEWEST) {
        python.call(json!(["open", path, 2000]));
        assert_eq!(python.call(json!(["contents"])), json!([[1, 10]]));
    }
}

/// Free blocks of 2^31 bytes and more, which a client that was killed leaves, and version 3.8 always.
#[test]
fn free_blocks_that_are_too_long_are_split() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("client.zec");
    let size = 4_000_000_000_u64;
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(size).unwrap();
    let mut start = b"ZEC3\0\0\0\0\0\0\0\x07f".to_vec();
    start.extend_from_slice(&((size - 12) as u32).to_be_bytes());
    std::os::unix::fs::FileExt::write_all_at(&file, &start, 0).unwrap();
    let cache = Cache::open(CacheOptions::new(Some(&path), size)).unwrap();
    assert_eq!(cache.last_tid(), Some(Tid(7)));
    cache.store(Oid(1), Tid(1), None, b"data");
    cache.close();
    drop(cache);
    assert_eq!(cache_contents(&path, size), [(Oid(1), Tid(1), None)]);
    std::fs::remove_file(path.with_extension("zec.sums")).unwrap();
    assert_eq!(cache_contents(&path, size), [(Oid(1), Tid(1), None)]);
    assert!(!path.with_extension("zec.bad").exists());
}
