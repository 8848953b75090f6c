//! The cache by itself: what one process does, and what several do that share it.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, SystemTime};

use super::download::BlobDownload;
use super::*;
use crate::base::ids::{Oid, Tid};
use crate::storage::BlobFile;
use crate::storage::media::{Identity, MediaFile};

fn options(dir: &Path) -> BlobCacheOptions {
    BlobCacheOptions {
        dir: dir.into(),
        size: None,
        check_percent: 10,
        name: "test".into(),
        serves_clients: false,
    }
}

fn open(dir: &Path) -> Arc<BlobCache> {
    let cache = BlobCache::open(options(dir)).unwrap();
    cache.wait_for_check();
    cache
}

fn begin(cache: &Arc<BlobCache>, oid: u64, tid: u64) -> BlobDownload {
    match cache.begin(Oid(oid), Tid(tid)).unwrap() {
        Begun::Download(download) => download,
        Begun::There(blob) => panic!("{} is there", blob.path.display()),
    }
}

fn download(cache: &Arc<BlobCache>, oid: u64, tid: u64, data: &[u8]) -> BlobFile {
    let mut download = begin(cache, oid, tid);
    for chunk in data.chunks(59_000) {
        download.write(chunk).unwrap();
    }
    download.finish().unwrap()
}

fn content(blob: &BlobFile) -> Vec<u8> {
    let mut data = vec![0; blob.len as usize + 1];
    let len = blob.read_at(&mut data, 0).unwrap();
    data.truncate(len);
    data
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn names(dir: &Path) -> Vec<String> {
    let relative = |path: &PathBuf| path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
    files(dir).iter().map(relative).collect()
}

/// Sets the time of the last access, in seconds from now.
fn set_accessed(path: &Path, seconds_ago: u64) {
    let time = SystemTime::now() - Duration::from_secs(seconds_ago);
    let file = fs::File::open(path).unwrap();
    file.set_times(fs::FileTimes::new().set_accessed(time)).unwrap();
}

#[test]
fn a_blob_is_downloaded_once_and_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path());
    assert!(cache.get(Oid(2000), Tid(1)).unwrap().is_none());
    let data = vec![7; 200_000];
    let blob = download(&cache, 2000, 1, &data);
    assert_eq!(content(&blob), data);
    assert_eq!(content(&cache.get(Oid(2000), Tid(1)).unwrap().unwrap()), data);
    assert!(matches!(cache.begin(Oid(2000), Tid(1)).unwrap(), Begun::There(_)));
    assert_eq!(names(dir.path()), [".layout", "6/.lock", "6/2.0000000000000001.blob"]);
    assert_eq!(fs::read_to_string(dir.path().join(".layout")).unwrap(), "zeocache");
    let mode = fs::metadata(dir.path().join("6/2.0000000000000001.blob")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o400);
    // Also an empty one.
    assert_eq!(download(&cache, 3, 4, b"").len, 0);
}

#[test]
fn what_is_not_finished_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path());
    let mut first = begin(&cache, 1, 1);
    first.write(b"part").unwrap();
    drop(first);
    assert_eq!(names(dir.path()), [".layout", "1/.lock"]);
    let mut second = begin(&cache, 1, 1);
    second.write(b"of another link").unwrap();
    second.restart().unwrap();
    second.write(b"whole").unwrap();
    assert_eq!(content(&second.finish().unwrap()), b"whole");
}

/// Python's clients append to a file that a killed client has left, and serve it for ever.
#[test]
fn what_a_killed_process_left_is_no_part_of_a_blob() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path());
    fs::create_dir(dir.path().join("1")).unwrap();
    let left = dir.path().join("1/0.0000000000000001.blob.dl");
    fs::write(&left, "left").unwrap();
    // Of this process's number, with the number of its first download.
    fs::write(dir.path().join(format!("1/0.0000000000000001.blob.{}-0.dl", std::process::id())), "left")
        .unwrap();
    assert_eq!(content(&download(&cache, 1, 1, b"blob")), b"blob");
    assert_eq!(names(dir.path()), [".layout", "1/.lock", "1/0.0000000000000001.blob"]);
}

