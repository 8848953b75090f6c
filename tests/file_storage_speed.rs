//! How fast, and how much memory: not for CI, the machine decides. Run with
//! `cargo test --release --test file_storage_speed -- --ignored --nocapture --test-threads 1`.

#[path = "file_storage/helpers.rs"]
mod helpers;

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use helpers::*;
use runzeo::base::ids::{Oid, Tid};
use runzeo::storage::{Staged, Storage, TransactionMeta};

/// Megabytes that this process has in memory.
fn resident() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<f64>().unwrap() * 4096.0 / 1e6
}

/// Seconds that this thread has had of a processor: on a busy machine the clock on the wall says little.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

/// Writes a file of `count` objects of `len` bytes, a thousand in a transaction, without our own code.
fn write_file(path: &Path, count: u64, len: usize) {
    let mut out = std::io::BufWriter::with_capacity(1 << 20, std::fs::File::create(path).unwrap());
    out.write_all(b"FS30").unwrap();
    let (mut pos, mut oid, mut tid) = (4u64, 0u64, 1u64 << 56);
    let data = vec![b'x'; len];
    while oid < count {
        let records = (count - oid).min(1000);
        let tlen = 23 + records * (42 + len as u64);
        out.write_all(&tid.to_be_bytes()).unwrap();
        out.write_all(&tlen.to_be_bytes()).unwrap();
        out.write_all(b" \0\0\0\0\0\0").unwrap();
        for _ in 0..records {
            out.write_all(&oid.to_be_bytes()).unwrap();
            out.write_all(&tid.to_be_bytes()).unwrap();
            out.write_all(&0u64.to_be_bytes()).unwrap();
            out.write_all(&pos.to_be_bytes()).unwrap();
            out.write_all(&[0, 0]).unwrap();
            out.write_all(&(len as u64).to_be_bytes()).unwrap();
            out.write_all(&data).unwrap();
            oid += 1;
        }
        out.write_all(&tlen.to_be_bytes()).unwrap();
        pos += tlen + 8;
        tid += 1;
    }
    out.flush().unwrap();
}

