//! The process's log: levels by number, the default on stderr, panics, signals; each in a child process.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::support::child::{child, is_child};
use crate::support::log::{file, handler, read, setup};
use runzeo::internal::base::level;
use runzeo::internal::logging::{self, LogSetup, Rotation};
use runzeo::internal::process::pid_file::PidFile;
use runzeo::internal::process::signals::{Signal, Signals};
use runzeo::{blather, critical, log_at};

fn one_of_each() {
    critical!(target: "ZEO.StorageServer", "{} waiters", 10);
    log::error!(target: "a", "error");
    log::warn!(target: "a", "warning");
    log::info!(target: "a", "info");
    blather!(target: "a", "blather");
    log::debug!(target: "a", "debug");
    log::trace!(target: "a", "trace");
    log_at!(target: "a", level::CRITICAL, "computed {}", 50);
    log_at!(target: "a", 12, "between");
}

#[test]
fn each_level_has_its_number_and_its_threshold() {
    const NAME: &str = "levels::each_level_has_its_number_and_its_threshold";
    if is_child() {
        let directory = tempfile::tempdir().unwrap();
        let mut setup = LogSetup { level: level::ALL, handlers: Vec::new(), configured: true };
        let thresholds = [50, 45, 40, 21, 20, 16, 15, 13, 12, 11, 10, 5, 1, 0];
        for threshold in thresholds {
            let path = directory.path().join(threshold.to_string());
            let mut handler = handler(file(&path, Rotation::Never));
            handler.level = threshold;
            handler.layout.format = "%(levelno)s %(levelname)s %(name)s %(message)s".to_string();
            setup.handlers.push(handler);
        }
        let _handle = logging::setup(&setup).unwrap();
        one_of_each();
        let all = read(&directory.path().join("0"));
        assert_eq!(
            all,
            "50 CRITICAL ZEO.StorageServer 10 waiters\n40 ERROR a error\n30 WARNING a warning\n20 INFO a info\n\
             15 BLATHER a blather\n10 DEBUG a debug\n5 TRACE a trace\n50 CRITICAL a computed 50\n\
             12 Level 12 a between\n"
        );
        for threshold in thresholds {
            let expected: Vec<&str> = all
                .lines()
                .filter(|line| line.split(' ').next().unwrap().parse::<u8>().unwrap() >= threshold)
                .collect();
            let found = read(&directory.path().join(threshold.to_string()));
            assert_eq!(found.lines().collect::<Vec<_>>(), expected, "threshold {threshold}");
        }
        assert!(logging::setup(&setup).is_err());
        return;
    }
    let output = child(NAME).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_default_is_info_on_stderr_with_dashes() {
    const NAME: &str = "levels::the_default_is_info_on_stderr_with_dashes";
    if is_child() {
        let handle = logging::setup(&LogSetup::default()).unwrap();
        assert_eq!(log::max_level(), log::LevelFilter::Info);
        one_of_each();
        handle.reopen();
        return;
    }
    let output = child(NAME).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.iter().filter(|line| **line == "------").count(), 6, "{text}");
    let first = lines[1];
    assert_eq!(first[19..], *" CRITICAL ZEO.StorageServer 10 waiters", "{first}");
    let pattern = "0000-00-00T00:00:00";
    assert!(first.bytes().zip(pattern.bytes()).all(|(c, p)| if p == b'0' {
        c.is_ascii_digit()
    } else {
        c == p
    }));
    assert!(lines[11].ends_with(") received SIGUSR2, but it was not handled!"), "{text}");
    assert!(lines[11].contains(" WARNING ZEO.runzeo ("), "{text}");
}

#[test]
fn a_panic_is_one_entry() {
    const NAME: &str = "levels::a_panic_is_one_entry";
    if is_child() {
        logging::setup(&LogSetup::default()).unwrap();
        logging::install_panic_hook();
        let thread = std::thread::Builder::new().name("session-7".to_string());
        let result = thread.spawn(|| panic!("index {} of 3", 5)).unwrap().join();
        assert!(result.is_err());
        assert_eq!(logging::panics(), 1, "counted for monitoring");
        return;
    }
    let output = child(NAME).output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.matches("------\n").count(), 1, "{text}");
    assert!(
        text.contains(" CRITICAL runzeo panic in thread session-7 at tests/logging/levels.rs:"),
        "{text}"
    );
    assert!(text.ends_with(": index 5 of 3\n"), "{text}");
}

#[test]
fn signals_and_pid_file_as_python_has_them() {
    const NAME: &str = "levels::signals_and_pid_file_as_python_has_them";
    if is_child() {
        let mut signals = Signals::install().unwrap();
        assert_eq!(signals.poll(), None);
        let directory = std::env::var("DIRECTORY").unwrap();
        let directory = std::path::Path::new(&directory);
        let log = logging::setup(&setup(handler(file(&directory.join("zeo.log"), Rotation::Never)))).unwrap();
        let pid_file = PidFile::create(Some(&directory.join("zeo.pid"))).unwrap();
        println!("\nready");
        let signal = loop {
            match signals.wait() {
                Signal::ReopenLogs => {
                    log.reopen();
                    println!("reopened");
                }
                signal => break signal,
            }
        };
        log::info!(target: "ZEO.runzeo", "({}) {}", std::process::id(), signal.stop_message().unwrap());
        drop(pid_file);
        std::process::exit(signal.exit_code().unwrap().into());
    }
    let expected = [
        ("TERM", 0, "terminated by SIGTERM"),
        ("INT", 0, "terminated by SIGINT"),
        ("HUP", 1, "restarted by SIGHUP"),
    ];
    for (name, code, text) in expected {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("zeo.log");
        std::fs::write(directory.path().join("zeo.pid"), "999999\n").unwrap();
        let mut running =
            child(NAME).env("DIRECTORY", directory.path()).stderr(Stdio::inherit()).spawn().unwrap();
        let mut lines = BufReader::new(running.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert!(lines.any(|line| line == "ready"));
        let pid = running.id();
        assert_eq!(read(&directory.path().join("zeo.pid")), format!("{pid}\n"));
        let kill = |signal: &str| {
            let run = format!("kill -{signal} {pid}");
            assert!(Command::new("sh").args(["-c", &run]).status().unwrap().success());
        };
        std::fs::rename(&log, directory.path().join("zeo.log.old")).unwrap();
        kill("USR2");
        assert_eq!(lines.next().unwrap(), "reopened");
        kill(name);
        assert_eq!(running.wait().unwrap().code(), Some(code));
        let path = directory.path().join("zeo.pid");
        assert!(!path.exists());
        let path = path.display();
        assert_eq!(
            read(&directory.path().join("zeo.log.old")),
            format!("({pid}) created PID file '{path}'\n")
        );
        assert_eq!(
            read(&log),
            format!(
                "({pid}) Log files reopened successfully\n({pid}) {text}\n({pid}) removed PID file '{path}'\n"
            )
        );
    }
}

#[test]
fn a_pid_file_of_another_server_stays() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("zeo.pid");
    let ours = PidFile::create(Some(&path)).unwrap();
    std::fs::write(&path, "1\n").unwrap();
    drop(ours);
    assert_eq!(read(&path), "1\n");
    assert!(PidFile::create(Some(&directory.path().join("missing").join("zeo.pid"))).is_none());
}