#[test]
fn a_file_that_lost_bytes_is_no_blob() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path());
    let mut cut = begin(&cache, 1, 1);
    cut.write(b"blob").unwrap();
    let path = files(dir.path()).into_iter().find(|path| path.extension().is_some_and(|ext| ext == "dl"));
    fs::File::options().write(true).open(path.unwrap()).unwrap().set_len(3).unwrap();
    let error = cut.finish().map(drop).unwrap_err().to_string();
    assert!(error.contains("3 of 4 bytes"), "{error}");
    assert_eq!(names(dir.path()), [".layout", "1/.lock"]);
}

/// Fails as a full disk does.
struct Full;

impl MediaFile for Full {
    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Ok(0)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::StorageFull.into())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Err(io::ErrorKind::StorageFull.into())
    }

    fn reserve(&self, _: u64, _: u64) -> io::Result<bool> {
        Ok(false)
    }

    fn identity(&self) -> io::Result<Identity> {
        Ok(Identity::default())
    }
}

#[test]
fn a_full_disk_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path());
    let mut full = begin(&cache, 1, 1);
    full.replace_file(Arc::new(Full));
    assert_eq!(full.write(b"blob").unwrap_err().kind(), io::ErrorKind::StorageFull);
    drop(full);
    // Space can also be missing when the data goes to the disk.
    let mut full = begin(&cache, 1, 1);
    full.replace_file(Arc::new(Full));
    assert!(full.finish().map(drop).unwrap_err().to_string().contains("no storage space"));
    assert_eq!(names(dir.path()), [".layout", "1/.lock"]);
    assert_eq!(content(&download(&cache, 1, 1, b"blob")), b"blob");
}

#[test]
fn a_long_blob_is_read_before_it_is_on_the_disk_and_then_in_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path());
    for len in [1000, 5 << 20] {
        let data: Vec<u8> = (0..len).map(|at| (at / 1000) as u8).collect();
        let mut download = begin(&cache, 7, len);
        data.chunks(59_000).for_each(|chunk| download.write(chunk).unwrap());
        let blob = download.finish_behind().unwrap();
        assert_eq!(content(&blob), data);
        match cache.begin(Oid(7), Tid(len)).unwrap() {
            Begun::There(again) => assert_eq!(content(&again), data),
            Begun::Download(_) => panic!("it is here"),
        }
        let began = std::time::Instant::now();
        while cache.get(Oid(7), Tid(len)).unwrap().is_none() {
            assert!(began.elapsed() < Duration::from_secs(60));
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(content(&cache.get(Oid(7), Tid(len)).unwrap().unwrap()), data);
    }
    assert_eq!(names(dir.path()).iter().filter(|name| name.ends_with(".blob")).count(), 2);
}

#[test]
fn threads_that_want_the_same_blob_share_one_download() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path());
    // Two caches of one directory, as two processes have them.
    let caches = [Arc::clone(&cache), cache, open(dir.path())];
    let (count, start) = (AtomicUsize::new(0), Barrier::new(12));
    thread::scope(|scope| {
        for index in 0..12 {
            let (cache, count, start) = (&caches[index % 3], &count, &start);
            scope.spawn(move || {
                start.wait();
                for tid in 1..6 {
                    let blob = match cache.begin(Oid(5), Tid(tid)).unwrap() {
                        Begun::There(blob) => blob,
                        Begun::Download(mut download) => {
                            count.fetch_add(1, Ordering::Relaxed);
                            thread::sleep(Duration::from_millis(5));
                            download.write(&[tid as u8; 1000]).unwrap();
                            download.finish().unwrap()
                        }
                    };
                    assert_eq!(content(&blob), [tid as u8; 1000]);
                }
            });
        }
    });
    assert_eq!(count.into_inner(), 5);
}

#[test]
fn a_download_that_fails_is_left_to_the_next_thread() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path());
    let first = begin(&cache, 1, 1);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| content(&download(&cache, 1, 1, b"blob")));
        // Downloads of other blobs go on, of the same directory too.
        assert_eq!(content(&download(&cache, 998, 1, b"other")), b"other");
        drop(first);
        assert_eq!(waiting.join().unwrap(), b"blob");
    });
}

