//! Failures of the log while the server runs. The server continues; the log continues when its medium works again, and
//! reports the number of lost lines.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::child::{child, is_child};
use crate::support::log::{Log, file, handler, read, setup};
use runzeo::internal::logging::{self, Destination, Encoding, HandlerSetup, LogError, Rotation};

#[test]
fn a_full_disk_costs_lines_and_says_how_many() {
    const NAME: &str = "failures::a_full_disk_costs_lines_and_says_how_many";
    if !is_child() {
        // A limit on the size of files simulates a full disk: 512 or 1024 bytes, depending on the shell's unit.
        let command = child(NAME);
        let arguments: Vec<_> = command.get_args().map(|a| a.to_str().unwrap().to_string()).collect();
        let run = format!("ulimit -f 1; exec {:?} {}", command.get_program(), arguments.join(" "));
        let output = Command::new("sh").args(["-c", &run]).env("RUNZEO_TEST_CHILD", "yes").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    let _signals = runzeo::internal::process::signals::Signals::install().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("zeo.log");
    let log = Log::open(file(&path, Rotation::Never));
    // The limit is no multiple of 300 bytes, so one line is torn.
    for n in 0..10 {
        log.info(&format!("{n}{}", "x".repeat(298)));
    }
    let lost = log.handle.lost();
    assert!((6..10).contains(&lost), "{lost}");
    let written = read(&path);
    assert!(!written.ends_with('\n'), "no torn line in {written:?}");

    // Makes room on the disk.
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(5).unwrap();
    log.info("back");
    let text = read(&path);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "0xxxx");
    assert!(lines[1].starts_with(&format!("{lost} log lines were lost here: ")), "{lines:?}");
    assert_eq!(lines[2..], ["back"]);
    assert_eq!(log.handle.lost(), 0);
    // For monitoring, all of them are counted: this process has no other log.
    assert_eq!(logging::lines_lost(), lost);
}

#[test]
fn a_log_directory_that_is_gone_and_returns() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("log");
    let path = directory.join("zeo.log");
    std::fs::create_dir(&directory).unwrap();
    let setup = logging::FileSetup { path: path.clone(), rotation: Rotation::Never, delay: true };
    let log = Log::open(Destination::File(setup));
    std::fs::remove_dir(&directory).unwrap();
    for n in 0..3 {
        log.info(&n.to_string());
    }
    assert_eq!(log.handle.lost(), 3);
    std::fs::create_dir(&directory).unwrap();
    log.info("back");
    let text = read(&path);
    assert!(text.starts_with("3 log lines were lost here: No such file"), "{text}");
    assert!(text.ends_with("\nback\n"), "{text}");
}

#[test]
fn a_rotation_that_fails_leaves_the_file_in_use_and_is_reported_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("zeo.log");
    // A directory that is not empty cannot be replaced by a file.
    std::fs::create_dir_all(directory.path().join("zeo.log.1").join("full")).unwrap();
    let log = Log::open(file(&path, Rotation::Size { max_size: 20, old_files: 1 }));
    for n in 0..10 {
        log.info(&format!("line {n}"));
    }
    let text = read(&path);
    assert_eq!(text.lines().filter(|line| line.starts_with("line ")).count(), 10, "{text}");
    assert_eq!(text.matches("cannot be rotated").count(), 1, "{text}");
}

/// A reader that keeps the pipe open and does not read must not stop the server.
#[test]
fn a_full_pipe_delays_the_server_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let mut options = std::fs::OpenOptions::new();
    let mut reader = options.read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
    let log = Log::open(file(&path, Rotation::Never));
    let begin = Instant::now();
    // Three times the capacity of a pipe.
    let line = "x".repeat(99);
    for _ in 0..2_000 {
        log.info(&line);
    }
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(60), "{took:?}");
    let lost = log.handle.lost();
    assert!(lost > 1_000, "{lost}");

    let mut text = vec![0; 1 << 20];
    while reader.read(&mut text).is_ok_and(|len| len > 0) {}
    log.info("back");
    let len = reader.read(&mut text).unwrap();
    let text = String::from_utf8_lossy(&text[..len]).into_owned();
    assert!(
        text.contains(&format!("{lost} log lines were lost here: the reader of the log does not read\n")),
        "{text}"
    );
    assert!(text.ends_with("\nback\n"), "{text}");
}

/// The reader of stderr closes it, as in `runzeo 2>&1 | head`.
#[test]
fn a_reader_that_is_gone_is_no_end() {
    const NAME: &str = "failures::a_reader_that_is_gone_is_no_end";
    if is_child() {
        let handle = logging::setup(&setup(handler(Destination::Stderr))).unwrap();
        log::info!(target: "test", "one");
        // The line on stdin says that the other end is closed.
        std::io::stdin().read_line(&mut String::new()).unwrap();
        // Another test may have begun a child that has the other end, until it runs its own program.
        let begin = Instant::now();
        while handle.lost() == 0 && begin.elapsed() < Duration::from_secs(60) {
            log::info!(target: "test", "two");
            std::thread::sleep(Duration::from_millis(1));
        }
        let lost = handle.lost();
        log::info!(target: "test", "three");
        assert_eq!((lost, handle.lost()), (1, 2));
        return;
    }
    let mut command = child(NAME);
    let mut running = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut stderr = BufReader::new(running.stderr.take().unwrap());
    stderr.read_line(&mut line).unwrap();
    assert_eq!(line, "one\n");
    drop(stderr);
    std::io::Write::write_all(running.stdin.as_mut().unwrap(), b"gone\n").unwrap();
    let output = running.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn at_start_a_file_that_cannot_be_opened_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("missing").join("zeo.log");
    let Err(error) = logging::build(&setup(handler(file(&path, Rotation::Never)))) else {
        panic!("opened {}", path.display())
    };
    assert!(matches!(&error, LogError::Open { .. }));
    let text = error.to_string();
    assert!(text.contains("missing/zeo.log cannot be opened: No such file or directory"), "{text}");
}

#[test]
fn what_an_encoding_lacks_is_escaped() {
    let directory = tempfile::tempdir().unwrap();
    let expected: [(Encoding, &[u8]); 3] = [
        (Encoding::Utf8, "\u{e9} \u{20ac} \u{1f600}\n".as_bytes()),
        (Encoding::Latin1, b"\xe9 \\u20ac \\U0001f600\n"),
        (Encoding::Ascii, b"\\xe9 \\u20ac \\U0001f600\n"),
    ];
    for (encoding, bytes) in expected {
        let path = directory.path().join(format!("{encoding:?}"));
        let handler = HandlerSetup { encoding, ..handler(file(&path, Rotation::Never)) };
        let (dispatch, _handle) = logging::build(&setup(handler)).unwrap();
        let logger = dispatch.into_log().1;
        logger.log(
            &log::Record::builder()
                .level(log::Level::Error)
                .args(format_args!("\u{e9} \u{20ac} \u{1f600}"))
                .build(),
        );
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }
}
