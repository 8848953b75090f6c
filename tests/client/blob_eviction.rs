//! One cache of blobs that servers in the middle, Python's clients and programs use at the same time, while its size is
//! checked: each reader has each blob whole.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use runzeo::internal::client::library::Client;
use runzeo::internal::client::options::ClientOptions;

use crate::blob_sharing::{ended, middle, root, stored};
use crate::blobs::{Known, check_files, files, has_suffix, read, script, start};
use crate::servers::tcp;
use crate::support::process::Server;

/// The lines of the blobs of a root, and the root.
struct Setup {
    root: Server,
    lines: String,
    known: Vec<Known>,
}

fn setup(dir: &Path) -> Option<Setup> {
    let root = root();
    let lines = stored("zeo6-py311", root.address, &dir.join("committer"), 60)?;
    let known = lines.lines().map(Known::parse).collect();
    Some(Setup { root, lines, known })
}

fn program(server: &Server, dir: &Path, size: u64) -> Client {
    let mut options = ClientOptions::new(vec![tcp(server.address)]);
    options.blob_dir = Some(dir.into());
    options.blob_cache_size = Some(size);
    Client::open(options).expect("a connection")
}

/// Bytes of the blobs in a cache that others change.
fn size_now(dir: &Path) -> u64 {
    let mut size = 0;
    for home in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        // `tmp`, and the files of the locks.
        let is_home = home.file_name().is_some_and(|name| name.to_string_lossy().parse::<u64>().is_ok());
        let names = is_home.then(|| fs::read_dir(&home).into_iter().flatten().flatten());
        size += names
            .into_iter()
            .flatten()
            .filter(|entry| has_suffix(&entry.path(), "blob"))
            .filter_map(|entry| Some(entry.metadata().ok()?.len()))
            .sum::<u64>();
    }
    size
}

/// Two middles with their leaves, and clients of the root. `sizes`: of the caches of the middles and of all others.
/// Returns the size in the mean.
fn run(setup: &Setup, cache: &Path, sizes: [u64; 2], time: Duration) -> u64 {
    let Setup { root, lines, known } = setup;
    let keys = format!("blob-dir {}\nblob-cache-size {}", cache.display(), sizes[0]);
    let middles = [middle(root.address, &keys), middle(root.address, &keys)];
    let size = sizes[1].to_string();
    let pythons = [
        ("zeo4-py27", root.address),
        ("zeo6-py311", root.address),
        ("zeo4-py27", middles[0].address),
        ("zeo5-py38", middles[1].address),
        ("zeo6-py311", middles[0].address),
    ];
    let millis = time.as_millis().to_string();
    let pythons: Vec<_> = pythons
        .into_iter()
        .filter_map(|(name, address)| {
            let mut command = script(name, "load-for", address, cache, [&size, &millis])?;
            command.stdout(Stdio::null());
            Some((name, start(command, lines)))
        })
        .collect();
    let programs = [program(root, cache, sizes[1]), program(&middles[1], cache, sizes[1])];
    let elsewhere = program(&middles[0], &cache.with_extension("elsewhere"), 1);
    let (stop, sizes_seen) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let deadline = Instant::now() + time;
    thread::scope(|scope| {
        for (number, client) in programs.iter().chain([&elsewhere]).enumerate() {
            scope.spawn(move || {
                let mut at = number * 17;
                while Instant::now() < deadline {
                    at += 7;
                    let known = &known[at % known.len()];
                    let blob = client.open_blob(known.oid, known.tid).unwrap();
                    thread::yield_now();
                    assert!(read(&blob) == known.content(), "{known:?}");
                }
            });
        }
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                sizes_seen.lock().unwrap().push(size_now(cache));
                thread::sleep(Duration::from_millis(20));
            }
        });
        let outputs: Vec<_> = pythons.into_iter().map(|(name, child)| (name, ended(name, child))).collect();
        stop.store(true, Ordering::Relaxed);
        for (name, output) in outputs {
            let said = String::from_utf8_lossy(&output.stderr);
            // Python 2 may complain about a thread that it has ended.
            assert!(output.status.success(), "{name}: {}: {said}", output.status);
        }
    });
    for middle in middles {
        let log = middle.log();
        assert!(!log.contains(" ERROR ") && !log.contains(" WARNING "), "{log}");
    }
    let sizes_seen = sizes_seen.into_inner().unwrap();
    sizes_seen.iter().sum::<u64>() / sizes_seen.len() as u64
}

/// At the end: whole blobs, no more than the target, and nothing that was left over.
fn check_end(setup: &Setup, cache: &Path, size: u64) {
    let last = program(&setup.root, cache, size);
    let deadline = Instant::now() + Duration::from_secs(60);
    while size_now(cache) > size - size / 10 {
        assert!(Instant::now() < deadline, "{} bytes", size_now(cache));
        thread::sleep(Duration::from_millis(10));
    }
    drop(last);
    check_files(cache, &setup.known);
    let left: Vec<_> = files(cache).into_iter().filter(|path| has_suffix(path, "dl")).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(fs::read_dir(cache.join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_cache_of_several_processes_stays_near_its_size() {
    let dir = tempfile::tempdir().unwrap();
    let Some(setup) = setup(dir.path()) else { return };
    let cache = dir.path().join("cache");
    let size = run(&setup, &cache, [1_000_000; 2], Duration::from_secs(4));
    let all: usize = setup.known.iter().map(|known| known.len).sum();
    // Each of the nine clients lets a tenth and one blob come before it checks, and while it does, others come.
    assert!(size < 1_000_000 + 9 * (100_000 + 150_000), "{size} of {all} bytes");
    check_end(&setup, &cache, 1_000_000);
}

/// The middles remove each blob as soon as it is there.
#[test]
fn no_reader_misses_what_is_removed_while_it_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let Some(setup) = setup(dir.path()) else { return };
    let cache = dir.path().join("cache");
    run(&setup, &cache, [1, 300_000], Duration::from_secs(4));
    check_end(&setup, &cache, 10);
}
