//! Rotating files, compared with the files of Python's handlers after the same lines.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::support::log::{Log, file, read};
use runzeo::internal::logging::{Rotation, When};

/// Name and content of every file, in order.
fn files(directory: &Path) -> Vec<(String, String)> {
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), read(&entry.path())))
        .collect();
    files.sort();
    files
}

/// Logs the lines with Python's handler; "reopen" is a command, not a line.
fn python(directory: &Path, handler: &str, lines: &[String]) -> Option<Vec<(String, String)>> {
    let script = format!(
        "import logging, logging.handlers, os, sys\n\
         h = logging.handlers.{handler}\n\
         for line in sys.argv[1:]:\n    \
             if line == 'reopen': h.doRollover()\n    \
             else: h.handle(logging.makeLogRecord({{'msg': line}}))\n"
    );
    let run = Command::new("python3").arg("-c").arg(script).args(lines).current_dir(directory).output();
    let Ok(output) = run else {
        eprintln!("SKIPPED: no python3 to compare rotation with");
        return None;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(files(directory))
}

fn ours(directory: &Path, rotation: Rotation, lines: &[String]) -> Vec<(String, String)> {
    let log = Log::open(file(&directory.join("zeo.log"), rotation));
    for line in lines {
        match line.as_str() {
            "reopen" => assert!(log.handle.reopen()),
            line => log.info(line),
        }
    }
    files(directory)
}

#[test]
fn size_rotation_leaves_what_python_leaves() {
    for (max_size, old_files) in [(100, 3), (64, 1), (10, 2)] {
        let mut lines: Vec<String> = (0..40).map(|n| format!("{n} {}", "x".repeat(n * 7 % 23))).collect();
        lines.insert(17, "reopen".to_string());
        // Python before 3.12 would rotate an empty file away for a line above the limit: no such line first.
        lines[0] = "short".to_string();
        let (theirs, mine) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let handler = format!("RotatingFileHandler('zeo.log', maxBytes={max_size}, backupCount={old_files})");
        let Some(expected) = python(theirs.path(), &handler, &lines) else { return };
        let found = ours(mine.path(), Rotation::Size { max_size, old_files }, &lines);
        assert_eq!(found, expected, "max-size {max_size}");
    }
}

#[test]
fn a_file_of_yesterday_is_set_aside_as_python_does_it() {
    let old = SystemTime::now() - Duration::from_secs(3 * 24 * 60 * 60);
    let rotations = [(When::Day, "D"), (When::Midnight, "midnight"), (When::Hour, "H")];
    for (when, name) in rotations {
        let (theirs, mine) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for directory in [&theirs, &mine] {
            for date in ["2020-01-01", "2020-01-02", "2020-01-01_00", "2020-01-02_00"] {
                std::fs::write(directory.path().join(format!("zeo.log.{date}")), date).unwrap();
            }
            let path = directory.path().join("zeo.log");
            std::fs::write(&path, "old\n").unwrap();
            std::fs::File::open(&path).unwrap().set_modified(old).unwrap();
        }
        let lines = ["new".to_string(), "newer".to_string()];
        let handler = format!("TimedRotatingFileHandler('zeo.log', when='{name}', backupCount=2)");
        let Some(expected) = python(theirs.path(), &handler, &lines) else { return };
        let found = ours(mine.path(), Rotation::Time { when, interval: 1, old_files: 2 }, &lines);
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn a_second_reopening_on_the_same_day_keeps_both_files() {
    let directory = tempfile::tempdir().unwrap();
    let lines = ["one", "reopen", "two", "reopen", "three"].map(str::to_string);
    let found = ours(directory.path(), Rotation::Time { when: When::Day, interval: 1, old_files: 9 }, &lines);
    let mut contents: Vec<&str> = found.iter().map(|(_, content)| content.as_str()).collect();
    contents.sort_unstable();
    assert_eq!(contents, ["one\n", "three\n", "two\n"], "{found:?}");
}
