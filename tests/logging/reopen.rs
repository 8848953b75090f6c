//! SIGUSR2 while the server is busy: every line is in one of the log files, moved or new.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::log::{Log, file, read};
use runzeo::internal::logging::{Destination, FileSetup, Rotation};

const THREADS: usize = 4;
const ROUNDS: usize = 50;

/// Logs from many threads while `meanwhile` runs repeatedly; returns the number of lines of each thread.
fn under_load(log: &Log, mut meanwhile: impl FnMut(usize)) -> Vec<usize> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let done = &done;
        let log_lines = |thread: usize| {
            let mut count = 0;
            while !done.load(Ordering::Relaxed) {
                log.info(&format!("thread {thread} line {count}"));
                count += 1;
                // A busy server, which does not only log.
                thread::sleep(Duration::from_micros(20));
            }
            count
        };
        let writers: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || log_lines(thread))).collect();
        for round in 0..ROUNDS {
            meanwhile(round);
            thread::sleep(Duration::from_millis(1));
        }
        done.store(true, Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    })
}

/// Checks that every line of every thread is in one of the files, once and complete.
fn check_all_there(directory: &std::path::Path, counts: &[usize]) {
    let mut seen = HashSet::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        for line in read(&entry.unwrap().path()).lines() {
            assert!(seen.insert(line.to_string()), "twice: {line}");
        }
    }
    for (thread, count) in counts.iter().enumerate() {
        for line in 0..*count {
            assert!(
                seen.remove(&format!("thread {thread} line {line}")),
                "thread {thread} line {line} is lost"
            );
        }
    }
    assert!(seen.is_empty(), "not logged by anybody: {seen:?}");
}

#[test]
fn no_line_is_lost_while_the_file_is_moved_and_reopened() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("zeo.log");
    let log = Log::open(file(&path, Rotation::Never));
    let counts = under_load(&log, |round| {
        std::fs::rename(&path, directory.path().join(format!("zeo.log.moved{round}"))).unwrap();
        assert!(log.handle.reopen());
    });
    check_all_there(directory.path(), &counts);
}

#[test]
fn no_line_is_lost_while_files_rotate_and_are_reopened() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("zeo.log");
    let log = Log::open(file(&path, Rotation::Size { max_size: 200_000, old_files: 10_000 }));
    let counts = under_load(&log, |_| assert!(log.handle.reopen()));
    check_all_there(directory.path(), &counts);
}

#[test]
fn a_file_that_cannot_be_reopened_stays_in_use() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("log");
    std::fs::create_dir(&directory).unwrap();
    let log = Log::open(file(&directory.join("zeo.log"), Rotation::Never));
    log.info("one");
    let moved = parent.path().join("moved");
    std::fs::rename(&directory, &moved).unwrap();
    assert!(!log.handle.reopen());
    log.info("two");
    assert_eq!(read(&moved.join("zeo.log")), "one\ntwo\n");

    std::fs::create_dir(&directory).unwrap();
    assert!(log.handle.reopen());
    log.info("three");
    assert_eq!(read(&directory.join("zeo.log")), "three\n");
    assert_eq!(log.handle.lost(), 0);
}

#[test]
fn a_delayed_file_appears_with_its_first_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("zeo.log");
    let setup = FileSetup { path: path.clone(), rotation: Rotation::Never, delay: true };
    let log = Log::open(Destination::File(setup));
    assert!(!path.exists());
    assert!(log.handle.reopen());
    assert!(!path.exists());
    log.info("one");
    assert_eq!(read(&path), "one\n");
}