#[test]
fn what_was_not_read_for_the_longest_time_is_removed_first() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path());
    for oid in 0..10 {
        let blob = download(&cache, oid, 1, &[1; 1000]);
        set_accessed(&blob.path, 1000 - 100 * oid);
    }
    // Reading counts, whatever the file system does by itself.
    let read = cache.get(Oid(2), Tid(1)).unwrap().unwrap();
    let held = cache.get(Oid(3), Tid(1)).unwrap().unwrap();
    set_accessed(&held.path, 700);
    assert!(fs::metadata(&read.path).unwrap().atime() >= fs::metadata(&read.path).unwrap().ctime() - 1);
    // One directory is in use by another process.
    fs::write(dir.path().join("check_size.attempt"), "").unwrap();
    let other = open(dir.path());
    let in_use = begin(&other, 997, 7);
    cache.set_size(Some(8000), 25);
    cache.wait_for_check();
    drop(in_use);
    let left: Vec<u64> = (0..10).filter(|oid| cache.get(Oid(*oid), Tid(1)).unwrap().is_some()).collect();
    assert_eq!(left, [0, 2, 6, 7, 8, 9]);
    assert!(!dir.path().join("check_size.attempt").exists());
    // An open file can still be read.
    assert_eq!(content(&held), [1; 1000]);
}

#[test]
fn the_size_is_checked_when_enough_has_come() {
    let dir = tempfile::tempdir().unwrap();
    let cache = BlobCache::open(BlobCacheOptions { size: Some(20_000), ..options(dir.path()) }).unwrap();
    let total = || {
        let is_blob = |path: &PathBuf| path.extension().is_some_and(|ext| ext == "blob");
        files(dir.path())
            .iter()
            .filter(|path| is_blob(path))
            .map(|path| fs::metadata(path).unwrap().len())
            .sum::<u64>()
    };
    for oid in 0..100 {
        download(&cache, oid, 1, &[1; 1000]);
        cache.wait_for_check();
        assert!(total() <= 20_000, "{}", total());
    }
    assert!(total() >= 18_000, "{}", total());
    // Own commits count, too.
    for oid in 100..150 {
        let mut upload = cache.dir().begin().unwrap();
        upload.write(&[2; 1000]).unwrap();
        cache.keep_committed(Oid(oid), Tid(2), upload.end(Oid(oid)).unwrap());
        cache.wait_for_check();
        assert!(total() <= 20_000, "{}", total());
    }
    assert_eq!(content(&cache.get(Oid(149), Tid(2)).unwrap().unwrap()), [2; 1000]);
    // Live, both ways.
    cache.set_size(Some(5_000), 0);
    cache.wait_for_check();
    assert_eq!(total(), 5_000);
    cache.set_size(None, 10);
    for oid in 200..300 {
        download(&cache, oid, 1, &[1; 1000]);
    }
    cache.wait_for_check();
    assert_eq!(total(), 105_000);
}

#[test]
fn two_processes_do_not_check_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path());
    download(&cache, 1, 1, &[1; 1000]);
    let locked =
        super::lock::lock_file(&crate::base::shared_dir::Dir::open(dir.path()).unwrap(), "check_size.lock");
    cache.set_size(Some(0), 10);
    cache.wait_for_check();
    assert!(cache.get(Oid(1), Tid(1)).unwrap().is_some());
    assert!(dir.path().join("check_size.attempt").exists());
    drop(locked);
    cache.set_size(Some(0), 10);
    cache.wait_for_check();
    assert!(cache.get(Oid(1), Tid(1)).unwrap().is_none());
    assert!(!dir.path().join("check_size.attempt").exists());
}

/// A reader that has found a blob reads it to the end, or does not find it; it never reads a part.
#[test]
fn readers_are_not_disturbed_by_checks() {
    let dir = tempfile::tempdir().unwrap();
    let caches = [
        BlobCache::open(BlobCacheOptions { size: Some(50_000), ..options(dir.path()) }).unwrap(),
        BlobCache::open(BlobCacheOptions { size: Some(20_000), ..options(dir.path()) }).unwrap(),
    ];
    thread::scope(|scope| {
        for thread in 0..6u64 {
            let cache = &caches[thread as usize % 2];
            scope.spawn(move || {
                for round in 0..200 {
                    let oid = (round * 7 + thread * 13) % 90;
                    let expected = vec![oid as u8; 1000 + oid as usize];
                    let blob = match cache.begin(Oid(oid), Tid(1)).unwrap() {
                        Begun::There(blob) => blob,
                        Begun::Download(mut download) => {
                            for part in expected.chunks(400) {
                                download.write(part).unwrap();
                            }
                            download.finish().unwrap()
                        }
                    };
                    assert_eq!(content(&blob), expected);
                }
            });
        }
    });
    drop(caches);
    let left: Vec<_> = names(dir.path()).into_iter().filter(|name| name.ends_with(".dl")).collect();
    assert_eq!(left, [""; 0]);
}