#[test]
#[ignore = "measures"]
fn opening() {
    let dir = tempfile::tempdir().unwrap();
    for (count, len) in [(1_000_000, 800), (10_000_000, 60), (20_000, 50_000)] {
        let path = dir.path().join("Data.fs");
        write_file(&path, count, len);
        let bytes = std::fs::metadata(&path).unwrap().len() as f64;
        for round in 0..3 {
            let _ = std::fs::remove_file(dir.path().join("Data.fs.index"));
            let before = resident();
            let begun = cpu();
            let storage = open(&path);
            let scan = cpu() - begun;
            let memory = (resident() - before) * 1e6 / count as f64;
            drop(storage);
            let begun = cpu();
            let storage = open(&path);
            let load = cpu() - begun;
            assert!(storage.used_index());
            println!(
                "{count} objects of {len}: scan and save {scan:.3} s, {:.2} GB/s; open with index {:.1} ms; \
                 {memory:.1} bytes an object (round {round})",
                bytes / scan / 1e9,
                load * 1e3
            );
        }
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
#[ignore = "measures"]
fn loading() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("Data.fs");
    let count = 100_000u64;
    write_file(&path, count, 1000);
    drop(open(&path));
    let storage = open(&path);
    for round in 0..4 {
        let mut out = Vec::new();
        let mut oid = 7u64;
        let begun = cpu();
        for _ in 0..count {
            oid = (oid * 48271 + 11) % count;
            out.clear();
            storage.load_before(Oid(oid), Tid::MAX, 64, &mut out).unwrap().unwrap();
        }
        let ns = (cpu() - begun) * 1e9 / count as f64;
        println!("load of 1000 bytes: {ns:.0} ns (round {round}; the first does not know lengths)");
    }
}

#[test]
#[ignore = "measures"]
fn committing() {
    let dir = tempfile::tempdir_in(std::env::var("SPEED_DIR").unwrap_or(".".into())).unwrap();
    let storage = open(&dir.path().join("Data.fs"));
    // The limit: the same bytes, one write and one sync.
    let raw = std::fs::File::create(dir.path().join("raw")).unwrap();
    let mut pos = 0;
    let mut serial = Tid::ZERO;
    let data = vec![b'x'; 1000];
    for round in 0..5 {
        let count = 500;
        let begun = Instant::now();
        let (mut vote_cpu, begun_cpu) = (0.0, cpu());
        for _ in 0..count {
            let mut txn = Staged::new(TransactionMeta::default(), None, b' ', 1 << 20);
            for oid in 0..10 {
                txn.store(Oid(oid), serial, &data).unwrap();
            }
            let begun = cpu();
            let voted = storage.vote(txn, runzeo::storage::TidAt::Finish).unwrap();
            vote_cpu += cpu() - begun;
            let (to, from) = std::sync::mpsc::channel::<Outcome>();
            storage.finish(voted, Box::new(to));
            match from.recv().unwrap() {
                Outcome::Done { tid, .. } => serial = tid,
                Outcome::Failed(error) => panic!("{error}"),
            }
        }
        let ours = begun.elapsed().as_secs_f64() / f64::from(count) * 1e6;
        let ours_cpu = (cpu() - begun_cpu) / f64::from(count) * 1e6;
        let (begun, begun_cpu) = (Instant::now(), cpu());
        let bytes = vec![b'y'; 10_000 + 420 + 31];
        for _ in 0..count {
            std::os::unix::fs::FileExt::write_all_at(&raw, &bytes, pos).unwrap();
            raw.sync_data().unwrap();
            pos += bytes.len() as u64;
        }
        let limit_cpu = (cpu() - begun_cpu) / f64::from(count) * 1e6;
        let limit = begun.elapsed().as_secs_f64() / f64::from(count) * 1e6;
        let vote = vote_cpu / f64::from(count) * 1e6;
        println!(
            "commit of 10 x 1000 bytes: {ours:.0} us ({ours_cpu:.0} us of processor, of it vote {vote:.1}); bare {limit:.0} us ({limit_cpu:.0}) (round {round})"
        );
    }
    for threads in [1, 8, 64] {
        let per = 400 / threads.min(8);
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let (storage, data) = (&storage, &data);
                scope.spawn(move || {
                    let mut serial = Tid::ZERO;
                    for _ in 0..per {
                        let objects: Vec<(u64, Tid, &[u8])> =
                            (0..10).map(|n| (1000 + thread * 10 + n, serial, &data[..])).collect();
                        match commit(storage, &objects) {
                            Ok(tid) => serial = tid,
                            Err(runzeo::storage::StorageError::Conflict(c)) => serial = c.committed,
                            Err(error) => panic!("{error}"),
                        }
                    }
                });
            }
        });
        let rate = (threads * per) as f64 / begun.elapsed().as_secs_f64();
        println!("{threads} committers: {rate:.0} commits/s");
    }
}

#[test]
#[ignore = "measures"]
fn iterating() {
    let dir = tempfile::tempdir().unwrap();
    for (count, len) in [(1_000_000, 800), (5_000_000, 60), (10_000, 50_000), (500, 1_000_000)] {
        let path = dir.path().join("Data.fs");
        write_file(&path, count, len);
        let bytes = std::fs::metadata(&path).unwrap().len() as f64;
        let storage = open(&path);
        for round in 0..3 {
            let begun = cpu();
            let mut found = 0;
            let mut transactions = storage.iterate(None, None).unwrap();
            while transactions.next_transaction().unwrap().is_some() {
                let mut records = transactions.records().unwrap();
                while let Some(record) = records.next_record().unwrap() {
                    assert_eq!(record.data.unwrap().len(), len);
                    found += 1;
                }
            }
            assert_eq!(found, count);
            let mb_s = bytes / (cpu() - begun) / 1e6;
            println!("iteration over {count} records of {len}: {mb_s:.0} MB/s (round {round})");
        }
        drop(storage);
        std::fs::remove_file(&path).unwrap();
    }
}