#[test]
fn only_old_files_of_others_are_left_over() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("5")).unwrap();
    // Files cannot be made older by hand: what counts is the last change of any kind.
    for name in ["0.0000000000000001.blob.dl", "0x00abc.tmp", "0x00abc.tmp-", "README"] {
        fs::write(dir.path().join("5").join(name), "x").unwrap();
    }
    // Of a process of this program that was killed: another one, whose download goes on, would have the lock.
    fs::write(dir.path().join("5/0.0000000000000001.blob.77-3.dl"), "x").unwrap();
    fs::create_dir(dir.path().join("6")).unwrap();
    fs::write(dir.path().join("6/0.0000000000000001.blob.77-4.dl"), "x").unwrap();
    let other_process = super::lock::DirLocks::new(dir.path()).unwrap();
    let lock = other_process.wait_shared(6, Duration::ZERO).unwrap().unwrap();
    let cache = open(dir.path());
    cache.wait_for_check();
    let blobs_in = |number: &str| {
        let mut names = names(&dir.path().join(number));
        names.retain(|name| name != ".lock");
        names.sort();
        names
    };
    assert_eq!(blobs_in("5"), ["0.0000000000000001.blob.dl", "0x00abc.tmp", "0x00abc.tmp-", "README"]);
    assert_eq!(blobs_in("6"), ["0.0000000000000001.blob.77-4.dl"]);
    drop(lock);
    cache.set_size(None, 10);
    cache.wait_for_check();
    assert_eq!(blobs_in("6"), [""; 0]);
    drop(cache);
    let stat = |age: u64| {
        let mut stat = rustix::fs::stat(dir.path().join("5/README")).unwrap();
        stat.st_ctime -= age as i64;
        stat
    };
    let check = |name: &str, hours: u64, expected: bool| {
        assert_eq!(
            super::leftovers::is_leftover(name.as_ref(), &stat(hours * 3600 + 60)),
            expected,
            "{name} {hours}"
        );
    };
    check("0.0000000000000001.blob.dl", 0, false);
    check("0.0000000000000001.blob.dl", 1, true);
    check("0.0000000000000001.blob.77-3.dl", 0, true);
    check("0.0000000000000001.blob.77-.dl", 0, false);
    check("0.0000000000000001.blob.77-.dl", 1, true);
    check("0x00abc.tmp-", 24, false);
    check("0x00abc.tmp-", 24 * 7, true);
    check("0x00abc.tmp", 24 * 7, true);
    check("README", 24 * 700, false);
    check(".lock", 24 * 700, false);
}

/// A client of the server may have the lock, and wait for the server.
#[test]
fn a_server_does_not_wait_for_another_process() {
    let dir = tempfile::tempdir().unwrap();
    let (other, here) = (open(dir.path()), {
        let options = BlobCacheOptions { serves_clients: true, ..options(dir.path()) };
        BlobCache::open(options).unwrap()
    });
    here.wait_for_check();
    let leaf = begin(&other, 1, 1);
    let before = names(dir.path());
    let mut first = begin(&here, 1, 1);
    first.write(b"lost with its link").unwrap();
    first.restart().unwrap();
    first.write(b"blob").unwrap();
    assert_eq!(names(dir.path()), before);
    // A thread that wants it at the same time has the same file, as long as it is open.
    let second = thread::scope(|scope| {
        let second = scope.spawn(|| here.begin(Oid(1), Tid(1)).unwrap());
        let first = first.finish().unwrap();
        assert!(first.is_unnamed);
        let Begun::There(second) = second.join().unwrap() else { panic!("it is downloaded again") };
        assert_eq!((content(&first), content(&second)), (b"blob".to_vec(), b"blob".to_vec()));
        second
    });
    drop(second);
    assert!(here.get(Oid(1), Tid(1)).unwrap().is_none());
    drop(begin(&here, 1, 1));
    assert_eq!(names(dir.path()), before);
    drop(leaf);
    assert!(!download(&here, 1, 1, b"blob").is_unnamed);
    assert_eq!(content(&other.get(Oid(1), Tid(1)).unwrap().unwrap()), b"blob");
}
